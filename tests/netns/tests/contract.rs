//! The vWire's contract: what enters at one end leaves at the other end of the same wire, both ways, and nothing
//! else leaves there. Random wires, random frames, listeners at every end.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "contract/frames.rs"]
mod frames;
#[path = "contract/world.rs"]
mod world;

use std::collections::{HashMap, HashSet};

use frames::{Injection, Rule};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};
use tieline_tests_netns::{Kernel, seed};
use world::{End, LiveWire, Side, World};

/// How many random cases; each takes about a fifth of a second.
const CASES: u32 = 40;

/// Wires by client and kind, and the frames that enter them.
#[derive(Clone, Debug)]
struct Scenario {
    wires: Vec<(usize, world::Kind)>,
    frames: Vec<Injection>,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let kind = prop_oneof![
        4 => Just(world::Kind::Ip),
        4 => Just(world::Kind::Ethernet),
        1 => Just(world::Kind::InterfaceIp),
        1 => Just(world::Kind::InterfaceEthernet),
    ];
    let wires = prop::collection::vec((0..world::CLIENTS, kind), 1..9);
    let frames = prop::collection::vec(frames::injection(), 1..60);
    (wires, frames).prop_map(|(wires, frames)| Scenario { wires, frames })
}

#[test]
fn what_enters_a_wire_leaves_at_its_other_end_or_nowhere() {
    let world = World::new().unwrap();
    let config = Config {
        cases: CASES,
        rng_seed: RngSeed::Fixed(seed()),
        max_shrink_iters: 40,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&scenario(), |scenario| {
        check(&world, &scenario).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    if let Err(failure) = outcome {
        panic!("{failure}\n{}", world.node.logs());
    }
}

/// Every frame of every kind once, each way, on each kind of wire, several of them between the same two workloads.
#[test]
fn every_kind_of_frame_keeps_to_its_wire() {
    let world = World::new().unwrap();
    let kinds = [
        world::Kind::Ip,
        world::Kind::Ip,
        world::Kind::Ip,
        world::Kind::Ip,
        world::Kind::Ethernet,
        world::Kind::Ethernet,
        world::Kind::InterfaceIp,
        world::Kind::InterfaceEthernet,
    ];
    let wires: Vec<_> = kinds.into_iter().map(|kind| (0, kind)).collect();
    let (mut frames, bodies) = (Vec::new(), frames::Body::sendable());
    for wire in 0..wires.len() {
        for from in [Side::Client, Side::Endpoint] {
            frames.extend(bodies.iter().map(|body| Injection::plain(wire, from, *body)));
        }
    }
    check(&world, &Scenario { wires, frames })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", world.node.logs()));
}

/// The comparison above can fail: two wires are crossed behind the agent's back.
#[test]
fn crossed_wires_are_noticed() {
    let world = World::new().unwrap();
    let wires = world
        .connect(&[(0, world::Kind::Ip), (1, world::Kind::Ip)])
        .unwrap();
    let frames: Vec<_> = (0..2)
        .map(|wire| Injection::plain(wire, Side::Client, frames::Body::Udp4))
        .collect();
    inject_and_compare(&wires, &frames).unwrap();
    let positions = world.node.kernel().unwrap().positions;
    let status = world.node.api().wires().unwrap();
    let [a, b] = [0, 1].map(|wire: usize| {
        let status = status
            .iter()
            .find(|one| one.connection_id == wires[wire].wire.id)
            .unwrap();
        status.client.as_ref().unwrap().ifindex
    });
    for (at, like) in [(a, b), (b, a)] {
        Kernel::tamper(&world.node.pins(), at, positions[&like]).unwrap();
    }
    let error = inject_and_compare(&wires, &frames).unwrap_err();
    assert!(error.to_string().contains("arrived at"), "{error:#}");
}

/// A frame under way: where it must arrive, and whether it has.
struct Expected {
    to: End,
    rule: Rule,
    arrived: u32,
    what: String,
}

fn check(world: &World, scenario: &Scenario) -> anyhow::Result<()> {
    let wires = world.connect(&scenario.wires)?;
    let result = inject_and_compare(&wires, &scenario.frames);
    world.disconnect(&wires)?;
    world.assert_nothing_escaped()?;
    result
}

fn inject_and_compare(wires: &[LiveWire], injections: &[Injection]) -> anyhow::Result<()> {
    let mut under_way: HashMap<Vec<u8>, Expected> = HashMap::new();
    for (number, injection) in injections.iter().enumerate() {
        let at = injection.wire % wires.len();
        let wire = &wires[at];
        let built = injection.build(u32::try_from(number)?, wire, &wires[(at + 1) % wires.len()]);
        let socket = wire.socket(injection.from);
        match built.gso {
            Some(gso) => socket.send_gso(&built.bytes, gso)?,
            None => socket.send(&built.bytes)?,
        }
        let expected = Expected {
            to: End {
                wire: at,
                side: injection.from.other(),
            },
            rule: built.rule,
            arrived: 0,
            what: format!("frame {number} {injection:?} into wire {at} of {:?}", wire.kind),
        };
        anyhow::ensure!(
            under_way.insert(built.bytes, expected).is_none(),
            "two frames are alike"
        );
    }
    let must: Vec<_> = under_way
        .iter()
        .filter(|(_, expected)| expected.rule == Rule::Must)
        .collect();
    let complete = |arrivals: &[world::Arrival]| {
        let arrived: HashSet<_> = arrivals.iter().map(|arrival| &arrival.bytes).collect();
        must.iter().all(|(bytes, _)| arrived.contains(bytes))
    };
    for arrival in world::arrivals(wires, complete)? {
        let Some(expected) = under_way.get_mut(&arrival.bytes) else {
            arrival.assert_harmless(wires)?;
            continue;
        };
        anyhow::ensure!(
            arrival.at == expected.to,
            "{} arrived at {:?}",
            expected.what,
            arrival.at
        );
        expected.arrived += 1;
    }
    for expected in under_way.values() {
        let right = match expected.rule {
            Rule::Must => expected.arrived == 1,
            Rule::May => expected.arrived <= 1,
            Rule::MustNot => expected.arrived == 0,
        };
        anyhow::ensure!(
            right,
            "{} arrived {} times ({:?})",
            expected.what,
            expected.arrived,
            expected.rule
        );
    }
    Ok(())
}
