//! Other registry domains: what is known of them here, and what they have of this one.

use std::collections::BTreeSet;

use tieline_model::{
    Attachment, ConnectionState, MachineId, NetnsId, NetnsRef, NetworkServiceEndpoint, NodeName, Object,
    ObjectKind, Payload, RegistryDomain, Timestamp, yaml,
};

use super::{Bench, T0, at, endpoint_at, request, service};
use crate::{Command, NodeHello, Offer, Refusal, RegistryConfig, Reply, Reservation, ReservationRequest};

const HERE: &str = "kernel-1";

fn machine(id: &str) -> Option<MachineId> {
    Some(MachineId::parse("machine", id).unwrap())
}

fn west() -> RegistryDomain {
    "west".parse().unwrap()
}

/// A domain "east" whose only node is on machine [`HERE`].
fn east() -> Bench {
    let config = RegistryConfig {
        domain: Some("east".parse().unwrap()),
        ..RegistryConfig::new().unwrap()
    };
    let mut bench = Bench::with_config(config, vec![service("own")]);
    let hello = NodeHello {
        node: "n1".parse().unwrap(),
        version: String::new(),
        generation: 0,
        attach_backend: String::new(),
        max_wires: 100,
        machine: machine(HERE),
    };
    bench.registry.handle(T0, Command::NodeHello(hello)).unwrap();
    bench.flush();
    bench
}

/// An endpoint of "west" as "west" tells of it.
fn offered(name: &str, number: u64, on: &str) -> Offer {
    let id = NetnsId {
        device: 4,
        inode: 500 + number,
    };
    let netns = NetnsRef::parse("n", &format!("/run/netns/{name}"), Some(id)).unwrap();
    Offer::Endpoint(endpoint_at(name, "gold", Attachment::Netns(netns)).with_machine(machine(on)))
}

fn import(bench: &mut Bench, offers: Vec<Offer>, whole: bool) {
    let command = Command::Import {
        domain: west(),
        offers,
        whole,
    };
    bench.registry.handle(T0, command).unwrap();
    bench.flush();
}

fn connect(bench: &mut Bench, id: &str) -> Result<tieline_model::Connection, Refusal> {
    let mut asked = request(id, "gold@west");
    asked.reserved = Some([
        vec!["10.9.0.1".parse().unwrap()],
        vec!["10.9.0.0".parse().unwrap()],
    ]);
    bench.request(T0, 1, asked)?;
    bench.ack(Vec::new());
    Ok(connection(bench, id))
}

fn connection(bench: &Bench, id: &str) -> tieline_model::Connection {
    tieline_model::Connection::clone(bench.registry.connection(&id.parse().unwrap()).unwrap())
}

fn gone(kind: ObjectKind, name: &str) -> Vec<Offer> {
    vec![Offer::Gone(kind, name.to_owned())]
}

