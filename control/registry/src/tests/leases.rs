//! Expiry and refresh.

use std::collections::BTreeMap;

use tieline_model::{ConnectionState, EndpointRegistration, Labels, NetworkServiceEndpoint, Workload};

use super::{Bench, T0, at, request, service, workload};
use crate::{Caller, ChangeKind, Code, Command, Refusal, RegistryEvent, Reply};

fn register(
    bench: &mut Bench,
    now: u64,
    caller: Workload,
    expires: Option<u64>,
) -> Result<NetworkServiceEndpoint, Refusal> {
    let services = BTreeMap::from([("gold".parse().unwrap(), Labels::default())]);
    let mut registration = EndpointRegistration::new("nse-1".parse().unwrap(), services).unwrap();
    registration.expires = expires.map(at);
    match bench
        .registry
        .handle(at(now), Command::RegisterEndpoint { caller, registration })?
    {
        Reply::Endpoint(endpoint) => Ok(*endpoint),
        other => panic!("{other:?}"),
    }
}

fn without_endpoints() -> Bench {
    let mut bench = Bench::new(vec![service("gold")]);
    let kind = tieline_model::ObjectKind::NetworkServiceEndpoint;
    bench
        .registry
        .handle(
            T0,
            Command::Delete {
                kind,
                name: "gw-gold".to_owned(),
            },
        )
        .unwrap();
    bench.flush();
    bench
}

#[test]
fn a_connection_that_is_not_refreshed_ends_with_its_lease() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench.connect(1, "c1", "gold");
    // The node is silent for too long, and keeps nothing.
    assert_eq!(bench.registry.next_timeout(), Some(at(300)));
    bench.registry.handle_timeout(at(599));
    assert_eq!(bench.registry.next_timeout(), Some(at(600)));
    assert!(bench.flush().is_empty());
    bench.registry.handle_timeout(at(600));
    let effects = bench.flush();
    assert!(matches!(
        effects.events.as_slice(),
        [RegistryEvent::Connection(ChangeKind::Delete, _)]
    ));
    assert!(effects.node_changes.get("n1").unwrap().remove.contains("c1"));
    assert_eq!(bench.registry.next_timeout(), None);
}

#[test]
fn the_lease_granted_is_at_most_the_longest_and_lies_ahead() {
    let mut bench = Bench::new(vec![service("gold")]);
    for (id, asked, granted) in [("a", Some(30), 30), ("b", Some(100_000), 600), ("c", None, 600)] {
        let mut request = request(id, "gold");
        request.expires = asked.map(at);
        let connection = bench.request(T0, 1, request).unwrap().connection;
        assert_eq!(connection.expires, Some(at(granted)), "{id}");
        assert!(
            connection
                .path
                .segments
                .iter()
                .all(|hop| hop.expires == Some(at(granted)))
        );
    }
    let mut late = request("d", "gold");
    late.expires = Some(T0);
    let refusal = bench.request(T0, 1, late).unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(
        refusal.to_string().contains("path_segments[0].expires"),
        "{refusal}"
    );
}

