//! Routes, prefixes and name servers of connections.

use std::net::IpAddr;

use ipnet::IpNet;
use tieline_model::{
    Connection, ConnectionRequest, DnsConfig, ExtraPrefixRequest, NetworkService, Object, PolicyRoute,
    PolicyText, Route,
};

use super::{Bench, T0, at, request, service};
use crate::{Caller, Code, Granted, Refusal};

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn with_prefixes(name: &str, prefixes: &[&str]) -> NetworkService {
    service(name).with_prefixes(nets(prefixes), Vec::new()).unwrap()
}

fn routed(name: &str, routes: &[&str]) -> NetworkService {
    service(name).with_routes(nets(routes)).unwrap()
}

fn route(prefix: &str) -> Route {
    Route::parse("r", prefix, "").unwrap()
}

fn extra(length: u32, required: u32, requested: u32) -> ExtraPrefixRequest {
    ExtraPrefixRequest::new(false, length, required, requested).unwrap()
}

/// A request for prefixes of its own.
fn wanting(id: &str, service: &str, requests: &[ExtraPrefixRequest]) -> ConnectionRequest {
    let mut request = request(id, service);
    request.context.extra_requests = requests.to_vec();
    request
}

fn refused(result: Result<Granted, Refusal>) -> (Code, String) {
    let refusal = result.unwrap_err();
    (refusal.code(), refusal.to_string())
}

/// What a client sends that asks again with what it was answered.
fn again(has: &Connection) -> ConnectionRequest {
    let mut again = ConnectionRequest::new(has.id.clone(), has.service.clone());
    again.src_addresses.clone_from(&has.client.addresses);
    again.dst_addresses.clone_from(&has.server_addresses);
    again.src_routes.clone_from(&has.src_routes);
    again
        .src_routes
        .extend(has.context.service_routes.iter().map(|prefix| Route {
            prefix: *prefix,
            next_hop: None,
        }));
    again.context.policies.clone_from(&has.context.policies);
    again
        .context
        .extra_requests
        .clone_from(&has.context.extra_requests);
    again
        .context
        .extra_prefixes
        .clone_from(&has.context.extra_prefixes);
    again.context.dns.clone_from(&has.context.dns);
    again.context.applies_dns = has.context.applies_dns;
    again
}

fn find(bench: &Bench, id: &str) -> Connection {
    Connection::clone(bench.registry.connection(&id.parse().unwrap()).unwrap())
}

#[test]
fn a_client_gets_prefixes_of_its_own_that_nobody_else_has_addresses_of() {
    let mut bench = Bench::new(vec![with_prefixes("gold", &["10.0.0.0/24"])]);
    let plain = bench.connect(1, "c1", "gold");
    bench
        .request(T0, 2, wanting("c2", "gold", &[extra(28, 1, 2)]))
        .unwrap();
    bench.ack(Vec::new());
    let has = find(&bench, "c2");
    assert_eq!(
        has.context.extra_prefixes,
        nets(&["10.0.0.16/28", "10.0.0.32/28"])
    );
    let taken = |address: &IpAddr| {
        let mut prefixes = has.context.extra_prefixes.iter();
        prefixes.any(|prefix| prefix.contains(address))
    };
    for n in 3..60 {
        let other = bench.connect(n, &format!("c{n}"), "gold");
        let mut addresses = other.client.addresses.iter().chain(&other.server_addresses);
        assert!(!addresses.any(taken), "{other:?}");
    }
    assert!(!plain.client.addresses.iter().any(taken));
    assert_eq!(
        bench.restored().connection(&has.id).map(AsRef::as_ref),
        Some(&has)
    );
    bench.close(Caller::Operator, "c2").unwrap();
    bench.flush();
    bench
        .request(T0, 2, wanting("c99", "gold", &[extra(28, 2, 2)]))
        .unwrap();
    assert_eq!(
        find(&bench, "c99").context.extra_prefixes,
        has.context.extra_prefixes
    );
}

