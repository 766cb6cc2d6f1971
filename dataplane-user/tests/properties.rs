//! Whatever is planned, wherever an operation fails: after one clean pass the node is what a fresh one would be.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use dataplane_user::{
    desired::{
        Branch, Change, Circuit, Desired, Draining, End, Hop, IfName, InterfaceEnd, Mac, Neighbour, NetnsRef,
        Payload, Policy, Route, Traffic, VethEnd, Wire, WireId,
    },
    fake::{Fake, Fault, Faulty},
    outcome::Outcome,
    reconcile::{LINGER, ReconcileError, Reconciler},
};
use proptest::prelude::*;

const NAMESPACES: u8 = 4;
const WIRES: u8 = 6;
const FOREIGN: [&str; 2] = ["eth0", "tap0"];

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Snapshot(Vec<Wire>),
    Change { upsert: Vec<Wire>, remove: Vec<u8> },
    Pass,
    Wait(u8),
    Restart,
    NetnsDies(u8),
    NetnsComesBack(u8),
    PairDies(u8),
    Renamed(u8),
}

fn path(n: u8) -> PathBuf {
    format!("/run/netns/ns{n}").into()
}

fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

fn world() -> Fake {
    let mut fake = Fake::new("n1", 128);
    for n in 0..NAMESPACES {
        fake.add_netns(path(n), u64::from(n) + 100);
    }
    for foreign in FOREIGN {
        fake.add_foreign(name(foreign));
    }
    fake
}

fn end() -> impl Strategy<Value = (u8, u8, u8)> {
    (0..NAMESPACES + 1, 0..3u8, 0..3u8)
}

fn build_end(wire: u8, (place, variant, addresses): (u8, u8, u8), letter: char) -> End {
    if place == NAMESPACES {
        return End::Interface(InterfaceEnd {
            name: name(FOREIGN[usize::from(variant) % FOREIGN.len()]),
        });
    }
    let netns = NetnsRef {
        path: path(place),
        id: dataplane_user::desired::NetnsId {
            device: 4,
            inode: u64::from(place) + 100,
        },
    };
    End::Veth(VethEnd {
        netns,
        name: name(&format!("{letter}{wire}-{}", variant % 2)),
        mac: Mac([2, 0, 0, 0, wire, variant]),
        addresses: (0..addresses)
            .map(|n| format!("10.{wire}.{n}.1/24").parse().unwrap())
            .collect(),
        routes: (0..addresses)
            .map(|n| Route {
                prefix: format!("10.9.{n}.0/24").parse().unwrap(),
                next_hop: None,
            })
            .collect(),
        neighbours: vec![Neighbour {
            ip: [10, wire, 0, 2].into(),
            mac: Mac([2, 0, 0, 1, variant, 0]),
        }],
        forwards: false,
        policies: (0..addresses).map(|n| policy(variant, n)).collect(),
        name_servers: Vec::new(),
    })
}

/// What a wire has as its policy number `n` in one variant, which may be what it has in another one.
fn policy(variant: u8, n: u8) -> Policy {
    Policy {
        protocol: Some(6 + variant % 2),
        routes: vec![Route {
            prefix: format!("10.8.{n}.0/24").parse().unwrap(),
            next_hop: None,
        }],
        ..Policy::default()
    }
}

/// A function in a namespace, with two interfaces that no other function of this wire has.
fn build_hop(wire: u8, nth: usize, (place, variant): (u8, u8)) -> Hop {
    let interface = |letter: char| name(&format!("{letter}{wire}-{nth}-{variant}"));
    let policy = |from: char| Policy {
        input: Some(interface(from)),
        routes: vec![Route {
            prefix: "10.9.9.0/24".parse().unwrap(),
            next_hop: None,
        }],
        ..Policy::default()
    };
    let end = |letter: char, other: char| match build_end(wire, (place, variant, 0), letter) {
        End::Veth(end) => End::Veth(VethEnd {
            name: interface(letter),
            forwards: true,
            policies: (variant == 1).then(|| policy(other)).into_iter().collect(),
            ..end
        }),
        End::Interface(_) => panic!("a function is in a namespace"),
    };
    Hop {
        endpoint_name: format!("f{nth}"),
        inside: end('i', 'o'),
        outside: end('o', 'i'),
    }
}

fn circuit() -> impl Strategy<Value = (Vec<(u8, u8)>, (u8, u8, u8))> {
    circuit_to(NAMESPACES + 1)
}

