//! Requests, refreshes and what is refused.

use std::collections::BTreeSet;

use tieline_model::{Attachment, ConnectionState, Labels, Mtu, Object};

use super::{Bench, T0, at, endpoint, endpoint_at, request, service, workload};
use crate::{Caller, Code, NodeFailure, Refusal, RegistryEvent, WireFailureKind};

fn server(connection: &tieline_model::Connection) -> &tieline_model::EndpointSide {
    &connection.main_circuit().unwrap().server
}

fn code(result: Result<crate::Granted, Refusal>) -> (Code, String) {
    let refusal = result.unwrap_err();
    (refusal.code(), refusal.to_string())
}

#[test]
fn a_request_becomes_a_wire_that_is_up_when_the_node_says_so() {
    let mut bench = Bench::new(vec![service("gold")]);
    let granted = bench.request(T0, 1, request("c1", "gold")).unwrap();
    let planned = granted.settles.unwrap();
    assert_eq!(granted.connection.state, ConnectionState::Pending);
    let effects = bench.flush();
    let delta = effects.node_changes.get("n1").unwrap();
    assert_eq!(
        (delta.generation, delta.parent),
        (planned.generation, planned.generation - 1)
    );
    assert_eq!(delta.upsert.len(), 1);
    assert!(effects.settled.is_empty() && effects.events.is_empty());
    let effects = bench.ack(Vec::new());
    let stands = effects.settled[0].result.as_ref().unwrap();
    assert_eq!(stands.state, ConnectionState::Up);
    assert_eq!(stands.client.interface.as_str(), "nsm-1");
    assert_eq!(server(stands).interface.as_str(), "nse-1");
    assert_eq!(stands.client.addresses.len(), 2);
    assert_eq!(
        effects.events,
        [RegistryEvent::Connection(
            crate::ChangeKind::Update,
            stands.clone()
        )]
    );
    let hops: Vec<&str> = stands.path.segments.iter().map(|hop| hop.name.as_str()).collect();
    assert_eq!(hops, ["c1", "n1", "gw-gold"]);
}

#[test]
fn a_repeated_request_moves_the_expiry_and_nothing_else() {
    let mut bench = Bench::new(vec![service("gold")]);
    let first = bench.connect(1, "c1", "gold");
    let granted = bench.request(at(100), 1, request("c1", "gold")).unwrap();
    assert_eq!(granted.settles, None, "no wire changes");
    assert!(bench.flush().node_changes.is_empty());
    assert_eq!(granted.connection.expires, Some(at(700)));
    let same = tieline_model::Connection {
        expires: first.expires,
        path: first.path.clone(),
        ..granted.connection
    };
    assert_eq!(same, first);
}

#[test]
fn the_answer_sent_back_is_a_refresh() {
    let mut bench = Bench::new(vec![service("gold")]);
    let mut asked = request("c1", "gold");
    asked.src_routes = vec![tieline_model::Route::parse("r", "10.9.0.0/16", "").unwrap()];
    bench.request(T0, 1, asked).unwrap();
    bench.ack(Vec::new());
    let first = bench.registry.connection(&"c1".parse().unwrap()).unwrap().clone();
    let answer = tieline_proto::connection::Connection::from(first.as_ref());
    let message = tieline_proto::networkservice::NetworkServiceRequest {
        connection: Some(answer),
        mechanism_preferences: vec![],
    };
    let granted = bench.request(at(60), 1, message.try_into().unwrap()).unwrap();
    assert_eq!(granted.settles, None);
    assert_eq!(
        granted.connection.expires,
        Some(at(660)),
        "an echoed expiry asks for nothing"
    );
    assert_eq!(granted.connection.src_routes, first.src_routes);
}

#[test]
fn a_changed_context_changes_the_wire_in_place() {
    let mut bench = Bench::new(vec![service("gold")]);
    let first = bench.connect(1, "c1", "gold");
    let mut changed = request("c1", "gold");
    changed.labels = Labels::parse("l", [("app", "x")]).unwrap();
    let granted = bench.request(T0, 1, changed.clone()).unwrap();
    assert_eq!(granted.settles, None, "labels are not part of the wire");
    changed.mtu = Some(Mtu::parse("m", 1400).unwrap());
    let granted = bench.request(T0, 1, changed).unwrap();
    assert_eq!(granted.settles.unwrap().generation, first.generation + 1);
    assert_eq!(granted.connection.state, ConnectionState::Up);
    assert_eq!(granted.connection.client, first.client);
    assert_eq!(
        bench.ack(Vec::new()).settled[0]
            .result
            .as_ref()
            .unwrap()
            .mtu
            .octets(),
        1400
    );
}

