//! Wirings about the same service that get into each other's way.

use tieline_model::{
    NetworkServiceWiring, Selector, ServiceName, SourceService, TrafficSelector, WiringSource,
};

use super::{Finding, Problem};

/// Who never decides, and who decides by name alone. `wirings` is in the order in which they are tried.
pub(super) fn findings(target: &ServiceName, wirings: &[&NetworkServiceWiring]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, later) in wirings.iter().enumerate() {
        let before = wirings.get(..i).unwrap_or_default();
        let target = target.clone();
        if let Some(by) = before.iter().find(|earlier| shadows(earlier, later)) {
            let by = by.name().clone();
            findings.push(Finding::of_wiring(
                later,
                "priority",
                Problem::Shadowed { target, by },
            ));
        } else if let Some(first) = before.iter().find(|earlier| conflict(earlier, later)) {
            let first = first.name().clone();
            findings.push(Finding::of_wiring(
                later,
                "priority",
                Problem::Conflict { target, first },
            ));
        }
    }
    findings
}

/// Whether `earlier` takes all that `later` is about.
fn shadows(earlier: &NetworkServiceWiring, later: &NetworkServiceWiring) -> bool {
    covers(earlier.source(), later.source()) && covers_traffic(earlier.traffic(), later.traffic())
}

/// Whether `wide` holds for whatever `narrow` holds for.
fn covers(wide: &WiringSource, narrow: &WiringSource) -> bool {
    (wide.source_service.is_none() || wide.source_service == narrow.source_service)
        && narrow.pod_selector.implies(&wide.pod_selector)
        && narrow.client_selector.implies(&wide.client_selector)
}

fn covers_traffic(wide: &[TrafficSelector], narrow: &[TrafficSelector]) -> bool {
    let covered = |one: &TrafficSelector| wide.iter().any(|other| other.covers(one));
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(covered))
}

/// Whether both plainly hold for some source, of the same priority, and lead elsewhere. Two wirings that look at
/// different things, one at the service and one at labels, may both hold as well; that is how they are meant to stand
/// beside each other and is not told.
fn conflict(earlier: &NetworkServiceWiring, later: &NetworkServiceWiring) -> bool {
    let traffic_meets = || {
        let (a, b) = (earlier.traffic(), later.traffic());
        // A part beside the rest is what branches are for.
        a.is_empty() == b.is_empty()
            && (a.is_empty() || a.iter().any(|one| b.iter().any(|other| one.and(other).is_some())))
    };
    earlier.priority() == later.priority()
        && earlier.route() != later.route()
        && sources_meet(earlier.source(), later.source())
        && traffic_meets()
}

fn sources_meet(a: &WiringSource, b: &WiringSource) -> bool {
    let service = |one: &SourceService, other: &SourceService| {
        one.service != other.service || one.negated == other.negated
    };
    let services = a.source_service.as_ref().zip(b.source_service.as_ref());
    let looks_at = |source: &WiringSource| {
        [
            source.source_service.is_some(),
            !source.pod_selector.is_empty(),
            !source.client_selector.is_empty(),
        ]
    };
    let (left, right) = (looks_at(a), looks_at(b));
    let at_the_same = left.iter().zip(&right).any(|(a, b)| *a && *b);
    let at_nothing = |looks: [bool; 3]| !looks.contains(&true);
    let meets = |a: &Selector, b: &Selector| a.meets(b);
    (at_the_same || at_nothing(left) || at_nothing(right))
        && services.is_none_or(|(one, other)| service(one, other))
        && meets(&a.pod_selector, &b.pod_selector)
        && meets(&a.client_selector, &b.client_selector)
}
