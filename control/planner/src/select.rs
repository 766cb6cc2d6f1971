//! Which endpoint a request gets, and why.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use tieline_model::{
    Attachment, ConnectionId, EndpointName, Labels, Match, NetnsRef, NetworkService, NetworkServiceEndpoint,
    NodeName, Selector, ServiceName,
};

/// What is chosen from.
#[derive(Debug, Clone)]
pub struct SelectInput<'a> {
    /// The service asked for.
    pub service: &'a NetworkService,
    /// The labels of the request.
    pub labels: &'a Labels,
    /// The client's node.
    pub node: &'a NodeName,
    /// The client's namespace.
    pub netns: &'a NetnsRef,
    /// The endpoint that the client names, if it does.
    pub wanted: Option<&'a EndpointName>,
    /// The endpoints registered for the service.
    pub candidates: Vec<Candidate<'a>>,
}

/// An endpoint that may serve.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The endpoint.
    pub endpoint: &'a NetworkServiceEndpoint,
    /// The connection that its interface already ends, if the endpoint is an existing interface.
    pub taken_by: Option<&'a ConnectionId>,
}

/// The choice and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// How it came about.
    pub report: Report,
}

/// What was looked at, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The rules that were looked at.
    pub steps: Vec<Step>,
    /// The endpoints that a rule took out.
    pub removed: Vec<Removed>,
}

/// One rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A match whose source selector the request does not satisfy.
    MatchPassedOver {
        /// Its index in the service's `matches`.
        index: usize,
        /// Its source selector.
        source: String,
    },
    /// A match that applies and leaves nobody; the next one is tried if it says `fallthrough`.
    MatchExhausted {
        /// Its index in the service's `matches`.
        index: usize,
        /// Whether the next one is tried.
        fallthrough: bool,
    },
    /// No match applies.
    NoMatchApplied,
    /// The match that decides.
    Matched {
        /// Its index in the service's `matches`.
        index: usize,
    },
    /// The service's selector decides.
    Selector {
        /// It.
        selector: String,
    },
    /// Any endpoint will do.
    Any,
    /// The policy took one of several.
    Policy {
        /// How many endpoints there were.
        endpoints: usize,
        /// The cursor it started from.
        cursor: u64,
    },
}

/// An endpoint that a rule took out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// The rule.
    pub by: Removal,
}

/// A rule that takes an endpoint out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// The client asks for another one by name.
    NotTheOneNamed {
        /// The one asked for.
        wanted: EndpointName,
    },
    /// It is on another node.
    OtherNode {
        /// That node.
        node: NodeName,
    },
    /// It is the client itself.
    ClientItself {
        /// The namespace of both.
        netns: NetnsRef,
    },
    /// It is an interface that ends another wire.
    InterfaceTaken {
        /// The connection that has it.
        by: ConnectionId,
    },
    /// Its labels satisfy no destination of the match.
    NoDestination {
        /// The match's index.
        index: usize,
    },
    /// Only destinations of weight 0 are left for it.
    WeightZero {
        /// The match's index.
        index: usize,
    },
    /// Its labels do not satisfy the service's selector.
    NotSelected {
        /// The selector.
        selector: String,
    },
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTheOneNamed { wanted } => write!(f, "the request names endpoint {wanted}"),
            Self::OtherNode { node } => {
                write!(f, "on node {node}: wires between nodes are not supported yet")
            }
            Self::ClientItself { netns } => write!(
                f,
                "in the client's own namespace {netns}: a wire to itself is a loop"
            ),
            Self::InterfaceTaken { by } => write!(
                f,
                "its interface ends connection {by}: an interface ends one wire"
            ),
            Self::NoDestination { index } => {
                write!(f, "matches[{index}]: its labels satisfy no destination_selector")
            }
            Self::WeightZero { index } => write!(f, "matches[{index}]: its destinations have weight 0"),
            Self::NotSelected { selector } => {
                write!(f, "its labels do not satisfy the service's selector {selector}")
            }
        }
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.by)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MatchPassedOver { index, source } => {
                write!(f, "matches[{index}]: the request does not carry {source}")
            }
            Self::MatchExhausted {
                index,
                fallthrough: true,
            } => {
                write!(f, "matches[{index}]: no endpoint left, and it falls through")
            }
            Self::MatchExhausted {
                index,
                fallthrough: false,
            } => {
                write!(
                    f,
                    "matches[{index}]: no endpoint left, and it does not say fallthrough"
                )
            }
            Self::NoMatchApplied => f.write_str("no match applies to the request"),
            Self::Matched { index } => write!(f, "matches[{index}] decides"),
            Self::Selector { selector } => write!(f, "the service's selector {selector} decides"),
            Self::Any => f.write_str("any endpoint of the service will do"),
            Self::Policy { endpoints, cursor } => write!(f, "round robin over {endpoints} at {cursor}"),
        }
    }
}

