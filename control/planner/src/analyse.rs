//! What is wrong with rules before anybody asks: those that never decide, that nobody can follow, that name what is
//! not there, that contradict one another.

mod cycles;
mod overlap;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use tieline_model::{
    EndpointName, Invalid, NetworkService, NetworkServiceEndpoint, NetworkServiceWiring, ObjectKind,
    ServiceName, WiringName,
};

use crate::{Inventory, select::dead_end};

/// The most endpoints that are said to lead nowhere, for each service.
const MAX_DEAD_ENDS: usize = 8;

/// Something about a rule that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind of the object that has the rule.
    pub kind: ObjectKind,
    /// The object's name.
    pub name: String,
    /// The field that it is about.
    pub field: String,
    /// What it is.
    pub problem: Problem,
}

/// What can be wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It names a service that is not there.
    UnknownService {
        /// The service.
        service: ServiceName,
    },
    /// It never decides about a service: another wiring is tried before and holds for the same.
    Shadowed {
        /// The service.
        target: ServiceName,
        /// The other one.
        by: WiringName,
    },
    /// Which of two wirings decides hangs on their names alone.
    Conflict {
        /// The service.
        target: ServiceName,
        /// The one that is tried first.
        first: WiringName,
    },
    /// No way that it opens ever ends.
    Cycle {
        /// The service.
        target: ServiceName,
        /// The wirings that lead to one another.
        through: Vec<WiringName>,
    },
    /// A destination that selects none of the endpoints that are there.
    SelectsNobody {
        /// The service.
        target: ServiceName,
        /// The destination.
        selector: String,
    },
    /// An endpoint that it leads to passes packets on to nobody.
    DeadEnd {
        /// The service.
        target: ServiceName,
        /// The endpoint.
        endpoint: EndpointName,
        /// Why.
        because: String,
    },
    /// A match that never decides: one before it takes every request and does not fall through.
    UnreachableMatch {
        /// The match that takes every request.
        behind: usize,
    },
}

