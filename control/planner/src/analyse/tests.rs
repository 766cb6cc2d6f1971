use super::*;
use crate::testing::World;

/// The findings about a world, as `object field problem` with the problem's kind.
fn found(lines: &[&str]) -> Vec<String> {
    let kind = |problem: &Problem| match problem {
        Problem::UnknownService { service } => format!("unknown {service}"),
        Problem::Shadowed { by, .. } => format!("shadowed by {by}"),
        Problem::Conflict { first, .. } => format!("conflicts with {first}"),
        Problem::Cycle { through, .. } => format!(
            "cycle through {}",
            through
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        ),
        Problem::SelectsNobody { selector, .. } => format!("nobody {selector}"),
        Problem::DeadEnd { endpoint, .. } => format!("dead end {endpoint}"),
        Problem::UnreachableMatch { behind } => format!("behind match {behind}"),
    };
    let findings = analyse(&World::new(lines).inventory);
    findings
        .iter()
        .map(|one| format!("{} {} {}", one.name, one.field, kind(&one.problem)))
        .collect()
}

const STORY: &[&str] = &[
    "service gold",
    "endpoint fw gold proven:firewall=true",
    "endpoint gw gold proven:vpngateway=true",
    "wiring w1 gold from:!gold -> firewall=true",
    "wiring w2 gold pod:firewall=true -> vpngateway=true",
];

