//! What to change at a workload's end.

use std::collections::BTreeSet;

use crate::{
    desired::{IfName, VethEnd, Wire},
    observed::{Inner, Owned, is_automatic},
    op::InnerChange,
};

/// What leads from `inner`, what is there, to `end`. Forwarding that a workload turned on by itself stays on.
pub(super) fn inner_change(wire: &Wire, end: &VethEnd, host: &IfName, inner: Option<&Inner>) -> InnerChange {
    let mut change = InnerChange::none(host.clone(), end);
    let empty = BTreeSet::new();
    let nothing = (BTreeSet::new(), BTreeSet::new());
    let (addresses, routes, neighbours) = inner.map_or((&empty, &nothing.0, &nothing.1), |i| {
        (&i.addresses, &i.routes, &i.neighbours)
    });
    (change.add_addresses, change.remove_addresses) = compare(&end.addresses, addresses);
    (change.add_routes, change.remove_routes) = compare(&end.routes, routes);
    let (add, remove) = compare(&end.neighbours, neighbours);
    // A new hardware address for the same neighbour replaces the entry in place.
    let kept: BTreeSet<_> = add.iter().map(|neighbour| neighbour.ip).collect();
    change.remove_neighbours = remove
        .iter()
        .map(|n| n.ip)
        .filter(|ip| !kept.contains(ip))
        .collect();
    change.add_neighbours = add;
    change.remove_addresses.retain(|address| !is_automatic(address));
    // A fresh end has its hardware address, and is down.
    change.mac = inner.is_some_and(|inner| inner.mac != end.mac).then_some(end.mac);
    change.mtu = inner
        .is_none_or(|inner| inner.mtu != wire.mtu || !inner.up)
        .then_some(wire.mtu);
    transit_change(&mut change, end, inner);
    change.forward = end.forwards && !inner.is_some_and(|inner| inner.forwards);
    if change.mac.is_some() || !change.remove_addresses.is_empty() {
        // The kernel drops the routes and neighbours that an address or a link state carried.
        change.add_routes.clone_from(&end.routes);
        change.add_neighbours.clone_from(&end.neighbours);
        change.add_transit = end
            .transit
            .iter()
            .flat_map(|transit| transit.routes.clone())
            .collect();
    }
    change
}

fn transit_change(change: &mut InnerChange, end: &VethEnd, inner: Option<&Inner>) {
    let (mut rules, mut routes) = (BTreeSet::new(), BTreeSet::new());
    if let Some(transit) = &end.transit {
        rules = transit.rules();
        routes.extend(transit.routes.iter().cloned());
    }
    let (no_rules, no_routes) = (BTreeSet::new(), BTreeSet::new());
    let (found_rules, found_routes) =
        inner.map_or((&no_rules, &no_routes), |inner| (&inner.rules, &inner.transit));
    change.remove_transit = found_routes.difference(&routes).cloned().collect();
    change.add_transit = routes.difference(found_routes).cloned().collect();
    change.remove_rules = found_rules.difference(&rules).cloned().collect();
    change.add_rules = rules.difference(found_rules).cloned().collect();
}

/// What an end leaves in its namespace when it is deleted, to be taken away before.
pub(crate) fn withdrawal(host: &IfName, end: &VethEnd) -> Option<InnerChange> {
    let transit = end.transit.as_ref()?;
    Some(InnerChange {
        remove_rules: transit.rules().into_iter().collect(),
        ..InnerChange::none(host.clone(), end)
    })
}

/// What of `wanted` is missing, in the plan's order; and what of ours is too much.
fn compare<T: Clone + Ord>(wanted: &[T], found: &BTreeSet<Owned<T>>) -> (Vec<T>, Vec<T>) {
    let wanted_set: BTreeSet<&T> = wanted.iter().collect();
    let found_set: BTreeSet<&T> = found.iter().map(|owned| &owned.value).collect();
    let missing = wanted
        .iter()
        .filter(|value| !found_set.contains(value))
        .cloned()
        .collect();
    let extra = found
        .iter()
        .filter(|owned| owned.ours && !wanted_set.contains(&owned.value));
    (missing, extra.map(|owned| owned.value.clone()).collect())
}
