//! Which way a connection takes, and why (design §6.1).
//!
//! From the client on, and again behind every function that passes packets on, the rules are tried in order: wirings,
//! then the service's matches, then its selector, then any endpoint. A wiring for a part of the traffic makes a branch
//! beside the one for the rest. What cannot be gone on from is taken out and the next candidate tried, so that a path
//! never loops and never ends at a function that has to pass packets on.

mod attempt;
mod candidates;
mod order;
mod rules;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use tieline_model::{
    Chosen, ConnectionId, EndpointName, Labels, NetnsRef, NetworkService, NetworkServiceEndpoint, NodeName,
    Removal, Report, ServiceName, TrafficSelector, WiringName,
    limits::{MAX_BRANCHES, MAX_TRAFFIC},
};

use crate::{Inventory, Told};
use candidates::Health;
use walk::Walk;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// The client's node.
    pub node: &'a NodeName,
    /// The client's namespace.
    pub netns: &'a NetnsRef,
    /// What it says of itself.
    pub labels: &'a Labels,
    /// What is proven of it.
    pub attested: &'a Labels,
}

/// What a selection is about.
#[derive(Debug, Clone, Copy)]
pub struct SelectInput<'a> {
    /// The connection.
    pub id: &'a ConnectionId,
    /// The service asked for.
    pub service: &'a NetworkService,
    /// Who asks.
    pub client: Client<'a>,
    /// The endpoint that the client names, if it does: one that its path leads through.
    pub wanted: Option<&'a EndpointName>,
    /// Where the connection is now, empty for a new one: it stays there as far as that is allowed.
    pub current: &'a [BranchPath],
    /// Where a decision is told to go, for shares: as far as that is allowed.
    pub told: &'a Told,
    /// Endpoints that are not taken, as if they were not there.
    pub avoid: &'a [EndpointName],
    /// How many choices were made for the service before.
    pub turn: u64,
}

/// What of the state beside the inventory counts.
pub trait Usage {
    /// How many connections lead through an endpoint.
    fn connections(&self, endpoint: &EndpointName) -> usize;

    /// The connection that an endpoint ends, if it is an existing interface.
    fn holder(&self, endpoint: &NetworkServiceEndpoint) -> Option<&ConnectionId>;
}

/// What decided: decisions of one class choose among the same endpoints of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A wiring.
    Wiring(WiringName),
    /// One of the service's matches.
    Match(usize),
    /// A position of the service's selector.
    Stage(usize),
}

impl Class {
    /// Why an endpoint that this does not select is out.
    fn excludes(&self, service: &NetworkService) -> Option<Removal> {
        match self {
            Self::Wiring(wiring) => Some(Removal::NotWired {
                wiring: wiring.clone(),
            }),
            Self::Match(index) => Some(Removal::NoDestination { index: *index }),
            Self::Stage(index) => {
                let stage = service.selector().stages().get(*index)?;
                let selector = stage.to_string();
                Some(Removal::NotSelected { selector })
            }
        }
    }

    /// Why an endpoint is out that this selects with weight 0.
    fn gives_nothing(&self) -> Option<Removal> {
        match self {
            Self::Wiring(wiring) => Some(Removal::WiringWeightZero {
                wiring: wiring.clone(),
            }),
            Self::Match(index) => Some(Removal::WeightZero { index: *index }),
            Self::Stage(_) => None,
        }
    }
}

/// One choice of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What decided.
    pub class: Class,
    /// Who was chosen.
    pub endpoint: EndpointName,
    /// Whether it is where the connection was before.
    pub kept: bool,
}

/// The way of a part of a connection's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchPath {
    /// The wiring that split it off; `None`: it is for what no other branch takes.
    pub wiring: Option<WiringName>,
    /// The part of the traffic; empty: what no branch before it takes.
    pub traffic: Vec<TrafficSelector>,
    /// Its share of the flows among branches for the same traffic.
    pub weight: u32,
    /// Functions in order, and last the endpoint where the path ends.
    pub path: Vec<Chosen>,
}

impl BranchPath {
    /// The names on the path.
    pub fn names(&self) -> impl Iterator<Item = &EndpointName> {
        self.path.iter().map(|chosen| &chosen.endpoint)
    }
}

/// The choice and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The branches, the first that takes a packet deciding; the last one takes all the rest.
    pub branches: Vec<BranchPath>,
    /// How it came about.
    pub report: Report,
    /// The choices made.
    pub choices: Vec<Choice>,
}

