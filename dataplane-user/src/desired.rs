//! What this node should be: the wires of the latest plan, validated.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use dataplane_common::abi::Generation;
use ipnet::IpNet;

pub use crate::{
    circuit::{Branch, Circuit, Draining, Hop, Path, Traffic, Wire},
    policy::{NameServers, Policy, PortRange},
};

/// The node's whole plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The number of the plan; 0 before the first one.
    pub generation: Generation,
    /// The wires, by connection id.
    pub wires: BTreeMap<WireId, Wire>,
}

/// A change of the plan, applied as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The plan's number after the change.
    pub generation: Generation,
    /// New and changed wires.
    pub upsert: Vec<Wire>,
    /// Wires that go.
    pub remove: Vec<WireId>,
}

/// Names a wire: the id of its connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireId(pub String);

impl std::fmt::Display for WireId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which way an end faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Towards the endpoint: the client's end, and the outer end of each function.
    Client,
    /// Towards the client: the endpoint's end, and the inner end of each function.
    Endpoint,
}

/// What a wire carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// ARP, IPv4 and IPv6 frames without VLAN tag.
    Ip,
    /// Every Ethernet frame.
    Ethernet,
}

/// One end of a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// An interface that the agent makes in a workload's namespace.
    Veth(VethEnd),
    /// An interface that exists in the agent's namespace and is left as it is: the tap of a VM, a NIC.
    Interface(InterfaceEnd),
}

/// An interface that the agent makes in a workload's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethEnd {
    /// The workload's namespace.
    pub netns: NetnsRef,
    /// The interface's name there.
    pub name: IfName,
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Routes through it.
    pub routes: Vec<Route>,
    /// Permanent neighbour entries on it.
    pub neighbours: Vec<Neighbour>,
    /// Whether packets are routed through it.
    pub forwards: bool,
    /// Packets that go by tables of their own, in the order in which they are looked at.
    pub policies: Vec<Policy>,
    /// Name servers for the namespace's resolver.
    pub name_servers: Vec<NameServers>,
}

/// An interface that exists in the agent's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceEnd {
    /// Its name.
    pub name: IfName,
}

/// A network namespace: how to open it, and how to know that it is still the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsRef {
    /// `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub path: PathBuf,
    /// Device and inode number of the namespace file.
    pub id: NetnsId,
}

/// Identity of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// A valid interface name: 1 to 15 bytes, no `/`, `:` or white space, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

/// Not a valid interface name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "interface name {name:?} is not valid: it must have 1 to 15 bytes, without '/', ':' or white space, and not be '.' or '..'"
)]
pub struct InvalidIfName {
    /// The name.
    pub name: String,
}

impl IfName {
    /// Checks the name by the kernel's rule (`dev_valid_name`).
    pub fn new(name: &str) -> Result<Self, InvalidIfName> {
        let length = 1..=dataplane_common::limits::MAX_IFNAME_LEN;
        let bad_char = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
        if !length.contains(&name.len()) || name == "." || name == ".." || name.contains(bad_char) {
            return Err(InvalidIfName {
                name: name.to_owned(),
            });
        }
        Ok(Self(name.to_owned()))
    }

    /// A name that this crate generates from letters and digits, or that the kernel itself reported.
    pub(crate) fn generated(name: String) -> Self {
        debug_assert!(Self::new(&name).is_ok(), "{name}");
        Self(name)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for IfName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hardware address, in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A route through a wire's interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination.
    pub prefix: IpNet,
    /// Gateway; `None`: on link.
    pub next_hop: Option<IpAddr>,
}

/// A permanent neighbour entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}
