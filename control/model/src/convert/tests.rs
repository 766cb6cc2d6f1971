//! What is read from a message is what was written into it.

mod context;
mod wiring;

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{collection, option, prelude::*, strategy::ValueTree};
use tieline_proto::{connection, connectioncontext, networkservice, registry, tieline};

use super::*;
use crate::{
    Attachment, Branch, Circuit, ClientSide, Connection, ConnectionRequest, ConnectionState, Destination,
    DnsConfig, EndPolicy, EndpointQuery, EndpointRegistration, EndpointSide, HopEnd, HopSide, IfName, Lease,
    MacAddr, Match, MonitorScope, Mtu, NetnsId, NetnsRef, NetworkService, NetworkServiceEndpoint, NodeWire,
    Object, Path, PathSegment, Payload, Plumbing, Policy, Ports, Protocol, Rebalance, SegmentPattern,
    ServiceSelector, TrafficSelector, VethEnd, WireBranch, WireCircuit, WireDraining, WireEnd, WireHop,
    Workload,
};

fn name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z0-9]{1,4})?"
}

fn labels() -> impl Strategy<Value = Labels> {
    collection::btree_map(
        "([a-z]{1,5}\\.io/)?[A-Za-z][A-Za-z0-9_.]{0,6}[a-z]",
        "([A-Za-z0-9]{1,9})?",
        0..4,
    )
    .prop_map(|map| Labels::parse("labels", map).unwrap())
}

fn selector() -> impl Strategy<Value = MatchSelector> {
    collection::btree_map("[a-z]{1,6}", "([a-z]{1,4}|x-\\{\\{ \\.[a-z]{1,4} \\}\\})", 0..3)
        .prop_map(|map| MatchSelector::parse("s", map).unwrap())
}

fn prefix() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0_u8..=32)
            .prop_map(|(bits, len)| IpNet::new(IpAddr::V4(bits.into()), len).unwrap().trunc()),
        (any::<u128>(), 0_u8..=128)
            .prop_map(|(bits, len)| IpNet::new(IpAddr::V6(bits.into()), len).unwrap().trunc()),
    ]
}

fn rule() -> impl Strategy<Value = Match> {
    let route = (selector(), 0_u32..100).prop_map(|(destination_selector, weight)| Destination {
        destination_selector,
        weight,
    });
    (
        selector(),
        collection::vec(route, 0..3),
        any::<bool>(),
        option::of(labels()),
    )
        .prop_map(|(source_selector, routes, fallthrough, metadata)| Match {
            source_selector,
            routes,
            fallthrough,
            metadata,
        })
}

fn dns() -> impl Strategy<Value = DnsConfig> {
    (
        collection::vec(any::<u128>(), 1..3),
        collection::vec(name(), 0..3),
    )
        .prop_map(|(servers, domains)| {
            let servers: Vec<String> = servers
                .into_iter()
                .map(|bits| IpAddr::V6(bits.into()).to_string())
                .collect();
            DnsConfig::parse("d", &servers, &domains).unwrap()
        })
}

prop_compose! {
    fn service()(
        name in name(), ethernet in any::<bool>(), matches in collection::vec(rule(), 0..3), selector in labels(),
        prefix in option::of(prefix()), excluded in collection::vec(prefix(), 0..3), mtu in option::of(1280_u32..=65_535),
        order in option::of(collection::vec("[a-z]{1,5}", 2..5)), routes in collection::vec(prefix(), 0..3),
        (policy, rebalance) in (0..Policy::ALL.len(), any::<bool>()), dns in collection::vec(dns(), 0..2),
    ) -> NetworkService {
        let selector = match order {
            None => ServiceSelector::from(selector),
            Some(values) => ServiceSelector::ordered("s", "order", &values, &selector).unwrap(),
        };
        NetworkService::new(name.parse().unwrap())
            .with_payload(if ethernet { Payload::Ethernet } else { Payload::Ip })
            .with_matches(matches).unwrap()
            .with_selector(selector)
            .with_policy(Policy::ALL[policy])
            .with_rebalance(if rebalance { Rebalance::Rebalance } else { Rebalance::Keep })
            .with_routes(routes).unwrap()
            .with_dns(dns).unwrap()
            .with_prefixes(prefix.into_iter().collect(), excluded).unwrap()
            .with_mtu(mtu.map(|octets| Mtu::parse("mtu", octets).unwrap()))
    }
}

