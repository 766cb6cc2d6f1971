//! What people and programs see, exactly.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use prost_types::Timestamp;
use tieline_proto::{
    connection::{Connection, ConnectionEvent, ConnectionEventType, Mechanism, State},
    connectioncontext::{ConnectionContext, IpContext},
    registry,
    tieline::admin::v1 as admin,
};

use super::{
    ConnectionView, ControlView, EndpointView, EventView, ExplainView, MoveView, NodeRow, ServiceView,
    StatusView, WireView, WiringView, node::NodeView,
};
use crate::output::table;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1_700_000_000 + seconds,
        nanos: 0,
    })
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn service() -> admin::NetworkServiceStatus {
    let rule = registry::Match {
        source_selector: labels(&[("app", "firewall")]),
        routes: vec![registry::Destination {
            destination_selector: labels(&[("app", "gateway")]),
            weight: 3,
        }],
        fallthrough: true,
        metadata: None,
    };
    let inner = registry::NetworkService {
        name: "gold-network".into(),
        matches: vec![rule],
        ..Default::default()
    };
    admin::NetworkServiceStatus {
        service: Some(admin::NetworkService {
            service: Some(inner),
            prefixes: vec!["192.0.2.0/24".into(), "2001:db8::/64".into()],
            ..Default::default()
        }),
        endpoints: 2,
        connections: 40,
    }
}

fn endpoint() -> admin::EndpointStatus {
    let own = registry::NetworkServiceLabels {
        labels: labels(&[("app", "firewall"), ("a", "b")]),
    };
    admin::EndpointStatus {
        endpoint: Some(registry::NetworkServiceEndpoint {
            name: "firewall-1".into(),
            network_service_names: vec!["gold-network".into()],
            network_service_labels: HashMap::from([("gold-network".to_owned(), own)]),
            expiration_time: at(3599),
            ..Default::default()
        }),
        node: "n1".into(),
        attachment: "netns /run/netns/fw1".into(),
        connections: 1,
        ..Default::default()
    }
}

fn connection() -> Connection {
    Connection {
        id: "4f2c".into(),
        network_service: "gold-network".into(),
        network_service_endpoint_name: "firewall-1".into(),
        mechanism: Some(Mechanism {
            parameters: labels(&[("name", "nsm-1")]),
            ..Default::default()
        }),
        context: Some(ConnectionContext {
            ip_context: Some(IpContext {
                src_ip_addrs: vec!["192.0.2.2/32".into(), "2001:db8::2/128".into()],
                dst_ip_addrs: vec!["192.0.2.1/32".into(), "2001:db8::1/128".into()],
                ..Default::default()
            }),
            mtu: 1500,
            ..Default::default()
        }),
        payload: "IP".into(),
        ..Default::default()
    }
}

fn wire() -> admin::WireStatus {
    let end = |host: &str, ifindex, name: &str, netns: &str, packets| admin::EndStatus {
        host_interface: host.into(),
        ifindex,
        workload_interface: name.into(),
        netns: netns.into(),
        packets,
        bytes: packets * 100,
    };
    admin::WireStatus {
        connection_id: "4f2c".into(),
        network_service: "gold-network".into(),
        forwarding: true,
        error: String::new(),
        client: Some(end("tlc1", 7, "nsm-1", "/run/netns/laptop", 12)),
        branches: vec![admin::WireBranchStatus {
            hops: Vec::new(),
            endpoint_name: "vm-7".into(),
            endpoint: Some(end("tap7", 3, "", "", 9)),
            taken_packets: 12,
            taken_bytes: 768,
        }],
        mtu: 1500,
    }
}

fn a_move() -> admin::ConnectionMove {
    let leg = |traffic: &[&str], path: &[&str]| admin::ConnectionLeg {
        traffic: traffic.iter().map(ToString::to_string).collect(),
        path: path.iter().map(ToString::to_string).collect(),
    };
    admin::ConnectionMove {
        connection_id: "4f2c".into(),
        network_service: "gold-network".into(),
        from: Vec::new(),
        to: vec![leg(&["tcp/80"], &["dpi"]), leg(&[], &["firewall-1", "gateway-1"])],
        because: "wiring w1 decides".into(),
    }
}

#[test]
fn moves_are_shown() {
    assert_eq!(
        table(&[MoveView::from(a_move())]),
        "CONNECTION   SERVICE        FROM     TO                                    BECAUSE\n\
         4f2c         gold-network   parked   tcp/80: dpi; firewall-1 → gateway-1   wiring w1 decides\n"
    );
}