#[test]
fn an_endpoint_whose_lease_ends_leaves_its_connections_parked() {
    let mut bench = without_endpoints();
    let endpoint = register(&mut bench, 0, workload(9), None).unwrap();
    assert_eq!(endpoint.expires(), Some(at(60)));
    bench.connect(1, "c1", "gold");
    bench.registry.handle_timeout(at(60));
    let events = bench.flush().events;
    let [
        RegistryEvent::Endpoint(ChangeKind::Delete, _),
        RegistryEvent::Connection(ChangeKind::Update, connection),
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert!(connection.is_parked());
    let ConnectionState::Down { reason } = &connection.state else {
        panic!("{connection:?}")
    };
    assert!(
        reason.contains("no other endpoint is registered for gold"),
        "{reason}"
    );
}

#[test]
fn a_registration_is_refreshed_by_its_owner_only_and_keeps_its_beginning() {
    let mut bench = without_endpoints();
    register(&mut bench, 0, workload(9), Some(30)).unwrap();
    bench.connect(1, "c1", "gold");
    let refreshed = register(&mut bench, 20, workload(9), Some(30)).unwrap();
    assert_eq!(
        (refreshed.registered_at(), refreshed.expires()),
        (T0, Some(at(80))),
        "the echo asks for nothing"
    );
    assert_eq!(bench.registry.counts().connections, 1, "a refresh moves nobody");
    assert_eq!(
        register(&mut bench, 20, workload(8), None).unwrap_err().code(),
        Code::PermissionDenied
    );
    let caller = Caller::Workload(workload(8));
    let unregister = Command::UnregisterEndpoint {
        caller,
        name: "nse-1".parse().unwrap(),
    };
    assert_eq!(
        bench.registry.handle(T0, unregister).unwrap_err().code(),
        Code::PermissionDenied
    );
    let operator = Workload {
        operator: true,
        ..workload(8)
    };
    let netns = operator.netns.clone();
    register(&mut bench, 20, operator, None).unwrap();
    let connection = bench.registry.connection(&"c1".parse().unwrap()).unwrap();
    assert_eq!(
        connection.main_circuit().unwrap().server.attachment,
        tieline_model::Attachment::Netns(netns),
        "it moved to another namespace, and its connection with it"
    );
}

#[test]
fn only_operators_register_interfaces_of_the_node() {
    let mut bench = without_endpoints();
    let services = BTreeMap::from([("gold".parse().unwrap(), Labels::default())]);
    let mut registration = EndpointRegistration::new("vm".parse().unwrap(), services).unwrap();
    registration.attachment = Some(tieline_model::Attachment::Interface("tap0".parse().unwrap()));
    let as_caller = |operator| Command::RegisterEndpoint {
        caller: Workload {
            operator,
            ..workload(1)
        },
        registration: registration.clone(),
    };
    assert_eq!(
        bench.registry.handle(T0, as_caller(false)).unwrap_err().code(),
        Code::PermissionDenied
    );
    bench.registry.handle(T0, as_caller(true)).unwrap();
}

/// A bench whose node keeps the connection "kept" of client 1 and the endpoint "nse-1", while the connection "own" of
/// client 2 is its client's to refresh.
fn kept() -> Bench {
    let mut bench = Bench::new(vec![service("gold")]);
    let mut asked = request("kept", "gold");
    asked.kept_by_node = true;
    assert_eq!(bench.request(T0, 1, asked).unwrap().connection.expires, None);
    bench.request(T0, 2, request("own", "gold")).unwrap();
    let services = BTreeMap::from([("gold".parse().unwrap(), Labels::default())]);
    let mut registration = EndpointRegistration::new("nse-1".parse().unwrap(), services).unwrap();
    registration.kept_by_node = true;
    let caller = workload(9);
    bench
        .registry
        .handle(T0, Command::RegisterEndpoint { caller, registration })
        .unwrap();
    bench.ack(Vec::new());
    bench
}

fn keep_alive(bench: &mut Bench, now: u64, node: &str, connections: &[&str], endpoints: &[&str]) {
    let told = Command::KeepAlive {
        node: node.parse().unwrap(),
        connections_gone: connections.iter().map(|id| id.parse().unwrap()).collect(),
        endpoints_gone: endpoints.iter().map(|name| name.parse().unwrap()).collect(),
    };
    bench.registry.handle(at(now), told).unwrap();
}

/// The names of what is there, connections first.
fn there(bench: &Bench) -> Vec<String> {
    let connections = bench.registry.connections().map(|one| one.id.to_string());
    let endpoints = bench.registry.endpoints().map(|one| one.name().to_string());
    connections.chain(endpoints).collect()
}

#[test]
fn what_a_node_keeps_lasts_as_long_as_the_node_is_heard_of() {
    let mut bench = kept();
    assert_eq!(bench.registry.next_timeout(), Some(at(300)));
    keep_alive(&mut bench, 1, "n1", &[], &[]);
    assert!(bench.flush().is_empty(), "a sign of life is not written down");
    for now in [200, 450, 700] {
        keep_alive(&mut bench, now, "n1", &[], &[]);
        bench.registry.handle_timeout(at(now));
    }
    assert_eq!(
        there(&bench),
        ["kept", "gw-gold", "nse-1"],
        "the client that refreshes nothing is gone"
    );
    bench.registry.handle_timeout(at(999));
    assert_eq!(there(&bench).len(), 3);
    bench.registry.handle_timeout(at(1000));
    assert_eq!(there(&bench), ["gw-gold"], "what an operator declared stays");
    let effects = bench.flush();
    assert!(effects.node_changes.get("n1").unwrap().remove.contains("kept"));
    assert_eq!(bench.registry.next_timeout(), None);
}

#[test]
fn a_session_that_ends_leaves_the_lease_its_time_and_a_call_counts_as_a_sign_of_life() {
    let mut bench = kept();
    let node = "n1".parse().unwrap();
    bench.registry.handle(at(10), Command::NodeBye { node }).unwrap();
    bench.registry.handle_timeout(at(299));
    assert_eq!(there(&bench).len(), 4);
    bench.hello(0);
    bench.request(at(299), 3, request("third", "gold")).unwrap();
    bench.registry.handle_timeout(at(598));
    assert!(there(&bench).contains(&"kept".to_owned()));
}

#[test]
fn what_a_node_says_is_gone_ends_and_only_what_it_keeps() {
    let mut bench = kept();
    keep_alive(&mut bench, 1, "n1", &["own", "unknown"], &["gw-gold", "unknown"]);
    assert_eq!(there(&bench).len(), 4, "others' leases are not the node's to end");
    keep_alive(&mut bench, 2, "n1", &["kept"], &["nse-1"]);
    assert_eq!(there(&bench), ["own", "gw-gold"]);
    let kinds: Vec<ChangeKind> = bench
        .flush()
        .events
        .iter()
        .map(|event| match event {
            RegistryEvent::Connection(kind, _)
            | RegistryEvent::Endpoint(kind, _)
            | RegistryEvent::Wiring(kind, _)
            | RegistryEvent::Service(kind, _) => *kind,
        })
        .collect();
    assert_eq!(
        kinds,
        [ChangeKind::Delete, ChangeKind::Delete, ChangeKind::Update],
        "the other connection has no backup any more"
    );
    let unknown = Command::KeepAlive {
        node: "n9".parse().unwrap(),
        connections_gone: Vec::new(),
        endpoints_gone: Vec::new(),
    };
    assert_eq!(
        bench.registry.handle(T0, unknown).unwrap_err().code(),
        Code::NotFound
    );
}

#[test]
fn another_node_cannot_end_what_this_one_keeps() {
    let mut bench = kept();
    let hello = crate::NodeHello {
        node: "n2".parse().unwrap(),
        version: String::new(),
        generation: 0,
        attach_backend: String::new(),
        max_wires: 10,
        machine: None,
    };
    bench.registry.handle(T0, Command::NodeHello(hello)).unwrap();
    keep_alive(&mut bench, 1, "n2", &["kept"], &["nse-1"]);
    assert_eq!(there(&bench).len(), 4);
}

#[test]
fn after_a_restart_of_control_nodes_have_their_whole_lease_to_come_back() {
    let mut bench = kept();
    bench.flush();
    bench.registry = bench.restored();
    assert!(bench.registry.next_timeout().is_some_and(|soon| soon <= at(5000)));
    bench.registry.handle_timeout(at(5000));
    assert_eq!(
        there(&bench),
        ["kept", "gw-gold", "nse-1"],
        "however long control was away"
    );
    assert_eq!(bench.registry.next_timeout(), Some(at(5300)));
    bench.hello(0);
    keep_alive(&mut bench, 5299, "n1", &[], &[]);
    bench.registry.handle_timeout(at(5300));
    assert_eq!(there(&bench).len(), 3);
    bench.registry.handle_timeout(at(5599));
    assert_eq!(there(&bench), ["gw-gold"]);
}

#[test]
fn a_refresh_says_anew_who_keeps_the_lease() {
    let mut bench = kept();
    let client = bench
        .request(at(1), 1, request("kept", "gold"))
        .unwrap()
        .connection;
    assert_eq!(client.expires, Some(at(601)));
    let mut node = request("own", "gold");
    node.kept_by_node = true;
    assert_eq!(bench.request(at(1), 2, node).unwrap().connection.expires, None);
    bench.registry.handle_timeout(at(301));
    assert_eq!(there(&bench), ["kept", "gw-gold"]);
}
