//! Endpoints that die, drain and live again, and what nodes do about it by themselves.

use tieline_model::{
    Attachment, ConnectionState, EndpointName, Labels, NetnsRef, Object, ObjectKind, Rebalance, Step,
};

use super::{
    Bench, T0, endpoint_at,
    live::{bench, connection, delete, drain, labelled, way, wirings},
    service,
};
use crate::{Command, NodeFailure, ObservedWire, WireFailureKind};

fn observe(bench: &mut Bench, id: &str, wire: ObservedWire) {
    let (node, id) = ("n1".parse().unwrap(), id.parse().unwrap());
    bench
        .registry
        .handle(T0, Command::Observe { node, id, wire })
        .unwrap();
}

fn health(bench: &mut Bench, endpoint: &str, alive: bool) {
    let (node, endpoint) = ("n1".parse().unwrap(), endpoint.parse().unwrap());
    let health = Command::Health {
        node,
        endpoint,
        alive,
    };
    bench.registry.handle(T0, health).unwrap();
    bench.flush();
    assert_eq!(bench.restored().tables, bench.registry.tables);
}

/// Where flows of a connection go on that were there before.
fn drains(bench: &Bench, id: &str) -> Vec<String> {
    let connection = connection(bench, id);
    let ends = connection.draining.iter().map(|branch| &branch.circuit.endpoint);
    ends.map(ToString::to_string).collect()
}

#[test]
fn the_dead_are_left_and_come_back_into_choice_when_they_live() {
    let mut bench = bench(service("gold"));
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    bench.connect(1, "c1", "gold");
    health(&mut bench, "gw", false);
    assert_eq!(way(&bench, "c1"), "gw-2");
    let backup = connection(&bench, "c1").backup.unwrap();
    assert_eq!(
        backup.endpoint.as_str(),
        "gw",
        "somebody has to hear when it answers again"
    );
    health(&mut bench, "gw-2", false);
    assert_eq!(way(&bench, "c1"), "gw-2", "no moving to and fro among the dead");
    health(&mut bench, "gw", true);
    assert_eq!(way(&bench, "c1"), "gw");
}

#[test]
fn flows_end_where_they_are_unless_that_would_pass_a_function_by() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    bench.ack(Vec::new());
    drain(&mut bench, "gw", true);
    assert_eq!(
        (way(&bench, "c1").as_str(), drains(&bench, "c1")),
        ("gw-2", vec!["gw".to_owned()])
    );
    let wires = bench.registry.node_snapshot(&"n1".parse().unwrap()).wires;
    let [draining] = wires["c1"].draining.as_slice() else {
        panic!("{wires:?}")
    };
    assert_eq!(
        (draining.circuit.endpoint_name.as_str(), draining.branch),
        ("gw", 0)
    );
    assert_eq!(bench.registry.connections_draining_at(&"gw".parse().unwrap()), 1);
    bench.ack(Vec::new());
    let endpoint = || "gw".parse().unwrap();
    observe(&mut bench, "c1", ObservedWire::Drained { endpoint: endpoint() });
    assert_eq!(drains(&bench, "c1"), [""; 0]);
    drain(&mut bench, "gw", false);
    drain(&mut bench, "gw-2", true);
    assert_eq!(drains(&bench, "c1"), ["gw-2"]);
    drain(&mut bench, "gw-2", false);
    drain(&mut bench, "gw", true);
    assert_eq!(
        drains(&bench, "c1"),
        ["gw"],
        "what it leads to again does not drain"
    );
    delete(&mut bench, ObjectKind::NetworkServiceEndpoint, "gw");
    assert_eq!(drains(&bench, "c1"), [""; 0], "nor what is gone");
    bench
        .apply(vec![labelled("fw-1", "firewall"), labelled("gw", "vpngateway")])
        .unwrap();
    bench.apply(wirings()).unwrap();
    assert_eq!(
        (way(&bench, "c1").as_str(), drains(&bench, "c1")),
        ("fw-1>gw-2", Vec::new())
    );
    assert_eq!(bench.restored().tables, bench.registry.tables);
}

