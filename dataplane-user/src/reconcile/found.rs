//! What was there when the agent started: it tells what the agent before it had decided.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    apply::Place,
    circuit::Leads,
    desired::{IfName, Wire},
    diff::Laid,
    observed::{HostInterface, Observed},
    ownership::NodeScope,
};

/// The ends that were found, by their name in the agent's namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Found(BTreeMap<IfName, End>);

#[derive(Clone, Copy, Debug)]
struct End {
    place: (u32, u32),
    /// The interface that everything goes to which enters there, by index; `None` if that depends.
    leads_to: Option<u32>,
}

impl Found {
    pub(super) fn new(observed: &Observed) -> Self {
        let end = |(host, interface): (&IfName, &HostInterface)| {
            let position = interface.position?;
            let end = End {
                place: (interface.index, position.slot),
                leads_to: match observed.leads_to(&position).as_slice() {
                    [one] => Some(*one),
                    _ => None,
                },
            };
            Some((host.clone(), end))
        };
        Self(observed.interfaces.iter().filter_map(end).collect())
    }

    /// The slots of those of a wire's ends that are as they were found.
    pub(super) fn slots(&self, laid: &Laid<'_>, places: &[Option<Place>]) -> BTreeSet<u32> {
        if self.0.is_empty() {
            return BTreeSet::new();
        }
        let ends = laid.hosts.iter().zip(places);
        let kept = ends.filter_map(|(host, place)| {
            let place = (*place)?;
            let slot = place.slot?;
            let end = self.0.get(host)?;
            (end.place == (place.index, slot)).then_some(slot)
        });
        kept.collect()
    }

    /// Whether what was found leads as `other` says, wherever that is not what `planned` says.
    pub(super) fn leads_as(&self, scope: &NodeScope, other: &Wire, planned: &Wire) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let (other, planned) = (Laid::new(scope, other), Laid::new(scope, planned));
        let as_planned: BTreeMap<_, _> = plain_leads(&planned).collect();
        let mut differs = plain_leads(&other)
            .filter(|(host, to)| as_planned.get(host) != Some(to))
            .peekable();
        let is_so = |(host, to): (&IfName, &IfName)| {
            let (end, to) = (self.0.get(host), self.0.get(to));
            end.zip(to)
                .is_some_and(|(end, to)| end.leads_to == Some(to.place.0))
        };
        differs.peek().is_some() && differs.all(is_so)
    }
}

/// The ends that lead to one other, whatever the flow.
fn plain_leads<'a>(laid: &'a Laid<'_>) -> impl Iterator<Item = (&'a IfName, &'a IfName)> {
    let ends = laid.hosts.iter().zip(&laid.layout.leads);
    ends.filter_map(|(host, leads)| match leads {
        Leads::To(to) => Some((host, laid.hosts.get(*to)?)),
        Leads::Nowhere | Leads::ByFlow(_) => None,
    })
}
