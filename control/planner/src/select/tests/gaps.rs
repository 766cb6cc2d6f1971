//! What the wiring document leaves open, decided: negation, and or or, precedence, no match, several destinations,
//! effect on live wires, loops, ownership.

use super::{Row, check};
use crate::testing::{World, way};

const ROWS: &[Row] = &[
    Row {
        truth: "negation: !SERVICE holds for who offers it not",
        world: &[
            "service gold",
            "wiring w gold from:!gold -> app=fw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold",
        ],
        gets: Ok(&["fw", "fw"]),
    },
    Row {
        truth: "negation: and not for who offers it, by whatever name",
        world: &[
            "service gold",
            "wiring w gold from:!gold -> app=fw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold",
            "endpoint own gold at:0",
        ],
        gets: Ok(&["fw", "gw"]),
    },
    Row {
        truth: "negation: terms of a selector may exclude",
        world: &[
            "service gold",
            "wiring w gold pod:tier!=test,!old -> app=fw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold",
            "client proven:tier=live",
        ],
        gets: Ok(&["fw", "fw"]),
    },
    Row {
        truth: "and: every qualifier of a source must hold",
        world: &[
            "service gold",
            "wiring w gold from:!gold pod:team=red client:x=y -> app=fw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold",
            "client proven:team=red",
        ],
        gets: Ok(&["fw", "gw"]),
    },
    Row {
        truth: "or: traffic selectors of one wiring, any of them",
        world: &[
            "service gold",
            "wiring w gold on:tcp/80 on:udp/53 -> app=fw",
            "wiring z gold -> !app",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold",
        ],
        gets: Ok(&["tcp/80,udp/53=fw + gw"]),
    },
    Row {
        truth: "or: wirings beside one another, the first that holds",
        world: &[
            "service gold",
            "wiring a gold pod:team=red -> app=fw",
            "wiring b gold pod:team=blue -> app=fw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold",
            "client proven:team=blue",
        ],
        gets: Ok(&["fw", "fw"]),
    },
    Row {
        truth: "precedence: one decides, the others are not added to it",
        world: &[
            "service gold",
            "wiring a@2 gold -> app=fw",
            "wiring b@1 gold -> app=gw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold says:app=gw",
        ],
        gets: Ok(&["fw", "fw"]),
    },
    Row {
        truth: "precedence: one for traffic that another takes before it refuses nobody",
        world: &[
            "service gold",
            "wiring a@2 gold on:tcp/80 -> app=gw",
            "wiring b@1 gold on:tcp/80 -> app=fw",
            "endpoint gw gold says:app=gw",
        ],
        gets: Ok(&["tcp/80=gw + gw"]),
    },
    Row {
        truth: "several parts: one leaves the room that another needs",
        world: &[
            "service gold order:app=fw,gw",
            "wiring w gold on:tcp/80 from:!gold -> app in (fw,gw)",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold says:app=gw",
        ],
        gets: Ok(&["tcp/80=gw + fw>gw", "tcp/80=gw + fw>gw"]),
    },
    Row {
        truth: "precedence: nor behind a function",
        world: &[
            "service gold",
            "wiring a@2 gold from:!gold on:tcp/80 -> app=gw",
            "wiring b@1 gold from:!gold -> app=fw",
            "wiring c@0 gold from:gold on:tcp/80 -> app=dpi",
            "endpoint fw gold says:app=fw as:gateway",
            "endpoint gw gold says:app=gw as:endpoint",
        ],
        gets: Ok(&["tcp/80=gw + fw>gw", "tcp/80=gw + fw>gw"]),
    },
    Row {
        truth: "no match: the service's own rules decide",
        world: &[
            "service gold selector:app=gw",
            "wiring w gold pod:a=b -> app=fw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold says:app=gw",
        ],
        gets: Ok(&["gw", "gw"]),
    },
    Row {
        truth: "no match: one that holds and finds nobody refuses, it does not fall through",
        world: &[
            "service gold",
            "wiring w gold -> app=fw",
            "wiring v@-1 gold -> ",
            "endpoint gw gold",
        ],
        gets: Err("wiring w decides"),
    },
    Row {
        truth: "several destinations: equal shares without weights",
        world: &[
            "service gold",
            "wiring w gold -> v=a | v=b",
            "endpoint a gold says:v=a",
            "endpoint b gold says:v=b",
            "endpoint c gold",
        ],
        gets: Ok(&["a", "b", "a", "b"]),
    },
    Row {
        truth: "several destinations: the share of one without endpoints goes to the others",
        world: &[
            "service gold",
            "wiring w gold -> v=a*9 | v=b*1",
            "endpoint b gold says:v=b",
        ],
        gets: Ok(&["b", "b"]),
    },
    Row {
        truth: "loops: two functions that lead to each other lead nowhere",
        world: &[
            "service gold",
            "wiring a gold pod:f=1 -> f=2",
            "wiring b gold pod:f=2 -> f=1",
            "wiring c gold -> f=1",
            "endpoint f1 gold proven:f=1",
            "endpoint f2 gold proven:f=2",
        ],
        gets: Err("f1: the path ends behind it: wiring a decides; f2: the path ends behind it"),
    },
    Row {
        truth: "loops: a function is no way back to itself under another name",
        world: &[
            "service gold",
            "endpoint a gold as:gateway at:5",
            "endpoint b gold as:gateway at:5",
        ],
        gets: Err("b: the path leads through a already: a loop"),
    },
    Row {
        truth: "loops: what leads around is left out and the other way taken",
        world: &[
            "service gold",
            "wiring a gold pod:f=1 -> f in (1,2)",
            "wiring c gold from:!gold -> f=1",
            "endpoint f1 gold proven:f=1 as:gateway",
            "endpoint f1-b gold proven:f=1 as:gateway",
            "endpoint f2 gold proven:f=2",
        ],
        gets: Ok(&["f1>f1-b>f2", "f1-b>f2"]),
    },
    Row {
        truth: "loops: functions of a kind that only says how its kind is reached end paths",
        world: &[
            "service gold",
            "wiring w gold from:gold -> app=gw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold says:app=gw",
            "client wants:fw",
        ],
        gets: Ok(&["fw>gw"]),
    },
    Row {
        truth: "ownership: who claims firewall=true does not skip the firewall",
        world: &[
            "service gold",
            "wiring w1 gold from:!gold -> firewall=true",
            "wiring w2 gold pod:firewall=true -> vpngateway=true",
            "endpoint fw gold proven:firewall=true",
            "endpoint gw gold proven:vpngateway=true",
            "client says:firewall=true",
        ],
        gets: Ok(&["fw>gw"]),
    },
    Row {
        truth: "ownership: nor who registers as one, without proof",
        world: &[
            "service gold",
            "wiring w1 gold from:!gold -> firewall=true",
            "wiring w2 gold pod:firewall=true -> vpngateway=true",
            "wiring w3@-1 gold -> firewall=true",
            "endpoint fw gold proven:firewall=true",
            "endpoint gw gold proven:vpngateway=true",
            "endpoint mine gold says:firewall=true at:0",
        ],
        gets: Ok(&["fw>gw"]),
    },
    Row {
        truth: "ownership: an ordered list is not skipped by a claim either",
        world: &[
            "service gold order:app=fw,gw",
            "endpoint fw gold proven:app=fw",
            "endpoint gw gold proven:app=gw",
            "endpoint mine gold says:app=fw at:0",
            "client says:app=fw wants:gw",
        ],
        gets: Ok(&["fw>gw"]),
    },
    Row {
        truth: "the client's labels stay visible behind the first function",
        world: &[
            "service gold",
            "wiring w1 gold from:!gold -> f=1",
            "wiring w2 gold pod:f=1 client:tier=gold -> g=1",
            "wiring w3@-1 gold pod:f=1 -> g=2",
            "endpoint f gold proven:f=1",
            "endpoint g1 gold says:g=1",
            "endpoint g2 gold says:g=2",
            "client says:tier=gold",
        ],
        gets: Ok(&["f>g1"]),
    },
    Row {
        truth: "a function splits traffic as a client does, and its part is a part of the client's",
        world: &[
            "service gold",
            "wiring w1 gold from:!gold on:tcp/80-90 -> f=1",
            "wiring w2@-1 gold from:!gold -> g=2",
            "wiring w3 gold pod:f=1 on:tcp/85-95 -> g=1",
            "wiring w4@-1 gold pod:f=1 -> g=2",
            "endpoint f gold proven:f=1",
            "endpoint g1 gold says:g=1",
            "endpoint g2 gold says:g=2",
        ],
        gets: Ok(&["tcp/85-90=f>g1 + tcp/80-90=f>g2 + g2"]),
    },
];