#[test]
fn a_service_of_another_domain_is_reached_by_the_node_on_the_same_machine() {
    let mut bench = east();
    let unknown = connect(&mut bench, "c1").unwrap_err();
    assert!(matches!(unknown, Refusal::UnknownService { .. }), "{unknown}");
    let offers = vec![Offer::Service(service("gold")), offered("gw", 1, HERE)];
    import(&mut bench, offers, true);
    let wire = connect(&mut bench, "c1").unwrap();
    assert_eq!(wire.state, ConnectionState::Up);
    assert_eq!(wire.endpoint().unwrap().as_str(), "gw@west");
    let server = &wire.branches[0].circuit.server;
    assert_eq!(server.node.as_str(), "n1");
    // Which numbers are free there is known in the other domain.
    assert!(server.interface.as_str().starts_with("nse-x"), "{server:?}");
    assert_eq!(
        wire.client.addresses,
        ["10.9.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(bench.restored().tables, bench.registry.tables);
}

#[test]
fn an_endpoint_on_another_machine_is_refused_with_its_node() {
    let mut bench = east();
    let offers = vec![Offer::Service(service("gold")), offered("gw", 1, "kernel-2")];
    import(&mut bench, offers, true);
    let refused = connect(&mut bench, "c1").unwrap_err();
    assert!(matches!(refused, Refusal::NoEndpoint(_)), "{refused}");
    assert!(refused.to_string().contains("n1@west"), "{refused}");
}

#[test]
fn a_wire_follows_the_endpoints_of_the_other_domain() {
    let mut bench = east();
    let offers = vec![
        Offer::Service(service("gold")),
        offered("gw", 1, HERE),
        offered("spare", 2, HERE),
    ];
    import(&mut bench, offers, true);
    let before = connect(&mut bench, "c1").unwrap();
    let first = before.endpoint().unwrap().local();
    let other = if first.as_str() == "gw" { "spare" } else { "gw" };
    import(
        &mut bench,
        gone(ObjectKind::NetworkServiceEndpoint, first.as_str()),
        false,
    );
    bench.ack(Vec::new());
    let moved = connection(&bench, "c1");
    assert_eq!(moved.endpoint().unwrap().local().as_str(), other);
    assert_eq!(moved.client, before.client);
    import(&mut bench, gone(ObjectKind::NetworkServiceEndpoint, other), false);
    assert!(connection(&bench, "c1").is_parked());
    import(&mut bench, vec![offered("third", 3, HERE)], false);
    bench.ack(Vec::new());
    let healed = connection(&bench, "c1");
    assert_eq!(healed.endpoint().unwrap().as_str(), "third@west");
    assert_eq!(
        (healed.state, healed.client),
        (ConnectionState::Up, before.client)
    );
}

#[test]
fn what_a_domain_says_as_a_whole_replaces_what_it_said() {
    let mut bench = east();
    let mut offers = vec![Offer::Service(service("gold")), Offer::Service(service("old"))];
    offers.push(offered("gw", 1, HERE));
    import(&mut bench, offers.clone(), true);
    connect(&mut bench, "c1").unwrap();
    offers.remove(1);
    import(&mut bench, offers, true);
    let known = |bench: &Bench, name: &str| bench.registry.service(&name.parse().unwrap()).is_some();
    assert!(known(&bench, "gold@west") && !known(&bench, "old@west") && known(&bench, "own"));
    // It lost its state: who is connected keeps the service, and waits for an endpoint.
    import(&mut bench, Vec::new(), true);
    assert!(known(&bench, "gold@west"));
    assert!(connection(&bench, "c1").is_parked());
    assert!(
        bench
            .registry
            .endpoints()
            .all(|one| one.name().domain().is_none())
    );
}

#[test]
fn the_wirings_of_the_other_domain_decide_about_its_services() {
    let mut bench = east();
    let text = r#"
apiVersion: tieline.io/v1
kind: NetworkServiceWiring
metadata:
  name: shut
spec:
  target: [gold]
  action:
    route:
    - destination:
        podSelector: {never: there}
"#;
    let objects = yaml::parse(text, None).unwrap();
    let [Object::NetworkServiceWiring(wiring)] = &objects[..] else {
        panic!("{objects:?}");
    };
    let offers = vec![
        Offer::Service(service("gold")),
        offered("gw", 1, HERE),
        Offer::Wiring(wiring.clone()),
    ];
    import(&mut bench, offers, true);
    let refused = connect(&mut bench, "c1").unwrap_err();
    assert!(refused.to_string().contains("shut@west"), "{refused}");
    import(&mut bench, gone(ObjectKind::NetworkServiceWiring, "shut"), false);
    connect(&mut bench, "c1").unwrap();
}

#[test]
fn what_is_another_domains_is_not_declared_or_deleted_here() {
    let mut bench = east();
    let refused = bench.apply(vec![Object::NetworkService(service("gold@west"))]);
    let Err(Refusal::Invalid(invalid)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (invalid.field.as_str(), invalid.value.as_str()),
        ("objects[0].name", "gold@west")
    );
    import(&mut bench, vec![Offer::Service(service("gold"))], true);
    let command = Command::Delete {
        kind: ObjectKind::NetworkService,
        name: "gold@west".to_owned(),
    };
    let refused = bench.registry.handle(T0, command).unwrap_err();
    assert!(
        refused.to_string().contains("registry domain \"west\""),
        "{refused}"
    );
}

fn reserve(bench: &mut Bench, now: Timestamp, id: &str, excluded: &[&str]) -> Result<Reservation, Refusal> {
    let asked = ReservationRequest {
        domain: west(),
        id: id.parse().unwrap(),
        service: "own".parse().unwrap(),
        asked: [Vec::new(), Vec::new()],
        excluded: excluded.iter().map(|prefix| prefix.parse().unwrap()).collect(),
    };
    let reply = bench.registry.handle(now, Command::Reserve(Box::new(asked)))?;
    bench.flush();
    match reply {
        Reply::Reserved(reservation) => Ok(*reservation),
        other => panic!("{other:?}"),
    }
}

fn hold(
    bench: &mut Bench,
    now: Timestamp,
    connections: &[&str],
    endpoints: &[&str],
) -> (Vec<String>, Vec<String>) {
    let command = Command::Hold {
        domain: west(),
        connections: connections.iter().map(|id| id.parse().unwrap()).collect(),
        endpoints: endpoints.iter().map(|name| name.parse().unwrap()).collect(),
    };
    let Ok(Reply::Held(unknown)) = bench.registry.handle(now, command) else {
        panic!("no answer");
    };
    bench.flush();
    let ids = unknown.connections.iter().map(ToString::to_string).collect();
    (ids, unknown.endpoints.iter().map(ToString::to_string).collect())
}

#[test]
fn reserved_addresses_are_the_connections_until_its_domain_gives_them_up() {
    let mut bench = east();
    let first = reserve(&mut bench, T0, "far", &[]).unwrap();
    assert_eq!(reserve(&mut bench, T0, "far", &[]).unwrap(), first, "asked again");
    let own = bench.connect(1, "own", "own");
    let all: BTreeSet<_> = first.client.iter().chain(&first.endpoint).collect();
    assert!(
        own.client
            .addresses
            .iter()
            .chain(&own.server_addresses)
            .all(|one| !all.contains(one))
    );
    assert_eq!(bench.restored().tables, bench.registry.tables);

    // They are not given up while they are named, and what is not known is said.
    let unknown = hold(&mut bench, at(1), &["far", "lost"], &[]);
    assert_eq!(unknown, (vec!["lost".to_owned()], Vec::new()));
    let service_in_use = Command::Delete {
        kind: ObjectKind::NetworkService,
        name: "own".to_owned(),
    };
    bench.close(crate::Caller::Operator, "own").unwrap();
    let refused = bench.registry.handle(T0, service_in_use).unwrap_err();
    assert!(
        matches!(refused, Refusal::ServiceInUse { connections: 1, .. }),
        "{refused}"
    );
    hold(&mut bench, at(2), &[], &[]);
    assert!(bench.store.keys().all(|key| !key.contains("reservation")));
}

#[test]
fn excluded_addresses_are_not_reserved_and_a_silent_domain_loses_what_it_has() {
    let mut bench = east();
    let first = reserve(&mut bench, T0, "one", &[]).unwrap();
    let excluded: Vec<String> = first.client.iter().map(|ip| format!("{ip}/32")).collect();
    let v4: Vec<&str> = excluded
        .iter()
        .map(String::as_str)
        .filter(|ip| ip.contains('.'))
        .collect();
    hold(&mut bench, T0, &[], &[]);
    let other = reserve(&mut bench, T0, "two", &v4).unwrap();
    assert!(
        other
            .client
            .iter()
            .all(|ip| !first.client.contains(ip) || ip.is_ipv6())
    );

    let lease = bench.registry.config.node_lease.as_millis() / 1000;
    bench.registry.handle_timeout(at(lease - 1));
    bench.flush();
    assert!(bench.store.keys().any(|key| key.contains("reservation")));
    // When a domain was last heard of is not written down: its time begins anew.
    let mut restored = Bench {
        registry: bench.restored(),
        store: bench.store.clone(),
    };
    restored.registry.handle_timeout(at(lease));
    restored.flush();
    assert!(restored.store.keys().any(|key| key.contains("reservation")));
    bench.registry.handle_timeout(at(lease));
    bench.flush();
    assert!(bench.store.keys().all(|key| !key.contains("reservation")));
}

fn register(bench: &mut Bench, domain: &str, name: &str) -> Result<Reply, Refusal> {
    let Offer::Endpoint(endpoint) = offered(name, 9, HERE) else {
        panic!("not an endpoint");
    };
    let command = Command::RegisterForeign {
        domain: domain.parse().unwrap(),
        endpoint: Box::new(endpoint),
    };
    let reply = bench.registry.handle(T0, command);
    bench.flush();
    reply
}

fn registered<'a>(bench: &'a Bench, name: &str) -> Option<&'a NetworkServiceEndpoint> {
    bench.registry.endpoint(&name.parse().unwrap()).map(AsRef::as_ref)
}