impl Problem {
    /// Whether the rule cannot be meant and is refused.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Cycle { .. })
    }

    /// Whether another object is what makes it one.
    #[must_use]
    pub fn is_caused_by(&self, kind: ObjectKind, name: &str) -> bool {
        match self {
            Self::Shadowed { by: other, .. } | Self::Conflict { first: other, .. } => {
                kind == ObjectKind::NetworkServiceWiring && other.as_str() == name
            }
            _ => false,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownService { service } => {
                write!(f, "NetworkService {service} is not there yet: apply it too")
            }
            Self::Shadowed { target, by } => write!(
                f,
                "never decides for {target}: wiring {by} goes before and holds for the same: give this one a higher priority, or remove it"
            ),
            Self::Conflict { target, first } => write!(
                f,
                "has the priority of wiring {first} for {target}, and both may hold: {first} decides by its name alone: give them different priorities"
            ),
            Self::Cycle { target, through } => {
                let names: Vec<&str> = through.iter().map(WiringName::as_str).collect();
                write!(
                    f,
                    "every way that it opens to {target} comes back to wirings {}: a loop: lead one of them to endpoints that they are not about",
                    names.join(", ")
                )
            }
            Self::SelectsNobody { target, selector } => {
                write!(
                    f,
                    "no endpoint of {target} has {}: requests are refused until one is registered",
                    if selector.is_empty() {
                        "any labels"
                    } else {
                        selector
                    }
                )
            }
            Self::DeadEnd {
                target,
                endpoint,
                because,
            } => write!(
                f,
                "endpoint {endpoint} of {target} passes packets on to nobody: {because}"
            ),
            Self::UnreachableMatch { behind } => write!(
                f,
                "never decides: matches[{behind}] takes every request and does not fall through"
            ),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl Finding {
    fn of_wiring(wiring: &NetworkServiceWiring, field: impl Into<String>, problem: Problem) -> Self {
        Self {
            kind: ObjectKind::NetworkServiceWiring,
            name: wiring.name().to_string(),
            field: field.into(),
            problem,
        }
    }

    /// The refusal, of a problem that is an error.
    #[must_use]
    pub fn refusal(&self) -> Invalid {
        Invalid::new(self.field.clone(), &self.name, self.problem.to_string())
    }
}

/// What is wrong with the rules of an inventory.
#[must_use]
pub fn analyse(inventory: &Inventory) -> Vec<Finding> {
    let about = inventory.wirings().values().flat_map(|wiring| wiring.target());
    analyse_services(
        inventory,
        &inventory.services().keys().chain(about).cloned().collect(),
    )
}

/// What is wrong with the rules about some services.
#[must_use]
pub fn analyse_services(inventory: &Inventory, services: &BTreeSet<ServiceName>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let about: BTreeMap<&WiringName, &Arc<NetworkServiceWiring>> = services
        .iter()
        .flat_map(|service| inventory.wirings_of(service))
        .map(|wiring| (wiring.name(), wiring))
        .collect();
    for wiring in about.values() {
        findings.extend(unknown_services(inventory, wiring));
        findings.extend(selecting_nobody(inventory, wiring));
    }
    for target in services {
        let wirings: Vec<&NetworkServiceWiring> = inventory.wirings_of(target).map(AsRef::as_ref).collect();
        findings.extend(overlap::findings(target, &wirings));
        findings.extend(cycles::findings(target, &wirings));
        findings.extend(dead_ends(inventory, target));
        findings.extend(
            inventory
                .services()
                .get(target)
                .into_iter()
                .flat_map(|one| unreachable_matches(one)),
        );
    }
    findings
}

/// What is wrong with wirings about a service, whoever is registered.
#[must_use]
pub fn check_wirings(target: &ServiceName, mut wirings: Vec<&NetworkServiceWiring>) -> Vec<Finding> {
    wirings.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let mut findings = overlap::findings(target, &wirings);
    findings.extend(cycles::findings(target, &wirings));
    findings
}

fn unknown_services(inventory: &Inventory, wiring: &NetworkServiceWiring) -> Vec<Finding> {
    let targets = wiring
        .target()
        .iter()
        .enumerate()
        .map(|(i, name)| (format!("target[{i}]"), name));
    let source = wiring.source().source_service.iter();
    let source = source.map(|source| ("source.source_service".to_owned(), &source.service));
    let unknown = targets
        .chain(source)
        .filter(|(_, name)| !inventory.services().contains_key(*name));
    unknown
        .map(|(field, name)| {
            let service = name.clone();
            Finding::of_wiring(wiring, field, Problem::UnknownService { service })
        })
        .collect()
}

fn selecting_nobody(inventory: &Inventory, wiring: &NetworkServiceWiring) -> Vec<Finding> {
    let mut findings = Vec::new();
    for target in wiring.target() {
        for (i, route) in wiring.route().iter().enumerate() {
            let selects =
                |one: &Arc<NetworkServiceEndpoint>| route.pod_selector.matches(&one.labels_for(target));
            if !inventory.offering(target).iter().any(selects) {
                let problem = Problem::SelectsNobody {
                    target: target.clone(),
                    selector: route.pod_selector.to_string(),
                };
                findings.push(Finding::of_wiring(
                    wiring,
                    format!("route[{i}].pod_selector"),
                    problem,
                ));
            }
        }
    }
    findings
}

/// Endpoints that a wiring makes pass packets on, or that say they do, and that lead to nobody.
fn dead_ends(inventory: &Inventory, target: &ServiceName) -> Vec<Finding> {
    let Some(service) = inventory.services().get(target) else {
        return Vec::new();
    };
    let mut found: BTreeMap<WiringName, Vec<Finding>> = BTreeMap::new();
    let mut count = 0;
    for endpoint in inventory.offering(target) {
        let labels = endpoint.labels_for(target);
        let leads_here = |wiring: &&Arc<NetworkServiceWiring>| {
            wiring
                .route()
                .iter()
                .position(|route| route.pod_selector.matches(&labels))
        };
        let by = inventory
            .wirings_of(target)
            .find_map(|wiring| Some((wiring, leads_here(&wiring)?)));
        let Some((wiring, route)) = by else { continue };
        let Some(because) = dead_end(inventory, service, endpoint) else {
            continue;
        };
        let problem = Problem::DeadEnd {
            target: target.clone(),
            endpoint: endpoint.name().clone(),
            because,
        };
        let finding = Finding::of_wiring(wiring, format!("route[{route}].pod_selector"), problem);
        found.entry(wiring.name().clone()).or_default().push(finding);
        count += 1;
        if count == MAX_DEAD_ENDS {
            break;
        }
    }
    found.into_values().flatten().collect()
}

fn unreachable_matches(service: &NetworkService) -> Vec<Finding> {
    let takes_all = |rule: &tieline_model::Match| rule.source_selector.is_empty() && !rule.fallthrough;
    let Some(behind) = service.matches().iter().position(takes_all) else {
        return Vec::new();
    };
    let finding = |index: usize| Finding {
        kind: ObjectKind::NetworkService,
        name: service.name().to_string(),
        field: format!("matches[{index}]"),
        problem: Problem::UnreachableMatch { behind },
    };
    (behind + 1..service.matches().len()).map(finding).collect()
}
