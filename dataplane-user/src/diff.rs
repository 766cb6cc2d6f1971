//! From what should be and what is to what to do: pure, complete and in order.
//!
//! The order is the contract of make-before-break: pairs are made and configured, entries are written (they do not
//! count yet), programs attached, the generation word flips, and only then entries, attachments and pairs that are
//! not wanted go. An entry is always written before the program that reads it is attached, and always gone or
//! rewritten before an interface that it leads to is deleted: the kernel may give that index to another interface.

use std::collections::{BTreeMap, BTreeSet};

use dataplane_common::abi::{Generation, Hop, HopKind, Position, PositionFlags};

use crate::{
    desired::{Desired, End, IfName, Payload, VethEnd, Wire, WireId},
    observed::{HostInterface, Inner, Observed, Obstacle, Owned, is_automatic},
    op::{InnerChange, NewEnd, Op, Point, Settle, Step, Unpoint},
    ownership::{Mark, NodeScope, host_name},
};

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// Wires that cannot be made. The steps take away what there is of them.
    pub refused: Vec<(WireId, Obstacle)>,
}

/// The name of an end's interface in the agent's namespace.
#[must_use]
pub fn host_of(scope: &NodeScope, wire: &Wire, side: crate::desired::Side) -> IfName {
    match wire.end(side) {
        End::Veth(end) => host_name(scope, &wire.id, side, end),
        End::Interface(end) => end.name.clone(),
    }
}

/// Makes `observed` into `desired`. Whatever `observed` holds and `desired` does not name is taken away if it is ours.
#[must_use]
pub fn diff(scope: &NodeScope, desired: &Desired, observed: &Observed) -> Plan {
    let mut phases = Phases::default();
    let mut wanted = BTreeSet::new();
    let mut owners = BTreeMap::new();
    let mut refused = Vec::new();
    for wire in desired.wires.values() {
        let hosts = wire.ends().map(|(side, _)| host_of(scope, wire, side));
        owners.extend(hosts.iter().map(|host| (host.clone(), wire.id.clone())));
        if let Some(obstacle) = obstacle(scope, wire, &hosts, observed) {
            refused.push((wire.id.clone(), obstacle));
            continue;
        }
        phases.make(scope, wire, &hosts, observed, desired.generation);
        wanted.extend(hosts);
    }
    for (host, interface) in observed
        .interfaces
        .iter()
        .filter(|(host, _)| !wanted.contains(*host))
    {
        phases.unmake(owners.get(host), host, interface);
    }
    phases.sweep(observed);
    let flip = observed.generation < desired.generation;
    Plan {
        steps: phases.in_order(flip.then_some(desired.generation)),
        refused,
    }
}

/// Why a wire cannot be made: something was found in the way, or a name of the scheme belongs to another wire.
fn obstacle(scope: &NodeScope, wire: &Wire, hosts: &[IfName; 2], observed: &Observed) -> Option<Obstacle> {
    wire.ends()
        .into_iter()
        .zip(hosts)
        .find_map(|((side, end), host)| {
            let mark = || Mark::new(scope, &wire.id, side);
            let found = || observed.interfaces.get(host)?.managed.as_ref();
            let other = || matches!(end, End::Veth(_)) && found().is_some_and(|link| *link.mark() != mark());
            let clash = || other().then(|| Obstacle::HostNameTaken { host: host.clone() });
            observed.obstacles.get(host).cloned().or_else(clash)
        })
}

/// Whether a pair of ours has lost its workload's end: it was renamed or moved away.
fn is_broken(end: &End, found: Option<&HostInterface>) -> bool {
    matches!(end, End::Veth(_)) && found.is_some_and(|interface| interface.inner.is_none())
}

/// Steps by kind; their order is that of the fields.
#[derive(Default)]
struct Phases {
    clear: Vec<Step>,
    create: Vec<Step>,
    settle: Vec<Step>,
    configure: Vec<Step>,
    point: Vec<Step>,
    attach: Vec<Step>,
    unpoint: Vec<Step>,
    detach: Vec<Step>,
    delete: Vec<Step>,
}

impl Phases {
    fn in_order(self, flip: Option<Generation>) -> Vec<Step> {
        let flip = flip.map(|generation| Step {
            wire: None,
            op: Op::Flip(generation),
        });
        let make = [
            self.clear,
            self.create,
            self.settle,
            self.configure,
            self.point,
            self.attach,
        ];
        let take_away = [self.unpoint, self.detach, self.delete];
        make.into_iter()
            .flatten()
            .chain(flip)
            .chain(take_away.into_iter().flatten())
            .collect()
    }

    fn make(
        &mut self,
        scope: &NodeScope,
        wire: &Wire,
        hosts: &[IfName; 2],
        observed: &Observed,
        generation: Generation,
    ) {
        let step = |op| Step {
            wire: Some(wire.id.clone()),
            op,
        };
        let [near, far] = hosts.each_ref().map(|host| (host, observed.interfaces.get(host)));
        let broken = is_broken(&wire.client, near.1) || is_broken(&wire.endpoint, far.1);
        if broken {
            self.clear(wire, [near.1, far.1]);
        }
        for ((side, end), ((at, here), (to, there))) in
            wire.ends().into_iter().zip([(near, far), (far, near)])
        {
            let whole = here.filter(|_| !is_broken(end, here));
            if let End::Veth(end) = end {
                self.make_veth(wire, end, at, Mark::new(scope, &wire.id, side), whole);
            }
            let kind = hop_kind(wire.payload, wire.end(side.other()));
            let flags = flags(wire.payload);
            let position = here.and_then(|interface| interface.position).filter(|_| !broken);
            let right = position.zip(there).is_some_and(|(position, there)| {
                position.hop_at(generation) == hop(kind, there.index) && position.flags == flags.bits()
            });
            if !right {
                let point = Point {
                    at: at.clone(),
                    to: to.clone(),
                    kind,
                    flags,
                    was: position,
                };
                self.point.push(step(Op::Point(point)));
            }
            if !whole.is_some_and(|interface| interface.attached) {
                self.attach.push(step(Op::Attach(at.clone())));
            }
        }
    }

