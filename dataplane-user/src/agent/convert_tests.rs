use proptest::prelude::*;

use super::*;

fn veth(name: &str) -> proto::WireEnd {
    proto::WireEnd {
        attachment: Some(proto::wire_end::Attachment::Veth(proto::VethEnd {
            netns: Some(proto::NetworkNamespace {
                path: "/run/netns/tl-a".into(),
                device: 4,
                inode: 4026532000,
            }),
            name: name.into(),
            mac: "02:00:00:00:00:01".into(),
            addresses: vec!["10.0.0.1/32".into(), "fd00::1/128".into()],
            routes: vec![proto::Route {
                prefix: "10.0.0.2/32".into(),
                next_hop: String::new(),
            }],
            neighbours: vec![proto::Neighbour {
                ip: "10.0.0.2".into(),
                mac: "02:00:00:00:00:02".into(),
            }],
            ..proto::VethEnd::default()
        })),
    }
}

fn message(id: &str) -> proto::Wire {
    proto::Wire {
        connection_id: id.into(),
        network_service: "gold".into(),
        payload: proto::Payload::Ip.into(),
        mtu: 1500,
        client: Some(veth("nsm-1")),
        branches: vec![proto::WireBranch {
            weight: 1,
            circuit: Some(proto::WireCircuit {
                hops: vec![],
                endpoint_name: "gold-1".into(),
                endpoint: Some(interface("tap0")),
            }),
            ..proto::WireBranch::default()
        }],
        ..proto::Wire::default()
    }
}

fn interface(name: &str) -> proto::WireEnd {
    proto::WireEnd {
        attachment: Some(proto::wire_end::Attachment::Interface(proto::InterfaceEnd {
            name: name.into(),
        })),
    }
}

fn selector_of(wire: &mut proto::Wire) -> &mut proto::TrafficSelector {
    let traffic = &mut wire.branches[0].traffic;
    if traffic.is_empty() {
        traffic.push(proto::TrafficSelector::default());
    }
    &mut traffic[0]
}

fn draining_of(wire: &mut proto::Wire) -> &mut proto::WireDraining {
    if wire.draining.is_empty() {
        let circuit = wire.branches[0].circuit.clone();
        wire.draining.push(proto::WireDraining { circuit, branch: 0 });
    }
    &mut wire.draining[0]
}

fn circuit_of(wire: &mut proto::Wire) -> &mut proto::WireCircuit {
    wire.branches[0].circuit.as_mut().unwrap()
}

/// Puts a function on the wire's circuit.
fn add_hop(wire: &mut proto::Wire) -> &mut proto::WireHop {
    let hop = proto::WireHop {
        endpoint_name: "fw-1".into(),
        inside: Some(veth("nse-1")),
        outside: Some(veth("nsm-1")),
    };
    let hops = &mut circuit_of(wire).hops;
    hops.push(hop);
    hops.last_mut().unwrap()
}

fn veth_of(message: &mut proto::Wire) -> &mut proto::VethEnd {
    let Some(proto::WireEnd {
        attachment: Some(proto::wire_end::Attachment::Veth(veth)),
    }) = message.client.as_mut()
    else {
        panic!("the client's end is a veth");
    };
    veth
}

#[test]
fn a_valid_wire_keeps_every_value() {
    let wire = wire(message("c1")).unwrap();
    assert_eq!(
        (wire.id.0.as_str(), wire.mtu, wire.payload),
        ("c1", 1500, Payload::Ip)
    );
    let End::Veth(client) = wire.client else {
        panic!("a veth")
    };
    assert_eq!(
        client.netns.id,
        NetnsId {
            device: 4,
            inode: 4026532000
        }
    );
    assert_eq!(client.mac.to_string(), "02:00:00:00:00:01");
    assert_eq!(
        client.addresses,
        ["10.0.0.1/32".parse().unwrap(), "fd00::1/128".parse().unwrap()]
    );
    assert_eq!(
        client.routes,
        [Route {
            prefix: "10.0.0.2/32".parse().unwrap(),
            next_hop: None
        }]
    );
    let tap = End::Interface(InterfaceEnd {
        name: IfName::new("tap0").unwrap(),
    });
    let circuit = Circuit {
        hops: vec![],
        endpoint_name: "gold-1".into(),
        endpoint: tap,
    };
    assert_eq!((wire.branches, wire.backup), (vec![Branch::all(circuit)], None));
}

