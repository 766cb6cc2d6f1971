//! What to change at a workload's end.

use std::collections::BTreeSet;

use crate::{
    desired::{IfName, Policy, VethEnd, Wire},
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
    let wanted = numbered(end);
    let found = inner.map(|inner| inner.policies.clone()).unwrap_or_default();
    change.remove_policies = found.difference(&wanted).cloned().collect();
    change.add_policies = wanted.difference(&found).cloned().collect();
    change.remove_addresses.retain(|address| !is_automatic(address));
    // A fresh end has its hardware address, and is down.
    change.mac = inner.is_some_and(|inner| inner.mac != end.mac).then_some(end.mac);
    change.mtu = inner
        .is_none_or(|inner| inner.mtu != wire.mtu || !inner.up)
        .then_some(wire.mtu);
    change.forward = end.forwards && !inner.is_some_and(|inner| inner.forwards);
    if change.mac.is_some() || !change.remove_addresses.is_empty() {
        // The kernel drops the routes and neighbours that an address or a link state carried.
        change.add_routes.clone_from(&end.routes);
        change.add_neighbours.clone_from(&end.neighbours);
        change.add_policies = wanted.into_iter().collect();
    }
    change
}

/// The policies that an end shall have, with their places in the order.
fn numbered(end: &VethEnd) -> BTreeSet<(u8, Policy)> {
    (0..).zip(end.policies.iter().cloned()).collect()
}

/// What an end leaves in its namespace when it is deleted, to be taken away before.
pub(crate) fn withdrawal(host: &IfName, end: &VethEnd) -> Option<InnerChange> {
    let change = InnerChange {
        remove_policies: numbered(end).into_iter().collect(),
        ..InnerChange::none(host.clone(), end)
    };
    (!change.is_empty()).then_some(change)
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