/// One that ends in a namespace. What is beside the branches is left out where it cannot be made; and of existing
/// interfaces that depends on who came first.
fn circuit_beside() -> impl Strategy<Value = (Vec<(u8, u8)>, (u8, u8, u8))> {
    circuit_to(NAMESPACES)
}

fn circuit_to(places: u8) -> impl Strategy<Value = (Vec<(u8, u8)>, (u8, u8, u8))> {
    let hops = prop::collection::vec((0..NAMESPACES, 0..2u8), 0..3);
    (hops, (0..places, 0..3u8, 0..3u8))
}

fn build_circuit(wire: u8, (hops, endpoint): (Vec<(u8, u8)>, (u8, u8, u8))) -> Circuit {
    let hops = hops.into_iter().enumerate();
    Circuit {
        hops: hops.map(|(nth, hop)| build_hop(wire, nth, hop)).collect(),
        endpoint_name: "e".to_owned(),
        endpoint: build_end(wire, endpoint, 'e'),
    }
}

fn traffic() -> impl Strategy<Value = Vec<Traffic>> {
    let prefix = prop::option::of(prop::sample::select(vec!["10.0.0.0/8", "fd00::/16"]));
    let one = (prop::option::of(6..8u8), prop::option::of(80..82u16), prefix);
    let one = one.prop_map(|(protocol, port, prefix)| Traffic {
        protocol,
        ports: port.map(|port| (port, 90)),
        prefix: prefix.map(|prefix| prefix.parse().unwrap()),
    });
    prop::collection::vec(one, 0..3)
}

fn wire() -> impl Strategy<Value = Wire> {
    let main = prop::option::weighted(0.8, circuit());
    let backup = prop::option::weighted(0.1, circuit_beside());
    let more = prop::collection::vec((circuit(), traffic(), 0..3u32), 0..3);
    let draining = prop::option::weighted(0.2, circuit_beside());
    let parts = (
        0..WIRES,
        end(),
        main,
        backup,
        more,
        draining,
        any::<bool>(),
        1280..1284u32,
    );
    parts.prop_map(|(n, client, main, backup, more, draining, ip, mtu)| Wire {
        id: WireId(format!("w{n}")),
        network_service: "s".to_owned(),
        payload: if ip { Payload::Ip } else { Payload::Ethernet },
        mtu,
        client: build_end(n, client, 'c'),
        backup: backup
            .filter(|_| main.is_some())
            .map(|backup| build_circuit(n, backup)),
        probe: mtu % 2 == 0,
        draining: draining
            .filter(|_| main.is_some())
            .map(|circuit| Draining {
                circuit: build_circuit(n, circuit),
                branch: 0,
            })
            .into_iter()
            .collect(),
        branches: main
            .map(|main| {
                let more = more.into_iter().map(|(circuit, traffic, weight)| Branch {
                    traffic,
                    weight,
                    circuit: build_circuit(n, circuit),
                });
                std::iter::once(Branch::all(build_circuit(n, main))).chain(more)
            })
            .into_iter()
            .flatten()
            .collect(),
    })
}

