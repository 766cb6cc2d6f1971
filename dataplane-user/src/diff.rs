//! From what should be and what is to what to do: pure, complete and in order.
//!
//! The order is the contract of make-before-break: pairs are made and configured, entries are written (they do not
//! count yet), programs attached, the generation word flips, and only then entries, attachments and pairs that are
//! not wanted go. An entry is always written before the program that reads it is attached, and always gone or
//! rewritten before an interface that it leads to is deleted: the kernel may give that index to another interface.

mod inner;
pub mod split;

use std::collections::{BTreeMap, BTreeSet};

use dataplane_common::abi::{Generation, Hop, HopKind, Position, PositionFlags, SplitBranch};

use self::inner::inner_change;
pub(crate) use self::inner::withdrawal;
use crate::{
    circuit::{Facing, Layout, Leads},
    desired::{End, IfName, Payload, VethEnd, Wire, WireId},
    observed::{HostInterface, Inner, Observed, Obstacle, split_numbers},
    op::{InnerChange, Lead, NewEnd, Op, Point, Settle, SlotPlan, Step, Target, Unpoint, Unsplit},
    ownership::{Mark, NodeScope, host_name},
};

/// A wire with the names that its ends have in the agent's namespace.
#[derive(Debug)]
pub struct Laid<'a> {
    /// The wire.
    pub wire: &'a Wire,
    /// Its ends, and where they lead.
    pub layout: Layout<'a>,
    /// The ends' names, in the order of the layout.
    pub hosts: Vec<IfName>,
}

impl<'a> Laid<'a> {
    /// Names the ends of a wire.
    #[must_use]
    pub fn new(scope: &NodeScope, wire: &'a Wire) -> Self {
        let layout = wire.layout();
        let name = |facing: &Facing<'_>| match facing.end {
            End::Veth(end) => host_name(scope, &wire.id, facing.side, end.netns.id, &end.name),
            End::Interface(end) => end.name.clone(),
        };
        let hosts = layout.ends.iter().map(name).collect();
        Self { wire, layout, hosts }
    }

    /// The ends with their names.
    pub fn ends(&self) -> impl Iterator<Item = (&Facing<'a>, &IfName)> {
        self.layout.ends.iter().zip(&self.hosts)
    }

    /// What in `observed` keeps the wire from being made, and the number of the end that it is about: something was
    /// found in the way and does not give way, a name of the scheme belongs to another wire, or the wire has an
    /// existing interface at two ends.
    #[must_use]
    pub fn obstacle(
        &self,
        scope: &NodeScope,
        observed: &Observed,
        gives_way: impl Fn(&End, &Obstacle) -> bool,
    ) -> Option<(usize, Obstacle)> {
        self.ends().enumerate().find_map(|(number, (facing, host))| {
            let found = observed.obstacles.get(host).cloned();
            let found = found.filter(|obstacle| !gives_way(facing.end, obstacle));
            let obstacle = found
                .or_else(|| self.clash(scope, observed, number))
                .or_else(|| self.used_twice(number))?;
            Some((number, obstacle))
        })
    }

    /// An end whose name in the agent's namespace is another wire's.
    fn clash(&self, scope: &NodeScope, observed: &Observed, number: usize) -> Option<Obstacle> {
        let (facing, host) = self.ends().nth(number)?;
        let found = observed.interfaces.get(host)?.managed.as_ref()?;
        let other = matches!(facing.end, End::Veth(_))
            && *found.mark() != Mark::new(scope, &self.wire.id, facing.side);
        other.then(|| Obstacle::HostNameTaken { host: host.clone() })
    }

    /// An existing interface that is another end of this wire as well.
    fn used_twice(&self, number: usize) -> Option<Obstacle> {
        let host = self.hosts.get(number)?;
        let again = self.hosts.iter().take(number).any(|earlier| earlier == host);
        again.then(|| Obstacle::InterfaceBusy {
            name: host.clone(),
            by: self.wire.id.clone(),
        })
    }
}

/// What is on its way out, though it is not wanted: see [`crate::linger`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// Left as it is for now.
    pub stays: BTreeSet<IfName>,
    /// In the way of something new: goes before that is made.
    pub first: BTreeSet<IfName>,
    /// What of an end that goes its namespace would keep.
    pub withdrawals: BTreeMap<IfName, InnerChange>,
}