#[test]
fn the_services_mtu_is_the_most_that_is_granted() {
    let mtu = |octets| Some(Mtu::parse("m", octets).unwrap());
    let mut bench = Bench::new(vec![service("gold").with_mtu(mtu(1400)), service("any")]);
    for (id, name, asked, granted) in [
        ("a", "gold", None, 1400),
        ("b", "gold", mtu(9000), 1400),
        ("c", "gold", mtu(1300), 1300),
        ("d", "any", mtu(9000), 9000),
        ("e", "any", None, 1500),
    ] {
        let mut request = request(id, name);
        request.mtu = asked;
        assert_eq!(
            bench.request(T0, 1, request).unwrap().connection.mtu.octets(),
            granted,
            "{id}"
        );
    }
}

#[test]
fn another_workloads_connection_is_not_touched() {
    let mut bench = Bench::new(vec![service("gold")]);
    let first = bench.connect(1, "c1", "gold");
    assert_eq!(
        code(bench.request(at(9), 2, request("c1", "gold"))).0,
        Code::PermissionDenied
    );
    let refusal = bench
        .close(crate::Caller::Workload(workload(2)), "c1")
        .unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert_eq!(**bench.registry.connection(&first.id).unwrap(), first);
    assert!(bench.registry.take_effects().unwrap().is_empty());
}

#[test]
fn an_unknown_id_closes_to_nothing() {
    let mut bench = Bench::new(vec![service("gold")]);
    assert_eq!(
        bench
            .close(crate::Caller::Workload(workload(2)), "nobody")
            .unwrap(),
        crate::Reply::Done(Vec::new())
    );
    assert!(bench.flush().is_empty());
}

#[test]
fn an_unknown_service_is_named() {
    let mut bench = Bench::new(vec![service("gold")]);
    let (code, text) = code(bench.request(T0, 1, request("c1", "silver")));
    assert_eq!(code, Code::NotFound);
    assert!(
        text.starts_with("connection.network_service \"silver\""),
        "{text}"
    );
}

#[test]
fn a_taken_interface_name_is_refused_and_a_free_one_given() {
    let mut bench = Bench::new(vec![service("gold")]);
    let named = |id: &str, name: &str| {
        let mut request = request(id, "gold");
        request.interface = Some(name.parse().unwrap());
        request
    };
    bench.request(T0, 1, named("c1", "nsm-2")).unwrap();
    let (code, text) = code(bench.request(T0, 1, named("c2", "nsm-2")));
    assert_eq!(code, Code::AlreadyExists);
    assert!(text.contains("connection c1"), "{text}");
    bench.request(T0, 2, named("c3", "nsm-2")).unwrap();
    let mut free = |id: &str| {
        bench
            .request(T0, 1, request(id, "gold"))
            .unwrap()
            .connection
            .client
            .interface
            .to_string()
    };
    assert_eq!([free("c4"), free("c5")], ["nsm-1", "nsm-3"]);
}

#[test]
fn what_a_connection_keeps_for_life_is_refused_by_field() {
    let mut bench = Bench::new(vec![service("gold"), service("silver")]);
    bench.connect(1, "c1", "gold");
    let mut changes: Vec<tieline_model::ConnectionRequest> = vec![request("c1", "silver")];
    for _ in 0..4 {
        changes.push(request("c1", "gold"));
    }
    changes[1].interface = Some("eth9".parse().unwrap());
    changes[2].src_addresses = vec!["172.29.9.9".parse().unwrap()];
    changes[3].macs[1] = Some("02:00:00:00:00:01".parse().unwrap());
    changes[4].endpoint = Some("gw-silver".parse().unwrap());
    for (change, field) in changes.into_iter().zip([
        "network_service",
        "parameters[name]",
        "src_ip_addrs",
        "dst_mac",
        "endpoint_name",
    ]) {
        let (code, text) = code(bench.request(T0, 1, change));
        assert_eq!(code, Code::FailedPrecondition);
        assert!(text.contains(field), "{text}");
    }
}