#[test]
fn prefixes_stay_while_they_are_asked_for() {
    let mut bench = Bench::new(vec![with_prefixes("gold", &["10.0.0.0/24"])]);
    bench
        .request(T0, 1, wanting("c1", "gold", &[extra(28, 1, 1)]))
        .unwrap();
    bench.ack(Vec::new());
    let has = find(&bench, "c1");
    bench.request(at(1), 1, again(&has)).unwrap();
    assert_eq!(find(&bench, "c1").context, has.context);
    bench
        .request(at(2), 1, wanting("c1", "gold", &[extra(28, 2, 2)]))
        .unwrap();
    let more = find(&bench, "c1").context.extra_prefixes;
    assert_eq!((more.len(), more[0]), (2, has.context.extra_prefixes[0]));
    bench.request(at(3), 1, request("c1", "gold")).unwrap();
    assert!(find(&bench, "c1").context.extra_prefixes.is_empty());
    bench.close(Caller::Operator, "c1").unwrap();
    assert!(bench.registry.tables.addresses.is_empty(), "everything came back");
    // As after a control that has lost everything: what the client had is free, and its own again.
    bench.request(at(4), 1, again(&has)).unwrap();
    assert_eq!(find(&bench, "c1").context, has.context);
}

#[test]
fn prefixes_that_cannot_be_given_are_refused_by_field() {
    let mut bench = Bench::new(vec![with_prefixes("gold", &["10.0.0.0/24"])]);
    let taker = wanting("c1", "gold", &[extra(25, 1, 1)]);
    bench.request(T0, 1, taker).unwrap();
    bench.ack(Vec::new());
    let field = "connection.context.ip_context.extra_prefix_request[0].required_number";
    let (code, message) = refused(bench.request(T0, 2, wanting("c2", "gold", &[extra(25, 1, 1)])));
    assert_eq!(code, Code::ResourceExhausted);
    assert!(
        message.starts_with(field) && message.contains("0 free prefixes of length /25"),
        "{message}"
    );
    let had = find(&bench, "c1").context.extra_prefixes[0];
    let mut naming = |prefix: &str| {
        let mut request = wanting("c3", "gold", &[extra(28, 1, 1)]);
        request.context.extra_prefixes = nets(&[prefix]);
        refused(bench.request(T0, 3, request))
    };
    let inside_had = format!("{}/28", had.network());
    for (prefix, rule) in [
        (inside_had.as_str(), "in use"),
        ("10.9.0.0/28", "no prefix of NetworkService gold"),
        ("10.0.0.0/29", "no extra_prefix_request"),
    ] {
        let (code, message) = naming(prefix);
        assert_eq!(code, Code::InvalidArgument);
        let field = "connection.context.ip_context.extra_prefixes[0]";
        assert!(message.starts_with(field) && message.contains(rule), "{message}");
    }
    assert_eq!(
        bench.registry.counts().connections,
        1,
        "nothing is left of what was refused"
    );
}

#[test]
fn a_service_gives_routes_once_to_a_client() {
    let shared = "192.0.2.0/24";
    let mut bench = Bench::new(vec![
        routed("gold", &[shared, "198.51.100.0/24"]),
        routed("iron", &[shared]),
    ]);
    let first = bench.connect(1, "c1", "gold");
    assert_eq!(first.context.service_routes, nets(&[shared, "198.51.100.0/24"]));
    let second = bench.connect(1, "c2", "iron");
    assert!(
        second.context.service_routes.is_empty(),
        "the client has it by c1"
    );
    assert_eq!(
        bench.connect(2, "c3", "iron").context.service_routes,
        nets(&[shared])
    );
    bench.request(at(1), 1, again(&first)).unwrap();
    assert!(
        find(&bench, "c1").src_routes.is_empty(),
        "what is given is not asked for"
    );
    bench.close(Caller::Operator, "c1").unwrap();
    let delta = bench.flush().node_changes.remove("n1").unwrap();
    assert!(delta.upsert.contains_key("c2"), "its turn has come");
    assert_eq!(find(&bench, "c2").context.service_routes, nets(&[shared]));
}

#[test]
fn a_route_that_another_wire_of_the_client_has_is_refused() {
    let mut bench = Bench::new(vec![service("gold"), routed("iron", &["192.0.2.0/24"])]);
    bench.connect(1, "c1", "iron");
    let asking = |prefix: &str| {
        let mut asking = request("c2", "gold");
        asking.src_routes = vec![route("10.99.0.0/16"), route(prefix)];
        asking
    };
    let (code, message) = refused(bench.request(T0, 1, asking("192.0.2.0/24")));
    assert_eq!(code, Code::AlreadyExists);
    let field = "connection.context.ip_context.src_routes[1].prefix \"192.0.2.0/24\"";
    assert!(message.starts_with(field) && message.contains("c1"), "{message}");
    bench.request(T0, 1, asking("192.0.2.0/25")).unwrap();
    bench
        .request(T0, 2, {
            let mut other = asking("192.0.2.0/24");
            other.id = "c3".parse().unwrap();
            other
        })
        .unwrap();
}