/// The steps that make `observed` into `wires`. What `observed` holds and no wire names is taken away if it is ours
/// and does not stay a while.
#[must_use]
pub fn diff(
    scope: &NodeScope,
    generation: Generation,
    wires: &[Laid<'_>],
    observed: &Observed,
    leaving: &Leaving,
) -> Vec<Step> {
    let going = leaving
        .first
        .iter()
        .filter_map(|host| observed.interfaces.get(host));
    let mut phases = Phases {
        severed: going.map(|interface| interface.index).collect(),
        ..Phases::default()
    };
    for wire in wires {
        phases.make(scope, wire, observed, generation);
    }
    let wanted: BTreeSet<&IfName> = wires.iter().flat_map(|wire| &wire.hosts).collect();
    let unwanted = observed
        .interfaces
        .iter()
        .filter(|(host, _)| !wanted.contains(*host) && !leaving.stays.contains(*host));
    for (host, interface) in unwanted {
        let first = leaving.first.contains(host) || phases.is_severed(interface, observed);
        phases.unmake(host, interface, first, leaving.withdrawals.get(host));
    }
    for host in &leaving.stays {
        phases.keep_splits(observed.interfaces.get(host), observed);
    }
    phases.sweep(observed);
    let flip = observed.generation < generation;
    phases.in_order(flip.then_some(generation))
}

/// Whether a pair of ours has lost its workload's end: it was renamed or moved away.
#[must_use]
pub fn is_broken(end: &End, found: Option<&HostInterface>) -> bool {
    matches!(end, End::Veth(_)) && found.is_some_and(|interface| interface.inner.is_none())
}

/// Steps by kind; their order is that of the fields.
#[derive(Default)]
struct Phases {
    /// Indexes that go before anything is made, and may then be those of something new.
    severed: BTreeSet<u32>,
    /// Entries, attachments and pairs that are in the way, and entries that lead there.
    make_way: (Vec<Step>, Vec<Step>, Vec<Step>),
    clear: Vec<Step>,
    create: Vec<Step>,
    settle: Vec<Step>,
    configure: Vec<Step>,
    point: Vec<Step>,
    attach: Vec<Step>,
    unpoint: Vec<Step>,
    detach: Vec<Step>,
    delete: Vec<Step>,
    unsplit: Vec<Step>,
    /// Numbers of splits, and counter slots of branches, that are in use afterwards.
    splits_in_use: (BTreeSet<u32>, BTreeSet<u32>),
    /// Who makes or takes away what led to a split.
    split_owners: BTreeMap<u32, WireId>,
}

impl Phases {
    fn in_order(self, flip: Option<Generation>) -> Vec<Step> {
        let flip = flip.map(|generation| Step {
            wire: None,
            op: Op::Flip(generation),
        });
        let make = [
            self.make_way.0,
            self.make_way.1,
            self.make_way.2,
            self.clear,
            self.create,
            self.settle,
            self.configure,
            self.point,
            self.attach,
        ];
        let take_away = [self.unpoint, self.detach, self.delete, self.unsplit];
        make.into_iter()
            .flatten()
            .chain(flip)
            .chain(take_away.into_iter().flatten())
            .collect()
    }

    fn make(&mut self, scope: &NodeScope, laid: &Laid<'_>, observed: &Observed, generation: Generation) {
        let wire = laid.wire;
        let step = |op| Step {
            wire: Some(wire.id.clone()),
            op,
        };
        let found: Vec<_> = laid
            .hosts
            .iter()
            .map(|host| observed.interfaces.get(host))
            .collect();
        let broken = laid
            .layout
            .ends
            .iter()
            .zip(&found)
            .any(|(facing, found)| is_broken(facing.end, *found));
        if broken {
            self.clear(laid, &found);
        }
        let ids = split::Ids::new(laid, &found, observed);
        for (number, (facing, host)) in laid.ends().enumerate() {
            let here = found.get(number).copied().flatten();
            let whole = here.filter(|_| !is_broken(facing.end, here));
            if let End::Veth(end) = facing.end {
                self.make_veth(wire, end, host, Mark::new(scope, &wire.id, facing.side), whole);
            }
            let severed = here.filter(|interface| self.is_severed(interface, observed));
            self.make_way.0.extend(severed.and_then(unpoint).map(step));
            let position = here.and_then(|interface| interface.position);
            let position = position.filter(|_| !broken && severed.is_none());
            let end = split::End {
                laid,
                ids: &ids,
                number,
                position,
                observed,
            };
            let flags = flags(wire, &laid.layout.chains, number);
            self.point(&end, host, flags, generation);
            if !whole.is_some_and(|interface| interface.attached) {
                self.attach.push(step(Op::Attach(host.clone())));
            }
        }
    }

    /// Writes an end's entry, unless it is there.
    fn point(&mut self, end: &split::End<'_>, host: &IfName, flags: PositionFlags, generation: Generation) {
        let step = |op| Step {
            wire: Some(end.laid.wire.id.clone()),
            op,
        };
        let to = lead(end);
        let right = end.position.filter(|position| {
            position.flags == flags.bits() && leads_there(position, &to, end.observed, generation)
        });
        if let Some(position) = right {
            self.keep_split(&position, end.observed, generation);
            return;
        }
        if let Lead::Split(new) = &to {
            let kept = new.ways.iter().filter_map(|way| match way.slot {
                SlotPlan::Keep(slot) => Some(slot),
                SlotPlan::None | SlotPlan::New => None,
            });
            self.splits_in_use.1.extend(kept);
        }
        let owned = end.position.iter().flat_map(split_numbers);
        self.split_owners
            .extend(owned.map(|number| (number, end.laid.wire.id.clone())));
        self.point.push(step(Op::Point(Point {
            at: host.clone(),
            to,
            flags,
            was: end.position,
        })));
    }

    /// The split stays that an interface's entry leads to.
    fn keep_splits(&mut self, interface: Option<&HostInterface>, observed: &Observed) {
        if let Some(position) = interface.and_then(|interface| interface.position) {
            self.keep_split(&position, observed, observed.generation);
        }
    }

    fn keep_split(&mut self, position: &Position, observed: &Observed, generation: Generation) {
        let hop = position.hop_at(generation);
        let split = observed.splits.get(&hop.ifindex);
        let Some(split) = split.filter(|_| hop.kind() == HopKind::Split) else {
            return;
        };
        let branches = split.branches.iter().filter(|branch| branch.id != 0);
        self.splits_in_use.0.insert(hop.ifindex);
        self.splits_in_use.1.extend(branches.map(|branch| branch.slot));
    }

    /// Whether packets that enter there are handed to what is about to make way.
    fn is_severed(&self, interface: &HostInterface, observed: &Observed) -> bool {
        let leads_to = interface.position.map(|position| observed.leads_to(&position));
        leads_to.is_some_and(|indexes| indexes.iter().any(|index| self.severed.contains(index)))
    }

    /// Takes down a wire that has lost an end, entries first, so that it can be made again.
    fn clear(&mut self, laid: &Laid<'_>, found: &[Option<&HostInterface>]) {
        let step = |op| Step {
            wire: Some(laid.wire.id.clone()),
            op,
        };
        let there = found.iter().copied().flatten();
        self.clear.extend(there.filter_map(unpoint).map(step));
        for (facing, interface) in laid.layout.ends.iter().zip(found.iter().copied()) {
            let gone = interface
                .filter(|_| is_broken(facing.end, interface))
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

    /// Takes away what no wire wants, before anything is made if that is in its way. The steps of one interface hang
    /// together by its name.
    fn unmake(
        &mut self,
        host: &IfName,
        interface: &HostInterface,
        first: bool,
        withdrawal: Option<&InnerChange>,
    ) {
        let step = |op| Step {
            wire: Some(WireId(host.to_string())),
            op,
        };
        let (unpoints, detaches, deletes) = if first {
            (&mut self.make_way.0, &mut self.make_way.1, &mut self.make_way.2)
        } else {
            (&mut self.unpoint, &mut self.detach, &mut self.delete)
        };
        unpoints.extend(unpoint(interface).map(step));
        detaches.extend(withdrawal.map(|change| step(Op::Configure(Box::new(change.clone())))));
        match &interface.managed {
            Some(managed) => deletes.push(step(Op::Delete(managed.clone()))),
            None if interface.attached => detaches.push(step(Op::Detach(host.clone()))),
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
        let (kept, slots_kept) = &self.splits_in_use;
        for (number, split) in observed
            .splits
            .iter()
            .filter(|(number, _)| !kept.contains(number))
        {
            let slots = split
                .branches
                .iter()
                .filter(|branch| branch.id != 0)
                .map(|branch| branch.slot);
            let free = slots.filter(|slot| *slot != SplitBranch::NO_SLOT && !slots_kept.contains(slot));
            self.unsplit.push(Step {
                wire: self.split_owners.get(number).cloned(),
                op: Op::Unsplit(Unsplit {
                    number: *number,
                    slots: free.collect(),
                }),
            });
        }
        for netns in &observed.stray_policies {
            self.delete.push(Step {
                wire: None,
                op: Op::Sweep(netns.clone()),
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

/// The step that takes an interface's entry away, if it has one.
fn unpoint(interface: &HostInterface) -> Option<Op> {
    let unpoint = |position: Position| {
        Op::Unpoint(Unpoint {
            index: interface.index,
            slot: position.slot,
        })
    };
    interface.position.map(unpoint)
}

/// Where an end leads, as the wire's layout says.
fn lead(end: &split::End<'_>) -> Lead {
    let lead = match end.laid.layout.leads.get(end.number) {
        None | Some(Leads::Nowhere) => None,
        Some(Leads::To(to)) => target(end.laid, *to).map(Lead::To),
        Some(Leads::ByFlow(ways)) => end.lead(ways),
    };
    lead.unwrap_or(Lead::Parked)
}

/// Whether an entry leads there at `generation`, as it is.
fn leads_there(position: &Position, to: &Lead, observed: &Observed, generation: Generation) -> bool {
    let index = |host: &IfName| observed.interfaces.get(host).map(|found| found.index);
    let leads_to = position.hop_at(generation);
    match to {
        Lead::Parked => leads_to == Hop::PARKED,
        Lead::To(target) => index(&target.host).is_some_and(|index| leads_to == hop(target.kind, index)),
        Lead::Split(new) => {
            let split = observed.splits.get(&leads_to.ifindex);
            let split = split.filter(|_| leads_to.kind() == HopKind::Split);
            split.is_some_and(|split| new.is(split, index))
        }
    }
}

/// The end with this number, as a target.
pub(crate) fn target(laid: &Laid<'_>, to: usize) -> Option<Target> {
    let (facing, host) = laid.layout.ends.get(to).zip(laid.hosts.get(to))?;
    Some(Target {
        host: host.clone(),
        kind: hop_kind(laid.wire.payload, facing.end),
    })
}

/// How a packet is handed to an end: straight into the workload's namespace for IP; through the interface, as
/// Ethernet would, where exact Ethernet semantics are asked for or the interface is not a veth of ours.
const fn hop_kind(payload: Payload, to: &End) -> HopKind {
    match (payload, to) {
        (Payload::Ip, End::Veth(_)) => HopKind::Peer,
        (Payload::Ethernet, End::Veth(_)) | (_, End::Interface(_)) => HopKind::Egress,
    }
}

/// The hop of this kind to this interface, or to the split of this number.
#[must_use]
pub const fn hop(kind: HopKind, index: u32) -> Hop {
    match kind {
        HopKind::None => Hop::NONE,
        HopKind::Parked => Hop::PARKED,
        HopKind::Peer => Hop::peer(index),
        HopKind::Egress => Hop::egress(index),
        HopKind::Split => Hop::split(index),
    }
}

/// What may enter at an end. Replies to probes come in where the client's packets go first.
fn flags(wire: &Wire, chains: &[Vec<usize>], end: usize) -> PositionFlags {
    let payload = match wire.payload {
        Payload::Ip => PositionFlags::IP_PAYLOAD,
        Payload::Ethernet => PositionFlags::ETHERNET_PAYLOAD,
    };
    let is_first = chains.iter().any(|chain| chain.first() == Some(&end));
    if wire.probe && is_first {
        payload.and(PositionFlags::PROBED)
    } else {
        payload
    }
}
