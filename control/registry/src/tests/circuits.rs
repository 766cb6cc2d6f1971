//! Circuits with functions on them, and connections that lead nowhere.

use std::sync::Arc;

use tieline_model::{
    Branch, Circuit, Connection, ConnectionState, EndpointName, Object, Plumbing, Side, derive_mac,
};

use super::{Bench, T0, endpoint, endpoint_at, request, service};
use crate::{Caller, Command, ObservedWire, Refusal};

fn path(names: &[&str]) -> Vec<EndpointName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn bench() -> Bench {
    let mut bench = Bench::new(vec![service("gold")]);
    let more = ["fw-1", "fw-2", "gw-two"].map(|name| Object::NetworkServiceEndpoint(endpoint(name, "gold")));
    bench.apply(more.into()).unwrap();
    bench
}

/// A connection that stands and leads straight to `gw-gold`.
fn connect(bench: &mut Bench, id: &str) -> Connection {
    let mut asked = request(id, "gold");
    asked.endpoint = Some("gw-gold".parse().unwrap());
    bench.request(T0, 1, asked).unwrap();
    bench.ack(Vec::new());
    Connection::clone(bench.registry.connection(&id.parse().unwrap()).unwrap())
}

/// The circuits of `connection` along `paths`.
fn along(bench: &Bench, connection: &Connection, paths: &[&[&str]]) -> Vec<Circuit> {
    let paths: Vec<_> = paths.iter().map(|names| path(names)).collect();
    bench
        .registry
        .circuits(&connection.id, &paths, connection.circuits())
        .unwrap()
}

/// Leads a connection along `paths` from now on.
fn lead(bench: &mut Bench, id: &str, paths: &[&[&str]]) -> Connection {
    let had = bench.registry.connection(&id.parse().unwrap()).unwrap().clone();
    let circuits = along(bench, &had, paths);
    let has = Connection {
        branches: circuits.into_iter().map(Branch::all).collect(),
        ..Connection::clone(&had)
    };
    bench
        .registry
        .tables
        .replace_connection(Arc::new(has.clone()))
        .unwrap();
    has
}

fn names(circuit: &Circuit) -> Vec<String> {
    let hops = circuit.hops.iter().flat_map(|hop| [&hop.inside, &hop.outside]);
    let mut names: Vec<_> = hops.map(|end| end.interface.to_string()).collect();
    names.push(circuit.server.interface.to_string());
    names
}

#[test]
fn a_hop_has_an_interface_to_each_side_and_the_outer_ends_stay() {
    let mut bench = bench();
    let direct = connect(&mut bench, "c1");
    let routed = lead(&mut bench, "c1", &[&["fw-1", "gw-gold"]]);
    let (before, after) = (direct.main_circuit().unwrap(), routed.main_circuit().unwrap());
    assert_eq!(
        (&after.endpoint, &after.server),
        (&before.endpoint, &before.server)
    );
    let [hop] = after.hops.as_slice() else {
        panic!("{after:?}")
    };
    assert_eq!((hop.plumbing, hop.endpoint.as_str()), (Plumbing::Gateway, "fw-1"));
    assert_eq!(names(after), ["nse-1", "nsm-1", "nse-1"]);
    assert_eq!(hop.inside.mac, derive_mac(&routed.id, Side::Endpoint));
    assert_eq!(hop.outside.mac, routed.client.mac);
}

#[test]
fn names_at_hops_are_first_free_ones_and_come_back() {
    let mut bench = bench();
    let untouched = bench.registry.tables.clone();
    for id in ["c1", "c2"] {
        connect(&mut bench, id);
    }
    lead(&mut bench, "c1", &[&["fw-1", "gw-gold"]]);
    let second = lead(&mut bench, "c2", &[&["fw-1", "fw-2", "gw-two"]]);
    assert_eq!(
        names(second.main_circuit().unwrap()),
        ["nse-2", "nsm-2", "nse-1", "nsm-1", "nse-1"]
    );
    lead(&mut bench, "c1", &[&["gw-gold"]]);
    let third = connect(&mut bench, "c3");
    let third = along(&bench, &third, &[&["fw-1", "gw-gold"]]);
    assert_eq!(names(&third[0])[..2], ["nse-1", "nsm-1"]);
    for id in ["c1", "c2", "c3"] {
        bench.close(Caller::Operator, id).unwrap();
    }
    let tables = &bench.registry.tables;
    assert_eq!(
        (&tables.names, &tables.by_endpoint),
        (&untouched.names, &untouched.by_endpoint)
    );
}