#[test]
fn no_address_lies_where_another_wire_of_the_client_leads() {
    let mut bench = Bench::new(vec![
        routed("wide", &["10.7.0.0/25", "0.0.0.0/0"]),
        with_prefixes("gold", &["10.7.0.0/24"]),
    ]);
    bench.connect(1, "c1", "wide");
    let inside: IpNet = "10.7.0.0/25".parse().unwrap();
    let other = bench.connect(2, "c3", "gold");
    assert!(
        other.client.addresses.iter().any(|ip| inside.contains(ip)),
        "{other:?}"
    );
    let excluded = bench.connect(1, "c2", "gold");
    let mut addresses = excluded.client.addresses.iter().chain(&excluded.server_addresses);
    assert!(!addresses.any(|ip| inside.contains(ip)), "{excluded:?}");
}

#[test]
fn what_a_service_gives_changes_with_it() {
    let dns = |server: &str| DnsConfig::parse("d", &[server.to_owned()], &[]).unwrap();
    let of = |server: &str, routes: &[&str]| routed("gold", routes).with_dns(vec![dns(server)]).unwrap();
    let mut bench = Bench::new(vec![of("10.0.0.53", &["192.0.2.0/24"])]);
    let first = bench.connect(1, "c1", "gold");
    assert_eq!(first.context.dns, [dns("10.0.0.53")]);
    bench
        .apply(vec![Object::NetworkService(of(
            "10.0.0.54",
            &["198.51.100.0/24"],
        ))])
        .unwrap();
    let now = find(&bench, "c1");
    assert_eq!(now.context.dns, [dns("10.0.0.54")]);
    assert_eq!(now.context.service_routes, nets(&["198.51.100.0/24"]));
    assert!(now.generation > first.generation, "its wire changes");
    // A client that did not hear of it repeats what it was told.
    bench.request(at(1), 1, again(&now)).unwrap();
    let mut own = request("c2", "gold");
    own.context.dns = vec![dns("192.0.2.53")];
    let (code, message) = refused(bench.request(at(1), 2, own));
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        message.starts_with("connection.context.dns_context.configs[0]"),
        "{message}"
    );
}

#[test]
fn a_client_that_asks_with_the_addresses_it_had_gets_them() {
    let mut bench = Bench::new(vec![service("gold")]);
    let has = bench.connect(1, "c1", "gold");
    assert_eq!(has.client.addresses.len(), 2, "of both families");
    bench.close(Caller::Operator, "c1").unwrap();
    bench.flush();
    bench.connect(2, "c2", "gold");
    let mut asking = again(&has);
    asking.id = "c3".parse().unwrap();
    let back = bench.request(at(1), 1, asking).unwrap().connection;
    assert_eq!(
        (&back.client.addresses, &back.server_addresses),
        (&has.client.addresses, &has.server_addresses)
    );
}

#[test]
fn policies_are_kept_and_changed_with_the_wire() {
    let mut bench = Bench::new(vec![service("gold")]);
    let policy = |proto| {
        let text = PolicyText {
            proto,
            ..PolicyText::default()
        };
        PolicyRoute::parse(text, Vec::new()).unwrap()
    };
    let asking = |proto| {
        let mut asking = request("c1", "gold");
        asking.context.policies = vec![policy(proto)];
        asking
    };
    bench.request(T0, 1, asking("tcp")).unwrap();
    bench.ack(Vec::new());
    let has = find(&bench, "c1");
    assert_eq!(
        bench.request(at(1), 1, asking("tcp")).unwrap().settles,
        None,
        "nothing changed"
    );
    assert!(bench.request(at(1), 1, asking("udp")).unwrap().settles.is_some());
    let now = find(&bench, "c1");
    assert_eq!(
        (has.context.policies, now.context.policies),
        (vec![policy("tcp")], vec![policy("udp")])
    );
}
