//! What may be asked for, and when a process dies of it.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use tieline_lab::NetNs;
use tieline_proto::{
    connection::Connection,
    registry::{Destination, Match, NetworkServiceLabels},
    tieline::admin::v1::{
        NetworkService, NetworkServiceWiring, OrderedSelector, TrafficSelector, WiringRoute, WiringSource,
        object::Object,
    },
};
use tieline_tests_netns::{Api, Call, endpoint, netns_url, request, service};
use tonic::Code;

/// Services, with the prefixes of their wires: the first one's are soon used up.
pub(crate) const SERVICES: [(&str, [&str; 2]); 2] = [
    ("gold-network", ["10.50.0.0/28", "fd00:50::/124"]),
    ("silver-network", ["10.51.0.0/24", "fd00:51::/120"]),
];
/// Names of endpoints.
pub(crate) const ENDPOINTS: usize = 6;
/// Ids of connections.
const CONNECTIONS: usize = 16;

/// Names of wirings.
const WIRINGS: usize = 3;
/// What is proven of the workloads that endpoints are in.
pub(crate) const ROLES: [&str; 4] = ["firewall", "firewall", "gateway", "gateway"];

/// Where clients and endpoints are, the endpoints one for each of [`ROLES`].
pub(crate) struct Workloads {
    pub(crate) clients: Vec<NetNs>,
    pub(crate) servers: Vec<NetNs>,
}

/// One thing to ask for.
#[derive(Clone, Debug)]
pub(crate) enum Intent {
    Declare {
        service: usize,
        form: usize,
    },
    Retract {
        service: usize,
    },
    Register {
        endpoint: usize,
        service: usize,
        plumbed: bool,
    },
    Unregister {
        endpoint: usize,
    },
    Wire {
        wiring: usize,
        service: usize,
        form: usize,
    },
    Unwire {
        wiring: usize,
    },
    Drain {
        endpoint: usize,
        off: bool,
    },
    Request {
        connection: usize,
        service: usize,
        client: usize,
    },
    Close {
        connection: usize,
    },
}

/// A process that dies, so long after the intent was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    pub(crate) agent: bool,
    pub(crate) control: bool,
    pub(crate) after: Duration,
}

/// An intent, and the kill in its middle.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) intent: Intent,
    pub(crate) kill: Option<Kill>,
}

/// Any step, with or without a kill.
pub(crate) fn steps(killing: bool) -> BoxedStrategy<Step> {
    if !killing {
        return intents().prop_map(|intent| Step { intent, kill: None }).boxed();
    }
    let kill = (0..3u8, 0..6000u64).prop_map(|(who, micros)| Kill {
        agent: who != 1,
        control: who != 0,
        after: Duration::from_micros(micros),
    });
    (intents(), kill)
        .prop_map(|(intent, kill)| Step {
            intent,
            kill: Some(kill),
        })
        .boxed()
}

fn intents() -> impl Strategy<Value = Intent> {
    let service = 0..SERVICES.len();
    prop_oneof![
        2 => (service.clone(), 0..4usize).prop_map(|(service, form)| Intent::Declare { service, form }),
        1 => service.clone().prop_map(|service| Intent::Retract { service }),
        4 => (0..ENDPOINTS, service.clone(), any::<bool>())
            .prop_map(|(endpoint, service, plumbed)| Intent::Register { endpoint, service, plumbed }),
        1 => (0..ENDPOINTS).prop_map(|endpoint| Intent::Unregister { endpoint }),
        2 => (0..WIRINGS, service.clone(), 0..4usize)
            .prop_map(|(wiring, service, form)| Intent::Wire { wiring, service, form }),
        1 => (0..WIRINGS).prop_map(|wiring| Intent::Unwire { wiring }),
        1 => (0..ENDPOINTS, any::<bool>()).prop_map(|(endpoint, off)| Intent::Drain { endpoint, off }),
        8 => (0..CONNECTIONS, service, 0..4usize)
            .prop_map(|(connection, service, client)| Intent::Request { connection, service, client }),
        4 => (0..CONNECTIONS).prop_map(|connection| Intent::Close { connection }),
    ]
}

/// Whether a refusal with this code is one by a rule, of a call that came through to the one that decides.
pub(crate) fn is_a_rule(code: Code) -> bool {
    use Code::{
        AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted,
    };
    [
        AlreadyExists,
        FailedPrecondition,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
    ]
    .contains(&code)
}

