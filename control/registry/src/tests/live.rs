//! Live connections follow the rules: moved, parked, taken up again, and back where a node cannot follow.

use std::collections::BTreeSet;

use tieline_model::{
    Attachment, Connection, ConnectionState, EndpointName, Labels, NetworkService, Object, ObjectKind, yaml,
};

use super::{Bench, T0, at, endpoint, request, service, workload};
use crate::{Caller, Code, Command, Move, NodeFailure, Outcome, Refusal, Reply, WireFailureKind};

/// The two wirings of the wiring document.
const WIRINGS: &str = "
apiVersion: tieline.io/v1
kind: NetworkServiceWiring
metadata: {name: gold-wiring-1}
spec:
  target: [gold]
  qualifiers: {source: {sourceService: '!gold'}}
  action: {route: [{destination: {podSelector: {firewall: 'true'}}}]}
---
apiVersion: tieline.io/v1
kind: NetworkServiceWiring
metadata: {name: gold-wiring-2}
spec:
  target: [gold]
  qualifiers: {source: {podSelector: {firewall: 'true'}}}
  action: {route: [{destination: {podSelector: {vpngateway: 'true'}}}]}
";

pub(super) fn labelled(name: &str, label: &str) -> Object {
    let labels = Labels::parse("l", [(label, "true")]).unwrap();
    Object::NetworkServiceEndpoint(endpoint(name, "gold").with_attested(labels))
}

pub(super) fn wirings() -> Vec<Object> {
    yaml::parse(WIRINGS, None).unwrap()
}

fn carry(bench: &mut Bench, objects: Vec<Object>, dry_run: bool) -> Outcome {
    match bench
        .registry
        .handle(T0, Command::Apply { objects, dry_run })
        .unwrap()
    {
        Reply::Applied(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

/// A service whose only endpoint is a gateway.
pub(super) fn bench(service: NetworkService) -> Bench {
    let mut bench = Bench::with_config(crate::RegistryConfig::new().unwrap(), Vec::new());
    bench
        .apply(vec![
            Object::NetworkService(service),
            labelled("gw", "vpngateway"),
        ])
        .unwrap();
    bench
}

pub(super) fn connection(bench: &Bench, id: &str) -> Connection {
    Connection::clone(bench.registry.connection(&id.parse().unwrap()).unwrap())
}

/// `fw-1>gw`, branches joined by ` + `.
pub(super) fn way(bench: &Bench, id: &str) -> String {
    let connection = connection(bench, id);
    let path = |branch: &tieline_model::Branch| {
        let names: Vec<&str> = branch.circuit.path().map(EndpointName::as_str).collect();
        names.join(">")
    };
    connection
        .branches
        .iter()
        .map(path)
        .collect::<Vec<_>>()
        .join(" + ")
}

fn ways(bench: &Bench, ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| way(bench, id)).collect()
}

/// What the client has, whatever lies behind it.
fn own(connection: &Connection) -> impl PartialEq + std::fmt::Debug {
    let client = &connection.client;
    (
        client.interface.clone(),
        client.mac,
        client.addresses.clone(),
        connection.server_addresses.clone(),
        connection.far_mac(),
    )
}

pub(super) fn delete(bench: &mut Bench, kind: ObjectKind, name: &str) {
    let name = name.to_owned();
    bench.registry.handle(T0, Command::Delete { kind, name }).unwrap();
}

pub(super) fn drain(bench: &mut Bench, name: &str, draining: bool) -> Vec<Move> {
    let name = name.parse().unwrap();
    match bench
        .registry
        .handle(T0, Command::Drain { name, draining })
        .unwrap()
    {
        Reply::Moved(moves) => moves,
        other => panic!("{other:?}"),
    }
}

fn failure(id: &str, kind: WireFailureKind, value: &str) -> NodeFailure {
    NodeFailure {
        id: id.parse().unwrap(),
        kind,
        field: String::new(),
        value: value.to_owned(),
        message: "the kernel said no".to_owned(),
    }
}

#[test]
fn the_story_of_the_wiring_document_happens_to_live_connections() {
    let mut bench = bench(service("gold"));
    let stood = bench.connect(1, "c1", "gold");
    bench
        .apply(vec![labelled("fw-1", "firewall"), labelled("fw-2", "firewall")])
        .unwrap();
    assert_eq!(way(&bench, "c1"), "gw", "nothing changes by accident");
    bench.ack(Vec::new());

    let outcome = carry(&mut bench, wirings(), false);
    assert_eq!(
        outcome.results.iter().flat_map(|one| &one.warnings).count(),
        0,
        "{outcome:?}"
    );
    let effects = bench.flush();
    assert_eq!(effects.node_changes.len(), 1, "one plan");
    assert!(
        effects
            .node_changes
            .values()
            .all(|delta| delta.generation == delta.parent + 1)
    );
    bench.connect(2, "c2", "gold");
    assert_eq!(ways(&bench, &["c1", "c2"]), ["fw-2>gw", "fw-1>gw"]);
    assert_eq!(
        own(&connection(&bench, "c1")),
        own(&stood),
        "same interface, addresses and hardware addresses"
    );

    for name in ["gold-wiring-1", "gold-wiring-2"] {
        delete(&mut bench, ObjectKind::NetworkServiceWiring, name);
    }
    assert_eq!(
        ways(&bench, &["c1", "c2"]),
        ["gw", "gw"],
        "they end where they did"
    );
    bench.flush();
    let ordered = "
apiVersion: tieline.io/v1
kind: NetworkService
metadata: {name: gold}
spec: {selector: {app: [firewall, vpngateway]}}
";
    let labels = |app: &str| Labels::parse("l", [("app", app)]).unwrap();
    let relabelled = |name: &str, app: &str| {
        Object::NetworkServiceEndpoint(endpoint(name, "gold").with_attested(labels(app)))
    };
    let mut objects = yaml::parse(ordered, None).unwrap();
    objects.extend([
        relabelled("fw-1", "firewall"),
        relabelled("fw-2", "firewall"),
        relabelled("gw", "vpngateway"),
    ]);
    carry(&mut bench, objects, false);
    let through: BTreeSet<String> = ways(&bench, &["c1", "c2"]).into_iter().collect();
    assert_eq!(
        through,
        BTreeSet::from(["fw-1>gw".to_owned(), "fw-2>gw".to_owned()]),
        "the same paths"
    );
}

#[test]
fn a_dry_run_foresees_exactly_what_happens_and_changes_nothing() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    bench.apply(vec![labelled("fw-1", "firewall")]).unwrap();
    let tables = bench.registry.tables.clone();
    let foreseen = carry(&mut bench, wirings(), true);
    assert_eq!(bench.registry.tables, tables);
    assert!(bench.flush().is_empty());
    let [moved] = foreseen.moves.as_slice() else {
        panic!("{foreseen:?}")
    };
    let names = |legs: &[crate::Leg]| {
        legs.iter()
            .flat_map(|leg| leg.path.clone())
            .map(String::from)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&moved.from), names(&moved.to)),
        (vec!["gw".to_owned()], vec!["fw-1".to_owned(), "gw".to_owned()])
    );
    assert!(
        moved.because.contains("wiring gold-wiring-1 decides"),
        "{moved:?}"
    );
    assert_eq!(carry(&mut bench, wirings(), false), foreseen);
}

