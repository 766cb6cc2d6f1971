//! Random sequences of commands, ends of leases, failures and restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tieline_model::{Attachment, ConnectionId, EndpointRegistration, Labels, Mtu, Timestamp};
use tieline_planner::{Delta, Plan};

use super::{Bench, T0, at, request, service, workload};
use crate::{Caller, Command, NodeFailure, NodeHello, Registry, Reply, WireFailureKind};

#[derive(Debug, Clone)]
enum Step {
    Request {
        id: u8,
        client: u64,
        silver: bool,
        mtu: Option<u32>,
        address: Option<u8>,
        name: Option<u8>,
        seconds: Option<u64>,
    },
    Close {
        id: u8,
        client: Option<u64>,
    },
    Wait {
        seconds: u64,
    },
    Ack {
        fail: Vec<u8>,
    },
    Register {
        endpoint: u8,
        client: u64,
        both: bool,
    },
    Unregister {
        endpoint: u8,
    },
    Hello,
    Bye,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let some = |range: std::ops::Range<u8>| prop::option::weighted(0.2, range);
    prop_oneof![
        8 => (0_u8..10, 0_u64..4, any::<bool>(), prop::option::of(1300_u32..1303), some(0..18), some(0..3), prop::option::of(1_u64..900))
            .prop_map(|(id, client, silver, mtu, address, name, seconds)| Step::Request { id, client, silver, mtu, address, name, seconds }),
        3 => (0_u8..10, prop::option::of(0_u64..4)).prop_map(|(id, client)| Step::Close { id, client }),
        2 => (1_u64..400).prop_map(|seconds| Step::Wait { seconds }),
        4 => prop::collection::vec(0_u8..10, 0..2).prop_map(|fail| Step::Ack { fail }),
        2 => (0_u8..3, 0_u64..4, any::<bool>()).prop_map(|(endpoint, client, both)| Step::Register { endpoint, client, both }),
        1 => (0_u8..3).prop_map(|endpoint| Step::Unregister { endpoint }),
        1 => Just(Step::Hello),
        1 => Just(Step::Bye),
        1 => Just(Step::Restart),
    ]
}

fn id(n: u8) -> ConnectionId {
    format!("c{n}").parse().unwrap()
}

fn failure(n: u8) -> NodeFailure {
    let (field, value) = (String::new(), String::new());
    NodeFailure {
        id: id(n),
        kind: WireFailureKind::Kernel,
        field,
        value,
        message: "refused".to_owned(),
    }
}

/// The registry with the world around it: a store, an agent, and clients that wait.
struct World {
    bench: Bench,
    now: Timestamp,
    seconds: u64,
    agent: Plan,
    waiting: BTreeSet<ConnectionId>,
}

impl World {
    fn new() -> Self {
        let prefixes = |text: &str| vec![text.parse().unwrap(), "fd00:9::/120".parse().unwrap()];
        let gold = service("gold")
            .with_prefixes(prefixes("10.1.0.0/28"), vec!["10.1.0.8/30".parse().unwrap()])
            .unwrap();
        let bench = Bench::new(vec![gold, service("silver")]);
        let agent = bench.registry.node_snapshot(&"n1".parse().unwrap());
        Self {
            bench,
            now: T0,
            seconds: 0,
            agent,
            waiting: BTreeSet::new(),
        }
    }

    fn command(&self, step: Step) -> Option<Command> {
        Some(match step {
            Step::Request {
                id,
                client,
                silver,
                mtu,
                address,
                name,
                seconds,
            } => {
                let mut asked = request(&format!("c{id}"), if silver { "silver" } else { "gold" });
                asked.mtu = mtu.map(|octets| Mtu::parse("m", octets).unwrap());
                asked.src_addresses = address
                    .map(|n| format!("10.1.0.{n}").parse().unwrap())
                    .into_iter()
                    .collect();
                asked.interface = name.map(|n| format!("nsm-{n}").parse().unwrap());
                asked.expires = seconds.map(|s| at(self.seconds + s));
                Command::Request {
                    caller: workload(client),
                    request: Box::new(asked),
                }
            }
            Step::Close { id: n, client } => {
                let caller = client.map_or(Caller::Operator, |n| Caller::Workload(workload(n)));
                Command::Close { caller, id: id(n) }
            }
            Step::Ack { fail } => Command::NodeReport {
                node: self.agent_node(),
                generation: self.agent.generation,
                failures: fail.into_iter().map(failure).collect(),
            },
            Step::Register {
                endpoint,
                client,
                both,
            } => {
                let name = format!("e{endpoint}").parse().unwrap();
                let offered = if both {
                    vec!["gold", "silver"]
                } else {
                    vec!["gold"]
                };
                let services: BTreeMap<_, _> = offered
                    .into_iter()
                    .map(|s| (s.parse().unwrap(), Labels::default()))
                    .collect();
                Command::RegisterEndpoint {
                    caller: workload(client),
                    registration: EndpointRegistration::new(name, services).unwrap(),
                }
            }
            Step::Unregister { endpoint } => Command::UnregisterEndpoint {
                caller: Caller::Operator,
                name: format!("e{endpoint}").parse().unwrap(),
            },
            Step::Hello => Command::NodeHello(NodeHello {
                node: self.agent_node(),
                version: String::new(),
                generation: self.agent.generation,
                attach_backend: String::new(),
                max_wires: 7,
            }),
            Step::Bye => Command::NodeBye {
                node: self.agent_node(),
            },
            Step::Wait { .. } | Step::Restart => return None,
        })
    }