/// No endpoint can serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint of NetworkService {service} can serve the request: {}", reasons(.report))]
pub struct SelectError {
    /// The service asked for.
    pub service: ServiceName,
    /// What was looked at.
    pub report: Report,
}

/// The most endpoints that an error spells out.
const MAX_LISTED: usize = 16;

fn reasons(report: &Report) -> String {
    let mut parts: Vec<String> = Vec::new();
    let refusing = |step: &&Step| !matches!(step, Step::Any | Step::Policy { .. } | Step::Matched { .. });
    parts.extend(report.steps.iter().filter(refusing).map(ToString::to_string));
    parts.extend(report.removed.iter().take(MAX_LISTED).map(ToString::to_string));
    if report.removed.len() > MAX_LISTED {
        parts.push(format!("and {} more", report.removed.len() - MAX_LISTED));
    }
    if report.removed.is_empty() {
        parts.push("none is registered: register one for this service".to_owned());
    }
    parts.join("; ")
}

/// Chooses an endpoint by the service's `matches`, or else its selector, or else among all (design §6.1), and among
/// several by its policy at `cursor`, which the caller counts up for each choice made for the service.
pub fn select(input: &SelectInput<'_>, cursor: u64) -> Result<Selection, SelectError> {
    let mut report = Report::default();
    let mut candidates = able(input, &mut report);
    candidates.sort_by(|a, b| a.name().cmp(b.name()));
    let groups = if input.service.matches().is_empty() {
        select_plainly(input, candidates, &mut report)
    } else {
        select_by_matches(input, &candidates, &mut report)
    };
    match round_robin(&groups, cursor) {
        Some(endpoint) => {
            let endpoints = groups.iter().map(|group| group.endpoints.len()).sum();
            report.steps.push(Step::Policy { endpoints, cursor });
            Ok(Selection {
                endpoint: endpoint.name().clone(),
                report,
            })
        }
        None => Err(SelectError {
            service: input.service.name().clone(),
            report,
        }),
    }
}

/// Endpoints that share a weight.
struct Group<'a> {
    weight: u64,
    endpoints: Vec<&'a NetworkServiceEndpoint>,
}

/// The candidates that could be wired to the client at all.
fn able<'a>(input: &SelectInput<'a>, report: &mut Report) -> Vec<&'a NetworkServiceEndpoint> {
    let mut able = Vec::with_capacity(input.candidates.len());
    for candidate in &input.candidates {
        match unable(input, candidate) {
            None => able.push(candidate.endpoint),
            Some(by) => report.removed.push(Removed {
                endpoint: candidate.endpoint.name().clone(),
                by,
            }),
        }
    }
    able
}

fn unable(input: &SelectInput<'_>, candidate: &Candidate<'_>) -> Option<Removal> {
    let endpoint = candidate.endpoint;
    if let Some(wanted) = input.wanted.filter(|wanted| *wanted != endpoint.name()) {
        return Some(Removal::NotTheOneNamed {
            wanted: wanted.clone(),
        });
    }
    if endpoint.node() != input.node {
        return Some(Removal::OtherNode {
            node: endpoint.node().clone(),
        });
    }
    match endpoint.attachment() {
        Attachment::Netns(netns) if netns.is_same(input.netns) => {
            Some(Removal::ClientItself { netns: netns.clone() })
        }
        Attachment::Interface(_) => candidate
            .taken_by
            .map(|by| Removal::InterfaceTaken { by: by.clone() }),
        Attachment::Netns(_) => None,
    }
}

fn select_plainly<'a>(
    input: &SelectInput<'_>,
    candidates: Vec<&'a NetworkServiceEndpoint>,
    report: &mut Report,
) -> Vec<Group<'a>> {
    let [selector] = input.service.selector().stages() else {
        return Vec::new();
    };
    if selector.is_empty() {
        report.steps.push(Step::Any);
        return vec![Group {
            weight: 1,
            endpoints: candidates,
        }];
    }
    report.steps.push(Step::Selector {
        selector: selector.to_string(),
    });
    let (endpoints, others): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .partition(|one| labels_of(one, input.service).contains(selector));
    let by = Removal::NotSelected {
        selector: selector.to_string(),
    };
    report.removed.extend(others.iter().map(|one| Removed {
        endpoint: one.name().clone(),
        by: by.clone(),
    }));
    vec![Group { weight: 1, endpoints }]
}