#[test]
fn what_the_document_leaves_open_is_decided() {
    check(ROWS);
}

#[test]
fn effect_on_live_wires_they_are_selected_again_and_stay_where_that_is_allowed() {
    let mut world = World::new(&[
        "service gold",
        "endpoint gw-1 gold proven:g=1",
        "endpoint gw-2 gold proven:g=1",
        "client now:gw-2",
    ]);
    assert_eq!(world.ways(3).unwrap(), ["gw-2", "gw-2", "gw-2"], "as it is");
    for line in [
        "wiring w1 gold from:!gold -> firewall=true",
        "wiring w2 gold pod:firewall=true -> g=1",
        "endpoint fw gold proven:firewall=true",
    ] {
        world.line(line);
    }
    assert_eq!(
        world.ways(3).unwrap(),
        ["fw>gw-2", "fw>gw-2", "fw>gw-2"],
        "through the function, to the same end"
    );
    world.line("client now:fw>gw-2");
    world.line("endpoint fw-2 gold proven:firewall=true");
    assert_eq!(
        world.ways(2).unwrap(),
        ["fw>gw-2", "fw>gw-2"],
        "one more function moves nobody"
    );
    world.inventory.take_wiring(&"w1".parse().unwrap());
    world.inventory.take_wiring(&"w2".parse().unwrap());
    assert_eq!(
        world.ways(3).unwrap(),
        ["gw-2", "gw-2", "gw-2"],
        "and back, to the same end"
    );
}