#[test]
fn a_connection_whose_endpoint_goes_is_moved_and_parked_if_there_is_no_other() {
    let mut bench = bench(service("gold"));
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    let stood = bench.connect(1, "c1", "gold");
    delete(&mut bench, ObjectKind::NetworkServiceEndpoint, "gw");
    assert_eq!(way(&bench, "c1"), "gw-2");
    bench.ack(Vec::new());
    delete(&mut bench, ObjectKind::NetworkServiceEndpoint, "gw-2");
    let parked = connection(&bench, "c1");
    assert!(parked.is_parked());
    let ConnectionState::Down { reason } = &parked.state else {
        panic!("{parked:?}")
    };
    assert!(
        reason.contains("no endpoint of NetworkService gold can serve"),
        "{reason}"
    );
    assert_eq!(
        (parked.client.clone(), &parked.server_addresses),
        (stood.client.clone(), &stood.server_addresses)
    );
    bench.ack(Vec::new());
    assert_eq!(
        connection(&bench, "c1").state,
        parked.state,
        "the parked wire stands, and that is all"
    );

    bench.apply(vec![labelled("gw-3", "vpngateway")]).unwrap();
    assert_eq!(way(&bench, "c1"), "gw-3", "taken up again with the same command");
    bench.ack(Vec::new());
    let healed = connection(&bench, "c1");
    assert_eq!((&healed.state, own(&healed)), (&ConnectionState::Up, own(&stood)));
    assert_eq!(
        healed.former,
        ["gw-2", "gw"].map(|name| name.parse().unwrap()),
        "the last ones first"
    );
}

