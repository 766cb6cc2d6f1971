//! A registry of many connections on many nodes, in this process, with a store that is a map.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, bail};
use tieline_model::{
    Attachment, ConnectionId, ConnectionRequest, EndpointName, Labels, NetnsId, NetnsRef, NetworkService,
    NetworkServiceEndpoint, NetworkServiceWiring, NodeName, Object, ObjectKind, ServiceName, Timestamp,
    WiringRoute, Workload, limits::MAX_OBJECTS,
};
use tieline_registry::{Caller, Command, Effects, NodeHello, Registry, RegistryConfig, Reply};

const SERVICE: &str = "gold";
const WIRING: &str = "by-color";
/// The endpoints of each node.
pub(super) const COLORS: [&str; 2] = ["red", "blue"];
const CONNECTIONS_PER_NODE: u32 = 100;
const CONNECTIONS_PER_WORKLOAD: u32 = 4;
/// More follow-ups of one change than this mean that it never ends.
const MOST_ACKNOWLEDGEMENTS: usize = 16;

/// A service whose endpoints are on every node, and its connections.
pub(super) struct World {
    registry: Registry,
    store: BTreeMap<String, Vec<u8>>,
    now: Timestamp,
    nodes: u32,
}

/// How long a change took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// Until it was planned: what every node has to do, and what is to be stored, were known.
    pub planned: Duration,
    /// Until every node had acknowledged and that was stored too, nodes and store taking no time.
    pub whole: Duration,
    /// How many live connections an operator was told are moved.
    pub moves: u32,
}

/// What a registry is made with here.
fn config() -> Result<RegistryConfig> {
    let mut config = RegistryConfig::new()?;
    config.default_prefixes = vec!["10.0.0.0/8".parse()?, "fd74:6c00::/64".parse()?];
    Ok(config)
}