#[test]
fn what_a_node_does_by_itself_is_what_control_plans_from_there_on() {
    let mut bench = bench(service("gold"));
    bench
        .apply(vec![
            labelled("gw-2", "vpngateway"),
            labelled("gw-3", "vpngateway"),
        ])
        .unwrap();
    bench.connect(1, "c1", "gold");
    let stood = connection(&bench, "c1");
    let spare = stood.backup.clone().unwrap();
    let switched = |bench: &mut Bench, endpoint: &EndpointName| {
        let endpoint = endpoint.clone();
        observe(bench, "c1", ObservedWire::Switched { endpoint });
    };
    switched(&mut bench, &"gw".parse().unwrap());
    assert_eq!(connection(&bench, "c1"), stood, "it holds no such backup");
    switched(&mut bench, &spare.endpoint);
    let now = connection(&bench, "c1");
    assert_eq!(now.main_circuit(), Some(&spare), "the very ends that stand");
    assert_ne!(now.backup.unwrap().endpoint, spare.endpoint);
    assert_eq!(now.draining, []);
    health(&mut bench, "gw", false);
    assert_eq!(connection(&bench, "c1").main_circuit(), Some(&spare), "it stays");
}

#[test]
fn a_death_without_another_endpoint_is_down_until_there_is_one() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    let health = |bench: &mut Bench, alive| {
        health(bench, "gw", alive);
        connection(bench, "c1").state
    };
    let ConnectionState::Down { reason } = health(&mut bench, false) else {
        panic!()
    };
    assert!(reason.contains("endpoint gw does not answer"), "{reason}");
    assert_eq!(health(&mut bench, true), ConnectionState::Up);
    health(&mut bench, false);
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    assert_eq!(
        way(&bench, "c1"),
        "gw-2",
        "healed with the command that brings one"
    );
    assert_eq!(
        connection(&bench, "c1").draining,
        [],
        "nothing goes on at the dead"
    );
    bench.ack(Vec::new());
    assert_eq!(connection(&bench, "c1").state, ConnectionState::Up);
}

#[test]
fn a_backup_that_shares_a_function_gives_way_to_one_that_shares_nothing() {
    let mut bench = bench(service("gold"));
    let ends = |bench: &Bench| {
        let backup = connection(bench, "c1").backup.unwrap();
        backup.path().map(ToString::to_string).collect::<Vec<_>>()
    };
    bench
        .apply(vec![labelled("gw-2", "vpngateway"), labelled("fw-1", "firewall")])
        .unwrap();
    bench.apply(wirings()).unwrap();
    bench.connect(1, "c1", "gold");
    assert_eq!(ends(&bench), ["fw-1", "gw-2"]);
    bench.apply(vec![labelled("fw-2", "firewall")]).unwrap();
    assert_eq!(way(&bench, "c1"), "fw-1>gw");
    assert_eq!(ends(&bench), ["fw-2", "gw-2"]);
}

/// The node has lost the wire's end at an endpoint, or the client's.
fn lose(bench: &mut Bench, id: &str, endpoint: Option<&str>) {
    let lost = ObservedWire::Lost {
        endpoint: endpoint.map(|name| name.parse().unwrap()),
        message: "its namespace is gone".to_owned(),
    };
    observe(bench, id, lost);
    bench.flush();
    assert_eq!(bench.restored().tables, bench.registry.tables);
}

fn state(bench: &Bench, id: &str) -> String {
    match connection(bench, id).state {
        ConnectionState::Down { reason } => reason,
        other => format!("{other:?}"),
    }
}

#[test]
fn a_wire_that_has_lost_its_client_is_down_and_stays_where_it_is() {
    let mut bench = bench(service("gold"));
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    let before = bench.connect(1, "c1", "gold");
    lose(&mut bench, "c1", None);
    assert_eq!(state(&bench, "c1"), "its namespace is gone");
    assert_eq!(connection(&bench, "c1").branches, before.branches);
    observe(&mut bench, "c1", ObservedWire::Restored);
    assert_eq!(connection(&bench, "c1"), before);
}

