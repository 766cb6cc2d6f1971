//! Scenarios and random sequences on the whole state machine.

mod circuits;
mod context;
mod domains;
mod healing;
mod leases;
mod live;
mod nodes;
mod objects;
mod random;
mod requests;
mod scale;

use std::collections::BTreeMap;

use tieline_model::{
    Attachment, Connection, ConnectionRequest, Labels, NetnsId, NetnsRef, NetworkService,
    NetworkServiceEndpoint, Object, Timestamp, Workload,
};

use crate::{Caller, Command, Effects, Granted, NodeHello, Refusal, Registry, RegistryConfig, Reply};

pub(crate) const T0: Timestamp = Timestamp::from_millis(1_000_000);

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(T0.as_millis() + seconds * 1000)
}

pub(crate) fn workload(n: u64) -> Workload {
    let netns = NetnsRef::parse(
        "n",
        &format!("/run/netns/w{n}"),
        Some(NetnsId {
            device: 4,
            inode: 100 + n,
        }),
    )
    .unwrap();
    Workload {
        node: "n1".parse().unwrap(),
        uid: 1000,
        pid: 7,
        netns,
        cgroup: String::new(),
        operator: false,
        labels: Labels::default(),
    }
}

pub(crate) fn service(name: &str) -> NetworkService {
    NetworkService::new(name.parse().unwrap())
}

pub(crate) fn endpoint_at(name: &str, service: &str, attachment: Attachment) -> NetworkServiceEndpoint {
    let services = BTreeMap::from([(service.parse().unwrap(), Labels::default())]);
    NetworkServiceEndpoint::declared(name.parse().unwrap(), services, "n1".parse().unwrap(), attachment)
        .unwrap()
}

pub(crate) fn endpoint(name: &str, service: &str) -> NetworkServiceEndpoint {
    let netns = NetnsRef::parse("n", &format!("/run/netns/{name}"), None).unwrap();
    endpoint_at(name, service, Attachment::Netns(netns))
}

pub(crate) fn request(id: &str, service: &str) -> ConnectionRequest {
    ConnectionRequest::new(id.parse().unwrap(), service.parse().unwrap())
}

/// A registry with its store, and a node "n1" whose agent can be told to answer.
pub(crate) struct Bench {
    pub(crate) registry: Registry,
    pub(crate) store: BTreeMap<String, Vec<u8>>,
}

impl Bench {
    /// With services and an endpoint for each by the name `gw-SERVICE`.
    pub(crate) fn new(services: Vec<NetworkService>) -> Self {
        Self::with_config(RegistryConfig::new().unwrap(), services)
    }

    pub(crate) fn with_config(config: RegistryConfig, services: Vec<NetworkService>) -> Self {
        let mut bench = Self {
            registry: Registry::new(config).unwrap(),
            store: BTreeMap::new(),
        };
        bench.hello(0);
        let endpoints: Vec<_> = services
            .iter()
            .map(|one| {
                Object::NetworkServiceEndpoint(endpoint(&format!("gw-{}", one.name()), one.name().as_str()))
            })
            .collect();
        let objects = services
            .into_iter()
            .map(Object::NetworkService)
            .chain(endpoints)
            .collect();
        bench.apply(objects).unwrap();
        bench
    }

    pub(crate) fn hello(&mut self, generation: u64) {
        let hello = NodeHello {
            node: "n1".parse().unwrap(),
            version: "test".to_owned(),
            generation,
            attach_backend: "tcx".to_owned(),
            max_wires: 100_000,
            machine: None,
        };
        self.registry.handle(T0, Command::NodeHello(hello)).unwrap();
        self.flush();
    }

    /// Takes the effects and writes them down.
    pub(crate) fn flush(&mut self) -> Effects {
        let effects = self.registry.take_effects().unwrap();
        for write in &effects.writes {
            match &write.value {
                Some(value) => drop(self.store.insert(write.key.clone(), value.clone())),
                None => drop(self.store.remove(&write.key)),
            }
        }
        effects
    }

    pub(crate) fn apply(&mut self, objects: Vec<Object>) -> Result<Reply, Refusal> {
        let reply = self.registry.handle(
            T0,
            Command::Apply {
                objects,
                dry_run: false,
            },
        );
        self.flush();
        reply
    }

    pub(crate) fn request(
        &mut self,
        now: Timestamp,
        n: u64,
        request: ConnectionRequest,
    ) -> Result<Granted, Refusal> {
        let command = Command::Request {
            caller: workload(n),
            request: Box::new(request),
        };
        match self.registry.handle(now, command)? {
            Reply::Connection(granted) => Ok(*granted),
            other => panic!("{other:?}"),
        }
    }

    /// The agent of n1 has carried out everything but `failures`.
    pub(crate) fn ack(&mut self, failures: Vec<crate::NodeFailure>) -> Effects {
        self.flush();
        let node = "n1".parse().unwrap();
        let generation = self.registry.node(&node).unwrap().generation;
        self.registry
            .handle(
                T0,
                Command::NodeReport {
                    node,
                    generation,
                    failures,
                },
            )
            .unwrap();
        self.flush()
    }

    /// A connection that stands.
    pub(crate) fn connect(&mut self, n: u64, id: &str, service: &str) -> Connection {
        self.request(T0, n, request(id, service)).unwrap();
        self.ack(Vec::new());
        Connection::clone(self.registry.connection(&id.parse().unwrap()).unwrap())
    }

    pub(crate) fn close(&mut self, caller: Caller, id: &str) -> Result<Reply, Refusal> {
        self.registry.handle(
            T0,
            Command::Close {
                caller,
                id: id.parse().unwrap(),
            },
        )
    }

    /// The registry that the store's records give.
    pub(crate) fn restored(&self) -> Registry {
        Registry::restore(self.registry.config.clone(), self.store.clone()).unwrap()
    }
}