#[test]
fn a_drained_endpoint_hands_over_what_it_has_and_keeps_what_nobody_else_can_take() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    bench.ack(Vec::new());
    let moves = drain(&mut bench, "gw", true);
    assert_eq!((moves.len(), way(&bench, "c1").as_str()), (1, "gw-2"));
    assert_eq!(
        bench.connect(2, "c2", "gold").endpoint().unwrap().as_str(),
        "gw-2",
        "it gets nothing new"
    );
    assert_eq!(drain(&mut bench, "gw", true), [], "once is enough");
    bench.apply(vec![labelled("gw", "vpngateway")]).unwrap();
    assert!(
        bench
            .registry
            .endpoint(&"gw".parse().unwrap())
            .unwrap()
            .is_draining(),
        "declaring it again changes nothing"
    );
    assert_eq!(
        drain(&mut bench, "gw-2", true),
        [],
        "there is nobody else to take them"
    );
    assert_eq!(ways(&bench, &["c1", "c2"]), ["gw-2", "gw-2"]);
    let moves = drain(&mut bench, "gw", false);
    assert_eq!(moves.len(), 2, "now there is");
    let unknown = Command::Drain {
        name: "gone".parse().unwrap(),
        draining: true,
    };
    assert_eq!(
        bench.registry.handle(T0, unknown).unwrap_err().code(),
        Code::NotFound
    );
}

#[test]
fn connections_stay_when_endpoints_come_unless_the_service_says_rebalance() {
    for (rebalance, expected) in [("Keep", [4, 0]), ("Rebalance", [2, 2])] {
        let mut bench = bench(service("gold").with_rebalance(rebalance.parse().unwrap()));
        for i in 1..=4 {
            bench.connect(i, &format!("c{i}"), "gold");
        }
        let outcome = carry(&mut bench, vec![labelled("gw-2", "vpngateway")], false);
        let count = |name: &str| bench.registry.connections_of_endpoint(&name.parse().unwrap());
        assert_eq!([count("gw"), count("gw-2")], expected, "{rebalance}");
        assert_eq!(outcome.moves.len(), expected[1], "as few as possible");
    }
}

#[test]
fn weights_that_change_move_as_few_as_the_shares_ask_for() {
    let mut bench = bench(service("gold").with_rebalance("Rebalance".parse().unwrap()));
    let wiring = |old: u32, new: u32| {
        let text = format!(
            "apiVersion: tieline.io/v1\nkind: NetworkServiceWiring\nmetadata: {{name: canary}}\nspec:\n  target: [gold]\n  \
             action:\n    route:\n    - {{destination: {{podSelector: {{vpngateway: 'true'}}}}, weight: {old}}}\n    \
             - {{destination: {{podSelector: {{canary: 'true'}}}}, weight: {new}}}\n"
        );
        yaml::parse(&text, None).unwrap()
    };
    let mut objects = wiring(1, 0);
    objects.push(labelled("gw-new", "canary"));
    bench.apply(objects).unwrap();
    for i in 1..=10 {
        bench.connect(i, &format!("c{i}"), "gold");
    }
    let new = |bench: &Bench| bench.registry.connections_of_endpoint(&"gw-new".parse().unwrap());
    for (old, share, moved) in [(9, 1, 1), (5, 5, 4), (5, 5, 0), (0, 1, 5)] {
        let outcome = carry(&mut bench, wiring(old, share), false);
        assert_eq!(outcome.moves.len(), moved, "{old}:{share}");
        let expected = 10 * share / (old + share);
        assert_eq!(new(&bench), usize::try_from(expected).unwrap(), "{old}:{share}");
    }
}

#[test]
fn what_a_client_says_anew_is_selected_by_anew() {
    let mut bench = bench(service("gold"));
    bench
        .apply(vec![labelled("fw-1", "firewall"), labelled("other", "other")])
        .unwrap();
    bench.apply(wirings()).unwrap();
    let text = WIRINGS.split("---").next().unwrap();
    let special = text
        .replace("gold-wiring-1", "special")
        .replace("target: [gold]", "target: [gold]\n  priority: 5");
    let special = special
        .replace("{sourceService: '!gold'}", "{clientSelector: {tier: other}}")
        .replace("firewall", "other");
    bench.apply(yaml::parse(&special, None).unwrap()).unwrap();
    bench.connect(1, "c1", "gold");
    assert_eq!(way(&bench, "c1"), "fw-1>gw");
    let mut again = request("c1", "gold");
    again.labels = Labels::parse("l", [("tier", "other")]).unwrap();
    let granted = bench.request(T0, 1, again).unwrap();
    assert!(granted.settles.is_some(), "the answer waits for the wire");
    assert_eq!(way(&bench, "c1"), "other");
}