    /// Takes down a wire that has lost an end, entries first, so that it can be made again.
    fn clear(&mut self, wire: &Wire, found: [Option<&HostInterface>; 2]) {
        let step = |op| Step {
            wire: Some(wire.id.clone()),
            op,
        };
        for interface in found.into_iter().flatten() {
            let unpoint = |position: Position| Unpoint {
                index: interface.index,
                slot: position.slot,
            };
            self.clear.extend(
                interface
                    .position
                    .map(|position| step(Op::Unpoint(unpoint(position)))),
            );
        }
        for ((_, end), interface) in wire.ends().into_iter().zip(found) {
            let gone = interface
                .filter(|_| is_broken(end, interface))
                .and_then(|found| found.managed.clone());
            self.clear.extend(gone.map(|link| step(Op::Delete(link))));
        }
    }

    fn make_veth(
        &mut self,
        wire: &Wire,
        end: &VethEnd,
        host: &IfName,
        mark: Mark,
        found: Option<&HostInterface>,
    ) {
        let step = |op| Step {
            wire: Some(wire.id.clone()),
            op,
        };
        let Some(interface) = found else {
            let new = NewEnd {
                host: host.clone(),
                mark,
                mtu: wire.mtu,
                end: end.clone(),
            };
            self.create.push(step(Op::Create(Box::new(new))));
            self.configure_inner(wire, end, host, None);
            return;
        };
        if let Some(link) = interface
            .managed
            .as_ref()
            .filter(|_| interface.mtu != wire.mtu || !interface.settled)
        {
            self.settle.push(step(Op::Settle(Settle {
                link: link.clone(),
                mtu: wire.mtu,
            })));
        }
        self.configure_inner(wire, end, host, interface.inner.as_ref());
    }

    fn configure_inner(&mut self, wire: &Wire, end: &VethEnd, host: &IfName, inner: Option<&Inner>) {
        let change = inner_change(wire, end, host, inner);
        if !change.is_empty() {
            self.configure.push(Step {
                wire: Some(wire.id.clone()),
                op: Op::Configure(Box::new(change)),
            });
        }
    }

    fn unmake(&mut self, wire: Option<&WireId>, host: &IfName, interface: &HostInterface) {
        // Without a wire in the plan, the steps of one interface hang together by its name.
        let tag = wire.cloned().unwrap_or_else(|| WireId(host.to_string()));
        let step = |op| Step {
            wire: Some(tag.clone()),
            op,
        };
        if let Some(position) = interface.position {
            let unpoint = Unpoint {
                index: interface.index,
                slot: position.slot,
            };
            self.unpoint.push(step(Op::Unpoint(unpoint)));
        }
        match &interface.managed {
            Some(managed) => self.delete.push(step(Op::Delete(managed.clone()))),
            None if interface.attached => self.detach.push(step(Op::Detach(host.clone()))),
            None => {}
        }
    }

    fn sweep(&mut self, observed: &Observed) {
        for (index, position) in &observed.stray_positions {
            let unpoint = Unpoint {
                index: *index,
                slot: position.slot,
            };
            self.unpoint.push(Step {
                wire: None,
                op: Op::Unpoint(unpoint),
            });
        }
        // First of all: an interface of that name may be about to be made.
        for host in &observed.stray_attachments {
            self.clear.push(Step {
                wire: None,
                op: Op::Detach(host.clone()),
            });
        }
    }
}

/// How a packet is handed to an end: straight into the workload's namespace for IP; through the interface, as
/// Ethernet would, where exact Ethernet semantics are asked for or the interface is not a veth of ours.
const fn hop_kind(payload: Payload, to: &End) -> HopKind {
    match (payload, to) {
        (Payload::Ip, End::Veth(_)) => HopKind::Peer,
        (Payload::Ethernet, End::Veth(_)) | (_, End::Interface(_)) => HopKind::Egress,
    }
}

/// The hop of this kind to this interface.
#[must_use]
pub const fn hop(kind: HopKind, index: u32) -> Hop {
    match kind {
        HopKind::None => Hop::NONE,
        HopKind::Peer => Hop::peer(index),
        HopKind::Egress => Hop::egress(index),
    }
}

const fn flags(payload: Payload) -> PositionFlags {
    match payload {
        Payload::Ip => PositionFlags::IP_PAYLOAD,
        Payload::Ethernet => PositionFlags::ETHERNET_PAYLOAD,
    }
}

fn inner_change(wire: &Wire, end: &VethEnd, host: &IfName, inner: Option<&Inner>) -> InnerChange {
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
    if change.mac.is_some() || !change.remove_addresses.is_empty() {
        // The kernel drops the routes and neighbours that an address or a link state carried.
        change.add_routes.clone_from(&end.routes);
        change.add_neighbours.clone_from(&end.neighbours);
    }
    change
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