#[test]
fn an_endpoint_that_another_domain_registers_serves_here_until_it_is_no_longer_named() {
    let mut bench = east();
    bench
        .apply(vec![Object::NetworkService(
            service("gold").with_payload(Payload::Ip),
        )])
        .unwrap();
    register(&mut bench, "west", "gw").unwrap();
    let wire = bench.connect(1, "c1", "gold");
    assert_eq!(
        (&wire.state, wire.endpoint().unwrap().as_str()),
        (&ConnectionState::Up, "gw")
    );
    assert_eq!(
        *registered(&bench, "gw").unwrap().node(),
        "n1".parse::<NodeName>().unwrap()
    );

    let refused = register(&mut bench, "north", "gw").unwrap_err();
    assert!(refused.to_string().contains("registry domain west"), "{refused}");
    let refused = register(&mut bench, "west", "gw-own").unwrap_err();
    assert!(
        matches!(refused, Refusal::ForeignEndpoint { .. }),
        "an operator's: {refused}"
    );

    assert_eq!(hold(&mut bench, T0, &[], &["gw", "lost"]).1, ["lost"]);
    assert!(registered(&bench, "gw").is_some());
    hold(&mut bench, T0, &[], &[]);
    assert!(registered(&bench, "gw").is_none());
    assert!(connection(&bench, "c1").is_parked());
}

#[test]
fn an_endpoint_is_reached_once_a_node_is_known_to_be_on_its_machine() {
    let mut bench = east();
    let offers = vec![Offer::Service(service("gold")), offered("gw", 1, "kernel-2")];
    import(&mut bench, offers, true);
    connect(&mut bench, "c1").unwrap_err();
    let hello = NodeHello {
        node: "n1".parse().unwrap(),
        version: String::new(),
        generation: 0,
        attach_backend: String::new(),
        max_wires: 100,
        machine: machine("kernel-2"),
    };
    bench.registry.handle(T0, Command::NodeHello(hello)).unwrap();
    bench.flush();
    let wire = connect(&mut bench, "c1").unwrap();
    assert_eq!(wire.state, ConnectionState::Up);
    assert_eq!(bench.restored().tables, bench.registry.tables);
}
