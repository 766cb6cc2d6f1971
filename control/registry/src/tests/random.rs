//! Random sequences of commands, ends of leases, failures and restarts.

mod step;

use std::collections::BTreeSet;

use proptest::prelude::*;
use tieline_model::{Attachment, Connection, ConnectionId, ConnectionState, Timestamp};
use tieline_planner::{Delta, Plan, Told};

use self::step::{Around, Step, services, step};
use super::{Bench, T0, at};
use crate::{Registry, Reply};

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
        let bench = Bench::new(services());
        let agent = bench.registry.node_snapshot(&"n1".parse().unwrap());
        Self {
            bench,
            now: T0,
            seconds: 0,
            agent,
            waiting: BTreeSet::new(),
        }
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
                self.check_restored();
                self.bench.registry = self.bench.restored();
                self.waiting.clear();
            }
            _ => {
                let before = self.bench.registry.tables.clone();
                let around = Around {
                    generation: self.agent.generation,
                    seconds: self.seconds,
                };
                let command = step.clone().command(&around).unwrap();
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
        // Planning anew changes nothing, so one copy of the registry serves every connection of a step.
        let mut trial = registry.clone();
        let (mut addresses, mut interfaces) = (BTreeSet::new(), BTreeSet::new());
        for connection in registry.connections() {
            for address in crate::tables::addresses_of(connection) {
                assert!(addresses.insert(*address), "{address} twice");
                let excluded: ipnet::IpNet = "10.1.0.8/30".parse().unwrap();
                assert!(!excluded.contains(address), "{address} is excluded");
            }
            for interface in interfaces_of(connection) {
                assert!(interfaces.insert(interface.clone()), "{interface:?} twice");
            }
            let parked = matches!(connection.state, ConnectionState::Down { .. });
            assert!(parked || !connection.is_parked(), "{connection:?}");
            check_settled(connection, &mut trial);
        }
        assert_eq!(registry.tables.addresses.is_empty(), addresses.is_empty());
        let node = registry.node(&self.agent_node()).unwrap();
        if node.connected {
            assert_eq!(self.agent.wires, registry.node_snapshot(&self.agent_node()).wires);
            assert_eq!(self.agent.generation, node.generation);
        } else {
            assert!(self.waiting.is_empty(), "nobody waits for a node that is away");
        }
    }

    /// The store has all that the registry knows.
    fn check_restored(&self) {
        let (restored, registry) = (self.bench.restored(), &self.bench.registry);
        assert_eq!(restored.tables, registry.tables);
        let generations = |registry: &Registry| {
            registry
                .nodes()
                .map(|n| (n.name.clone(), n.generation))
                .collect::<Vec<_>>()
        };
        assert_eq!(generations(&restored), generations(registry));
    }
}

/// A connection leads where planning it anew leads it, unless its node could not follow.
fn check_settled(connection: &Connection, trial: &mut Registry) {
    let steps = connection.report.decisions.iter().flat_map(|one| &one.steps);
    let went_back = steps
        .into_iter()
        .any(|step| matches!(step, tieline_model::Step::WentBack { .. }));
    let trying = connection
        .before
        .as_ref()
        .is_some_and(|before| !before.failed.is_empty());
    if went_back || trying {
        return;
    }
    trial.select_again(&connection.id, &Told::new());
    let Some(again) = trial.connection(&connection.id) else {
        panic!("planned anew, {connection:?} is given up");
    };
    let paths = |one: &Connection| {
        let legs: Vec<crate::Leg> = one.branches.iter().map(Into::into).collect();
        format!("{} {:?} {legs:?}", one.id, one.state)
    };
    assert!(
        again.branches == connection.branches && again.backup == connection.backup,
        "planned anew, {} becomes {}",
        paths(connection),
        paths(again)
    );
}

/// Every interface that a connection has, each once.
fn interfaces_of(connection: &Connection) -> BTreeSet<(String, String)> {
    let client = &connection.client;
    let mut all = BTreeSet::from([(client.netns.to_string(), client.interface.to_string())]);
    for circuit in connection.circuits() {
        let server = &circuit.server;
        if let Attachment::Netns(netns) = &server.attachment {
            assert!(!netns.is_same(&client.netns), "a wire to itself");
        }
        all.insert((
            server.attachment.to_string().replace("netns ", ""),
            server.interface.to_string(),
        ));
        for hop in &circuit.hops {
            assert!(!hop.netns.is_same(&client.netns), "a wire to itself");
            for end in [&hop.inside, &hop.outside] {
                all.insert((hop.netns.to_string(), end.interface.to_string()));
            }
        }
    }
    all
}

/// Takes the steps, and ends everything: then nothing is left. The store is compared at every restart, or
/// after every step.
fn run(steps: Vec<Step>, compare_each: bool) {
    let mut world = World::new();
    for step in steps {
        world.take(&step);
        world.check();
        if compare_each {
            world.check_restored();
        }
    }
    world.take(&Step::Hello);
    world.take(&Step::Ack { fail: Vec::new() });
    // One Request may have found its endpoint gone meanwhile.
    world.take(&Step::Ack { fail: Vec::new() });
    assert!(world.waiting.is_empty(), "still waiting: {:?}", world.waiting);
    world.check();
    world.check_restored();
    world.take(&Step::Wait { seconds: 1000 });
    world.check();
    world.check_restored();
    let tables = &world.bench.registry.tables;
    assert_eq!(world.bench.registry.counts().connections, 0);
    assert!(tables.addresses.is_empty());
    let nothing = crate::tables::Tables::default();
    assert_eq!(
        (&tables.names, &tables.wanting, &tables.beside),
        (&nothing.names, &nothing.wanting, &nothing.beside)
    );
    assert_eq!(
        (
            &tables.by_endpoint,
            &tables.by_wiring,
            &tables.drains,
            &tables.lost
        ),
        (
            &nothing.by_endpoint,
            &nothing.by_wiring,
            &nothing.drains,
            &nothing.lost
        )
    );
    assert!(world.agent.wires.is_empty());
    assert!(!world.bench.store.keys().any(|key| key.starts_with("connection/")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_gives_anything_out_twice_or_loses_what_the_store_has(steps in prop::collection::vec(step(), 1..80)) {
        run(steps, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 600, ..ProptestConfig::default() })]

    #[test]
    fn a_thousand_intents_with_restarts_between_them_end_where_planning_anew_ends(steps in prop::collection::vec(step(), 1000)) {
        run(steps, false);
    }
}
