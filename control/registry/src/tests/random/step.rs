//! What a random sequence is made of.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tieline_model::{
    Attachment, ConnectionId, EndpointRegistration, Labels, Mtu, NetworkService, Object, ObjectKind,
    Plumbing, Workload, yaml,
};

use super::super::{endpoint_at, request, service, workload};
use crate::{Caller, Command, NodeFailure, NodeHello, ObservedWire, WireFailureKind};

#[derive(Debug, Clone)]
pub(super) enum Step {
    Request {
        id: u8,
        client: u64,
        silver: bool,
        mtu: Option<u32>,
        address: Option<u8>,
        name: Option<u8>,
        seconds: Option<u64>,
        tier: bool,
    },
    Close {
        id: u8,
        client: Option<u64>,
    },
    Wait {
        seconds: u64,
    },
    Ack {
        fail: Vec<(u8, u8)>,
    },
    Register {
        endpoint: u8,
        client: u64,
        both: bool,
        says: u8,
        plumbing: u8,
    },
    Unregister {
        endpoint: u8,
    },
    /// An operator's interface as endpoint, or not.
    Tap {
        there: bool,
    },
    Wire {
        wiring: u8,
        source: u8,
        to: u8,
        priority: i8,
        traffic: bool,
    },
    Unwire {
        wiring: u8,
    },
    Service {
        form: u8,
    },
    Drain {
        endpoint: u8,
        draining: bool,
    },
    Health {
        endpoint: u8,
        alive: bool,
    },
    /// The node says of a wire that it leads it over its backup, that what drained has ended, that it has lost an end, or
    /// that it has found it again.
    Seen {
        id: u8,
        endpoint: u8,
        what: u8,
    },
    Hello,
    Bye,
    Restart,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let some = |range: std::ops::Range<u8>| prop::option::weighted(0.2, range);
    prop_oneof![
        8 => (0_u8..10, 0_u64..4, any::<bool>(), prop::option::of(1300_u32..1303), some(0..18), some(0..3), prop::option::of(1_u64..900), any::<bool>())
            .prop_map(|(id, client, silver, mtu, address, name, seconds, tier)| Step::Request { id, client, silver, mtu, address, name, seconds, tier }),
        3 => (0_u8..10, prop::option::of(0_u64..4)).prop_map(|(id, client)| Step::Close { id, client }),
        2 => (1_u64..400).prop_map(|seconds| Step::Wait { seconds }),
        5 => prop::collection::vec((0_u8..10, 0_u8..5), 0..2).prop_map(|fail| Step::Ack { fail }),
        4 => (0_u8..4, 0_u64..6, any::<bool>(), 0_u8..3, 0_u8..6)
            .prop_map(|(endpoint, client, both, says, plumbing)| Step::Register { endpoint, client, both, says, plumbing }),
        1 => (0_u8..4).prop_map(|endpoint| Step::Unregister { endpoint }),
        2 => prop::bool::weighted(0.7).prop_map(|there| Step::Tap { there }),
        3 => (0_u8..3, 0_u8..5, 0_u8..5, -1_i8..2, any::<bool>())
            .prop_map(|(wiring, source, to, priority, traffic)| Step::Wire { wiring, source, to, priority, traffic }),
        1 => (0_u8..3).prop_map(|wiring| Step::Unwire { wiring }),
        1 => (0_u8..5).prop_map(|form| Step::Service { form }),
        1 => (0_u8..5, any::<bool>()).prop_map(|(endpoint, draining)| Step::Drain { endpoint, draining }),
        1 => (0_u8..5, any::<bool>()).prop_map(|(endpoint, alive)| Step::Health { endpoint, alive }),
        3 => (0_u8..10, 0_u8..5, 0_u8..5).prop_map(|(id, endpoint, what)| Step::Seen { id, endpoint, what }),
        1 => Just(Step::Hello),
        1 => Just(Step::Bye),
        1 => Just(Step::Restart),
    ]
}

fn id(n: u8) -> ConnectionId {
    format!("c{n}").parse().unwrap()
}

/// The endpoint that steps call by a number: registered ones, and one that is always there.
fn endpoint_name(n: u8) -> String {
    if n < 4 {
        format!("e{n}")
    } else {
        "gw-gold".to_owned()
    }
}