#[test]
fn a_first_set_up_that_fails_leaves_nothing() {
    let mut bench = Bench::new(vec![service("gold")]);
    let before = bench.registry.tables.clone();
    let mut asked = request("c1", "gold");
    asked.interface = Some("nsm-1".parse().unwrap());
    let first = bench.request(T0, 1, asked).unwrap().connection;
    let failure = NodeFailure {
        id: first.id.clone(),
        kind: WireFailureKind::NameTaken,
        field: "mechanism.parameters[name]".to_owned(),
        value: "nsm-1".to_owned(),
        message: "an interface that is not ours has this name: choose another".to_owned(),
    };
    let effects = bench.ack(vec![failure]);
    let refusal = effects.settled[0].result.as_ref().unwrap_err();
    assert_eq!(refusal.code(), Code::AlreadyExists);
    assert!(
        refusal
            .to_string()
            .starts_with("mechanism.parameters[name] \"nsm-1\": an interface"),
        "{refusal}"
    );
    assert_eq!(effects.settled.len(), 1);
    assert!(effects.node_changes.get("n1").unwrap().remove.contains(&first.id));
    assert!(bench.registry.tables.addresses.is_empty());
    assert_eq!(
        (&bench.registry.tables.names, &bench.registry.tables.connections),
        (&before.names, &before.connections)
    );
    assert!(!bench.store.keys().any(|key| key.starts_with("connection/")));
}

#[test]
fn a_chosen_name_that_something_else_has_is_exchanged_and_not_chosen_again() {
    let mut bench = Bench::new(vec![service("gold")]);
    let taken = |id: &str, name: &str| NodeFailure {
        id: id.parse().unwrap(),
        kind: WireFailureKind::NameTaken,
        field: "mechanism.parameters[name]".to_owned(),
        value: name.to_owned(),
        message: "an interface that is not ours has this name: choose another".to_owned(),
    };
    let interfaces = |bench: &Bench, id: &str| {
        let connection = bench.registry.connection(&id.parse().unwrap()).unwrap();
        let server = &connection.main_circuit().unwrap().server;
        [&connection.client.interface, &server.interface].map(ToString::to_string)
    };
    bench.request(T0, 1, request("c1", "gold")).unwrap();
    let effects = bench.ack(vec![taken("c1", "nsm-1")]);
    assert!(effects.settled.is_empty(), "{effects:?}");
    assert_eq!(
        effects.node_changes.get("n1").unwrap().upsert.len(),
        1,
        "it is planned again"
    );
    let effects = bench.ack(vec![taken("c1", "nse-1")]);
    assert!(effects.settled.is_empty(), "{effects:?}");
    let effects = bench.ack(Vec::new());
    assert!(effects.settled[0].result.is_ok());
    assert_eq!(interfaces(&bench, "c1"), ["nsm-2", "nse-2"]);

    bench.connect(1, "c2", "gold");
    assert_eq!(
        interfaces(&bench, "c2"),
        ["nsm-3", "nse-3"],
        "the taken ones are known"
    );
    bench.close(Caller::Operator, "c1").unwrap();
    bench.connect(1, "c3", "gold");
    assert_eq!(interfaces(&bench, "c3"), ["nsm-2", "nse-2"]);
    // A wire that stands keeps its client's end, whatever its node says.
    let effects = bench.ack(vec![taken("c3", "nsm-2")]);
    assert!(effects.node_changes.is_empty());
    assert_eq!(interfaces(&bench, "c3"), ["nsm-2", "nse-2"]);
    for id in ["c2", "c3"] {
        bench.close(Caller::Operator, id).unwrap();
    }
    bench.connect(1, "c4", "gold");
    assert_eq!(
        interfaces(&bench, "c4"),
        ["nsm-1", "nse-1"],
        "forgotten with the last wire there"
    );
}

#[test]
fn a_change_that_fails_takes_the_wire_down_with_its_reason_and_a_refresh_tries_again() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench.connect(1, "c1", "gold");
    let mut change = request("c1", "gold");
    change.mtu = Some(Mtu::parse("m", 9000).unwrap());
    bench.request(T0, 1, change.clone()).unwrap();
    let failure = NodeFailure {
        id: change.id.clone(),
        kind: WireFailureKind::Kernel,
        field: String::new(),
        value: String::new(),
        message: "no".to_owned(),
    };
    bench.ack(vec![failure]);
    let state = |bench: &Bench| {
        bench
            .registry
            .connection(&"c1".parse().unwrap())
            .unwrap()
            .state
            .clone()
    };
    assert_eq!(
        state(&bench),
        ConnectionState::Down {
            reason: "no".to_owned()
        }
    );
    assert!(
        bench.request(T0, 1, change).unwrap().settles.is_some(),
        "sent to the node again"
    );
    bench.ack(Vec::new());
    assert_eq!(state(&bench), ConnectionState::Up);
}