#[test]
fn a_connection_is_explained_choice_by_choice() {
    let decision = |behind: &str, steps: &[&str], chosen: &str, plumbing: &str| admin::Decision {
        behind: behind.into(),
        steps: steps.iter().map(ToString::to_string).collect(),
        removed: vec![admin::RemovedEndpoint {
            endpoint: "gw-9".into(),
            rule: "it is drained".into(),
        }],
        further: 2,
        chosen: chosen.into(),
        plumbing: plumbing.into(),
    };
    let view = ExplainView::from(admin::ExplainConnectionResponse {
        connection: Some(admin::ConnectionStatus {
            connection: Some(connection()),
            branches: vec![admin::ConnectionBranch {
                path: vec!["fw-1".into(), "gw-1".into()],
                endpoint_attachment: "netns /run/netns/gw".into(),
                endpoint_interface: "nse-1".into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        decisions: vec![
            decision("", &["wiring w1 decides"], "fw-1", "gateway"),
            decision(
                "fw-1",
                &["any endpoint of the service will do"],
                "gw-1",
                "endpoint",
            ),
        ],
        former: vec!["gw-2".into()],
        before: a_move().to,
        draining: a_move().to,
    });
    assert_eq!(
        view.describe(),
        "\
Connection:       4f2c
NetworkService:   gold-network
State:            UP
Leads to:         fw-1 → gw-1 (netns /run/netns/gw, nse-1)
Backup:           -
Goes back to:     tcp/80: dpi; firewall-1 → gateway-1 (its node has not confirmed the change)
Old flows go to:  tcp/80: dpi; firewall-1 → gateway-1
Ended before at:  gw-2

From the client to fw-1, which passes packets on as gateway
  wiring w1 decides
  not gw-9: it is drained
  nor 2 more

Behind fw-1 to gw-1, where it ends
  any endpoint of the service will do
  not gw-9: it is drained
  nor 2 more
"
    );
}

#[test]
fn wirings_are_shown() {
    let view = WiringView::from(admin::NetworkServiceWiringStatus {
        wiring: Some(admin::NetworkServiceWiring {
            name: "w1".into(),
            target: vec!["gold-network".into()],
            priority: 5,
            source: Some(admin::WiringSource {
                source_service: "!gold-network".into(),
                pod_selector: "tier!=test".into(),
                client_selector: String::new(),
            }),
            traffic: Vec::new(),
            route: vec![
                admin::WiringRoute {
                    pod_selector: "firewall=true".into(),
                    weight: 3,
                },
                admin::WiringRoute::default(),
            ],
        }),
        connections: 7,
        warnings: vec!["target[0]: not there".into()],
    });
    assert_eq!(
        table(std::slice::from_ref(&view)),
        "NAME   TARGET         PRIORITY   FROM                               TRAFFIC   TO                                         CONNECTIONS   WARNINGS\n\
         w1     gold-network   5          !gold-network and pod tier!=test   all       firewall=true (weight 3) or any endpoint   7             1\n"
    );
    assert!(
        view.describe().contains("Warnings:     target[0]: not there\n"),
        "{}",
        view.describe()
    );
}

#[test]
fn services_are_shown() {
    let view = ServiceView::from(service());
    assert_eq!(
        table(std::slice::from_ref(&view)),
        "NAME           PAYLOAD   POLICY        PREFIXES                     ENDPOINTS   CONNECTIONS\n\
         gold-network   IP        round-robin   192.0.2.0/24,2001:db8::/64   2           40\n"
    );
    let text = view.describe();
    assert!(
        text.contains("Matches:      from app=firewall to app=gateway (weight 3), else the next match\n"),
        "{text}"
    );
    assert!(
        text.contains("Prefixes:     192.0.2.0/24\n              2001:db8::/64\n"),
        "{text}"
    );
}

#[test]
fn endpoints_are_shown_with_the_rest_of_their_lease() {
    assert_eq!(
        table(&[EndpointView::new(endpoint(), now())]),
        "NAME         SERVICES       NODE   ATTACHMENT             LABELS             CONNECTIONS   EXPIRES IN\n\
         firewall-1   gold-network   n1     netns /run/netns/fw1   a=b,app=firewall   1             59m 59s\n"
    );
    let declared = admin::EndpointStatus {
        declared: true,
        ..endpoint()
    };
    assert_eq!(
        EndpointView::new(declared, now()).expires_in,
        "-",
        "what an operator declared does not expire"
    );
}

#[test]
fn connections_are_shown_with_both_sides_and_the_reason_of_a_failure() {
    let status = admin::ConnectionStatus {
        connection: Some(Connection {
            state: State::Down.into(),
            ..connection()
        }),
        node: "n1".into(),
        expires: at(-1),
        reason: "netns gone".into(),
        ..Default::default()
    };
    let view = ConnectionView::of_control(status, now());
    assert_eq!(
        table(std::slice::from_ref(&view)),
        "ID     SERVICE        ENDPOINT     STATE   INTERFACE   CLIENT ADDRESS                 ENDPOINT ADDRESS               EXPIRES IN\n\
         4f2c   gold-network   firewall-1   DOWN    nsm-1       192.0.2.2/32,2001:db8::2/128   192.0.2.1/32,2001:db8::1/128   expired\n"
    );
    assert!(
        view.describe().ends_with("Reason:            netns gone\n"),
        "{}",
        view.describe()
    );
    let json = serde_json::to_value(&view).unwrap();
    assert_eq!(
        (&json["state"], &json["reason"]),
        (&"DOWN".into(), &"netns gone".into())
    );
    assert_eq!(json["src_ip_addrs"][1], "2001:db8::2/128");
}

#[test]
fn wires_are_shown_where_the_workloads_see_them() {
    let view = WireView::from(wire());
    assert_eq!(
        table(std::slice::from_ref(&view)),
        "CONNECTION   SERVICE        PATH   STATE        CLIENT END     ENDPOINT END   FROM CLIENT   FROM ENDPOINT\n\
         4f2c         gold-network   vm-7   forwarding   laptop:nsm-1   tap7           12 / 1200     9 / 900\n"
    );
    let broken = admin::WireStatus {
        forwarding: false,
        error: "interface tap7 is gone".into(),
        ..wire()
    };
    let text = WireView::from(broken).describe();
    assert!(
        text.contains("State:           broken\nError:           interface tap7 is gone\n"),
        "{text}"
    );
}

#[test]
fn the_functions_on_a_wire_are_shown_with_both_their_ends() {
    let mut routed = wire();
    routed.branches[0].hops.push(admin::HopStatus {
        endpoint_name: "firewall-1".into(),
        inside: Some(admin::EndStatus {
            workload_interface: "nse-1".into(),
            netns: "/run/netns/fw1".into(),
            packets: 9,
            ..Default::default()
        }),
        outside: Some(admin::EndStatus {
            workload_interface: "nsm-1".into(),
            netns: "/run/netns/fw1".into(),
            packets: 12,
            ..Default::default()
        }),
    });
    let view = WireView::from(routed);
    assert!(table(std::slice::from_ref(&view)).contains("firewall-1 → vm-7"));
    let text = view.describe();
    for line in [
        "Through:         firewall-1",
        "Inner end:       fw1:nse-1",
        "Outer end:       fw1:nsm-1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let parked = WireView::from(admin::WireStatus {
        forwarding: false,
        branches: Vec::new(),
        ..wire()
    });
    assert!(table(&[parked]).contains("parked"));
}

#[test]
fn events_are_lines_in_the_order_of_ids() {
    let event = |kind: ConnectionEventType, ids: &[&str]| ConnectionEvent {
        r#type: kind.into(),
        connections: ids
            .iter()
            .map(|id| {
                (
                    (*id).to_owned(),
                    Connection {
                        id: (*id).into(),
                        ..connection()
                    },
                )
            })
            .collect(),
    };
    let views = EventView::of(event(ConnectionEventType::Update, &["b", "a"]), now());
    let lines = views.iter().map(EventView::line).collect::<String>();
    assert_eq!(
        lines
            .lines()
            .map(|line| line.split_whitespace().nth(1))
            .collect::<Vec<_>>(),
        [Some("a"), Some("b")]
    );
    assert!(lines.starts_with("UPDATE "), "{lines}");
    let empty = EventView::of(event(ConnectionEventType::InitialStateTransfer, &[]), now());
    assert_eq!(
        empty[0].line(),
        "INITIAL_STATE_TRANSFER (none)\n",
        "a program sees that the first state has come"
    );
}

#[test]
fn status_gives_advice_for_what_is_wrong_and_none_for_what_is_right() {
    let good = StatusView {
        control: Some(ControlView {
            network_services: 1,
            ..ControlView::default()
        }),
        node: Some(NodeView {
            control_connected: true,
            max_wires: 100,
            ..NodeView::default()
        }),
        ..StatusView::default()
    };
    let mut view = good.clone();
    view.advise();
    assert_eq!(view.advice, Vec::<String>::new());
    let mut bad = good;
    bad.node = Some(NodeView {
        control_error: "connection refused".into(),
        planned_generation: 7,
        applied_generation: 5,
        wires: 95,
        max_wires: 100,
        ..NodeView::default()
    });
    bad.control = Some(ControlView {
        nodes: vec![NodeRow {
            name: "n2".into(),
            ..NodeRow::default()
        }],
        ..ControlView::default()
    });
    bad.advise();
    let text = bad.describe();
    for words in [
        "connection refused",
        "generation 5, the plan 7",
        "--max-wires",
        "node n2 is away",
        "no NetworkService",
    ] {
        assert!(text.contains(words), "no '{words}' in {text}");
    }
}