#[test]
fn branches_of_one_wire_have_no_two_ends_with_the_same_routes_in_one_namespace() {
    let lines = [
        "service gold selector:app=gw",
        "wiring some gold on:tcp -> app=fw",
        "wiring behind gold pod:app=fw -> app=gw",
        "endpoint fw-1 gold proven:app=fw at:5 as:gateway",
        "endpoint gw-1 gold says:app=gw at:5",
        "client now:gw-1",
    ];
    let mut world = World::new(&lines);
    let refusal = world.ask(0).unwrap_err().to_string();
    assert!(refusal.contains("fw-1"), "{refusal}");
    world.line("endpoint gw-2 gold says:app=gw");
    assert_eq!(
        world.ways(2).unwrap(),
        ["tcp=fw-1>gw-2 + gw-2"; 2],
        "the firewall's namespace has no room for an end"
    );
    world.line("endpoint fw-2 gold proven:app=fw");
    let ways = world.ways(4).unwrap();
    assert!(
        ways.iter()
            .all(|way| !way.contains("gw-1") || !way.contains("fw-1")),
        "{ways:?}"
    );
}

#[test]
fn more_parts_than_a_wire_has_are_refused_with_the_wirings_that_make_them() {
    let mut world = World::new(&["service gold", "endpoint a gold"]);
    for i in 1..=9 {
        world.line(&format!("wiring w{i} gold on:tcp/{i} -> "));
    }
    let error = world.ask(0).unwrap_err().to_string();
    assert!(
        error.contains("into 10 branches by 9 traffic selectors") && error.contains("w1, w2"),
        "{error}"
    );
    world.inventory.take_wiring(&"w9".parse().unwrap());
    world.inventory.take_wiring(&"w8".parse().unwrap());
    assert_eq!(way(&world.ask(0).unwrap().branches).matches(" + ").count(), 7);
}