#[test]
fn a_function_on_the_way_and_a_wire_without_one_are_understood() {
    let mut routed = message("c1");
    add_hop(&mut routed);
    if let Some(proto::wire_end::Attachment::Veth(end)) = &mut circuit_of(&mut routed).hops[0]
        .inside
        .as_mut()
        .unwrap()
        .attachment
    {
        end.forwards = true;
    }
    let wire = super::wire(routed).unwrap();
    let hop = &wire.branches[0].circuit.hops[0];
    let (End::Veth(inside), End::Veth(outside)) = (&hop.inside, &hop.outside) else {
        panic!("veths: {hop:?}")
    };
    assert_eq!((inside.forwards, outside.forwards), (true, false));
    assert_eq!((inside.name.as_str(), outside.name.as_str()), ("nse-1", "nsm-1"));
    let mut parked = message("c1");
    parked.branches.clear();
    assert_eq!(super::wire(parked).unwrap().branches, []);
}

#[test]
fn a_namespace_declared_by_path_is_the_one_that_lies_there() {
    let id_at = |path: &str| {
        let message = proto::NetworkNamespace {
            path: path.to_owned(),
            device: 0,
            inode: 0,
        };
        netns_ref(
            At {
                wire: "c1",
                side: "client",
            },
            &message,
        )
        .unwrap()
        .id
    };
    let own = std::fs::metadata("/proc/self/ns/net").unwrap();
    let path = format!("/proc/{}/ns/net", std::process::id());
    assert_eq!(
        id_at(&path),
        NetnsId {
            device: own.dev(),
            inode: own.ino()
        }
    );
    assert_eq!(id_at("/run/netns/tl-none"), NetnsId { device: 0, inode: 0 });
}

/// Spoils one field of a valid wire.
type Spoil = fn(&mut proto::Wire);

#[test]
fn each_invalid_value_is_named_with_its_field() {
    let cases: &[(&str, &str, Spoil)] = &[
        ("connection_id", "", |w| w.connection_id.clear()),
        ("mtu", "1279", |w| w.mtu = 1279),
        ("mtu", "65536", |w| w.mtu = 65536),
        ("payload", "0", |w| w.payload = 0),
        ("payload", "9", |w| w.payload = 9),
        ("client.attachment", "", |w| w.client = None),
        ("branches[0].circuit.endpoint.attachment", "", |w| {
            circuit_of(w).endpoint = Some(proto::WireEnd { attachment: None });
        }),
        ("branches[0].circuit", "", |w| w.branches[0].circuit = None),
        ("branches[0].circuit.hops[0].outside.attachment", "", |w| {
            add_hop(w).outside = None;
        }),
        ("branches[0].circuit.hops", "17", |w| {
            for _ in 0..17 {
                add_hop(w);
            }
        }),
        ("backup.endpoint.attachment", "", |w| {
            w.backup = Some(proto::WireCircuit::default());
        }),
        ("client.veth.netns", "", |w| veth_of(w).netns = None),
        ("client.veth.netns.path", "netns/x", |w| set_path(w, "netns/x")),
        ("client.veth.netns.path", "/run/netns/../x", |w| {
            set_path(w, "/run/netns/../x");
        }),
        ("client.veth.name", "sixteen-bytes-xx", |w| {
            veth_of(w).name = "sixteen-bytes-xx".into();
        }),
        ("client.veth.mac", "01:00:00:00:00:01", |w| {
            veth_of(w).mac = "01:00:00:00:00:01".into();
        }),
        ("client.veth.mac", "2:0:0:0:0:1", |w| {
            veth_of(w).mac = "2:0:0:0:0:1".into();
        }),
        ("client.veth.addresses", "10.0.0.1", |w| {
            veth_of(w).addresses = vec!["10.0.0.1".into()];
        }),
        ("client.veth.addresses", "224.0.0.1/32", |w| {
            veth_of(w).addresses = vec!["224.0.0.1/32".into()];
        }),
        ("client.veth.routes.prefix", "10.0.0.1/24", |w| {
            veth_of(w).routes[0].prefix = "10.0.0.1/24".into();
        }),
        ("client.veth.routes.next_hop", "fd00::1", |w| {
            veth_of(w).routes[0].next_hop = "fd00::1".into();
        }),
        ("client.veth.neighbours.ip", "x", |w| {
            veth_of(w).neighbours[0].ip = "x".into();
        }),
        ("branches[0].circuit.endpoint.interface.name", "a b", |w| {
            circuit_of(w).endpoint = Some(interface("a b"));
        }),
    ];
    refused(cases);
}