#[test]
fn a_wire_that_has_lost_its_endpoint_is_led_to_another() {
    let mut bench = bench(service("gold"));
    bench
        .apply(vec![
            labelled("gw-2", "vpngateway"),
            labelled("gw-3", "vpngateway"),
        ])
        .unwrap();
    bench.connect(1, "c1", "gold");
    bench.connect(2, "c2", "gold");
    let steady = connection(&bench, "c2");
    let first = way(&bench, "c1");
    lose(&mut bench, "c1", Some(&first));
    let second = way(&bench, "c1");
    assert_ne!(second, first);
    assert!(state(&bench, "c1").contains(&format!("endpoint {first} is lost")));
    bench.ack(Vec::new());
    let moved = connection(&bench, "c1");
    assert_eq!((moved.state, moved.before), (ConnectionState::Up, None));
    assert_eq!(moved.draining, [], "nothing goes on at what is gone");
    let third = moved.backup.unwrap().endpoint;
    assert_ne!(third.as_str(), first, "what is gone is no backup");
    assert_eq!(connection(&bench, "c2"), steady, "others say for themselves");
    lose(&mut bench, "c1", Some(&first));
    assert_eq!(way(&bench, "c1"), second, "it is not there any more");
    assert_eq!(state(&bench, "c1"), "Up");
}

#[test]
fn a_wire_that_has_lost_the_only_endpoint_is_down_until_one_comes_or_it_is_back() {
    let mut bench = bench(service("gold"));
    let before = bench.connect(1, "c1", "gold");
    lose(&mut bench, "c1", Some("gw"));
    assert_eq!(
        state(&bench, "c1"),
        "endpoint gw is lost and there is no other: start it, or register another one: its namespace is gone"
    );
    assert_eq!(
        connection(&bench, "c1").branches,
        before.branches,
        "its ends stay"
    );
    bench.ack(Vec::new());
    assert!(
        state(&bench, "c1").contains("endpoint gw is lost"),
        "an answer heals nothing"
    );
    observe(&mut bench, "c1", ObservedWire::Restored);
    assert_eq!(connection(&bench, "c1"), before);
    lose(&mut bench, "c1", Some("gw"));
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    assert_eq!(
        way(&bench, "c1"),
        "gw-2",
        "healed with the command that brings one"
    );
    bench.ack(Vec::new());
    assert_eq!(state(&bench, "c1"), "Up");
    assert_eq!(connection(&bench, "c1").backup, None);
    health(&mut bench, "gw", true);
    let backup = connection(&bench, "c1").backup.unwrap();
    assert_eq!(backup.endpoint.as_str(), "gw", "what answers is forgiven");
}

#[test]
fn an_endpoint_that_is_registered_elsewhere_is_tried_again_by_who_has_lost_it() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    lose(&mut bench, "c1", Some("gw"));
    let elsewhere = NetnsRef::parse("n", "/run/netns/gw-again", None).unwrap();
    let again = endpoint_at("gw", "gold", Attachment::Netns(elsewhere));
    bench.apply(vec![Object::NetworkServiceEndpoint(again)]).unwrap();
    bench.ack(Vec::new());
    assert_eq!(state(&bench, "c1"), "Up");
    let circuit = connection(&bench, "c1").main_circuit().cloned().unwrap();
    assert_eq!(circuit.server.attachment.to_string(), "netns /run/netns/gw-again");
}

#[test]
fn a_wire_that_has_lost_its_reserve_stands_and_gets_another() {
    let mut bench = bench(service("gold"));
    bench
        .apply(vec![
            labelled("gw-2", "vpngateway"),
            labelled("gw-3", "vpngateway"),
        ])
        .unwrap();
    let before = bench.connect(1, "c1", "gold");
    let reserve = before.backup.unwrap().endpoint;
    lose(&mut bench, "c1", Some(reserve.as_str()));
    let after = connection(&bench, "c1");
    assert_eq!(
        (&after.state, &after.branches),
        (&ConnectionState::Up, &before.branches)
    );
    assert_ne!(after.backup.unwrap().endpoint, reserve);
}

