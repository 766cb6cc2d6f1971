use std::collections::BTreeSet;

use tieline_model::{
    Branch, ClientSide, ConnectionId, ConnectionState, Context, DnsConfig, EndpointSide, Labels, Mtu,
    NetnsId, Owner, Path, Payload, PolicyRoute, PolicyText, Report, derive_hop_mac,
};

use super::*;

fn netns(name: &str) -> NetnsRef {
    let inode = name.bytes().map(u64::from).sum();
    NetnsRef::parse(
        "n",
        &format!("/run/netns/{name}"),
        Some(NetnsId { device: 4, inode }),
    )
    .unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn route(prefix: &str) -> Route {
    Route::parse("r", prefix, "").unwrap()
}

fn id() -> ConnectionId {
    "c1".parse().unwrap()
}

/// A connection that leads nowhere yet.
fn parked() -> Connection {
    Connection {
        id: id(),
        service: "gold".parse().unwrap(),
        payload: Payload::Ip,
        labels: Labels::default(),
        attested: Labels::default(),
        mtu: Mtu::parse("m", 1500).unwrap(),
        state: ConnectionState::Down {
            reason: "no endpoint".to_owned(),
        },
        client: ClientSide {
            node: "n1".parse().unwrap(),
            netns: netns("app"),
            interface: "nsm-1".parse().unwrap(),
            mac: derive_mac(&id(), Side::Client),
            addresses: ips(&["10.0.0.1", "fd00::1"]),
        },
        server_addresses: ips(&["10.0.0.2", "fd00::2"]),
        branches: Vec::new(),
        backup: None,
        draining: Vec::new(),
        lost: std::collections::BTreeMap::new(),
        before: None,
        former: Vec::new(),
        report: Report::default(),
        src_routes: vec![route("10.9.0.0/16")],
        dst_routes: vec![route("192.168.7.0/24")],
        excluded_prefixes: Vec::new(),
        context: Context::default(),
        expires: None,
        path: Path::default(),
        generation: 1,
        owner: Owner::Operator,
    }
}

fn server(attachment: Attachment) -> EndpointSide {
    let mac = matches!(attachment, Attachment::Netns(_)).then(|| derive_mac(&id(), Side::Endpoint));
    EndpointSide {
        node: "n1".parse().unwrap(),
        attachment,
        interface: "nse-1".parse().unwrap(),
        mac,
    }
}

fn hop(name: &str, plumbing: Plumbing) -> HopSide {
    let endpoint = name.parse().unwrap();
    let end = |interface: &str, side| HopEnd {
        interface: interface.parse().unwrap(),
        mac: match plumbing {
            Plumbing::Transparent => derive_hop_mac(&id(), &endpoint, side),
            Plumbing::Endpoint | Plumbing::Gateway => derive_mac(&id(), side),
        },
    };
    HopSide {
        inside: end("nse-1", Side::Endpoint),
        outside: end("nsm-1", Side::Client),
        node: "n1".parse().unwrap(),
        netns: netns(name),
        plumbing,
        endpoint,
    }
}

fn through(hops: Vec<HopSide>, attachment: Attachment) -> NodeWire {
    let circuit = Circuit {
        hops,
        endpoint: "gw".parse().unwrap(),
        server: server(attachment),
    };
    lower(&Connection {
        branches: vec![Branch::all(circuit)],
        ..parked()
    })
}

fn in_netns() -> Attachment {
    Attachment::Netns(netns("gw"))
}

fn veth_of(end: &WireEnd) -> &VethEnd {
    match end {
        WireEnd::Veth(veth) => veth,
        WireEnd::Interface(name) => panic!("{name} exists"),
    }
}

fn only(wire: &NodeWire) -> &WireCircuit {
    let [branch] = wire.branches.as_slice() else {
        panic!("one branch: {wire:?}");
    };
    assert!(branch.traffic.is_empty());
    &branch.circuit
}

fn prefixes(end: &VethEnd) -> BTreeSet<String> {
    let transit = end.policies.iter().flat_map(|policy| &policy.routes);
    end.routes
        .iter()
        .chain(transit)
        .map(|route| route.prefix.to_string())
        .collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn what_lies_between_never_shows_at_either_outer_end() {
    let plain = through(Vec::new(), in_netns());
    for hops in [
        vec![hop("fw", Plumbing::Gateway)],
        vec![hop("tap", Plumbing::Transparent), hop("fw", Plumbing::Gateway)],
    ] {
        let wire = through(hops, in_netns());
        assert_eq!(wire.client, plain.client);
        assert_eq!(only(&wire).endpoint, only(&plain).endpoint);
    }
    assert_eq!(
        lower(&parked()).client,
        plain.client,
        "nor does it show that there is nothing"
    );
    assert!(lower(&parked()).branches.is_empty());
}

#[test]
fn every_segment_looks_alike() {
    let wire = through(
        vec![hop("a", Plumbing::Gateway), hop("b", Plumbing::Gateway)],
        in_netns(),
    );
    let circuit = only(&wire);
    let [a, b] = circuit.hops.as_slice() else {
        panic!("{circuit:?}")
    };
    let segments = [
        (&wire.client, &a.inside),
        (&a.outside, &b.inside),
        (&b.outside, &circuit.endpoint),
    ];
    for (near, far) in segments {
        let (near, far) = (veth_of(near), veth_of(far));
        assert_eq!(near.mac, derive_mac(&id(), Side::Client));
        assert_eq!(far.mac, derive_mac(&id(), Side::Endpoint));
        assert!(near.neighbours.iter().all(|entry| entry.mac == far.mac));
        assert!(far.neighbours.iter().all(|entry| entry.mac == near.mac));
        assert_eq!(
            prefixes(near),
            set(&["10.0.0.2/32", "fd00::2/128", "10.9.0.0/16"])
        );
        assert_eq!(
            prefixes(far),
            set(&["10.0.0.1/32", "fd00::1/128", "192.168.7.0/24"])
        );
        assert_eq!((near.neighbours.len(), far.neighbours.len()), (2, 2));
    }
    for end in [&a.inside, &a.outside, &b.inside, &b.outside].map(veth_of) {
        assert!(end.forwards && end.addresses.is_empty(), "{end:?}");
    }
    for (end, other) in [(&a.inside, &a.outside), (&a.outside, &a.inside)] {
        let [transit] = veth_of(end).policies.as_slice() else {
            panic!("{end:?}")
        };
        let input = transit.input.as_ref();
        assert_eq!(input, Some(&veth_of(other).name), "of this circuit alone");
        let [route] = transit.routes.as_slice() else {
            panic!("{transit:?}")
        };
        let peers = ips(&["10.0.0.2", "10.0.0.1"]);
        assert!(peers.contains(&route.next_hop.unwrap()), "{route:?}");
    }
    for end in [&wire.client, &circuit.endpoint].map(veth_of) {
        assert!(
            !end.forwards && end.addresses.len() == 2 && end.policies.is_empty(),
            "{end:?}"
        );
    }
}

#[test]
fn a_transparent_function_has_nothing_but_hardware_addresses_of_its_own() {
    let wire = through(vec![hop("tap", Plumbing::Transparent)], in_netns());
    let ends = &only(&wire).hops[0];
    let mut macs = BTreeSet::from([derive_mac(&id(), Side::Client), derive_mac(&id(), Side::Endpoint)]);
    for end in [&ends.inside, &ends.outside].map(veth_of) {
        assert!(end.addresses.is_empty() && end.routes.is_empty() && end.neighbours.is_empty());
        assert!(!end.forwards && macs.insert(end.mac), "{end:?}");
    }
}

#[test]
fn nobody_is_told_the_hardware_address_of_an_existing_interface() {
    let tap = || Attachment::Interface("nse-1".parse().unwrap());
    let direct = through(Vec::new(), tap());
    assert!(veth_of(&direct.client).neighbours.is_empty());
    let bridged = through(vec![hop("tap", Plumbing::Transparent)], tap());
    assert!(veth_of(&bridged.client).neighbours.is_empty());
    let routed = through(vec![hop("fw", Plumbing::Gateway)], tap());
    assert_eq!(
        veth_of(&routed.client).neighbours.len(),
        2,
        "the gateway's is known"
    );
    let fw = &only(&routed).hops[0];
    assert!(veth_of(&fw.outside).neighbours.is_empty());
    assert_eq!(veth_of(&fw.inside).neighbours.len(), 2);
}

/// [`parked`] with what a service and its client's wishes bring.
fn with_context() -> Connection {
    let text = PolicyText {
        proto: "tcp",
        dst_port: "443",
        ..PolicyText::default()
    };
    let policy = PolicyRoute::parse(text, vec![route("203.0.113.0/24")]).unwrap();
    let dns = DnsConfig::parse("d", &["10.0.0.53".to_owned()], &[]).unwrap();
    Connection {
        context: Context {
            policies: vec![policy],
            extra_prefixes: vec!["10.0.1.0/28".parse().unwrap()],
            service_routes: vec!["198.51.100.0/24".parse().unwrap(), "10.9.0.0/16".parse().unwrap()],
            dns: vec![dns],
            applies_dns: true,
            ..Context::default()
        },
        ..parked()
    }
}

#[test]
fn the_client_gets_the_services_routes_its_policies_and_name_servers() {
    let wire = lower(&with_context());
    let client = veth_of(&wire.client);
    let main: BTreeSet<String> = client
        .routes
        .iter()
        .map(|route| route.prefix.to_string())
        .collect();
    assert_eq!(
        main,
        set(&["10.0.0.2/32", "fd00::2/128", "10.9.0.0/16", "198.51.100.0/24"]),
        "each once"
    );
    let [policy] = client.policies.as_slice() else {
        panic!("{client:?}")
    };
    assert_eq!(policy.protocol.unwrap().number(), 6);
    assert_eq!(
        policy.routes[0].next_hop,
        Some("10.0.0.2".parse().unwrap()),
        "by way of the far end"
    );
    assert_eq!(client.name_servers.len(), 1);
    let mut unasked = with_context();
    unasked.context.applies_dns = false;
    assert!(veth_of(&lower(&unasked).client).name_servers.is_empty());
}

#[test]
fn a_gateway_knows_the_way_of_every_packet_of_its_circuit() {
    let circuit = Circuit {
        hops: vec![hop("fw", Plumbing::Gateway)],
        endpoint: "gw".parse().unwrap(),
        server: server(in_netns()),
    };
    let connection = Connection {
        branches: vec![Branch::all(circuit)],
        ..with_context()
    };
    let wire = lower(&connection);
    let [fw] = only(&wire).hops.as_slice() else {
        panic!("{wire:?}")
    };
    let transit = |end: &WireEnd| -> BTreeSet<String> {
        let routes = veth_of(end).policies.iter().flat_map(|policy| &policy.routes);
        routes.map(|route| route.prefix.to_string()).collect()
    };
    assert_eq!(
        transit(&fw.outside),
        set(&["10.9.0.0/16", "198.51.100.0/24", "203.0.113.0/24"])
    );
    assert_eq!(transit(&fw.inside), set(&["192.168.7.0/24", "10.0.1.0/28"]));
    let endpoint = veth_of(&only(&wire).endpoint);
    assert!(
        prefixes(endpoint).contains("10.0.1.0/28"),
        "the client's own prefix"
    );
}
