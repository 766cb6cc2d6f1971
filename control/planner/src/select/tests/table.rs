//! Every row of design §6.1.

use super::{Row, check};

const ROWS: &[Row] = &[
    // 1. Wirings.
    Row {
        truth: "a wiring decides before the service's matches and selector",
        world: &[
            "service gold selector:app=gw",
            "match -> app=gw",
            "wiring w gold -> app=fw",
            "endpoint gw gold says:app=gw",
            "endpoint fw gold says:app=fw",
        ],
        gets: Ok(&["fw", "fw"]),
    },
    Row {
        truth: "a wiring about another service does not",
        world: &[
            "service gold",
            "wiring w silver -> app=fw",
            "endpoint gw gold",
            "endpoint fw gold says:app=fw at:9",
        ],
        gets: Ok(&["fw", "gw"]),
    },
    Row {
        truth: "a wiring is about each of its targets",
        world: &[
            "service gold",
            "service silver",
            "wiring w gold,silver -> app=fw",
            "endpoint gw gold,silver",
            "endpoint fw gold,silver says:app=fw",
            "client asks:silver",
        ],
        gets: Ok(&["fw", "fw"]),
    },
    Row {
        truth: "the higher priority goes first",
        world: &[
            "service gold",
            "wiring a gold -> app=a",
            "wiring b@5 gold -> app=b",
            "wiring c@-5 gold -> app=c",
            "endpoint a gold says:app=a",
            "endpoint b gold says:app=b",
            "endpoint c gold says:app=c",
        ],
        gets: Ok(&["b"]),
    },
    Row {
        truth: "of equal priorities the first by name",
        world: &[
            "service gold",
            "wiring b gold -> app=b",
            "wiring a gold -> app=a",
            "endpoint a gold says:app=a",
            "endpoint b gold says:app=b",
        ],
        gets: Ok(&["a"]),
    },
    Row {
        truth: "a wiring whose qualifiers do not hold is passed over",
        world: &[
            "service gold",
            "wiring a@9 gold pod:team=red -> app=a",
            "wiring b gold -> app=b",
            "endpoint a gold says:app=a",
            "endpoint b gold says:app=b",
        ],
        gets: Ok(&["b"]),
    },
    Row {
        truth: "sourceService holds for an endpoint of that service",
        world: &[
            "service gold",
            "wiring w gold from:silver -> app=a",
            "endpoint a gold says:app=a",
            "endpoint mine silver at:0",
            "endpoint b gold",
        ],
        gets: Ok(&["a", "a"]),
    },
    Row {
        truth: "sourceService does not hold for one that is no endpoint of it",
        world: &[
            "service gold",
            "wiring w gold from:silver -> app=a",
            "endpoint a gold says:app=a",
            "endpoint mine bronze at:0",
            "endpoint b gold",
        ],
        gets: Ok(&["a", "b"]),
    },
    Row {
        truth: "podSelector looks at what is proven of the client",
        world: &[
            "service gold",
            "wiring w gold pod:team=red,tier!=test -> app=a",
            "endpoint a gold says:app=a",
            "endpoint b gold",
            "client proven:team=red",
        ],
        gets: Ok(&["a", "a"]),
    },
    Row {
        truth: "podSelector does not look at what the client says of itself",
        world: &[
            "service gold",
            "wiring w gold pod:team=red -> app=a",
            "endpoint a gold says:app=a",
            "endpoint b gold",
            "client says:team=red",
        ],
        gets: Ok(&["a", "b"]),
    },
    Row {
        truth: "clientSelector looks at what the client says of itself",
        world: &[
            "service gold",
            "wiring w gold client:team=red -> app=a",
            "endpoint a gold says:app=a",
            "endpoint b gold",
            "client says:team=red",
        ],
        gets: Ok(&["a", "a"]),
    },
    Row {
        truth: "a destination is found by what is proven of it before what it registered",
        world: &[
            "service gold",
            "wiring w gold -> firewall=true",
            "endpoint liar gold says:firewall=true proven:firewall=false",
            "endpoint proven gold proven:firewall=true",
            "endpoint quiet gold",
            "endpoint said gold says:firewall=true proven:zone=a",
        ],
        gets: Ok(&["proven", "said", "proven"]),
    },
    Row {
        truth: "a wiring that leaves nobody is an error that names it and whom it removed",
        world: &["service gold", "wiring w gold -> app=fw", "endpoint gw gold"],
        gets: Err("wiring w decides; gw: wiring w: no destination selects its labels"),
    },
    Row {
        truth: "traffic qualifiers make a branch beside the one for the rest",
        world: &[
            "service gold",
            "wiring w gold on:tcp/80 on:icmp -> app=dpi",
            "endpoint dpi gold says:app=dpi as:endpoint",
            "endpoint gw gold",
            "wiring rest@-1 gold -> app!=dpi",
        ],
        gets: Ok(&["tcp/80,icmp=dpi + gw"]),
    },
    Row {
        truth: "a wiring for all traffic hides those behind it",
        world: &[
            "service gold",
            "wiring all gold -> ",
            "wiring w@-1 gold on:tcp -> app=dpi",
            "endpoint gw gold",
        ],
        gets: Ok(&["gw"]),
    },
    Row {
        truth: "a branch that leaves nobody is an error: its traffic does not silently take another way",
        world: &[
            "service gold",
            "wiring w gold on:tcp/80 -> app=dpi",
            "endpoint gw gold",
        ],
        gets: Err("wiring w decides for tcp/80"),
    },
    Row {
        truth: "each connection takes one of several destinations by weight",
        world: &[
            "service gold",
            "wiring w gold -> v=a*3 | v=b*1 | v=c*0",
            "endpoint a gold says:v=a",
            "endpoint b gold says:v=b",
            "endpoint c gold says:v=c",
        ],
        gets: Ok(&["a", "b", "a", "a", "a", "b", "a", "a"]),
    },
    Row {
        truth: "a destination of weight 0 among others is never taken",
        world: &[
            "service gold",
            "wiring w gold -> v=a*3 | v=c*0",
            "endpoint c gold says:v=c",
        ],
        gets: Err("c: wiring w: its destinations have weight 0"),
    },
    // 2. Matches.
    Row {
        truth: "the first match that applies decides",
        world: &[
            "service gold selector:app=none",
            "match app=fw -> app=gw",
            "match -> app=fw",
            "endpoint gw gold says:app=gw",
            "endpoint fw gold says:app=fw",
        ],
        gets: Ok(&["fw", "fw"]),
    },
    Row {
        truth: "a match looks at what the client says of itself",
        world: &[
            "service gold",
            "match app=fw -> app=gw",
            "match -> app=fw",
            "endpoint gw gold says:app=gw",
            "endpoint fw gold says:app=fw",
            "client says:app=fw",
        ],
        gets: Ok(&["gw"]),
    },
    Row {
        truth: "but not against what is proven of it",
        world: &[
            "service gold",
            "match app=fw -> app=gw",
            "match -> app=fw",
            "endpoint gw gold says:app=gw",
            "endpoint fw gold says:app=fw",
            "client says:app=fw proven:app=web",
        ],
        gets: Ok(&["fw"]),
    },
    Row {
        truth: "templates take the labels of the request",
        world: &[
            "service gold",
            "match -> node={{.nodeName}} fallthrough",
            "match -> far=yes",
            "endpoint far gold says:far=yes",
            "endpoint here gold says:node=n1",
            "endpoint there gold says:node=n2",
            "client says:nodeName=n2",
        ],
        gets: Ok(&["there", "there"]),
    },
    Row {
        truth: "a template over a label that the request lacks selects nobody",
        world: &[
            "service gold",
            "match -> node={{.nodeName}} fallthrough",
            "match -> far=yes",
            "endpoint far gold says:far=yes",
            "endpoint here gold says:node=n1",
        ],
        gets: Ok(&["far", "far"]),
    },
    Row {
        truth: "a match that leaves nobody ends the search unless it falls through",
        world: &[
            "service gold",
            "match -> app=none",
            "match -> ",
            "endpoint gw gold",
        ],
        gets: Err(
            "matches[0]: no endpoint left, and it does not say fallthrough; gw: matches[0]: its labels satisfy no destination_selector",
        ),
    },
    Row {
        truth: "and then the next one is tried",
        world: &[
            "service gold",
            "match -> app=none fallthrough",
            "match -> ",
            "endpoint gw gold",
        ],
        gets: Ok(&["gw"]),
    },
    Row {
        truth: "weights of a match are shares of the choices",
        world: &[
            "service gold",
            "match -> v=1*3 | v=2*1 | v=3*0",
            "endpoint a gold says:v=1",
            "endpoint b gold says:v=1",
            "endpoint c gold says:v=2",
            "endpoint d gold says:v=3",
        ],
        gets: Ok(&["a", "c", "a", "b", "b", "c", "b", "a"]),
    },
    Row {
        truth: "when no match applies nobody serves",
        world: &["service gold", "match app=x -> ", "endpoint gw gold"],
        gets: Err("no match applies to the request"),
    },
    // 3. Selector.
    Row {
        truth: "the selector decides when there are no matches",
        world: &[
            "service gold selector:app=gw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold says:app=gw,x=y",
        ],
        gets: Ok(&["gw", "gw"]),
    },
    Row {
        truth: "whom the selector does not select is named",
        world: &["service gold selector:app=gw", "endpoint fw gold says:app=fw"],
        gets: Err("fw: its labels do not satisfy the service's selector app=gw"),
    },
    Row {
        truth: "an ordered list is a way through each of them in order",
        world: &[
            "service gold order:app=fw,dpi,gw",
            "endpoint dpi gold says:app=dpi",
            "endpoint fw-1 gold says:app=fw",
            "endpoint fw-2 gold says:app=fw",
            "endpoint gw gold says:app=gw",
        ],
        gets: Ok(&["fw-1>dpi>gw", "fw-2>dpi>gw", "fw-1>dpi>gw"]),
    },
    Row {
        truth: "an ordered list with a gap says which position lacks whom",
        world: &[
            "service gold order:app=fw,dpi,gw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold says:app=gw",
        ],
        gets: Err("fw: the path ends behind it: position 2 of 3 of the service's selector decides: app=dpi"),
    },
    Row {
        truth: "who ends wires cannot stand before the end of an ordered list",
        world: &[
            "service gold order:app=fw,gw",
            "endpoint fw gold says:app=fw as:endpoint",
            "endpoint gw gold says:app=gw",
        ],
        gets: Err("fw: it is plumbed as endpoint, and the path has to go on"),
    },
    Row {
        truth: "an interface cannot either: it has one side",
        world: &[
            "service gold order:app=fw,gw",
            "endpoint fw gold says:app=fw tap",
            "endpoint gw gold says:app=gw",
        ],
        gets: Err("fw: it is an existing interface"),
    },
    Row {
        truth: "who passes packets on cannot be the end of an ordered list",
        world: &[
            "service gold order:app=fw,gw",
            "endpoint fw gold says:app=fw",
            "endpoint gw gold says:app=gw as:gateway",
        ],
        gets: Err("gw: the path ends behind it: behind the last position"),
    },
    // 4. Any.
    Row {
        truth: "without rules each endpoint has its turn",
        world: &[
            "service gold",
            "endpoint b gold",
            "endpoint a gold",
            "endpoint c gold",
        ],
        gets: Ok(&["a", "b", "c", "a"]),
    },
    Row {
        truth: "nobody registered says what to do",
        world: &["service gold"],
        gets: Err("no other endpoint is registered for gold: register one"),
    },
    // Among candidates.
    Row {
        truth: "never the client itself",
        world: &["service gold", "endpoint self gold at:0"],
        gets: Err("self: in the client's own namespace /run/netns/w0: a wire to itself is a loop"),
    },
    Row {
        truth: "never an interface that ends another wire",
        world: &["service gold", "endpoint vm gold tap held:c9"],
        gets: Err("vm: its interface ends connection c9"),
    },
    Row {
        truth: "but one that ends this one",
        world: &["service gold", "endpoint vm gold tap held:c1"],
        gets: Ok(&["vm"]),
    },
    Row {
        truth: "nobody on another node, until wires lead there",
        world: &["service gold", "endpoint far gold node:n2"],
        gets: Err("far: on node n2: wires between nodes are not supported yet"),
    },
    Row {
        truth: "the healthy before the dead",
        world: &[
            "service gold",
            "endpoint a gold dead",
            "endpoint b gold",
            "endpoint c gold",
        ],
        gets: Ok(&["b", "c", "b"]),
    },
    Row {
        truth: "the dead when there is nobody else: they may come back",
        world: &["service gold", "endpoint a gold dead"],
        gets: Ok(&["a"]),
    },
    Row {
        truth: "never who is drained",
        world: &["service gold", "endpoint a gold drained", "endpoint b gold"],
        gets: Ok(&["b", "b"]),
    },
    Row {
        truth: "not even when there is nobody else",
        world: &["service gold", "endpoint a gold drained"],
        gets: Err("a: it is drained"),
    },
    Row {
        truth: "the one that the client names",
        world: &[
            "service gold",
            "endpoint a gold",
            "endpoint b gold",
            "client wants:b",
        ],
        gets: Ok(&["b", "b"]),
    },
    Row {
        truth: "or nobody",
        world: &[
            "service gold",
            "endpoint a gold",
            "endpoint b gold",
            "client wants:c",
        ],
        gets: Err("a: the request names endpoint c; b: the request names endpoint c"),
    },
    Row {
        truth: "a name is of any endpoint on the way",
        world: &[
            "service gold order:app=fw,gw",
            "endpoint fw-1 gold says:app=fw",
            "endpoint fw-2 gold says:app=fw",
            "endpoint gw-1 gold says:app=gw",
            "endpoint gw-2 gold says:app=gw",
            "client wants:gw-2",
        ],
        gets: Ok(&["fw-1>gw-2", "fw-2>gw-2"]),
    },
    // Policies.
    Row {
        truth: "least loaded takes the one with the fewest connections",
        world: &[
            "service gold policy:LeastLoaded",
            "endpoint a gold load:3",
            "endpoint b gold load:1",
            "endpoint c gold load:2",
        ],
        gets: Ok(&["b", "b"]),
    },
    Row {
        truth: "least loaded counts connections against the weight",
        world: &[
            "service gold policy:LeastLoaded",
            "match -> v=1*10 | v=2*1",
            "endpoint a gold says:v=1 load:8",
            "endpoint b gold says:v=2 load:1",
        ],
        gets: Ok(&["a"]),
    },
    Row {
        truth: "same node first has its turns on the node",
        world: &[
            "service gold policy:SameNodeFirst",
            "endpoint a gold",
            "endpoint b gold",
            "endpoint c gold node:n2",
        ],
        gets: Ok(&["a", "b", "a"]),
    },
    // Plumbing.
    Row {
        truth: "behind a gateway the path goes on by the same rules",
        world: &[
            "service gold",
            "match app=fw -> app=gw",
            "match -> app=fw",
            "endpoint fw gold says:app=fw as:gateway",
            "endpoint gw gold says:app=gw",
        ],
        gets: Ok(&["fw>gw"]),
    },
    Row {
        truth: "frames are not routed",
        world: &[
            "service gold payload:ETHERNET order:app=fw,gw",
            "endpoint fw gold says:app=fw",
            "endpoint bump gold says:app=fw as:transparent",
            "endpoint gw gold says:app=gw",
        ],
        gets: Ok(&["bump>gw", "bump>gw"]),
    },
];

#[test]
fn selection_goes_by_the_rules_of_the_design() {
    check(ROWS);
}