fn attachment() -> impl Strategy<Value = Attachment> {
    prop_oneof![
        "[a-z]{1,8}".prop_map(|name| Attachment::Netns(
            NetnsRef::parse("n", &format!("/run/netns/{name}"), None).unwrap()
        )),
        "[a-z]{1,8}".prop_map(|name| Attachment::Interface(name.parse().unwrap())),
    ]
}

prop_compose! {
    fn endpoint()(
        name in name(), services in collection::btree_map(name(), labels(), 1..4), node in name(), at in attachment(),
        plumbing in option::of(0..Plumbing::ALL.len()), attested in labels(),
    ) -> NetworkServiceEndpoint {
        let plumbing = plumbing.map(|i| Plumbing::ALL[i]).filter(|_| matches!(at, Attachment::Netns(_)));
        let services = services.into_iter().map(|(name, labels)| (name.parse().unwrap(), labels)).collect();
        NetworkServiceEndpoint::declared(name.parse().unwrap(), services, node.parse().unwrap(), at).unwrap()
            .with_plumbing(plumbing).unwrap().with_attested(attested)
    }
}

fn netns() -> impl Strategy<Value = NetnsRef> {
    (1_u32..99_999, 1_u64..u64::MAX, any::<u64>()).prop_map(|(pid, inode, device)| {
        NetnsRef::parse(
            "n",
            &format!("/proc/{pid}/ns/net"),
            Some(NetnsId { device, inode }),
        )
        .unwrap()
    })
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    (option::of(any::<u32>()), option::of(any::<u128>())).prop_map(|(v4, v6)| {
        v4.map(|bits| IpAddr::V4(bits.into()))
            .into_iter()
            .chain(v6.map(|bits| IpAddr::V6(bits.into())))
            .collect()
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let shorter = prefix().prop_filter("host routes to the peer are implied", |prefix| {
        prefix.prefix_len() < 32
    });
    collection::vec((shorter, any::<(u32, u128, bool)>()), 0..3).prop_map(|parts| {
        let mut routes: Vec<Route> = Vec::new();
        for (prefix, (v4, v6, hop)) in parts {
            let via = if prefix.addr().is_ipv4() {
                IpAddr::V4(v4.into())
            } else {
                IpAddr::V6(v6.into())
            };
            let route = Route {
                prefix,
                next_hop: hop.then_some(via),
            };
            if !routes.contains(&route) {
                routes.push(route);
            }
        }
        routes
    })
}

prop_compose! {
    fn a_connection()(
        (id, service, endpoint, node) in ("[!-~]{1,40}", name(), name(), name()),
        labels in labels(), mtu in 1280_u32..=65_535, netns in netns(), at in attachment(),
        (src, dst) in (addresses(), addresses()), (src_routes, dst_routes) in (routes(), routes()),
        excluded_prefixes in collection::vec(prefix(), 0..3), (client_mac, server_mac) in any::<([u8; 6], [u8; 6])>(),
        (hops, parked) in (collection::vec((name(), netns(), any::<bool>()), 0..3), any::<bool>()),
        (expires, context) in (option::of(0_u64..u64::from(u32::MAX)), context::context()), up in any::<bool>(), payload in prop_oneof![Just(Payload::Ip), Just(Payload::Ethernet)],
    ) -> Connection {
        let expires = expires.map(Timestamp::from_millis);
        let node: crate::NodeName = node.parse().unwrap();
        let workload = Workload { node: node.clone(), uid: 0, pid: 1, netns: netns.clone(), cgroup: String::new(), operator: false, labels: Labels::default() };
        let hop = PathSegment { name: "client".to_owned(), id: id.clone(), expires };
        let mac = matches!(at, Attachment::Netns(_)).then_some(MacAddr(server_mac));
        let hop_end = |name: &str| HopEnd { interface: name.parse().unwrap(), mac: MacAddr(client_mac) };
        let hop_of = |(endpoint, netns, routes): (String, NetnsRef, bool)| HopSide {
            endpoint: endpoint.parse().unwrap(), node: node.clone(), netns, inside: hop_end("nse-1"), outside: hop_end("nsm-1"),
            plumbing: if routes { Plumbing::Gateway } else { Plumbing::Transparent },
        };
        let circuit = Circuit {
            hops: hops.into_iter().map(hop_of).collect(), endpoint: endpoint.parse().unwrap(),
            server: EndpointSide { node: node.clone(), attachment: at, interface: "nse-1".parse().unwrap(), mac },
        };
        let branch = Branch::all(circuit);
        Connection {
            id: id.parse().unwrap(), service: service.parse().unwrap(), payload, attested: labels.clone(), labels,
            mtu: Mtu::parse("m", mtu).unwrap(),
            state: if up { ConnectionState::Up } else { ConnectionState::Down { reason: "x".to_owned() } },
            client: ClientSide { node: node.clone(), netns, interface: "nsm-1".parse().unwrap(), mac: MacAddr(client_mac), addresses: src },
            server_addresses: dst, branches: if parked { Vec::new() } else { vec![branch] }, backup: None, draining: Vec::new(), lost: std::collections::BTreeMap::new(), before: None, former: Vec::new(), report: crate::Report::default(), src_routes, dst_routes, excluded_prefixes, context, expires, path: Path { segments: vec![hop] }, generation: 3,
            owner: workload.owner(),
        }
    }
}

prop_compose! {
    fn end()(
        netns in netns(), name in "[a-z]{1,15}", mac in any::<[u8; 6]>(), addresses in addresses(), routes in routes(),
        (existing, forwards) in any::<(bool, bool)>(), name_servers in collection::vec(dns(), 0..2),
    ) -> WireEnd {
        let name: IfName = name.parse().unwrap();
        if existing {
            return WireEnd::Interface(name);
        }
        let neighbours = addresses.iter().map(|ip| crate::Neighbour { ip: *ip, mac: MacAddr(mac) }).collect();
        let addresses = addresses.into_iter().map(IpNet::from).collect();
        let transit = EndPolicy { input: Some("nse-1".parse().unwrap()), routes: routes.clone(), ..EndPolicy::default() };
        let own = EndPolicy {
            from: Some("10.0.0.0/8".parse().unwrap()),
            protocol: Some("tcp".parse().unwrap()),
            dst_ports: Some("80".parse().unwrap()),
            src_ports: Some("1000-2000".parse().unwrap()),
            routes: routes.clone(),
            ..EndPolicy::default()
        };
        let policies = if forwards { vec![transit] } else { vec![own] };
        WireEnd::Veth(VethEnd { netns, name, mac: MacAddr(mac), addresses, routes, neighbours, forwards, policies, name_servers })
    }
}

prop_compose! {
    fn circuit()(endpoint in end(), hops in collection::vec((name(), end(), end()), 0..3)) -> WireCircuit {
        let hop = |(name, inside, outside): (String, WireEnd, WireEnd)| WireHop { endpoint_name: name.parse().unwrap(), inside, outside };
        WireCircuit { hops: hops.into_iter().map(hop).collect(), endpoint_name: "gw".parse().unwrap(), endpoint }
    }
}

prop_compose! {
    fn branch()(circuit in circuit(), weight in 0_u32..10, ports in option::of((1_u16.., 0_u16..9)), to in option::of(prefix())) -> WireBranch {
        let ports = ports.map(|(first, more)| Ports::new("p", first, first.saturating_add(more)).unwrap());
        let protocol = ports.map(|_| Protocol::Udp);
        let traffic = TrafficSelector::new("t", protocol, ports, to).into_iter().collect();
        WireBranch { traffic, weight, circuit }
    }
}

proptest! {
    #[test]
    fn declared_objects_survive_the_api(service in service(), endpoint in endpoint()) {
        for object in [Object::NetworkService(service.clone()), Object::NetworkServiceEndpoint(endpoint.clone())] {
            let message = tieline::admin::v1::Object::from(&object);
            prop_assert_eq!(Object::try_from(message).unwrap(), object);
        }
        let nsm = NetworkService::try_from(registry::NetworkService::from(&service)).unwrap();
        prop_assert_eq!((nsm.name(), nsm.payload(), nsm.matches()), (service.name(), service.payload(), service.matches()));
    }

    #[test]
    fn declared_objects_survive_files(service in service(), endpoint in endpoint()) {
        let objects = [Object::NetworkService(service), Object::NetworkServiceEndpoint(endpoint)];
        let text = crate::yaml::render(&objects).unwrap();
        prop_assert_eq!(crate::yaml::parse(&text, None).unwrap(), objects, "{}", text);
    }

    #[test]
    fn a_registration_survives_the_api(endpoint in endpoint(), expires in option::of(0_u64..1 << 40), netns in netns(), uid: u32, labels in labels()) {
        let workload = Workload {
            node: endpoint.node().clone(), uid, pid: 7, netns, cgroup: "/a/b".to_owned(), operator: uid == 0, labels: labels.clone(),
        };
        let mut registration = EndpointRegistration::new(endpoint.name().clone(), endpoint.services().clone()).unwrap();
        registration.expires = expires.map(Timestamp::from_millis);
        registration.plumbing = endpoint.plumbing();
        let lease = Timestamp::from_millis(5).after(Lease::from_secs(1));
        let registered = NetworkServiceEndpoint::registered(registration.clone(), &workload, Timestamp::default(), Some(registration.expires.unwrap_or(lease)));
        let message = tieline::agent::v1::RegisterEndpointRequest {
            workload: Some((&workload).into()), endpoint: Some((&registered).into()), interface: String::new(), keeper: 0,
        };
        registration.expires = registered.expires();
        prop_assert_eq!(super::registration(message).unwrap(), (workload, registration));
    }

    #[test]
    fn an_answer_read_as_a_request_asks_for_what_the_connection_has(has in a_connection()) {
        let answer = connection::Connection::from(&has);
        let message = networkservice::NetworkServiceRequest { connection: Some(answer), mechanism_preferences: Vec::new() };
        let asked = ConnectionRequest::try_from(message).unwrap();
        prop_assert_eq!((&asked.id, &asked.service, asked.endpoint.as_ref()), (&has.id, &has.service, has.endpoint()));
        prop_assert_eq!((asked.payload, &asked.labels, asked.mtu), (Some(has.payload), &has.labels, Some(has.mtu)));
        prop_assert_eq!(asked.interface.as_ref(), Some(&has.client.interface));
        prop_assert_eq!((&asked.src_addresses, &asked.dst_addresses), (&has.client.addresses, &has.server_addresses));
        let given = |route: &Route| route.next_hop.is_none() && has.context.service_routes.contains(&route.prefix);
        let own: Vec<&Route> = asked.src_routes.iter().filter(|route| !given(route)).collect();
        prop_assert_eq!(own, has.src_routes.iter().filter(|route| !given(route)).collect::<Vec<_>>());
        prop_assert_eq!(&asked.dst_routes, &has.dst_routes);
        prop_assert_eq!(asked.context, context::asked_again(&has.context));
        prop_assert_eq!(&asked.excluded_prefixes, &has.excluded_prefixes);
        prop_assert_eq!(asked.macs, [Some(has.client.mac), has.far_mac()]);
        prop_assert_eq!((asked.expires, asked.client_name.as_str()), (has.expires, "client"));
    }

    #[test]
    fn a_wire_survives_the_api(
        id in "[!-~]{1,40}", client in end(), branches in collection::vec(branch(), 0..3), backup in option::of(circuit()),
        mtu in 1280_u32..=65_535, probe: bool, draining in option::of(circuit()),
    ) {
        let draining = draining.filter(|_| !branches.is_empty()).map(|circuit| WireDraining { circuit, branch: 0 });
        let wire = NodeWire {
            connection: id.parse().unwrap(), service: "gold".parse().unwrap(), payload: Payload::Ethernet,
            mtu: Mtu::parse("m", mtu).unwrap(), client, branches, backup, probe,
            draining: draining.into_iter().collect(),
        };
        let message = tieline::agent::v1::Wire::from(&wire);
        prop_assert_eq!(NodeWire::try_from(message).unwrap(), wire);
    }

    #[test]
    fn a_record_is_the_same_after_json(connection in a_connection(), service in service(), endpoint in endpoint()) {
        let text = serde_json::to_string(&(&connection, &service, &endpoint)).unwrap();
        let read: (Connection, NetworkService, NetworkServiceEndpoint) = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read, (connection, service, endpoint));
    }
}

/// A request that is in order, to be spoilt.
fn good() -> networkservice::NetworkServiceRequest {
    let connection = connection::Connection {
        id: "c1".to_owned(),
        network_service: "gold".to_owned(),
        ..Default::default()
    };
    networkservice::NetworkServiceRequest {
        connection: Some(connection),
        mechanism_preferences: Vec::new(),
    }
}

fn spoilt(spoil: impl FnOnce(&mut connection::Connection)) -> Invalid {
    let mut message = good();
    spoil(message.connection.as_mut().unwrap());
    ConnectionRequest::try_from(message).unwrap_err()
}

fn with_ip(change: impl FnOnce(&mut connectioncontext::IpContext)) -> Invalid {
    spoilt(|c| {
        let mut ip = connectioncontext::IpContext::default();
        change(&mut ip);
        c.context = Some(connectioncontext::ConnectionContext {
            ip_context: Some(ip),
            ..Default::default()
        });
    })
}

fn mechanism(cls: &str, r#type: &str, name: &str) -> connection::Mechanism {
    let parameters = [("name".to_owned(), name.to_owned())].into_iter().collect();
    connection::Mechanism {
        cls: cls.to_owned(),
        r#type: r#type.to_owned(),
        parameters,
    }
}

#[test]
fn a_bad_request_is_refused_by_field() {
    let route = |prefix: &str, hop: &str| connectioncontext::Route {
        prefix: prefix.to_owned(),
        next_hop: hop.to_owned(),
    };
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    for (invalid, field) in [
        (spoilt(|c| c.id = String::new()), "connection.id"),
        (
            spoilt(|c| c.network_service = "Gold".to_owned()),
            "connection.network_service",
        ),
        (
            spoilt(|c| c.network_service = "gold@".to_owned()),
            "connection.network_service",
        ),
        (
            spoilt(|c| c.labels = [("a b".to_owned(), String::new())].into()),
            "connection.labels",
        ),
        (
            spoilt(|c| c.labels = (0..65).map(|i| (format!("k{i}"), String::new())).collect()),
            "connection.labels",
        ),
        (spoilt(|c| c.payload = "FRAME".to_owned()), "connection.payload"),
        (
            spoilt(|c| c.mechanism = Some(mechanism("REMOTE", "VXLAN", ""))),
            "connection.mechanism",
        ),
        (
            spoilt(|c| c.mechanism = Some(mechanism("LOCAL", "KERNEL", "sixteen-bytes-xx"))),
            "connection.mechanism.parameters[name]",
        ),
        (
            spoilt(|c| {
                c.context = Some(connectioncontext::ConnectionContext {
                    mtu: 100,
                    ..Default::default()
                });
            }),
            "connection.context.MTU",
        ),
        (
            with_ip(|ip| ip.src_ip_addrs = strings(&["10.0.0.1", "10.0.0.2"])),
            "connection.context.ip_context.src_ip_addrs[1]",
        ),
        (
            with_ip(|ip| ip.dst_ip_addrs = strings(&["10.0.0"])),
            "connection.context.ip_context.dst_ip_addrs[0]",
        ),
        (
            with_ip(|ip| ip.excluded_prefixes = strings(&["10.0.0.1/8"])),
            "connection.context.ip_context.excluded_prefixes[0]",
        ),
        (
            with_ip(|ip| ip.src_routes = vec![route("10.0.0.0/8", "fd00::1")]),
            "connection.context.ip_context.src_routes[0].next_hop",
        ),
    ] {
        assert_eq!(invalid.field, field, "{invalid}");
    }
}

#[test]
fn the_first_mechanism_that_is_provided_is_taken() {
    let mut message = good();
    message.mechanism_preferences = vec![
        mechanism("LOCAL", "MEMIF", "x"),
        mechanism("LOCAL", "KERNEL", "eth7"),
    ];
    assert_eq!(
        ConnectionRequest::try_from(message.clone())
            .unwrap()
            .interface
            .unwrap()
            .as_str(),
        "eth7"
    );
    message.mechanism_preferences.pop();
    let invalid = ConnectionRequest::try_from(message).unwrap_err();
    assert_eq!(
        (invalid.field.as_str(), invalid.value.as_str()),
        ("mechanism_preferences[0]", "LOCAL/MEMIF")
    );
}

#[test]
fn a_scope_matches_a_sub_array_of_the_path_and_the_services() {
    let hop = |name: &str| PathSegment {
        name: name.to_owned(),
        id: "c1".to_owned(),
        expires: None,
    };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut connection = a_connection().new_tree(&mut runner).unwrap().current();
    connection.service = "gold".parse().unwrap();
    connection.path = Path {
        segments: vec![hop("nsc"), hop("n1"), hop("gw")],
    };
    let scope = |names: &[&str], services: &[&str]| MonitorScope {
        segments: names
            .iter()
            .map(|name| SegmentPattern {
                name: (*name).to_owned(),
                ..Default::default()
            })
            .collect(),
        services: services.iter().map(|name| (*name).to_owned()).collect(),
    };
    for (names, services, matches) in [
        (&[][..], &[][..], true),
        (&["nsc"], &[], true),
        (&["n1", "gw"], &[], true),
        (&["nsc", ""], &[], true),
        (&["nsc", "gw"], &[], false),
        (&["gw", ""], &[], false),
        (&["nsc"], &["gold", "x"], true),
        (&["nsc"], &["x"], false),
    ] {
        assert_eq!(
            scope(names, services).matches(&connection),
            matches,
            "{names:?} {services:?}"
        );
    }
    let mut by_id = scope(&[""], &[]);
    by_id.segments[0].id = "c1".to_owned();
    assert!(by_id.matches(&connection));
    by_id.segments[0].token = "t".to_owned();
    assert!(!by_id.matches(&connection), "no hop carries a token");
}

#[test]
fn endpoints_are_found_by_name_service_labels_and_url() {
    let labels = Labels::parse("l", [("app", "gw"), ("x", "y")]).unwrap();
    let services = BTreeMap::from([("gold".parse().unwrap(), labels)]);
    let at = Attachment::Interface("tap0".parse().unwrap());
    let endpoint =
        NetworkServiceEndpoint::declared("gw-1".parse().unwrap(), services, "n1".parse().unwrap(), at)
            .unwrap();
    let query =
        |name: Option<&str>, service: &[&str], label: Option<(&str, &str)>, url: &str| EndpointQuery {
            name: name.map(ToOwned::to_owned),
            services: service.iter().map(|one| (*one).to_owned()).collect(),
            labels: label
                .map(|pair| ("gold".to_owned(), Labels::parse("l", [pair]).unwrap()))
                .into_iter()
                .collect(),
            url: url.to_owned(),
        };
    assert!(query(None, &[], None, "").matches(&endpoint));
    assert!(query(Some("gw-1"), &["gold"], Some(("app", "gw")), "tap").matches(&endpoint));
    assert!(!query(Some("gw"), &[], None, "").matches(&endpoint));
    assert!(!query(None, &["silver"], None, "").matches(&endpoint));
    assert!(!query(None, &[], Some(("app", "fw")), "").matches(&endpoint));
    assert!(!query(None, &[], None, "netns").matches(&endpoint));
}

#[test]
fn a_moment_before_the_epoch_is_refused() {
    assert!(
        timestamp_from_proto(
            "t",
            ProtoTimestamp {
                seconds: -1,
                nanos: 0
            }
        )
        .is_err()
    );
    assert!(
        timestamp_from_proto(
            "t",
            ProtoTimestamp {
                seconds: 1,
                nanos: -1
            }
        )
        .is_err()
    );
    let at = Timestamp::from_millis(1_234_567);
    assert_eq!(timestamp_from_proto("t", timestamp_to_proto(at)).unwrap(), at);
}