fn with(more: &[&'static str]) -> Vec<&'static str> {
    STORY.iter().chain(more).copied().collect()
}

#[test]
fn there_is_nothing_to_say_about_the_story() {
    assert_eq!(found(STORY), [""; 0]);
}

#[test]
fn services_that_nobody_registered_are_named_by_field() {
    assert_eq!(
        found(&[
            "wiring w gold,silver from:!bronze -> ",
            "service silver",
            "endpoint e gold,silver"
        ]),
        [
            "w target[0] unknown gold",
            "w source.source_service unknown bronze"
        ]
    );
}

#[test]
fn a_destination_that_selects_nobody_is_told() {
    assert_eq!(
        found(&with(&["wiring w3@1 gold pod:a=b -> app=none | firewall=true"])),
        ["w3 route[0].pod_selector nobody app=none"]
    );
}

#[test]
fn a_wiring_behind_one_that_holds_for_the_same_never_decides() {
    let shadowed = |first: &'static str, second: &'static str| found(&with(&[first, second]));
    for (first, second) in [
        (
            "wiring x@3 gold pod:a=b -> firewall=true",
            "wiring y@2 gold pod:a=b,c=d -> vpngateway=true",
        ),
        (
            "wiring x@3 gold on:tcp pod:c=d -> firewall=true",
            "wiring y@2 gold on:tcp/80 pod:c=d -> vpngateway=true",
        ),
        (
            "wiring x@3 gold from:!gold pod:a=b -> firewall=true",
            "wiring y@2 gold from:!gold pod:a=b client:c=d -> firewall=true",
        ),
    ] {
        assert_eq!(
            shadowed(first, second),
            ["y priority shadowed by x"],
            "{first}; {second}"
        );
    }
    for (first, second) in [
        (
            "wiring x@3 gold pod:a=b,c=d -> firewall=true",
            "wiring y@2 gold pod:a=b -> vpngateway=true",
        ),
        (
            "wiring x@3 gold on:tcp/80 pod:a=b -> firewall=true",
            "wiring y@2 gold pod:a=b -> vpngateway=true",
        ),
        (
            "wiring x@3 gold from:gold pod:a=b -> vpngateway=true",
            "wiring y@2 gold from:!gold pod:a=b -> firewall=true",
        ),
    ] {
        assert_eq!(shadowed(first, second), [""; 0], "{first}; {second}");
    }
}

#[test]
fn two_that_may_both_hold_with_one_priority_hang_on_their_names() {
    let conflict = |first: &'static str, second: &'static str| found(&with(&[first, second]));
    for (first, second) in [
        (
            "wiring x@3 gold pod:a=b -> firewall=true",
            "wiring y@3 gold pod:c=d -> vpngateway=true",
        ),
        (
            "wiring x@3 gold pod:a=b on:tcp/80-90 -> firewall=true",
            "wiring y@3 gold pod:a=b on:tcp/85 on:udp -> vpngateway=true",
        ),
    ] {
        assert_eq!(
            conflict(first, second),
            ["y priority conflicts with x"],
            "{first}; {second}"
        );
    }
    for (first, second) in [
        (
            "wiring x@3 gold pod:a=b -> firewall=true",
            "wiring y@2 gold pod:c=d -> vpngateway=true",
        ),
        (
            "wiring x@3 gold pod:a=b -> firewall=true",
            "wiring y@3 gold pod:a=c -> vpngateway=true",
        ),
        (
            "wiring x@3 gold pod:a=b -> firewall=true",
            "wiring y@3 gold pod:c=d -> firewall=true",
        ),
        (
            "wiring x@3 gold on:tcp/80 pod:a=b -> firewall=true",
            "wiring y@3 gold on:tcp/81 pod:a=b -> vpngateway=true",
        ),
    ] {
        assert_eq!(conflict(first, second), [""; 0], "{first}; {second}");
    }
}

#[test]
fn ways_that_never_end_are_errors_whoever_is_registered() {
    let cycle = |lines: &[&'static str]| {
        let world = World::new(lines);
        let errors = analyse(&world.inventory)
            .into_iter()
            .filter(|one| one.problem.is_error());
        errors.map(|one| one.name).collect::<Vec<_>>()
    };
    let base = ["service gold"];
    let of = |more: &[&'static str]| cycle(&[&base, more].concat());
    assert_eq!(
        of(&["wiring a gold pod:f=1 -> f=2", "wiring b gold pod:f=2 -> f=1"]),
        ["a", "b"]
    );
    assert_eq!(of(&["wiring a gold pod:f=1 -> f=1"]), ["a"]);
    assert_eq!(
        of(&[
            "wiring a gold pod:f=1 -> f=2",
            "wiring b gold pod:f=2 -> f=1",
            "wiring c gold -> f=1"
        ]),
        ["a", "b", "c"]
    );
    for (truth, lines) in [
        (
            "one destination ends",
            &[
                "wiring a gold pod:f=1 -> f=2 | g=1",
                "wiring b gold pod:f=2 -> f=1",
            ][..],
        ),
        (
            "only for some clients",
            &[
                "wiring a gold pod:f=1 client:x=y -> f=2",
                "wiring b gold pod:f=2 -> f=1",
            ],
        ),
        (
            "only a part of the traffic",
            &[
                "wiring a gold pod:f=1 on:tcp -> f=2",
                "wiring b gold pod:f=2 -> f=1",
            ],
        ),
        (
            "only some of those selected",
            &["wiring a gold pod:f=1,x=y -> f=2", "wiring b gold pod:f=2 -> f=1"],
        ),
        ("it is about those outside", &["wiring a gold from:!gold -> f=1"]),
        (
            "it says how functions reach their ends",
            &["wiring a gold from:gold -> f=1"],
        ),
        (
            "nobody is led around by weight 0",
            &["wiring a gold pod:f=1 -> f=1*0 | g=1*1"],
        ),
    ] {
        assert_eq!(of(lines), [""; 0], "{truth}");
    }
}

#[test]
fn a_refusal_of_a_loop_says_how_to_end_it() {
    let world = World::new(&["service gold", "wiring a gold pod:f=1 -> f=1"]);
    let refusal = analyse(&world.inventory)
        .iter()
        .find(|one| one.problem.is_error())
        .unwrap()
        .refusal();
    assert_eq!((refusal.field.as_str(), refusal.value.as_str()), ("route", "a"));
    assert!(
        refusal.rule.contains("comes back to wirings a: a loop"),
        "{refusal}"
    );
}

#[test]
fn functions_that_lead_to_nobody_are_named() {
    assert_eq!(
        found(&[
            "service gold",
            "endpoint fw gold proven:f=1",
            "wiring w1 gold from:!gold -> f=1",
            "wiring w2 gold pod:f=1 -> g=1"
        ]),
        [
            "w2 route[0].pod_selector nobody g=1",
            "w1 route[0].pod_selector dead end fw"
        ]
    );
    let lines = [
        "service gold",
        "endpoint fw gold proven:f=1",
        "endpoint gw gold proven:g=1 as:gateway",
        "wiring w1 gold from:!gold -> f=1",
        "wiring w2 gold pod:f=1 -> g=1",
    ];
    assert_eq!(
        found(&lines),
        [
            "w1 route[0].pod_selector dead end fw",
            "w2 route[0].pod_selector dead end gw"
        ],
        "the function behind it passes packets on as well"
    );
}

#[test]
fn a_match_behind_one_that_takes_every_request_never_decides() {
    let lines = [
        "service gold",
        "match app=x -> ",
        "match -> app=y",
        "match app=z -> ",
        "match -> ",
    ];
    assert_eq!(
        found(&lines),
        ["gold matches[2] behind match 1", "gold matches[3] behind match 1"]
    );
    assert_eq!(
        found(&["service gold", "match -> app=y fallthrough", "match -> "]),
        [""; 0]
    );
}
