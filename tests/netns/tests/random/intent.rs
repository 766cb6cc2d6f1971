//! What may be asked for, and when a process dies of it.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use tieline_lab::NetNs;
use tieline_proto::{
    connection::Connection,
    registry::{Destination, Match, NetworkServiceLabels},
    tieline::admin::v1::NetworkService,
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

/// Where clients and endpoints are.
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
        gateway: bool,
    },
    Unregister {
        endpoint: usize,
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
        2 => (service.clone(), 0..3usize).prop_map(|(service, form)| Intent::Declare { service, form }),
        1 => service.clone().prop_map(|service| Intent::Retract { service }),
        4 => (0..ENDPOINTS, service.clone(), any::<bool>())
            .prop_map(|(endpoint, service, gateway)| Intent::Register { endpoint, service, gateway }),
        1 => (0..ENDPOINTS).prop_map(|endpoint| Intent::Unregister { endpoint }),
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
                gateway,
            } => api
                .register(registered(endpoint, service, gateway, workloads))
                .map(drop),
            Self::Unregister { endpoint } => api.unregister(registered(endpoint, 0, false, workloads)),
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

/// The service: any endpoint, by its selector, or by a match.
pub(crate) fn declared(number: usize, form: usize) -> NetworkService {
    let (name, prefixes) = SERVICES[number];
    let mut declared = service(name, "IP");
    declared.prefixes = prefixes.map(str::to_owned).into();
    let gateway = HashMap::from([("app".to_owned(), "gateway".to_owned())]);
    match form {
        0 => {}
        1 => declared.selector = gateway,
        _ => {
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
    }
    declared
}

fn registered(
    number: usize,
    service: usize,
    gateway: bool,
    workloads: &Workloads,
) -> tieline_proto::registry::NetworkServiceEndpoint {
    let netns = &workloads.servers[number % workloads.servers.len()];
    let name = SERVICES[service].0;
    let mut registered = endpoint(&format!("endpoint-{number}"), name, &netns_url(netns));
    let app = if gateway { "gateway" } else { "firewall" };
    let labels = HashMap::from([("app".to_owned(), app.to_owned())]);
    registered
        .network_service_labels
        .insert(name.to_owned(), NetworkServiceLabels { labels });
    registered
}