#[test]
fn an_endpoint_that_becomes_a_source_of_another_service_is_led_as_one() {
    let mut bench = bench(service("gold"));
    bench
        .apply(vec![
            Object::NetworkService(service("silver")),
            labelled("fw-1", "firewall"),
        ])
        .unwrap();
    bench.apply(wirings()).unwrap();
    let third = WIRINGS
        .split("---")
        .next()
        .unwrap()
        .replace("gold-wiring-1", "gold-wiring-3");
    let third = third.replace("'!gold'", "gold").replace("firewall", "vpngateway");
    bench.apply(yaml::parse(&third, None).unwrap()).unwrap();
    bench.connect(1, "c1", "gold");
    assert_eq!(way(&bench, "c1"), "fw-1>gw");
    // The client's workload registers as an endpoint of gold: the third wiring is about it, and no more the first.
    let services = [("gold".parse().unwrap(), Labels::default())].into();
    let registration = tieline_model::EndpointRegistration::new("mine".parse().unwrap(), services).unwrap();
    let caller = workload(1);
    bench
        .registry
        .handle(T0, Command::RegisterEndpoint { caller, registration })
        .unwrap();
    assert_eq!(way(&bench, "c1"), "gw");
    let name = "mine".parse().unwrap();
    bench
        .registry
        .handle(
            T0,
            Command::UnregisterEndpoint {
                caller: Caller::Operator,
                name,
            },
        )
        .unwrap();
    assert_eq!(way(&bench, "c1"), "fw-1>gw");
}

#[test]
fn a_change_that_a_node_cannot_carry_out_is_tried_elsewhere_and_then_taken_back() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    bench
        .apply(vec![labelled("fw-2", "firewall"), labelled("fw-1", "firewall")])
        .unwrap();
    bench.ack(Vec::new());
    let stood = connection(&bench, "c1");
    bench.apply(wirings()).unwrap();
    assert_eq!(way(&bench, "c1"), "fw-2>gw");
    assert_eq!(connection(&bench, "c1").before.unwrap().branches, stood.branches);
    bench.ack(vec![failure("c1", WireFailureKind::NetnsGone, "/run/netns/fw-2")]);
    assert_eq!(way(&bench, "c1"), "fw-1>gw", "past the one that failed");
    bench.ack(vec![failure("c1", WireFailureKind::NetnsGone, "/run/netns/fw-1")]);
    let back = connection(&bench, "c1");
    assert_eq!(
        (&back.branches, &back.before),
        (&stood.branches, &None),
        "back where it was"
    );
    let report: Vec<String> = back
        .report
        .decisions
        .iter()
        .flat_map(|one| &one.steps)
        .map(ToString::to_string)
        .collect();
    assert!(
        report
            .iter()
            .any(|step| step.contains("so it is back: the kernel said no")),
        "{report:?}"
    );
    bench.ack(Vec::new());
    assert_eq!(connection(&bench, "c1").state, ConnectionState::Up);
    bench.apply(vec![labelled("fw-3", "firewall")]).unwrap();
    assert_eq!(
        way(&bench, "c1").matches('>').count(),
        1,
        "the next change of its service tries again"
    );
}

#[test]
fn until_a_node_confirms_it_a_change_keeps_the_names_that_it_may_have_to_go_back_to() {
    let mut bench = bench(service("gold"));
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    bench.connect(1, "c1", "gold");
    drain(&mut bench, "gw", true);
    drain(&mut bench, "gw", false);
    bench.flush();
    let names = |bench: &Bench| {
        let here = bench
            .registry
            .connections()
            .flat_map(|one| one.circuits().cloned().collect::<Vec<_>>());
        let here = here.filter(|circuit| circuit.endpoint.as_str() == "gw");
        here.map(|circuit| circuit.server.interface.to_string())
            .collect::<BTreeSet<_>>()
    };
    bench.request(T0, 2, request("c2", "gold")).unwrap();
    bench.request(T0, 3, request("c3", "gold")).unwrap();
    assert_eq!(
        names(&bench).len(),
        3,
        "nobody takes the name that the first one may need"
    );
    bench.ack(Vec::new());
    assert_eq!(connection(&bench, "c1").before, None);
    assert_eq!(bench.restored().tables, bench.registry.tables);
}

