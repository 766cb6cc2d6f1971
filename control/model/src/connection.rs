//! Connection: a vWire as the control plane knows it.
//!
//! A connection is its client's: one interface, one pair of address sets, one pair of hardware addresses, for life.
//! Where it leads may change meanwhile, and is in its branches.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Branch, Circuit, ConnectionId, Context, EndpointName, IfName, Labels, MacAddr, Mtu, NetnsRef, NodeName,
    Owner, Payload, Report, Route, ServiceName, Side, Timestamp, circuit::derive_mac,
};

/// The most endpoints that a connection remembers to have ended at.
const MAX_FORMER: usize = 8;

/// Whether a connection carries packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConnectionState {
    /// Planned; its node has not said yet that the wire stands. Shown as DOWN.
    Pending,
    /// The wire stands.
    Up,
    /// The wire does not forward.
    Down {
        /// Why, for the operator.
        reason: String,
    },
}

/// The client's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSide {
    /// The node that it is on.
    pub node: NodeName,
    /// The namespace that its interface is in.
    pub netns: NetnsRef,
    /// The interface's name there.
    pub interface: IfName,
    /// The interface's hardware address.
    pub mac: MacAddr,
    /// Its addresses: at most one IPv4 and one IPv6.
    pub addresses: Vec<IpAddr>,
}

/// One hop of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSegment {
    /// Who.
    pub name: String,
    /// The connection's id there.
    pub id: String,
    /// Until when; `None`: as long as the connection's node keeps it.
    pub expires: Option<Timestamp>,
}

/// Who a connection passes: its client, the client's node, each passthrough function, the endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The hops, from client to endpoint.
    pub segments: Vec<PathSegment>,
}

/// Where a connection led before a change: it goes back there if its node cannot carry the change out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its branches then.
    pub branches: Vec<Branch>,
    /// Its backup then.
    pub backup: Option<Circuit>,
    /// How those came about.
    pub report: Report,
    /// Endpoints that its node could not lead it to since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<EndpointName>,
}

impl Before {
    /// Every circuit, the backup last.
    pub fn circuits(&self) -> impl Iterator<Item = &Circuit> {
        let branches = self.branches.iter().map(|branch| &branch.circuit);
        branches.chain(&self.backup)
    }
}

/// A vWire of one client for one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// The service it is for.
    pub service: ServiceName,
    /// What it carries.
    pub payload: Payload,
    /// What its client says of itself.
    pub labels: Labels,
    /// What is proven of its client.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub attested: Labels,
    /// Octets.
    pub mtu: Mtu,
    /// Whether it carries packets.
    pub state: ConnectionState,
    /// The client's end.
    pub client: ClientSide,
    /// The addresses at the far end, whichever endpoint that is: at most one IPv4 and one IPv6.
    pub server_addresses: Vec<IpAddr>,
    /// Where it leads. None: it is parked, and its state says why.
    pub branches: Vec<Branch>,
    /// What its node may switch to by itself when the first branch fails.
    pub backup: Option<Circuit>,
    /// Where flows go on that were there before a change, and new ones do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining: Vec<Branch>,
    /// Endpoints that its node has lost, and why: it leads there only if there is no other. Forgotten when they are
    /// elsewhere, or answer again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<EndpointName, String>,
    /// Where it led before a change that its node has not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Before>>,
    /// Endpoints that it ended at before, the last ones first: a client that refreshes may still name one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<EndpointName>,
    /// How its branches came about.
    #[serde(default, skip_serializing_if = "Report::is_empty")]
    pub report: Report,
    /// Routes of the client beside those to the far end's addresses.
    pub src_routes: Vec<Route>,
    /// Routes of the endpoint beside those to the client's addresses.
    pub dst_routes: Vec<Route>,
    /// What its client asked not to be given.
    pub excluded_prefixes: Vec<IpNet>,
    /// What it brings to its client beside that.
    #[serde(default)]
    pub context: Context,
    /// When it ends unless it is refreshed; `None`: its node keeps it for as long as the client is there.
    pub expires: Option<Timestamp>,
    /// Who it passes.
    pub path: Path,
    /// The plan of its node that its wire last changed in.
    pub generation: u64,
    /// Who asked for it.
    pub owner: Owner,
}

impl Connection {
    /// The circuit of the flows that no other branch claims; `None` when it is parked.
    #[must_use]
    pub fn main_circuit(&self) -> Option<&Circuit> {
        let plain = self.branches.iter().find(|branch| branch.traffic.is_empty());
        plain.or(self.branches.first()).map(|branch| &branch.circuit)
    }

    /// The endpoint that terminates the main circuit.
    #[must_use]
    pub fn endpoint(&self) -> Option<&EndpointName> {
        self.main_circuit().map(|circuit| &circuit.endpoint)
    }

    /// Whether it leads nowhere.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.branches.is_empty()
    }

    /// Every circuit whose ends are its: those of its branches, and those beside.
    pub fn circuits(&self) -> impl Iterator<Item = &Circuit> {
        self.circuits_in_use().chain(self.circuits_beside())
    }

    /// The circuits that it holds beside those of its branches: its backup, those that drain, and what it goes back to if
    /// a change fails.
    pub fn circuits_beside(&self) -> impl Iterator<Item = &Circuit> {
        let draining = self.draining.iter().map(|branch| &branch.circuit);
        let before = self.before.iter().flat_map(|before| before.circuits());
        self.backup.iter().chain(draining).chain(before)
    }

    /// Notes where it ended as `old`, if it ends elsewhere.
    pub fn note_former(&mut self, old: &Self) {
        let now = self.endpoint().cloned();
        let mut former: Vec<EndpointName> = Vec::new();
        for name in old.endpoint().into_iter().chain(&old.former) {
            if Some(name) != now.as_ref() && !former.contains(name) && former.len() < MAX_FORMER {
                former.push(name.clone());
            }
        }
        self.former = former;
    }

    /// The circuits that it leads through.
    pub fn circuits_in_use(&self) -> impl Iterator<Item = &Circuit> {
        self.branches.iter().map(|branch| &branch.circuit)
    }

    /// The hardware address at the far end as the client sees it. `None` when a branch leads straight to an existing
    /// interface, whose hardware address is its own affair.
    #[must_use]
    pub fn far_mac(&self) -> Option<MacAddr> {
        let known = self
            .branches
            .iter()
            .all(|branch| branch.circuit.answers_behind(0));
        known.then(|| derive_mac(&self.id, Side::Endpoint))
    }

    /// The path of the main circuit, the client being called `client`.
    #[must_use]
    pub fn path_from(&self, client: &str) -> Path {
        let passed = self.main_circuit().into_iter().flat_map(Circuit::path);
        let names = [client, self.client.node.as_str()]
            .into_iter()
            .chain(passed.map(EndpointName::as_str));
        let segment = |name: &str| PathSegment {
            name: name.to_owned(),
            id: self.id.to_string(),
            expires: self.expires,
        };
        Path {
            segments: names.map(segment).collect(),
        }
    }
}