/// Why there is no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No endpoint can serve.
    #[error("no endpoint of NetworkService {service} can serve the request: {}", reasons(.report, .service))]
    Nobody {
        /// The service asked for.
        service: ServiceName,
        /// What was looked at.
        report: Report,
    },
    /// Wirings split the traffic into more parts than a wire has.
    #[error(
        "the wirings of NetworkService {service} split the connection's traffic into {branches} branches by {traffic} traffic selectors: at most {MAX_BRANCHES} and {MAX_TRAFFIC}: narrow the sources of some of {}", list(.wirings)
    )]
    TooManyBranches {
        /// The service asked for.
        service: ServiceName,
        /// How many branches.
        branches: usize,
        /// How many traffic selectors in all.
        traffic: usize,
        /// The wirings that split it.
        wirings: Vec<WiringName>,
        /// What was looked at.
        report: Report,
    },
}

impl SelectError {
    /// What was looked at.
    #[must_use]
    pub fn report(&self) -> &Report {
        match self {
            Self::Nobody { report, .. } | Self::TooManyBranches { report, .. } => report,
        }
    }
}

fn reasons(report: &Report, service: &ServiceName) -> String {
    let failed = report.failure().map(|decision| decision.reasons(service));
    failed.unwrap_or_else(|| "no rule leads to one".to_owned())
}

fn list(wirings: &[WiringName]) -> String {
    let names: Vec<&str> = wirings.iter().map(WiringName::as_str).collect();
    names.join(", ")
}

/// Chooses the way of a connection.
pub fn select(
    inventory: &Inventory,
    usage: &dyn Usage,
    input: &SelectInput<'_>,
) -> Result<Selection, SelectError> {
    let service = || input.service.name().clone();
    let (outcome, report, choices) = Walk::new(inventory, usage, input).run();
    let Some(branches) = outcome else {
        return Err(SelectError::Nobody {
            service: service(),
            report,
        });
    };
    let traffic: usize = branches.iter().map(|branch| branch.traffic.len()).sum();
    if branches.len() > MAX_BRANCHES || traffic > MAX_TRAFFIC {
        let mut wirings: Vec<_> = branches.iter().filter_map(|one| one.wiring.clone()).collect();
        wirings.dedup();
        return Err(SelectError::TooManyBranches {
            service: service(),
            branches: branches.len(),
            traffic,
            wirings,
            report,
        });
    }
    Ok(Selection {
        branches,
        report,
        choices,
    })
}

/// The way that the rest of a connection's traffic takes when `selection`'s fails: without any of the endpoints on it
/// or, where that is not to be had, without the one at its end, or else without its functions. Who is dead is held in reserve only if nobody else is there:
/// its node goes on asking, and tells when it answers again. `None`: there is none.
#[must_use]
pub fn backup(
    inventory: &Inventory,
    usage: &dyn Usage,
    input: &SelectInput<'_>,
    selection: &[BranchPath],
) -> Option<BranchPath> {
    let rest = selection.last()?;
    let all: Vec<EndpointName> = rest.names().cloned().collect();
    let (functions, end) = all.split_at_checked(all.len().checked_sub(1)?)?;
    let mut tries = vec![all.as_slice()];
    if !functions.is_empty() {
        tries.extend([end, functions]);
    }
    let healths: [&[Health]; 2] = [&[Health::Well], &[Health::Well, Health::Dead]];
    let mut tries = healths
        .into_iter()
        .flat_map(|healths| tries.iter().map(move |passed| (healths, *passed)));
    tries.find_map(|(healths, passed)| {
        let avoid = &[passed, input.avoid].concat();
        let input = SelectInput { avoid, ..*input };
        Walk::new(inventory, usage, &input).in_reserve(selection, healths)
    })
}

/// Why nothing can be reached behind an endpoint of `service`; `None`: it ends paths, or they go on behind it.
pub(crate) fn dead_end(
    inventory: &Inventory,
    service: &NetworkService,
    endpoint: &Arc<NetworkServiceEndpoint>,
) -> Option<String> {
    /// Nobody is connected to anybody.
    struct Idle;

    impl Usage for Idle {
        fn connections(&self, _: &EndpointName) -> usize {
            0
        }

        fn holder(&self, _: &NetworkServiceEndpoint) -> Option<&ConnectionId> {
            None
        }
    }

    let id = ConnectionId::parse("id", "analysis").ok()?;
    let netns = NetnsRef::parse("netns", "/proc/0/ns/net", None).ok()?;
    let labels = Labels::default();
    let input = SelectInput {
        id: &id,
        service,
        client: Client {
            node: endpoint.node(),
            netns: &netns,
            labels: &labels,
            attested: &labels,
        },
        wanted: None,
        current: &[],
        told: &Told::new(),
        avoid: &[],
        turn: 0,
    };
    Walk::new(inventory, &Idle, &input).dead_end(endpoint)
}