impl Intent {
    /// Asks for it.
    pub(crate) fn carry_out(&self, api: &Api, workloads: &Workloads) -> Call<()> {
        match *self {
            Self::Declare { service, form } => api.apply(declared(service, form)).map(drop),
            Self::Retract { service } => api.delete("NetworkService", SERVICES[service].0),
            Self::Register {
                endpoint,
                service,
                plumbed,
            } => api
                .register(registered(endpoint, service, plumbed, workloads))
                .map(drop),
            Self::Unregister { endpoint } => api.unregister(registered(endpoint, 0, false, workloads)),
            Self::Wire {
                wiring,
                service,
                form,
            } => api
                .declare(Object::NetworkServiceWiring(wired(wiring, service, form)))
                .map(drop),
            Self::Unwire { wiring } => api.delete("NetworkServiceWiring", &wiring_name(wiring)),
            Self::Drain { endpoint, off } => api.drain(&endpoint_name(endpoint), off),
            Self::Request {
                connection,
                service,
                client,
            } => {
                let url = netns_url(&workloads.clients[client]);
                api.request(request(&id(connection), SERVICES[service].0, &url))
                    .map(drop)
            }
            Self::Close { connection } => api.close(Connection {
                id: id(connection),
                ..Connection::default()
            }),
        }
    }
}

fn id(connection: usize) -> String {
    format!("random-{connection:02}")
}

fn endpoint_name(endpoint: usize) -> String {
    format!("endpoint-{endpoint}")
}

fn wiring_name(wiring: usize) -> String {
    format!("wiring-{wiring}")
}

/// The service: any endpoint, by its selector, by a match, or by an ordered list.
pub(crate) fn declared(number: usize, form: usize) -> NetworkService {
    let (name, prefixes) = SERVICES[number];
    let mut declared = service(name, "IP");
    declared.prefixes = prefixes.map(str::to_owned).into();
    let gateway = HashMap::from([("app".to_owned(), "gateway".to_owned())]);
    match form {
        0 => {}
        1 => declared.selector = gateway,
        2 => {
            let route = Destination {
                destination_selector: gateway,
                weight: 1,
            };
            let rule = Match {
                routes: vec![route],
                ..Match::default()
            };
            declared.service.get_or_insert_default().matches = vec![rule];
        }
        _ => {
            declared.ordered_selector = Some(OrderedSelector {
                key: "app".to_owned(),
                values: ["firewall", "gateway"].map(str::to_owned).into(),
            });
        }
    }
    declared
}

/// A wiring: users through a firewall, all their traffic or some, firewalls to a gateway, or everybody to a gateway.
fn wired(number: usize, service: usize, form: usize) -> NetworkServiceWiring {
    let service = SERVICES[service].0.to_owned();
    let (source_service, pod_selector, to) = match form {
        0 | 3 => (format!("!{service}"), "", "app=firewall"),
        1 => (String::new(), "app=firewall", "app=gateway"),
        _ => (String::new(), "", "app=gateway"),
    };
    let some = TrafficSelector {
        protocol: "udp".to_owned(),
        ports: "7007".to_owned(),
        prefix: String::new(),
    };
    NetworkServiceWiring {
        name: wiring_name(number),
        target: vec![service],
        priority: if form == 2 { -1 } else { 0 },
        source: Some(WiringSource {
            source_service,
            pod_selector: pod_selector.to_owned(),
            client_selector: String::new(),
        }),
        traffic: if form == 3 { vec![some] } else { Vec::new() },
        route: vec![WiringRoute {
            pod_selector: to.to_owned(),
            weight: 0,
        }],
    }
}

fn registered(
    number: usize,
    service: usize,
    plumbed: bool,
    workloads: &Workloads,
) -> tieline_proto::registry::NetworkServiceEndpoint {
    let place = number % workloads.servers.len();
    let name = SERVICES[service].0;
    let url = netns_url(&workloads.servers[place]);
    let mut registered = endpoint(&endpoint_name(number), name, &url);
    let mut labels = HashMap::from([("app".to_owned(), ROLES[place].to_owned())]);
    if plumbed && ROLES[place] == "firewall" {
        labels.insert("tieline.io/plumbing".to_owned(), "gateway".to_owned());
    }
    registered
        .network_service_labels
        .insert(name.to_owned(), NetworkServiceLabels { labels });
    registered
}