impl World {
    /// Nodes and endpoints for so many connections.
    pub(super) fn new(connections: u32) -> Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let mut world = Self {
            registry: Registry::new(config()?)?,
            store: BTreeMap::new(),
            now: Timestamp::from_millis(u64::try_from(now.as_millis())?),
            nodes: connections.div_ceil(CONNECTIONS_PER_NODE),
        };
        let mut objects = vec![Object::NetworkService(NetworkService::new(SERVICE.parse()?))];
        for n in 0..world.nodes {
            world.change(Command::NodeHello(NodeHello {
                node: node(n)?,
                version: String::new(),
                generation: 0,
                attach_backend: String::new(),
                max_wires: u32::MAX,
                machine: None,
            }))?;
            for color in COLORS {
                objects.push(Object::NetworkServiceEndpoint(endpoint(n, color)?));
            }
        }
        for objects in objects.chunks(MAX_OBJECTS) {
            world.apply(objects.to_vec())?;
        }
        Ok(world)
    }

    /// Requests connection `n`, or refreshes it.
    pub(super) fn connect(&mut self, n: u32) -> Result<Took> {
        let workload = n / CONNECTIONS_PER_WORKLOAD;
        let id = NetnsId {
            device: 4,
            inode: 1000 + u64::from(workload),
        };
        let caller = Workload {
            node: node(n / CONNECTIONS_PER_NODE % self.nodes)?,
            uid: 0,
            pid: 1,
            netns: NetnsRef::parse("netns", &format!("/run/netns/w{workload}"), Some(id))?,
            cgroup: String::new(),
            operator: false,
            labels: Labels::default(),
        };
        let mut request = ConnectionRequest::new(connection(n)?, SERVICE.parse()?);
        // No lease ends while it is measured.
        request.kept_by_node = true;
        let request = Box::new(request);
        self.change(Command::Request { caller, request })
    }

    /// Closes connection `n`.
    pub(super) fn close(&mut self, n: u32) -> Result<Took> {
        self.change(Command::Close {
            caller: Caller::Operator,
            id: connection(n)?,
        })
    }

    /// Leads every connection to the endpoints of a color, by a wiring of this priority.
    pub(super) fn wire_all_to(&mut self, color: &str, priority: i32) -> Result<Took> {
        let wiring = wiring(WIRING, SERVICE, color)?.with_priority(priority)?;
        self.apply(vec![Object::NetworkServiceWiring(wiring)])
    }

    /// Leaves every connection where it is, and free to go to any endpoint.
    pub(super) fn unwire(&mut self) -> Result<Took> {
        self.change(Command::Delete {
            kind: ObjectKind::NetworkServiceWiring,
            name: WIRING.to_owned(),
        })
    }

    /// A wiring, the `n`-th form of it, of a service that no connection uses.
    pub(super) fn wire_another(&mut self, n: u32) -> Result<Took> {
        let wiring = wiring("another", "silver", COLORS[0])?.with_priority(i32::try_from(n)?)?;
        self.apply(vec![Object::NetworkServiceWiring(wiring)])
    }

    /// Only says what a wiring would do that is about no connection.
    pub(super) fn dry_run(&mut self) -> Result<Took> {
        let objects = vec![Object::NetworkServiceWiring(wiring(
            "another", "silver", COLORS[1],
        )?)];
        let dry_run = true;
        self.change(Command::Apply { objects, dry_run })
    }

    /// Drains the endpoint of this color on node `n`, or takes it back.
    pub(super) fn drain(&mut self, n: u32, color: &str, draining: bool) -> Result<Took> {
        let name = endpoint_name(n, color)?;
        self.change(Command::Drain { name, draining })
    }

    /// Node `n` sees that its endpoint of this color lives, or lives no more.
    pub(super) fn health(&mut self, n: u32, color: &str, alive: bool) -> Result<Took> {
        let (node, endpoint) = (node(n)?, endpoint_name(n, color)?);
        self.change(Command::Health {
            node,
            endpoint,
            alive,
        })
    }

    /// How many nodes there are.
    pub(super) const fn nodes(&self) -> u32 {
        self.nodes
    }

    /// Makes the whole plan of every node; how many wires are in them.
    pub(super) fn snapshots(&self) -> u32 {
        let plans = self
            .registry
            .nodes()
            .map(|node| self.registry.node_snapshot(&node.name));
        let wires: usize = plans.map(|plan| plan.wires.len()).sum();
        u32::try_from(wires).unwrap_or(u32::MAX)
    }

    /// The records of everything.
    pub(super) fn records(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.store
    }

    fn apply(&mut self, objects: Vec<Object>) -> Result<Took> {
        let dry_run = false;
        self.change(Command::Apply { objects, dry_run })
    }

    /// Carries out a command, and all that follows from it.
    fn change(&mut self, command: Command) -> Result<Took> {
        let begun = Instant::now();
        let reply = self.registry.handle(self.now, command)?;
        let mut effects = self.registry.take_effects()?;
        let planned = begun.elapsed();
        let moves = match reply {
            Reply::Applied(outcome) => outcome.moves.len(),
            Reply::Moved(moves) => moves.len(),
            _ => 0,
        };
        for _ in 0..MOST_ACKNOWLEDGEMENTS {
            let done = effects.node_changes.is_empty();
            self.carry_out(effects)?;
            effects = self.registry.take_effects()?;
            if done && effects.is_empty() {
                let (whole, moves) = (begun.elapsed(), u32::try_from(moves)?);
                return Ok(Took {
                    planned,
                    whole,
                    moves,
                });
            }
        }
        bail!("a change still had consequences after {MOST_ACKNOWLEDGEMENTS} acknowledgements")
    }

    /// Stores what is to be stored, and says for the nodes that all is done.
    fn carry_out(&mut self, effects: Effects) -> Result<()> {
        for write in effects.writes {
            match write.value {
                Some(value) => drop(self.store.insert(write.key, value)),
                None => drop(self.store.remove(&write.key)),
            }
        }
        for (node, delta) in effects.node_changes {
            let report = Command::NodeReport {
                node,
                generation: delta.generation,
                failures: Vec::new(),
            };
            self.registry.handle(self.now, report)?;
        }
        Ok(())
    }
}

/// The registry that these records give back.
pub(super) fn restore(records: BTreeMap<String, Vec<u8>>) -> Result<Registry> {
    Ok(Registry::restore(config()?, records)?)
}

fn node(n: u32) -> Result<NodeName> {
    Ok(format!("n{n}").parse()?)
}

fn connection(n: u32) -> Result<ConnectionId> {
    Ok(format!("c{n}").parse()?)
}

fn endpoint_name(n: u32, color: &str) -> Result<EndpointName> {
    Ok(format!("{color}-{n}").parse()?)
}

/// Leads whoever asks for `service` to its endpoints of this color.
fn wiring(name: &str, service: &str, color: &str) -> Result<NetworkServiceWiring> {
    let route = WiringRoute {
        pod_selector: format!("color={color}").parse()?,
        weight: 0,
    };
    Ok(NetworkServiceWiring::new(
        name.parse()?,
        vec![service.parse()?],
        vec![route],
    )?)
}

/// The endpoint of this color on node `n`.
fn endpoint(n: u32, color: &str) -> Result<NetworkServiceEndpoint> {
    let labels = Labels::parse("labels", [("color", color)])?;
    let services: BTreeMap<ServiceName, Labels> = BTreeMap::from([(SERVICE.parse()?, labels)]);
    let netns = NetnsRef::parse("netns", &format!("/run/netns/{color}-{n}"), None)?;
    Ok(NetworkServiceEndpoint::declared(
        endpoint_name(n, color)?,
        services,
        node(n)?,
        Attachment::Netns(netns),
    )?)
}