fn wires() -> impl Strategy<Value = Vec<Wire>> {
    prop::collection::btree_map(0..WIRES, wire(), 0..6).prop_map(|wires: BTreeMap<u8, Wire>| {
        let by_id: BTreeMap<_, _> = wires.into_values().map(|wire| (wire.id.clone(), wire)).collect();
        by_id.into_values().collect()
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => wires().prop_map(Event::Snapshot),
        6 => (wires(), prop::collection::vec(0..WIRES, 0..3)).prop_map(|(upsert, remove)| Event::Change { upsert, remove }),
        1 => Just(Event::Pass),
        2 => any::<u8>().prop_map(Event::Wait),
        1 => Just(Event::Restart),
        1 => (0..NAMESPACES).prop_map(Event::NetnsDies),
        2 => (0..NAMESPACES).prop_map(Event::NetnsComesBack),
        1 => (0..WIRES * 2).prop_map(Event::PairDies),
        1 => (0..WIRES * 2).prop_map(Event::Renamed),
    ]
}

type Node = Reconciler<Faulty<Fake>>;

/// Names of our host ends and their places, in a stable order.
fn nth_end(node: &Node, n: u8) -> Option<(IfName, Option<(PathBuf, IfName)>)> {
    let views = node.wires(None).unwrap();
    let ends: Vec<_> = views
        .iter()
        .flat_map(|view| view.ends().collect::<Vec<_>>())
        .collect();
    let end = ends.get(usize::from(n) % ends.len().max(1))?;
    let netns = end.netns.as_ref().map(|netns| netns.path.clone());
    Some((
        end.host_interface.clone(),
        netns.zip(end.workload_interface.clone()),
    ))
}

fn happen(
    mut node: Node,
    generation: &mut u64,
    plan: &mut BTreeMap<WireId, Wire>,
    now: &mut Instant,
    event: Event,
) -> Node {
    *generation += 1;
    let tolerate = |result: Result<_, ReconcileError>| match result {
        Ok(_) | Err(ReconcileError::Flip { .. }) => {}
        Err(error) => panic!("{error}"),
    };
    let whole = |plan: &BTreeMap<WireId, Wire>, generation: u64| Desired {
        generation,
        wires: plan.clone(),
    };
    match event {
        Event::Snapshot(wires) => {
            *plan = wires.into_iter().map(|wire| (wire.id.clone(), wire)).collect();
            tolerate(node.snapshot(whole(plan, *generation), *now));
        }
        Event::Change { upsert, remove } => {
            let remove: Vec<_> = remove.into_iter().map(|n| WireId(format!("w{n}"))).collect();
            plan.retain(|id, _| !remove.contains(id));
            plan.extend(upsert.iter().map(|wire| (wire.id.clone(), wire.clone())));
            let change = Change {
                generation: *generation,
                upsert,
                remove,
            };
            tolerate(node.change(change, *now));
        }
        Event::Pass => tolerate(node.pass(*now)),
        Event::Wait(millis) => {
            *now += Duration::from_millis(millis.into());
            tolerate(node.end_lingering(*now));
        }
        Event::Restart => {
            node = Reconciler::new(node.into_datapath());
            node.adopt().unwrap();
            tolerate(node.snapshot(whole(plan, *generation), *now));
        }
        Event::NetnsDies(n) => {
            let lost: Vec<u32> = node
                .wires(None)
                .unwrap()
                .iter()
                .flat_map(|view| view.ends().collect::<Vec<_>>())
                .filter(|end| end.netns.as_ref().is_some_and(|netns| netns.path == path(n)))
                .filter_map(|end| end.ifindex)
                .collect();
            node.datapath_mut().inner_mut().remove_netns(&path(n));
            tolerate(node.interfaces_lost(&lost, *now));
        }
        Event::NetnsComesBack(n) => {
            let fake = node.datapath_mut().inner_mut();
            if fake.namespaces().all(|netns| netns.path != path(n)) {
                fake.add_netns(path(n), u64::from(n) + 100);
            }
        }
        Event::PairDies(n) => {
            if let Some((host, Some(_))) = nth_end(&node, n) {
                node.datapath_mut().inner_mut().remove_interface(&host);
            }
        }
        Event::Renamed(n) => {
            if let Some((_, Some((path, inner)))) = nth_end(&node, n) {
                node.datapath_mut()
                    .inner_mut()
                    .rename_guest(&path, &inner, name("renamed"));
            }
        }
    }
    node
}

/// Whether a wire is as it was planned, but that its branches and its backup have changed places: the node has led it over
/// its backup.
fn is_led_elsewhere(planned: &Wire, decided: &Wire) -> bool {
    let mut circuits = decided.circuits();
    let is_known = |circuit: &Circuit| planned.circuits().any(|one| one == circuit);
    decided.parked() == planned.parked()
        && decided.branches.len() == planned.branches.len()
        && decided.backup.is_some()
        && circuits.all(is_known)
}

/// The same plan on a fresh machine with the same namespaces. Of a wire that cannot be made there is its client's end,
/// if the client had it before; else nothing.
fn from_scratch(node: &Node, generation: u64, plan: &BTreeMap<WireId, Wire>, failed: &[WireId]) -> String {
    let mut fake = Fake::new("n1", 128);
    for netns in node.datapath().inner().namespaces() {
        fake.add_netns(netns.path, netns.id.inode);
    }
    for foreign in FOREIGN {
        fake.add_foreign(name(foreign));
    }
    let mut wires = plan.clone();
    for (wire, decided) in wires.values_mut().zip(node.plan().unwrap().wires.values()) {
        if is_led_elsewhere(wire, decided) {
            *wire = decided.clone();
        }
    }
    for view in node.wires(Some(failed)).unwrap() {
        match (view.client.ifindex, wires.get_mut(&view.id)) {
            (Some(_), Some(wire)) => *wire = wire.parked(),
            _ => drop(wires.remove(&view.id)),
        }
    }
    let mut fresh = Reconciler::new(fake);
    fresh.adopt().unwrap();
    let outcome = fresh
        .snapshot(Desired { generation, wires }, Instant::now())
        .unwrap();
    assert!(outcome.failures.is_empty(), "{outcome:?}");
    fresh.datapath().dump()
}

/// Compares everything, at once or one wire after the other: how many operations that took, and which wires failed.
fn compare(node: &mut Node, now: Instant, in_parts: bool) -> (Outcome, BTreeSet<WireId>) {
    let mut whole = Outcome::default();
    let mut failed = BTreeSet::new();
    let mut add = |part: Outcome| {
        failed.extend(part.failures.iter().map(|failure| failure.wire.clone()));
        whole.operations += part.operations;
        whole.postponed = part.postponed;
    };
    if in_parts {
        let mut patrol = node.patrol();
        while !patrol.is_done() {
            add(node.go_on(&mut patrol, 1, now).unwrap());
        }
    } else {
        add(node.pass(now).unwrap());
    }
    (whole, failed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn one_clean_pass_after_any_faults_is_planning_from_scratch(
        events in prop::collection::vec((event(), prop::option::of(0..40usize), any::<bool>()), 1..10),
        in_parts in any::<bool>(),
    ) {
        let mut node = Reconciler::new(Faulty::new(world(), Fault::Never));
        node.adopt().unwrap();
        let mut now = Instant::now();
        node.snapshot(Desired::default(), now).unwrap();
        let (mut generation, mut plan) = (0, BTreeMap::new());
        let mut patrol = node.patrol();
        for (event, fault, dies) in events {
            let fault = fault.map_or(Fault::Never, |n| if dies { Fault::From(n) } else { Fault::At(n) });
            node.datapath_mut().set_fault(fault);
            node = happen(node, &mut generation, &mut plan, &mut now, event);
            if in_parts {
                // What began before these events goes on between them.
                let _ = node.go_on(&mut patrol, 1, now);
                if patrol.is_done() {
                    patrol = node.patrol();
                }
            }
        }
        node.datapath_mut().set_fault(Fault::Never);
        compare(&mut node, now, in_parts);
        now += LINGER;
        node.end_lingering(now).unwrap();
        prop_assert!(node.lingers_until().is_none());
        let (outcome, failed) = compare(&mut node, now, in_parts);
        prop_assert!(outcome.postponed.is_empty(), "{:?}", outcome);
        let planned = node.planned_generation();
        let of_failed: Vec<_> = failed.iter().cloned().collect();
        prop_assert_eq!(node.datapath().inner().dump(), from_scratch(&node, planned, &plan, &of_failed));
        let (again, failed_again) = compare(&mut node, now, !in_parts);
        prop_assert_eq!(again.operations, 0);
        prop_assert_eq!(failed_again, failed);
    }

    #[test]
    fn an_agent_that_dies_at_any_operation_is_repaired_by_the_next(
        first in wires(), second in wires(), dies_at in 0..60usize,
    ) {
        let mut node = Reconciler::new(Faulty::new(world(), Fault::Never));
        node.adopt().unwrap();
        let plan = |generation, wires: Vec<Wire>| Desired {
            generation,
            wires: wires.into_iter().map(|wire| (wire.id.clone(), wire)).collect(),
        };
        let now = Instant::now();
        node.snapshot(plan(1, first), now).unwrap();
        node.datapath_mut().set_fault(Fault::From(dies_at));
        let _ = node.snapshot(plan(2, second.clone()), now);
        let mut next = Reconciler::new(Faulty::new(node.into_datapath().into_inner(), Fault::Never));
        next.adopt().unwrap();
        let outcome = next.snapshot(plan(2, second.clone()), now).unwrap();
        next.end_lingering(now + LINGER).unwrap();
        let failed: Vec<_> = outcome.failures.iter().map(|failure| failure.wire.clone()).collect();
        let wanted = plan(2, second).wires;
        prop_assert_eq!(next.datapath().inner().dump(), from_scratch(&next, 2, &wanted, &failed));
        // Rules that the dead agent left behind in a namespace are found by the next look there.
        next.pass(now + LINGER).unwrap();
        prop_assert_eq!(next.pass(now + LINGER).unwrap().operations, 0);
    }
}