/// A workload of which the node can prove what it is: of the later ones, a firewall and gateways.
pub(super) fn proven(n: u64) -> Workload {
    let app = match n {
        0 | 1 => None,
        3 => Some("firewall"),
        _ => Some("gateway"),
    };
    Workload {
        labels: Labels::parse("l", app.map(|app| ("app", app))).unwrap(),
        ..workload(n)
    }
}

fn failure((n, kind): (u8, u8)) -> NodeFailure {
    let (kind, value) = match kind {
        0 => (WireFailureKind::Kernel, String::new()),
        1 => (WireFailureKind::InterfaceGone, "tap0".to_owned()),
        n => (WireFailureKind::NetnsGone, format!("/run/netns/w{n}")),
    };
    NodeFailure {
        id: id(n),
        kind,
        field: String::new(),
        value,
        message: "refused".to_owned(),
    }
}

/// The service whose form changes, always with the same addresses.
pub(super) fn gold(form: u8) -> NetworkService {
    let spec = match form {
        0 => "{}",
        1 => "{selector: {app: [firewall, gateway]}}",
        2 => "{policy: LeastLoaded, rebalance: Rebalance}",
        3 => {
            "{matches: [{routes: [{destinationSelector: {app: gateway}, weight: 3}, {destinationSelector: {app: firewall}, weight: 1}], fallthrough: true}, {}]}"
        }
        _ => "{selector: {app: gateway}, policy: SameNodeFirst}",
    };
    let text =
        format!("apiVersion: tieline.io/v1\nkind: NetworkService\nmetadata: {{name: gold}}\nspec: {spec}\n");
    let Object::NetworkService(service) = yaml::parse(&text, None).unwrap().remove(0) else {
        panic!()
    };
    let prefixes = ["10.1.0.0/28", "fd00:9::/120"].map(|text| text.parse().unwrap());
    service
        .with_prefixes(prefixes.to_vec(), vec!["10.1.0.8/30".parse().unwrap()])
        .unwrap()
}

fn wiring(wiring: u8, source: u8, to: u8, priority: i8, traffic: bool) -> Object {
    let source = [
        "{}",
        "{sourceService: '!gold'}",
        "{sourceService: gold}",
        "{podSelector: {app: firewall}}",
        "{clientSelector: {tier: a}}",
    ][usize::from(source)];
    let to = [
        "{app: firewall}",
        "{app: gateway}",
        "'app in (firewall,gateway)'",
        "'!app'",
        "{app: vm}",
    ][usize::from(to)];
    let traffic = if traffic {
        ", traffic: [{protocol: tcp, ports: 80}]"
    } else {
        ""
    };
    let text = format!(
        "apiVersion: tieline.io/v1\nkind: NetworkServiceWiring\nmetadata: {{name: w{wiring}}}\nspec:\n  target: [gold]\n  \
         priority: {priority}\n  qualifiers: {{source: {source}{traffic}}}\n  action: {{route: [{{destination: {{podSelector: {to}}}}}]}}\n"
    );
    yaml::parse(&text, None).unwrap().remove(0)
}

fn apply(object: Object) -> Command {
    Command::Apply {
        objects: vec![object],
        dry_run: false,
    }
}

/// What a node and a clock add to a step.
pub(super) struct Around {
    pub(super) generation: u64,
    pub(super) seconds: u64,
}

pub(super) fn hello(generation: u64) -> NodeHello {
    NodeHello {
        node: "n1".parse().unwrap(),
        version: String::new(),
        generation,
        attach_backend: String::new(),
        max_wires: 7,
        machine: None,
    }
}