fn labels_of<'a>(endpoint: &'a NetworkServiceEndpoint, service: &NetworkService) -> &'a Labels {
    static NONE: std::sync::OnceLock<Labels> = std::sync::OnceLock::new();
    endpoint
        .services()
        .get(service.name())
        .unwrap_or_else(|| NONE.get_or_init(Labels::default))
}

fn select_by_matches<'a>(
    input: &SelectInput<'_>,
    candidates: &[&'a NetworkServiceEndpoint],
    report: &mut Report,
) -> Vec<Group<'a>> {
    let mut applied = false;
    for (index, rule) in input.service.matches().iter().enumerate() {
        let applies = rule
            .source_selector
            .render(input.labels)
            .is_ok_and(|source| source.matches(input.labels));
        if !applies {
            report.steps.push(Step::MatchPassedOver {
                index,
                source: rule.source_selector.to_string(),
            });
            continue;
        }
        applied = true;
        let groups = destinations(input, rule, index, candidates, report);
        if groups
            .iter()
            .any(|group| group.weight > 0 && !group.endpoints.is_empty())
        {
            report.steps.push(Step::Matched { index });
            return groups;
        }
        report.steps.push(Step::MatchExhausted {
            index,
            fallthrough: rule.fallthrough,
        });
        if !rule.fallthrough {
            return Vec::new();
        }
    }
    if !applied {
        report.steps.push(Step::NoMatchApplied);
    }
    Vec::new()
}

/// The endpoints of each destination of `rule`, with its weight. Who is in none is reported.
fn destinations<'a>(
    input: &SelectInput<'_>,
    rule: &Match,
    index: usize,
    candidates: &[&'a NetworkServiceEndpoint],
    report: &mut Report,
) -> Vec<Group<'a>> {
    if rule.routes.is_empty() {
        return vec![Group {
            weight: 1,
            endpoints: candidates.to_vec(),
        }];
    }
    let unweighted = rule.routes.iter().all(|route| route.weight == 0);
    let group = |(weight, selector): (u64, Option<Selector>)| {
        let chosen = |one: &&&'a NetworkServiceEndpoint| {
            selector
                .as_ref()
                .is_some_and(|selector| selector.matches(labels_of(one, input.service)))
        };
        Group {
            weight,
            endpoints: candidates.iter().filter(chosen).copied().collect(),
        }
    };
    let destination = |route: &tieline_model::Destination| {
        let weight = if unweighted { 1 } else { u64::from(route.weight) };
        (weight, route.destination_selector.render(input.labels).ok())
    };
    let groups: Vec<Group<'a>> = rule.routes.iter().map(destination).map(group).collect();
    let mut best: BTreeMap<&EndpointName, u64> = BTreeMap::new();
    for group in &groups {
        for one in &group.endpoints {
            let weight = best.entry(one.name()).or_default();
            *weight = group.weight.max(*weight);
        }
    }
    for one in candidates {
        let by = match best.get(one.name()) {
            None => Removal::NoDestination { index },
            Some(0) => Removal::WeightZero { index },
            Some(_) => continue,
        };
        report.removed.push(Removed {
            endpoint: one.name().clone(),
            by,
        });
    }
    groups
}

/// Weighted round robin: of every `sum of weights` choices each group gets its weight, and within a group each
/// endpoint has its turn.
fn round_robin<'a>(groups: &[Group<'a>], cursor: u64) -> Option<&'a NetworkServiceEndpoint> {
    let live = || {
        groups
            .iter()
            .filter(|group| group.weight > 0 && !group.endpoints.is_empty())
    };
    let total: u64 = live().map(|group| group.weight).sum();
    let (round, mut slot) = (cursor.checked_div(total)?, cursor.checked_rem(total)?);
    for group in live() {
        if slot < group.weight {
            let turn = round.wrapping_mul(group.weight).wrapping_add(slot);
            let count = u64::try_from(group.endpoints.len()).ok()?;
            return group
                .endpoints
                .get(usize::try_from(turn.checked_rem(count)?).ok()?)
                .copied();
        }
        slot -= group.weight;
    }
    None
}