#[test]
fn branches_share_the_ends_at_a_place_that_both_pass() {
    let mut bench = bench();
    connect(&mut bench, "c1");
    let split = lead(
        &mut bench,
        "c1",
        &[&["fw-1", "gw-gold"], &["fw-1", "gw-two"], &["gw-gold"]],
    );
    let circuits: Vec<_> = split.circuits().collect();
    assert_eq!(circuits[0].hops, circuits[1].hops);
    assert_eq!(circuits[0].server, circuits[2].server);
    assert_ne!(circuits[0].server, circuits[1].server);
    let same = lead(
        &mut bench,
        "c1",
        &[&["fw-1", "gw-gold"], &["fw-1", "gw-two"], &["gw-gold"]],
    );
    assert_eq!(same, split, "planned again, nothing moves");
}

#[test]
fn a_connection_is_found_by_every_endpoint_that_it_passes() {
    let mut bench = bench();
    connect(&mut bench, "c1");
    lead(&mut bench, "c1", &[&["fw-1", "fw-2", "gw-two"]]);
    let count = |bench: &Bench, name: &str| bench.registry.connections_of_endpoint(&name.parse().unwrap());
    for (name, connections) in [("fw-1", 1), ("fw-2", 1), ("gw-two", 1), ("gw-gold", 0)] {
        assert_eq!(count(&bench, name), connections, "{name}");
    }
    let gone = Command::Delete {
        kind: tieline_model::ObjectKind::NetworkServiceEndpoint,
        name: "fw-2".to_owned(),
    };
    bench.registry.handle(T0, gone).unwrap();
    let left = bench.registry.connection(&"c1".parse().unwrap()).unwrap();
    assert_eq!(
        left.main_circuit().unwrap().path().cloned().collect::<Vec<_>>(),
        path(&["gw-two"]),
        "it ends where it did"
    );
}

#[test]
fn an_existing_interface_is_no_function() {
    let mut bench = bench();
    let tap = endpoint_at(
        "tap",
        "gold",
        tieline_model::Attachment::Interface("tap0".parse().unwrap()),
    );
    bench.apply(vec![Object::NetworkServiceEndpoint(tap)]).unwrap();
    let id = "c1".parse().unwrap();
    let refusal = bench
        .registry
        .circuits(&id, &[path(&["tap", "gw-gold"])], [])
        .unwrap_err();
    assert!(matches!(refusal, Refusal::NotPassthrough { .. }), "{refusal}");
}

#[test]
fn a_parked_connection_keeps_its_client_and_says_why_until_it_leads_somewhere() {
    let mut bench = bench();
    let stood = connect(&mut bench, "c1");
    let parked = Connection {
        branches: Vec::new(),
        state: ConnectionState::Down {
            reason: "no endpoint of gold is left".to_owned(),
        },
        ..stood.clone()
    };
    bench
        .registry
        .tables
        .replace_connection(Arc::new(parked.clone()))
        .unwrap();
    bench.registry.touch_record(crate::Record::Connection, &parked.id);
    bench.flush();
    bench.registry = bench.restored();
    bench.hello(5);
    let wires = bench.registry.node_snapshot(&"n1".parse().unwrap()).wires;
    let wire = &wires[&parked.id];
    assert!(wire.branches.is_empty());
    bench.ack(Vec::new());
    let restored = ObservedWire::Restored;
    let observe = Command::Observe {
        node: "n1".parse().unwrap(),
        id: parked.id.clone(),
        wire: restored,
    };
    bench.registry.handle(T0, observe).unwrap();
    let state = |bench: &Bench| bench.registry.connection(&parked.id).unwrap().state.clone();
    assert_eq!(
        state(&bench),
        parked.state,
        "the wire as planned stands, and leads nowhere"
    );
    assert_eq!(bench.request(T0, 1, request("c1", "gold")).unwrap().settles, None);
    assert_eq!(state(&bench), parked.state);
    let moved = lead(&mut bench, "c1", &[&["gw-two"]]);
    assert_eq!(
        (moved.client, moved.server_addresses),
        (stood.client, stood.server_addresses)
    );
}
