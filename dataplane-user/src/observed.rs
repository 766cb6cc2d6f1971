//! What the kernel holds: interfaces, positions and attachments, as one look found them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use dataplane_common::abi::{Generation, Hop, HopKind, Position, Split};
use ipnet::IpNet;

use crate::{
    desired::{IfName, Mac, Neighbour, NetnsRef, Policy, Route, VethEnd, WireId},
    outcome::FailureKind,
    ownership::Managed,
};

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Scope<'a> {
    /// Look at everything that is ours as well, not only at `looks`.
    pub everything: bool,
    /// Find out also what stands in the way of ends that are not there, at the cost of a visit to their namespaces.
    pub thorough: bool,
    /// The interfaces of the wires in question.
    pub looks: Vec<Look<'a>>,
    /// Indexes whose entries to look at although their interfaces may be gone.
    pub indexes: Vec<u32>,
}

/// What is ours on the node, by name and number alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Interfaces of the agent's namespace that are ours, or have an entry or the record of an attachment.
    pub interfaces: Vec<(IfName, u32)>,
    /// The forwarding table, by index.
    pub positions: BTreeMap<u32, Position>,
    /// All splits, by number.
    pub splits: BTreeMap<u32, Split>,
    /// Interfaces with the record of an attachment; some may be gone.
    pub attachments: BTreeSet<IfName>,
    /// Whether the last look at everything found what the next one is needed for.
    pub incomplete: bool,
}

/// One interface to look at.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    /// The wire it belongs to or shall belong to.
    pub wire: &'a WireId,
    /// Its name in the agent's namespace.
    pub host: IfName,
    /// What is wanted of it.
    pub want: Want<'a>,
    /// Whether its workload's end has policies, or had some: reading them takes time, and few ends do.
    pub policies: bool,
}

/// What is wanted of an interface that is looked at.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
    /// A veth whose other end is this.
    Veth(&'a VethEnd),
    /// An existing interface, left as it is.
    Existing,
    /// That it be gone (or, for an existing interface, left alone).
    Nothing,
}

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The node's generation word.
    pub generation: Generation,
    /// By name in the agent's namespace: every interface that is ours, that has our program, or that was looked for
    /// and found.
    pub interfaces: BTreeMap<IfName, HostInterface>,
    /// Entries at indexes that none of `interfaces` has.
    pub stray_positions: BTreeMap<u32, Position>,
    /// By number, the splits that entries lead to or did; after a look at everything, all.
    pub splits: BTreeMap<u32, Split>,
    /// Attachments that are left over from interfaces that are gone.
    pub stray_attachments: BTreeSet<IfName>,
    /// Namespaces with policies of ours whose interfaces are gone.
    pub stray_policies: BTreeSet<NetnsRef>,
    /// Why an end that was looked for cannot be made, by host name.
    pub obstacles: BTreeMap<IfName, Obstacle>,
}

/// One interface in the agent's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// Its index: the key of its position.
    pub index: u32,
    /// Set when it is ours; otherwise it belongs to somebody else and is never changed.
    pub managed: Option<Managed>,
    /// Octets.
    pub mtu: u32,
    /// Up, and set never to send a frame of its own. Always true for an interface that is not ours.
    pub settled: bool,
    /// Its entry in the forwarding table.
    pub position: Option<Position>,
    /// Whether our program is attached.
    pub attached: bool,
    /// The other end of the veth, if it was looked for in its namespace and found there.
    pub inner: Option<Inner>,
}

/// The workload's end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Hardware address.
    pub mac: Mac,
    /// Octets.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether the kernel routes packets that come in at it, as it does for the agent's gateways.
    pub forwards: bool,
    /// Addresses.
    pub addresses: BTreeSet<Owned<IpNet>>,
    /// Routes through it, without those the kernel makes of addresses.
    pub routes: BTreeSet<Owned<Route>>,
    /// Permanent neighbour entries.
    pub neighbours: BTreeSet<Owned<Neighbour>>,
    /// Policies of ours with their places in the order. Others are a workload's own affair.
    pub policies: BTreeSet<(u8, Policy)>,
}

/// Something in a workload's namespace, and whether the agent put it there. What a workload added by itself stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owned<T> {
    /// The thing.
    pub value: T,
    /// Whether it carries the agent's protocol number.
    pub ours: bool,
}