#[test]
fn each_invalid_value_of_branches_is_named_with_its_field() {
    let cases: &[(&str, &str, Spoil)] = &[
        ("branches", "9", |w| w.branches = vec![w.branches[0].clone(); 9]),
        ("branches.traffic", "9", |w| {
            w.branches[0].traffic = vec![proto::TrafficSelector::default(); 9];
        }),
        ("branches[0].traffic[0].protocol", "gre", |w| {
            selector_of(w).protocol = "gre".to_owned();
        }),
        ("branches[0].traffic[0].port_last", "65536", |w| {
            selector_of(w).port_last = 65_536;
        }),
        ("branches[0].traffic[0].port_first", "81", |w| {
            (selector_of(w).port_first, selector_of(w).port_last) = (81, 80);
        }),
        ("branches[0].traffic[0].prefix", "ten", |w| {
            selector_of(w).prefix = "ten".to_owned();
        }),
        ("draining[0].branch", "1", |w| draining_of(w).branch = 1),
        ("draining[0].circuit", "", |w| draining_of(w).circuit = None),
        ("draining", "8", |w| {
            let one = draining_of(w).clone();
            w.draining = vec![one; 8];
        }),
    ];
    refused(cases);
}

/// Each case is refused with this field and value.
fn refused(cases: &[(&str, &str, Spoil)]) {
    for (field, value, spoil) in cases {
        let mut bad = message("c1");
        spoil(&mut bad);
        let error = wire(bad).unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.value.as_str()),
            (*field, *value),
            "{error}"
        );
    }
}

fn set_path(wire: &mut proto::Wire, path: &str) {
    veth_of(wire).netns.as_mut().unwrap().path = path.into();
}

#[test]
fn a_bad_wire_does_not_touch_the_others() {
    let mut bad = message("bad");
    bad.mtu = 1;
    let checked = snapshot(proto::Snapshot {
        generation: 7,
        wires: vec![message("a"), bad, message("b")],
        ..proto::Snapshot::default()
    });
    let ids: Vec<_> = checked.desired.wires.keys().map(|id| id.0.as_str()).collect();
    assert_eq!((checked.desired.generation, ids), (7, vec!["a", "b"]));
    assert_eq!(checked.invalid.len(), 1);
    let failure = checked.invalid[0].clone().into_proto();
    assert_eq!(
        (
            failure.connection_id.as_str(),
            failure.field.as_str(),
            failure.value.as_str()
        ),
        ("bad", "mtu", "1")
    );
    assert_eq!(failure.kind(), proto::FailureKind::Invalid);
}

#[test]
fn a_wire_that_becomes_invalid_goes() {
    let mut bad = message("bad");
    bad.client = None;
    let delta = proto::Delta {
        generation: 3,
        parent: 2,
        upsert: vec![bad, message("good")],
        remove: vec!["old".into()],
    };
    let checked = super::delta(delta);
    assert_eq!(checked.parent, 2);
    assert_eq!(
        checked.change.remove,
        [WireId("bad".into()), WireId("old".into())]
    );
    assert_eq!(checked.change.upsert.len(), 1);
}

#[test]
fn an_id_that_stands_for_two_wires_stands_for_none() {
    let checked = snapshot(proto::Snapshot {
        generation: 1,
        wires: vec![message("a"), message("a"), message("a"), message("b")],
        ..proto::Snapshot::default()
    });
    assert_eq!(
        checked
            .desired
            .wires
            .keys()
            .map(|id| id.0.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
    assert!(
        checked
            .invalid
            .iter()
            .all(|bad| bad.wire == "a" && bad.field == "connection_id")
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_conversion_panic(
        id in ".{0,140}", name in ".{0,20}", mac in "([0-9a-f:]{0,20}|.{0,20})", path in ".{0,30}",
        net in "([0-9a-f:./]{0,24}|.{0,12})", hop in ".{0,12}", mtu: u32, payload: i32, inode: u64,
    ) {
        let mut wire = message(&id);
        (wire.mtu, wire.payload) = (mtu, payload);
        let end = veth_of(&mut wire);
        (end.name, end.mac) = (name, mac);
        end.netns = Some(proto::NetworkNamespace { path, device: 1, inode });
        end.addresses = vec![net.clone()];
        end.routes = vec![proto::Route { prefix: net, next_hop: hop }];
        let checked = snapshot(proto::Snapshot { generation: 1, wires: vec![wire], ..proto::Snapshot::default() });
        prop_assert_eq!(checked.desired.wires.len() + checked.invalid.len(), 1);
    }

    #[test]
    fn every_unicast_mac_survives(octets: [u8; 6]) {
        let unicast = [octets[0] & 0xfe | 0x02, octets[1], octets[2], octets[3], octets[4], octets[5]];
        let text = Mac(unicast).to_string();
        prop_assert_eq!(parse_mac(&text), Some(unicast));
    }
}