#[test]
fn asked_addresses_are_honoured_inside_the_prefix_and_refused_elsewhere() {
    let prefixes = vec!["10.1.0.0/24".parse().unwrap()];
    let excluded = vec!["10.1.0.128/25".parse().unwrap()];
    let mut bench = Bench::new(vec![service("gold").with_prefixes(prefixes, excluded).unwrap()]);
    let asking = |id: &str, src: &str| {
        let mut request = request(id, "gold");
        request.src_addresses = vec![src.parse().unwrap()];
        request
    };
    let granted = bench.request(T0, 1, asking("c1", "10.1.0.1")).unwrap().connection;
    assert_eq!(
        granted.client.addresses,
        ["10.1.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(
        granted.server_addresses,
        ["10.1.0.2".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(
        code(bench.request(T0, 1, asking("c2", "10.1.0.1"))).0,
        Code::AlreadyExists
    );
    for outside in ["10.2.0.1", "10.1.0.0", "fd00::1", "10.1.0.200"] {
        let (code, text) = code(bench.request(T0, 1, asking("c2", outside)));
        assert_eq!(code, Code::InvalidArgument, "{outside}");
        assert!(text.contains(outside), "{text}");
    }
}

#[test]
fn a_full_prefix_is_refused_and_a_released_address_comes_back_last() {
    let prefixes = vec!["10.1.0.0/29".parse().unwrap()];
    let mut bench = Bench::new(vec![service("gold").with_prefixes(prefixes, Vec::new()).unwrap()]);
    let a = bench.connect(1, "a", "gold");
    bench.connect(1, "b", "gold");
    bench.close(crate::Caller::Operator, "a").unwrap();
    let c = bench.connect(1, "c", "gold");
    assert_ne!(
        c.client.addresses, a.client.addresses,
        "there was another one free"
    );
    let d = bench.connect(1, "d", "gold");
    assert_eq!(d.client.addresses, a.client.addresses);
    let (code, text) = code(bench.request(T0, 1, request("e", "gold")));
    assert_eq!(code, Code::ResourceExhausted);
    assert!(text.contains("10.1.0.0/29"), "{text}");
}

#[test]
fn an_existing_interface_ends_one_wire() {
    let mut bench = Bench::new(vec![service("gold")]);
    let tap = endpoint_at("vm", "vm-net", Attachment::Interface("tap0".parse().unwrap()));
    bench
        .apply(vec![
            Object::NetworkService(service("vm-net")),
            Object::NetworkServiceEndpoint(tap),
        ])
        .unwrap();
    let first = bench.connect(1, "c1", "vm-net");
    assert_eq!((server(&first).mac, first.far_mac()), (None, None));
    let (code, text) = code(bench.request(T0, 1, request("c2", "vm-net")));
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("ends connection c1"), "{text}");
    bench.close(crate::Caller::Operator, "c1").unwrap();
    bench.request(T0, 1, request("c2", "vm-net")).unwrap();
}

#[test]
fn endpoints_take_turns() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench
        .apply(vec![Object::NetworkServiceEndpoint(endpoint("gw-two", "gold"))])
        .unwrap();
    let chosen: Vec<String> = (0..4)
        .map(|i| {
            bench
                .connect(1, &format!("c{i}"), "gold")
                .endpoint()
                .unwrap()
                .to_string()
        })
        .collect();
    assert_eq!(chosen, ["gw-gold", "gw-two", "gw-gold", "gw-two"]);
    for name in ["gw-gold", "gw-two"] {
        let circuits = bench.registry.connections().flat_map(|one| one.circuits());
        let here = circuits.filter(|circuit| circuit.endpoint.as_str() == name);
        let names: BTreeSet<_> = here.map(|circuit| circuit.server.interface.to_string()).collect();
        let expected = (1..=4).map(|n| format!("nse-{n}")).collect();
        assert_eq!(
            names, expected,
            "each endpoint counts for itself, backups included"
        );
    }
}

#[test]
fn what_is_proven_of_a_client_is_kept_apart_from_what_it_says() {
    let mut bench = Bench::new(vec![service("gold")]);
    let labels = |value| Labels::parse("l", [("firewall", value)]).unwrap();
    let ask = |bench: &mut Bench, proven: Labels| {
        let mut request = request("c1", "gold");
        request.labels = labels("claimed");
        let caller = tieline_model::Workload {
            labels: proven,
            ..workload(1)
        };
        let command = crate::Command::Request {
            caller,
            request: Box::new(request),
        };
        bench.registry.handle(T0, command).unwrap();
        let connection = bench.registry.connection(&"c1".parse().unwrap()).unwrap();
        (connection.labels.clone(), connection.attested.clone())
    };
    let nothing = Labels::default();
    assert_eq!(ask(&mut bench, nothing.clone()), (labels("claimed"), nothing));
    // A refresh takes what is proven at that moment.
    assert_eq!(
        ask(&mut bench, labels("proven")),
        (labels("claimed"), labels("proven"))
    );
    bench.flush();
    let restored = bench.restored();
    let connection = restored.connection(&"c1".parse().unwrap()).unwrap();
    assert_eq!(connection.attested, labels("proven"));
}