/// Why an end cannot be made. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The namespace file does not exist or leads to another namespace than planned.
    #[error("network namespace {path} is gone: {detail}; the workload must ask again")]
    NetnsGone {
        /// Where it was.
        path: String,
        /// What was found there.
        detail: String,
    },
    /// The agent would put the workload's end into its own namespace.
    #[error("network namespace {path} is the agent's own; run the workload in a namespace of its own")]
    OwnNetns {
        /// Where it is.
        path: String,
    },
    /// Something that is not ours has the name of the host end.
    #[error("interface {host} in the agent's namespace is not Tieline's; rename or delete it")]
    HostNameTaken {
        /// The name.
        host: IfName,
    },
    /// Something that is not ours has the name in the workload's namespace.
    #[error("interface {name} exists in {path} and is not this wire's; ask for another name or delete it")]
    NameTaken {
        /// The name.
        name: IfName,
        /// The namespace.
        path: String,
    },
    /// The existing interface that the plan names is not there.
    #[error(
        "interface {name} does not exist in the agent's namespace; create it or register the endpoint again"
    )]
    InterfaceGone {
        /// The name.
        name: IfName,
    },
    /// Another wire uses the existing interface.
    #[error("interface {name} already carries wire {by}; an existing interface serves one wire at a time")]
    InterfaceBusy {
        /// The name.
        name: IfName,
        /// The wire that has it.
        by: WireId,
    },
}

impl Obstacle {
    /// Its kind in the agent protocol.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::NetnsGone { .. } => FailureKind::NetnsGone,
            Self::OwnNetns { .. } | Self::HostNameTaken { .. } => FailureKind::Kernel,
            Self::NameTaken { .. } | Self::InterfaceBusy { .. } => FailureKind::NameTaken,
            Self::InterfaceGone { .. } => FailureKind::InterfaceGone,
        }
    }

    /// The request field it is about, in NSM's spelling, and the value.
    #[must_use]
    pub fn field(&self) -> Option<(String, String)> {
        match self {
            Self::NetnsGone { path, .. } | Self::OwnNetns { path } => {
                Some(("mechanism.parameters[inodeURL]".to_owned(), path.clone()))
            }
            Self::NameTaken { name, .. }
            | Self::InterfaceGone { name }
            | Self::InterfaceBusy { name, .. } => {
                Some(("mechanism.parameters[name]".to_owned(), name.to_string()))
            }
            Self::HostNameTaken { .. } => None,
        }
    }
}

impl Observed {
    /// Every entry of the forwarding table that was seen, by index.
    pub fn positions(&self) -> impl Iterator<Item = (u32, Position)> + '_ {
        let at_interfaces = self
            .interfaces
            .values()
            .filter_map(|i| Some((i.index, i.position?)));
        at_interfaces.chain(
            self.stray_positions
                .iter()
                .map(|(index, position)| (*index, *position)),
        )
    }
}

impl Observed {
    /// The number of the split that an entry leads to now, and the split.
    #[must_use]
    pub fn split_of(&self, position: &Position) -> Option<(u32, &Split)> {
        let number = split_number(position.hop_at(self.generation))?;
        Some((number, self.splits.get(&number)?))
    }

    /// The interfaces that packets are handed to which enter here now, by index.
    #[must_use]
    pub fn leads_to(&self, position: &Position) -> Vec<u32> {
        let hop = position.hop_at(self.generation);
        let to = |hop: Hop| matches!(hop.kind(), HopKind::Peer | HopKind::Egress).then_some(hop.ifindex);
        match self.split_of(position) {
            Some((_, split)) => split
                .branches
                .iter()
                .filter_map(|branch| to(branch.hop))
                .collect(),
            None => to(hop).into_iter().collect(),
        }
    }
}

/// The numbers of the splits that an entry names, in force or not.
pub fn split_numbers(position: &Position) -> impl Iterator<Item = u32> + use<> {
    let hops = [position.current, position.next];
    hops.into_iter().filter_map(split_number)
}

fn split_number(hop: Hop) -> Option<u32> {
    (hop.kind() == HopKind::Split).then_some(hop.ifindex)
}

/// Whether an address is one that the kernel gives an interface by itself.
#[must_use]
pub fn is_automatic(address: &IpNet) -> bool {
    matches!(address.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local())
}