#[test]
fn what_is_lost_behind_a_function_may_be_the_function() {
    let mut bench = bench(service("gold"));
    bench
        .apply(vec![labelled("gw-2", "vpngateway"), labelled("fw-1", "firewall")])
        .unwrap();
    bench.apply(wirings()).unwrap();
    bench.connect(1, "c1", "gold");
    assert_eq!(way(&bench, "c1"), "fw-1>gw");
    lose(&mut bench, "c1", Some("gw"));
    assert_eq!(way(&bench, "c1"), "fw-1>gw-2", "there is no other function");
    bench.ack(Vec::new());
    assert_eq!(state(&bench, "c1"), "Up");
    bench
        .apply(vec![labelled("fw-2", "firewall"), labelled("gw-3", "vpngateway")])
        .unwrap();
    assert_eq!(way(&bench, "c1"), "fw-1>gw-2");
    lose(&mut bench, "c1", Some("gw-2"));
    assert_eq!(way(&bench, "c1"), "fw-2>gw-3");
    bench.ack(Vec::new());
    lose(&mut bench, "c1", Some("fw-2"));
    assert!(
        state(&bench, "c1").contains("endpoint fw-2 is lost"),
        "both functions are lost"
    );
}

#[test]
fn a_dead_endpoint_that_nobody_watches_is_believed_when_it_is_registered_again() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    bench
        .apply(vec![
            labelled("gw-2", "vpngateway"),
            labelled("gw-3", "vpngateway"),
        ])
        .unwrap();
    let is_dead = |bench: &Bench| bench.registry.tables.inventory.is_dead(&"gw".parse().unwrap());
    health(&mut bench, "gw", false);
    bench.apply(vec![labelled("gw", "vpngateway")]).unwrap();
    assert!(
        is_dead(&bench),
        "its node has yet to confirm that it is left, and may go back"
    );
    bench.ack(Vec::new());
    bench.apply(vec![labelled("gw", "vpngateway")]).unwrap();
    assert!(!is_dead(&bench));
    assert_eq!(bench.restored().tables, bench.registry.tables);
    health(&mut bench, "gw-2", false);
    health(&mut bench, "gw-3", false);
    assert_eq!(way(&bench, "c1"), "gw");
}

#[test]
fn an_endpoint_that_dies_and_lives_again_and_again_moves_a_connection_once() {
    let plans = |bench: &Bench| bench.registry.node(&"n1".parse().unwrap()).unwrap().generation;
    for others in 0..3 {
        let mut bench = bench(service("gold"));
        bench.connect(1, "c1", "gold");
        for n in 0..others {
            bench
                .apply(vec![labelled(&format!("gw-{n}"), "vpngateway")])
                .unwrap();
        }
        bench.ack(Vec::new());
        health(&mut bench, "gw", false);
        health(&mut bench, "gw", true);
        bench.ack(Vec::new());
        let settled = plans(&bench);
        for _ in 0..100 {
            health(&mut bench, "gw", false);
            assert!(bench.flush().node_changes.is_empty(), "{others} others");
            health(&mut bench, "gw", true);
            assert!(bench.flush().node_changes.is_empty(), "{others} others");
        }
        assert_eq!(plans(&bench), settled);
        assert_eq!(state(&bench, "c1"), "Up");
    }
}

#[test]
fn endpoints_that_all_die_and_live_by_turns_cost_one_plan_each_time_at_most() {
    let plans = |bench: &Bench| bench.registry.node(&"n1".parse().unwrap()).unwrap().generation;
    let mut bench = bench(service("gold").with_rebalance(Rebalance::Rebalance));
    bench
        .apply(vec![
            labelled("gw-2", "vpngateway"),
            labelled("gw-3", "vpngateway"),
        ])
        .unwrap();
    for n in 1..7 {
        bench.connect(n, &format!("c{n}"), "gold");
    }
    let names = ["gw", "gw-2", "gw-3"];
    for turn in 0..60 {
        let before = plans(&bench);
        health(&mut bench, names[turn % 3], turn % 2 == 0);
        bench.flush();
        assert!(plans(&bench) <= before + 1, "all moves of one word are one plan");
        bench.ack(Vec::new());
    }
}

