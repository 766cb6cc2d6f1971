//! What holds of every selection.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::testing::{World, way};

const LABELS: [&str; 4] = ["k=a", "k=b", "l=a", "l=b"];

fn an_endpoint() -> impl Strategy<Value = String> {
    let flags = prop_oneof![4 => Just(""), 1 => Just("dead"), 1 => Just("drained")];
    let plumbing = prop_oneof![3 => Just(""), 1 => Just("as:gateway"), 1 => Just("as:endpoint"), 1 => Just("as:transparent")];
    (0..12_u32, 0..4_usize, 0..4_usize, plumbing, flags, 0..6_u64).prop_map(
        |(n, says, proven, plumbing, flags, at)| {
            // Some share a namespace, and some the client's.
            let at = if at < 3 { format!("at:{at}") } else { String::new() };
            format!(
                "endpoint e{n} gold says:{} proven:{} {plumbing} {flags} {at}",
                LABELS[says], LABELS[proven]
            )
        },
    )
}

fn a_wiring() -> impl Strategy<Value = String> {
    let source = prop_oneof![
        Just(String::new()),
        Just("from:gold".to_owned()),
        Just("from:!gold".to_owned()),
        (0..4_usize).prop_map(|i| format!("pod:{}", LABELS[i])),
        (0..4_usize).prop_map(|i| format!("client:{}", LABELS[i])),
    ];
    let traffic = prop_oneof![3 => Just(""), 1 => Just("on:tcp/80-90"), 1 => Just("on:tcp")];
    (0..6_u32, -2..3_i32, source, traffic, 0..4_usize, 0..4_usize).prop_map(
        |(n, priority, source, traffic, a, b)| {
            let also = if a == b {
                String::new()
            } else {
                format!(" | {}*2", LABELS[b])
            };
            format!(
                "wiring w{n}@{priority} gold {source} {traffic} -> {}*1{also}",
                LABELS[a]
            )
        },
    )
}

fn a_service() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("service gold"),
        Just("service gold order:k=a,b"),
        Just("service gold selector:k=a"),
        Just("service gold policy:LeastLoaded"),
    ]
}

prop_compose! {
    fn a_world()(
        service in a_service(), endpoints in prop::collection::vec(an_endpoint(), 0..14),
        wirings in prop::collection::vec(a_wiring(), 0..5), own in 0..4_usize, proven in 0..4_usize,
    ) -> Vec<String> {
        let client = format!("client says:{} proven:{}", LABELS[own], LABELS[proven]);
        [service.to_owned(), client].into_iter().chain(endpoints).chain(wirings).collect()
    }
}

fn world(lines: &[String]) -> World {
    World::new(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_path_loops_or_leads_to_the_client_itself(lines in a_world(), turn in 0..20_u64) {
        let world = world(&lines);
        let Ok(selection) = world.ask(turn) else { return Ok(()) };
        let endpoints = world.inventory.endpoints();
        for branch in &selection.branches {
            let mut places = BTreeSet::from([world.asking(0, |input| input.client.netns.path().to_owned())]);
            for name in branch.names() {
                let place = endpoints[name].attachment().to_string();
                prop_assert!(places.insert(place.trim_start_matches("netns ").to_owned()), "{}", way(&selection.branches));
                prop_assert!(!endpoints[name].is_draining(), "{} is drained", name);
            }
            let (last, passed) = branch.path.split_last().unwrap();
            prop_assert!(!last.plumbing.is_passthrough() && passed.iter().all(|one| one.plumbing.is_passthrough()));
        }
        let (rest, parts) = selection.branches.split_last().unwrap();
        prop_assert!(rest.traffic.is_empty() && parts.iter().all(|part| !part.traffic.is_empty()));
    }

    #[test]
    fn the_same_world_gives_the_same_way_however_it_came_about(lines in a_world(), turn in 0..20_u64, keep in 0..20_usize) {
        let (first, mut second) = (world(&lines), world(&lines));
        prop_assert_eq!(first.ask(turn), second.ask(turn));
        // Objects that come, change and go leave no trace.
        second.line("endpoint passer gold says:k=a as:gateway");
        second.line("wiring passer@9 gold -> k=b");
        if let Some(line) = lines.iter().filter(|line| line.starts_with("endpoint")).nth(keep) {
            second.line(&line.replace("says:", "says:x=y,"));
            second.line("service gold selector:x=y");
            second.line(&lines[0]);
            second.line(line);
            // The last line of a name is what counts; a later one of the same name comes again.
            for later in lines.iter().filter(|later| later.starts_with("endpoint")).skip(keep) {
                second.line(later);
            }
        }
        second.inventory.take_endpoint(&"passer".parse().unwrap());
        second.inventory.take_wiring(&"passer".parse().unwrap());
        prop_assert_eq!(&first.inventory, &second.inventory);
        prop_assert_eq!(first.ask(turn), second.ask(turn));
    }

    #[test]
    fn a_connection_that_is_selected_again_stays(lines in a_world(), turn in 0..20_u64, later in 0..20_u64) {
        let mut world = world(&lines);
        let Ok(first) = world.ask(turn) else { return Ok(()) };
        let dead = first.branches.iter().flat_map(crate::BranchPath::names).any(|name| world.inventory.is_dead(name));
        world.client.current.clone_from(&first.branches);
        let again = world.ask(later).unwrap();
        if !dead {
            prop_assert_eq!(way(&first.branches), way(&again.branches));
        }
    }

    #[test]
    fn weights_are_honoured_over_a_cycle(weights in prop::collection::vec(0_u32..20, 1..6), of_each in prop::collection::vec(1_u64..4, 6), round in 0..3_u64) {
        let mut lines = vec!["service gold".to_owned()];
        let mut routes = Vec::new();
        for (i, weight) in weights.iter().enumerate() {
            routes.push(format!("v={i}*{weight}"));
            lines.extend((0..of_each[i]).map(|n| format!("endpoint e{i}-{n} gold says:v={i}")));
        }
        lines.push(format!("wiring w gold -> {}", routes.join(" | ")));
        let world = world(&lines);
        let unweighted = weights.iter().all(|weight| *weight == 0);
        let share = |weight: u32| if unweighted { 1 } else { u64::from(weight) };
        let total: u64 = weights.iter().map(|weight| share(*weight)).sum();
        // So many turns give every endpoint of every share the same.
        let (cycle, each) = (total * 6, 6);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for turn in round * cycle..(round + 1) * cycle {
            *counts.entry(way(&world.ask(turn).unwrap().branches)).or_default() += 1;
        }
        for (i, weight) in weights.iter().enumerate() {
            for n in 0..of_each[i] {
                let count = counts.get(&format!("e{i}-{n}")).copied().unwrap_or_default();
                prop_assert_eq!(count, share(*weight) * each / of_each[i], "e{}-{} of {:?}", i, n, &counts);
            }
        }
    }
}
