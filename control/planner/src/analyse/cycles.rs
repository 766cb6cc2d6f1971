//! Wirings whose ways never end, whoever is registered.

use std::collections::BTreeSet;

use tieline_model::{NetworkServiceWiring, Selector, ServiceName, WiringName};

use super::{Finding, Problem};

/// The wirings from which every destination leads on for ever. Taken as certain is only what the selectors alone say:
/// an endpoint that a destination selects has the labels of that selector proven, and is not plumbed as an end.
pub(super) fn findings(target: &ServiceName, wirings: &[&NetworkServiceWiring]) -> Vec<Finding> {
    let next = |wiring: &NetworkServiceWiring| -> Option<BTreeSet<WiringName>> {
        let live = wiring
            .route()
            .iter()
            .filter(|route| route.weight > 0 || unweighted(wiring));
        live.map(|route| leads_on(target, wirings, &route.pod_selector))
            .collect()
    };
    let mut rest: Vec<(&NetworkServiceWiring, BTreeSet<WiringName>)> = wirings
        .iter()
        .filter_map(|wiring| Some((*wiring, next(wiring)?)))
        .collect();
    // Whoever leads out of the set is no part of a loop; then whoever leads to them, and so on.
    loop {
        let names: BTreeSet<WiringName> = rest.iter().map(|(wiring, _)| wiring.name().clone()).collect();
        let before = rest.len();
        rest.retain(|(_, next)| next.is_subset(&names));
        if rest.len() == before {
            break;
        }
    }
    let finding = |(wiring, next): &(&NetworkServiceWiring, BTreeSet<WiringName>)| {
        let problem = Problem::Cycle {
            target: target.clone(),
            through: next.iter().cloned().collect(),
        };
        Finding::of_wiring(wiring, "route", problem)
    };
    rest.iter().map(finding).collect()
}

fn unweighted(wiring: &NetworkServiceWiring) -> bool {
    wiring.route().iter().all(|route| route.weight == 0)
}

/// The wiring that certainly decides behind every endpoint that `destination` selects.
fn leads_on(
    target: &ServiceName,
    wirings: &[&NetworkServiceWiring],
    destination: &Selector,
) -> Option<WiringName> {
    for wiring in wirings {
        match holds(target, wiring, destination) {
            Some(false) => {}
            Some(true) if wiring.traffic().is_empty() && passes_on(wiring, destination) => {
                return Some(wiring.name().clone());
            }
            Some(true) | None => return None,
        }
    }
    None
}

/// Whether a wiring applies to whom `destination` selects; `None`: to some of them perhaps.
fn holds(target: &ServiceName, wiring: &NetworkServiceWiring, destination: &Selector) -> Option<bool> {
    let source = wiring.source();
    let service = match &source.source_service {
        None => Some(true),
        Some(service) if service.service == *target => Some(!service.negated),
        Some(_) => None,
    };
    let pod = if destination.implies(&source.pod_selector) {
        Some(true)
    } else if destination.meets(&source.pod_selector) {
        None
    } else {
        Some(false)
    };
    let client = source.client_selector.is_empty().then_some(true);
    let parts = [service, pod, client];
    if parts.contains(&Some(false)) {
        Some(false)
    } else if parts.contains(&None) {
        None
    } else {
        Some(true)
    }
}

/// Whether endpoints that `destination` selects pass packets on by `wiring`, whatever they say of themselves.
fn passes_on(wiring: &NetworkServiceWiring, destination: &Selector) -> bool {
    let leads_to = || {
        wiring
            .route()
            .iter()
            .any(|route| destination.meets(&route.pod_selector))
    };
    let source = wiring.source();
    source.is_positive() && (source.names_labels() || !leads_to())
}
