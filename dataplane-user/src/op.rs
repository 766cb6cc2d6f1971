//! Operations: what to do, as data. The executor in [`crate::apply`] is the only one that does them.

use std::net::IpAddr;

use dataplane_common::abi::{Generation, HopKind, Position, PositionFlags, Shares, SplitFlags, SplitRule};
use ipnet::IpNet;

use crate::{
    desired::{IfName, Mac, Neighbour, NetnsRef, Policy, Route, VethEnd, WireId},
    ownership::{Managed, Mark},
};

/// One operation and the wire it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Once a step of a wire has failed, its later steps are left out. `None`: for the node, or for something that
    /// belongs to no known wire.
    pub wire: Option<WireId>,
    /// What to do.
    pub op: Op,
}

/// One operation. Interfaces of the agent's namespace go by name: indexes are known once they exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make a veth pair.
    Create(Box<NewEnd>),
    /// Bring a host end of ours back to how it is made: MTU, up, silent.
    Settle(Settle),
    /// Change a workload's end.
    Configure(Box<InnerChange>),
    /// Write a forwarding entry that counts from the plan's generation on.
    Point(Point),
    /// Attach the program.
    Attach(IfName),
    /// Put the generation word forward: every staged entry counts from here on.
    Flip(Generation),
    /// Take a forwarding entry away.
    Unpoint(Unpoint),
    /// Take the program off an interface that stays, or clean up after one that is gone.
    Detach(IfName),
    /// Delete a veth pair.
    Delete(Managed),
    /// Take a split away that nothing leads to any more.
    Unsplit(Unsplit),
    /// Take policies away whose interfaces are gone.
    Sweep(NetnsRef),
}

impl Op {
    /// The host end that it is about, if it is about one.
    #[must_use]
    pub fn at(&self) -> Option<&IfName> {
        match self {
            Self::Create(new) => Some(&new.host),
            Self::Settle(settle) => Some(settle.link.name()),
            Self::Configure(change) => Some(&change.host),
            Self::Point(point) => Some(&point.at),
            Self::Attach(host) | Self::Detach(host) => Some(host),
            Self::Delete(link) => Some(link.name()),
            Self::Flip(_) | Self::Unpoint(_) | Self::Unsplit(_) | Self::Sweep(_) => None,
        }
    }
}

/// A veth pair to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEnd {
    /// Name of the host end.
    pub host: IfName,
    /// Its mark.
    pub mark: Mark,
    /// Octets, of both ends.
    pub mtu: u32,
    /// The workload's end.
    pub end: VethEnd,
}

/// A host end to be put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The interface.
    pub link: Managed,
    /// Octets.
    pub mtu: u32,
}

/// What to change at a workload's end. Removals go first: an address may move from one prefix length to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerChange {
    /// The host end.
    pub host: IfName,
    /// The workload's namespace.
    pub netns: NetnsRef,
    /// The interface's name there.
    pub name: IfName,
    /// Set the MTU and bring the interface up.
    pub mtu: Option<u32>,
    /// Set the hardware address.
    pub mac: Option<Mac>,
    /// Route packets that come in at it.
    pub forward: bool,
    /// Policies that go, with their places in the order.
    pub remove_policies: Vec<(u8, Policy)>,
    /// Neighbour entries that go.
    pub remove_neighbours: Vec<IpAddr>,
    /// Routes that go.
    pub remove_routes: Vec<Route>,
    /// Addresses that go.
    pub remove_addresses: Vec<IpNet>,
    /// Addresses that come.
    pub add_addresses: Vec<IpNet>,
    /// Routes that come.
    pub add_routes: Vec<Route>,
    /// Neighbour entries that come.
    pub add_neighbours: Vec<Neighbour>,
    /// Policies that come, with their places in the order.
    pub add_policies: Vec<(u8, Policy)>,
}

impl InnerChange {
    /// Nothing to change yet.
    #[must_use]
    pub fn none(host: IfName, end: &VethEnd) -> Self {
        Self {
            host,
            netns: end.netns.clone(),
            name: end.name.clone(),
            mtu: None,
            mac: None,
            forward: false,
            remove_policies: Vec::new(),
            remove_neighbours: Vec::new(),
            remove_routes: Vec::new(),
            remove_addresses: Vec::new(),
            add_addresses: Vec::new(),
            add_routes: Vec::new(),
            add_neighbours: Vec::new(),
            add_policies: Vec::new(),
        }
    }

    /// Whether it takes policies away and nothing else, so that the interface need not be there (any more).
    #[must_use]
    pub fn only_removes_policies(&self) -> bool {
        let rest = Self {
            remove_policies: Vec::new(),
            ..self.clone()
        };
        rest.is_empty()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mtu.is_none()
            && self.mac.is_none()
            && !self.forward
            && self.remove_policies.is_empty()
            && self.remove_neighbours.is_empty()
            && self.remove_routes.is_empty()
            && self.remove_addresses.is_empty()
            && self.add_addresses.is_empty()
            && self.add_routes.is_empty()
            && self.add_neighbours.is_empty()
            && self.add_policies.is_empty()
    }
}

/// A forwarding entry to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The interface at which packets enter.
    pub at: IfName,
    /// Where they go.
    pub to: Lead,
    /// What may enter.
    pub flags: PositionFlags,
    /// The entry that is there; its counters are kept.
    pub was: Option<Position>,
}

/// Where an entry leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lead {
    /// Nowhere, for the wire is parked.
    Parked,
    /// To an interface.
    To(Target),
    /// To one of several, by flow.
    Split(Box<NewSplit>),
}

/// An interface that an entry leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The interface that packets leave by.
    pub host: IfName,
    /// How they are handed over.
    pub kind: HopKind,
}

/// A split to be written. Interfaces go by name, and it has no number yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSplit {
    /// The wire, in the table of flows.
    pub scope: u64,
    /// Which way packets go, and whether every circuit passes.
    pub flags: SplitFlags,
    /// The branches that pass.
    pub ways: Vec<NewWay>,
    /// In order.
    pub rules: Vec<SplitRule>,
    /// Shares of what no rule names.
    pub otherwise: Shares,
    /// Id of the branch that takes what is no flow.
    pub first: u32,
    /// For how long what is seen for the first time may be older.
    pub learn: Learn,
}

/// One branch of a split to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWay {
    /// Names it in the table of flows.
    pub id: u32,
    /// Where it goes on.
    pub target: Target,
    /// Whether it takes no new flows.
    pub drains: bool,
    /// Id of the branch whose flows stay there; 0: none.
    pub before: u32,
    /// Where its packets are counted.
    pub slot: SlotPlan,
}

/// A counter slot of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotPlan {
    /// Packets are not counted by branch here.
    None,
    /// A free one.
    New,
    /// The one that the branch has.
    Keep(u32),
}

/// Until when a split learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// As the split did that was there, in nanoseconds of `CLOCK_MONOTONIC`; 0: not at all.
    Keep(u64),
    /// From now on for a while.
    Begin,
}

/// A split to be taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsplit {
    /// Its number.
    pub number: u32,
    /// Counter slots that are free afterwards.
    pub slots: Vec<u32>,
}

/// A forwarding entry to be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpoint {
    /// Key of the entry.
    pub index: u32,
    /// Its counter slot, which is free afterwards.
    pub slot: u32,
}