#[test]
fn what_the_rules_do_not_allow_any_more_is_left_with_every_flow() {
    let selected = |label: &str| {
        let selector = Labels::parse("selector", [(label, "true")]).unwrap();
        Object::NetworkService(service("gold").with_selector(selector))
    };
    let mut bench = bench(service("gold"));
    bench.apply(vec![labelled("other", "other")]).unwrap();
    bench.connect(1, "c1", "gold");
    for (label, at) in [("other", "other"), ("vpngateway", "gw")] {
        bench.apply(vec![selected(label)]).unwrap();
        bench.ack(Vec::new());
        assert_eq!(way(&bench, "c1"), at);
        assert_eq!(drains(&bench, "c1"), [""; 0]);
    }
}

#[test]
fn a_function_that_comes_between_is_passed_by_no_flow_that_drains() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    bench
        .apply(vec![labelled("gw-2", "vpngateway"), labelled("fw-1", "firewall")])
        .unwrap();
    drain(&mut bench, "gw", true);
    assert_eq!(drains(&bench, "c1"), ["gw"]);
    bench.ack(Vec::new());
    bench.apply(wirings()).unwrap();
    assert_eq!(way(&bench, "c1"), "fw-1>gw-2");
    assert_eq!(drains(&bench, "c1"), [""; 0]);
}

#[test]
fn what_a_node_does_not_say_again_in_a_new_session_is_forgotten() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    bench.connect(2, "c2", "gold");
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    health(&mut bench, "gw-2", false);
    lose(&mut bench, "c1", Some("gw"));
    health(&mut bench, "gw", false);
    bench.registry = bench.restored();
    let is_dead = |bench: &Bench, name: &str| {
        let name = name.parse().unwrap();
        bench.registry.tables.inventory.is_dead(&name)
    };
    let keep_alive = |bench: &mut Bench| {
        let (connections_gone, endpoints_gone) = (Vec::new(), Vec::new());
        let node = "n1".parse().unwrap();
        let command = Command::KeepAlive {
            node,
            connections_gone,
            endpoints_gone,
        };
        bench.registry.handle(T0, command).unwrap();
        bench.flush();
    };
    bench.hello(0);
    keep_alive(&mut bench);
    bench.ack(Vec::new());
    keep_alive(&mut bench);
    health(&mut bench, "gw-2", false);
    assert!(
        is_dead(&bench, "gw") && is_dead(&bench, "gw-2"),
        "it has yet to say"
    );
    keep_alive(&mut bench);
    assert!(!is_dead(&bench, "gw"), "it has not said so again");
    assert!(is_dead(&bench, "gw-2"), "it has");
    bench.ack(Vec::new());
    for id in ["c1", "c2"] {
        assert_eq!(
            (way(&bench, id).as_str(), state(&bench, id).as_str()),
            ("gw", "Up")
        );
        assert!(connection(&bench, id).lost.is_empty());
    }
    assert_eq!(bench.restored().tables, bench.registry.tables);
}

#[test]
fn who_cannot_be_led_away_from_the_dead_goes_back_there_and_says_so() {
    let mut bench = bench(service("gold"));
    bench.connect(1, "c1", "gold");
    health(&mut bench, "gw", false);
    bench.apply(vec![labelled("gw-2", "vpngateway")]).unwrap();
    assert_eq!(way(&bench, "c1"), "gw-2");
    let failure = NodeFailure {
        id: "c1".parse().unwrap(),
        kind: WireFailureKind::Kernel,
        field: String::new(),
        value: String::new(),
        message: "the kernel said no".to_owned(),
    };
    bench.ack(vec![failure]);
    bench.ack(Vec::new());
    assert_eq!(way(&bench, "c1"), "gw");
    assert!(state(&bench, "c1").contains("endpoint gw does not answer"));
    let report = connection(&bench, "c1").report;
    let steps: Vec<&Step> = report.decisions.iter().flat_map(|one| &one.steps).collect();
    assert!(matches!(steps.last(), Some(Step::WentBack { .. })), "{steps:?}");
}