impl Step {
    /// The command that it is; `None`: it is none.
    pub(super) fn command(self, around: &Around) -> Option<Command> {
        let node = || "n1".parse().unwrap();
        Some(match self {
            asked @ Self::Request { .. } => asked.request(around)?,
            Self::Close { id: n, client } => {
                let caller = client.map_or(Caller::Operator, |n| Caller::Workload(workload(n)));
                Command::Close { caller, id: id(n) }
            }
            Self::Ack { fail } => Command::NodeReport {
                node: node(),
                generation: around.generation,
                failures: fail.into_iter().map(failure).collect(),
            },
            said @ Self::Register { .. } => said.register()?,
            Self::Unregister { endpoint } => Command::UnregisterEndpoint {
                caller: Caller::Operator,
                name: format!("e{endpoint}").parse().unwrap(),
            },
            Self::Tap { there: true } => {
                let at = Attachment::Interface("tap0".parse().unwrap());
                let proven = Labels::parse("l", [("app", "vm")]).unwrap();
                apply(Object::NetworkServiceEndpoint(
                    endpoint_at("vm", "gold", at).with_attested(proven),
                ))
            }
            Self::Tap { there: false } => delete(ObjectKind::NetworkServiceEndpoint, "vm"),
            Self::Wire {
                wiring: n,
                source,
                to,
                priority,
                traffic,
            } => apply(wiring(n, source, to, priority, traffic)),
            Self::Unwire { wiring } => delete(ObjectKind::NetworkServiceWiring, &format!("w{wiring}")),
            Self::Service { form } => apply(Object::NetworkService(gold(form))),
            Self::Drain { endpoint, draining } => Command::Drain {
                name: endpoint_name(endpoint).parse().unwrap(),
                draining,
            },
            Self::Health { endpoint, alive } => Command::Health {
                node: node(),
                endpoint: endpoint_name(endpoint).parse().unwrap(),
                alive,
            },
            Self::Seen {
                id: n,
                endpoint,
                what,
            } => {
                let endpoint = endpoint_name(endpoint).parse().unwrap();
                let lost = |endpoint| ObservedWire::Lost {
                    endpoint,
                    message: "gone".to_owned(),
                };
                let wire = match what {
                    0 => ObservedWire::Switched { endpoint },
                    1 => ObservedWire::Drained { endpoint },
                    2 => lost(Some(endpoint)),
                    3 => lost(None),
                    _ => ObservedWire::Restored,
                };
                Command::Observe {
                    node: node(),
                    id: id(n),
                    wire,
                }
            }
            Self::Hello => Command::NodeHello(hello(around.generation)),
            Self::Bye => Command::NodeBye { node: node() },
            Self::Wait { .. } | Self::Restart => return None,
        })
    }

    fn request(self, around: &Around) -> Option<Command> {
        let Self::Request {
            id,
            client,
            silver,
            mtu,
            address,
            name,
            seconds,
            tier,
        } = self
        else {
            return None;
        };
        let mut asked = request(&format!("c{id}"), if silver { "silver" } else { "gold" });
        asked.mtu = mtu.map(|octets| Mtu::parse("m", octets).unwrap());
        asked.src_addresses = address
            .map(|n| format!("10.1.0.{n}").parse().unwrap())
            .into_iter()
            .collect();
        asked.interface = name.map(|n| format!("nsm-{n}").parse().unwrap());
        asked.expires = seconds.map(|s| super::at(around.seconds + s));
        asked.labels = Labels::parse("l", tier.then_some(("tier", "a"))).unwrap();
        Some(Command::Request {
            caller: proven(client),
            request: Box::new(asked),
        })
    }

    fn register(self) -> Option<Command> {
        let Self::Register {
            endpoint,
            client,
            both,
            says,
            plumbing,
        } = self
        else {
            return None;
        };
        let app = [None, Some("firewall"), Some("gateway")][usize::from(says)];
        let labels = Labels::parse("l", app.map(|app| ("app", app))).unwrap();
        let offered = if both {
            vec!["gold", "silver"]
        } else {
            vec!["gold"]
        };
        let services: BTreeMap<_, _> = offered
            .into_iter()
            .map(|s| (s.parse().unwrap(), labels.clone()))
            .collect();
        let mut registration =
            EndpointRegistration::new(format!("e{endpoint}").parse().unwrap(), services).unwrap();
        registration.plumbing = Plumbing::ALL.get(usize::from(plumbing)).copied();
        Some(Command::RegisterEndpoint {
            caller: proven(client),
            registration,
        })
    }
}

fn delete(kind: ObjectKind, name: &str) -> Command {
    let name = name.to_owned();
    Command::Delete { kind, name }
}

/// The services at the beginning.
pub(super) fn services() -> Vec<NetworkService> {
    vec![gold(0), service("silver")]
}