#[test]
fn a_new_connection_is_tried_elsewhere_before_its_request_is_refused() {
    let mut bench = bench(service("gold"));
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    bench.request(T0, 1, request("c1", "gold")).unwrap();
    assert_eq!(way(&bench, "c1"), "gw");
    let effects = bench.ack(vec![failure("c1", WireFailureKind::NetnsGone, "/run/netns/gw")]);
    assert!(effects.settled.is_empty(), "its client still waits");
    assert_eq!(way(&bench, "c1"), "gw-2");
    let effects = bench.ack(Vec::new());
    assert_eq!(
        effects.settled[0]
            .result
            .as_ref()
            .unwrap()
            .endpoint()
            .unwrap()
            .as_str(),
        "gw-2"
    );
    bench.request(T0, 2, request("c2", "gold")).unwrap();
    let netns = workload(2).netns.path().to_owned();
    let effects = bench.ack(vec![failure("c2", WireFailureKind::NetnsGone, &netns)]);
    assert!(
        matches!(effects.settled[0].result, Err(Refusal::Wire { .. })),
        "its own namespace is nobody else's fault"
    );
    assert_eq!(bench.registry.counts().connections, 1);
}

#[test]
fn a_client_that_names_where_it_was_before_is_refreshed() {
    let mut bench = bench(service("gold"));
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    bench.connect(1, "c1", "gold");
    drain(&mut bench, "gw", true);
    bench.ack(Vec::new());
    let ask = |bench: &mut Bench, name: &str| {
        let mut again = request("c1", "gold");
        again.endpoint = Some(name.parse().unwrap());
        bench
            .request(at(60), 1, again)
            .map(|granted| granted.connection.endpoint().cloned())
    };
    assert_eq!(ask(&mut bench, "gw").unwrap(), Some("gw-2".parse().unwrap()));
    assert_eq!(
        ask(&mut bench, "never").unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[test]
fn an_interface_that_is_set_free_is_taken_by_who_waits_for_it() {
    let mut bench = bench(service("silver"));
    let tap = super::endpoint_at("vm", "gold", Attachment::Interface("tap0".parse().unwrap()));
    bench
        .apply(vec![
            Object::NetworkService(service("gold")),
            Object::NetworkServiceEndpoint(tap),
            labelled("other", "other"),
        ])
        .unwrap();
    let mut asked = request("c1", "gold");
    asked.endpoint = Some("vm".parse().unwrap());
    bench.request(T0, 1, asked).unwrap();
    bench.connect(2, "c2", "gold");
    assert_eq!(ways(&bench, &["c1", "c2"]), ["vm", "other"]);
    delete(&mut bench, ObjectKind::NetworkServiceEndpoint, "other");
    delete(&mut bench, ObjectKind::NetworkServiceEndpoint, "gw");
    assert!(connection(&bench, "c2").is_parked());
    bench.close(Caller::Operator, "c1").unwrap();
    assert_eq!(way(&bench, "c2"), "vm");
}

#[test]
fn a_loop_is_refused_whole_and_a_doubt_is_a_warning() {
    let mut bench = bench(service("gold"));
    let text = WIRINGS.replace("vpngateway", "firewall");
    let objects = yaml::parse(&text, None).unwrap();
    let refusal = bench.apply(objects).unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(
        refusal.to_string().contains("route \"gold-wiring-1\": every way"),
        "{refusal}"
    );
    assert_eq!(bench.registry.wirings().count(), 0);
    let unknown = yaml::parse(&WIRINGS.replace("target: [gold]", "target: [gold, silver]"), None).unwrap();
    let outcome = carry(&mut bench, unknown, false);
    let warnings: Vec<&String> = outcome.results.iter().flat_map(|one| &one.warnings).collect();
    let said = |part: &str| warnings.iter().any(|one| one.contains(part));
    assert!(
        said("target[1]: NetworkService silver is not there yet"),
        "{warnings:?}"
    );
    assert!(said("no endpoint of gold has firewall=true"), "{warnings:?}");
}

#[test]
fn wirings_and_what_they_did_survive_a_restart() {
    let mut bench = bench(service("gold"));
    bench.apply(vec![labelled("fw-1", "firewall")]).unwrap();
    bench.connect(1, "c1", "gold");
    bench.apply(wirings()).unwrap();
    assert_eq!(
        bench
            .registry
            .connections_of_wiring(&"gold-wiring-2".parse().unwrap()),
        1
    );
    assert_eq!(bench.restored().tables, bench.registry.tables);
    bench.registry = bench.restored();
    bench.hello(0);
    bench.ack(Vec::new());
    assert_eq!(way(&bench, "c1"), "fw-1>gw");
    delete(&mut bench, ObjectKind::NetworkServiceWiring, "gold-wiring-1");
    let gone = Command::Delete {
        kind: ObjectKind::NetworkServiceWiring,
        name: "gold-wiring-1".to_owned(),
    };
    assert_eq!(
        bench.registry.handle(T0, gone).unwrap_err().code(),
        Code::NotFound
    );
}