    fn agent_node(&self) -> tieline_model::NodeName {
        "n1".parse().unwrap()
    }

    fn take(&mut self, step: &Step) {
        let hello = matches!(step, Step::Hello);
        match step {
            Step::Wait { seconds } => {
                self.seconds += seconds;
                self.now = at(self.seconds);
                self.bench.registry.handle_timeout(self.now);
            }
            Step::Restart => {
                self.bench.registry = self.bench.restored();
                self.waiting.clear();
            }
            _ => {
                let before = self.bench.registry.tables.clone();
                let command = self.command(step.clone()).unwrap();
                match self.bench.registry.handle(self.now, command) {
                    Ok(Reply::Connection(granted)) => {
                        if granted.settles.is_some() {
                            self.waiting.insert(granted.connection.id);
                        }
                    }
                    Ok(_) => {}
                    Err(refusal) => {
                        assert_eq!(
                            self.bench.registry.tables, before,
                            "a refusal changed something: {refusal}"
                        );
                    }
                }
            }
        }
        self.carry_out(hello);
    }

    fn carry_out(&mut self, hello: bool) {
        let effects = self.bench.flush();
        for settled in &effects.settled {
            self.waiting.remove(&settled.id);
        }
        if hello {
            self.agent = self.bench.registry.node_snapshot(&self.agent_node());
        }
        for delta in effects.node_changes.values() {
            self.receive(delta);
        }
    }

    /// The agent keeps what it can follow; a delta from a plan that it does not have is what a new session repairs.
    fn receive(&mut self, delta: &Delta) {
        assert!(delta.generation > delta.parent);
        let connected = self
            .bench
            .registry
            .node(&self.agent_node())
            .is_some_and(|node| node.connected);
        if connected && delta.generation > self.agent.generation {
            assert_eq!(
                delta.parent, self.agent.generation,
                "a connected agent misses nothing"
            );
            self.agent = self.agent.clone().apply(delta);
        }
    }

    fn check(&self) {
        let registry = &self.bench.registry;
        let (mut addresses, mut interfaces) = (BTreeSet::new(), BTreeSet::new());
        for connection in registry.connections() {
            for address in crate::tables::addresses_of(connection) {
                assert!(addresses.insert(*address), "{address} twice");
                let excluded: ipnet::IpNet = "10.1.0.8/30".parse().unwrap();
                assert!(!excluded.contains(address), "{address} is excluded");
            }
            assert!(interfaces.insert((
                connection.client.netns.clone(),
                connection.client.interface.clone()
            )));
            let server = &connection.main_circuit().unwrap().server;
            if let Attachment::Netns(netns) = &server.attachment {
                assert!(interfaces.insert((netns.clone(), server.interface.clone())));
                assert!(!netns.is_same(&connection.client.netns), "a wire to itself");
            }
        }
        assert_eq!(registry.tables.addresses.is_empty(), addresses.is_empty());
        self.check_restored(&self.bench.restored());
        let node = registry.node(&self.agent_node()).unwrap();
        if node.connected {
            assert_eq!(self.agent.wires, registry.node_snapshot(&self.agent_node()).wires);
            assert_eq!(self.agent.generation, node.generation);
        } else {
            assert!(self.waiting.is_empty(), "nobody waits for a node that is away");
        }
    }

    fn check_restored(&self, restored: &Registry) {
        assert_eq!(restored.tables, self.bench.registry.tables);
        let generations = |registry: &Registry| {
            registry
                .nodes()
                .map(|n| (n.name.clone(), n.generation))
                .collect::<Vec<_>>()
        };
        assert_eq!(generations(restored), generations(&self.bench.registry));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_gives_anything_out_twice_or_loses_what_the_store_has(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(&step);
            world.check();
        }
        world.take(&Step::Hello);
        world.take(&Step::Ack { fail: Vec::new() });
        prop_assert!(world.waiting.is_empty(), "still waiting: {:?}", world.waiting);
        world.take(&Step::Wait { seconds: 700 });
        world.check();
        prop_assert_eq!(world.bench.registry.counts().connections, 0);
        prop_assert!(world.bench.registry.tables.addresses.is_empty());
        prop_assert!(world.agent.wires.is_empty());
        prop_assert!(!world.bench.store.keys().any(|key| key.starts_with("connection/")));
    }
}
