//! Connection: a vWire as the control plane knows it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Attachment, ConnectionId, EndpointName, IfName, Labels, MacAddr, Mtu, Neighbour, NetnsRef, NodeName,
    Owner, Payload, Route, ServiceName, Timestamp,
};

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

/// The endpoint's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSide {
    /// The node that it is on.
    pub node: NodeName,
    /// What it is attached to.
    pub attachment: Attachment,
    /// The interface's name.
    pub interface: IfName,
    /// The interface's hardware address; of an existing interface it is not ours to know.
    pub mac: Option<MacAddr>,
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

/// The hops of a connection: its client, the client's node, the endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The hops, from client to endpoint.
    pub segments: Vec<PathSegment>,
}

/// A vWire between one client and one endpoint for one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// The service it is for.
    pub service: ServiceName,
    /// The endpoint that serves it.
    pub endpoint: EndpointName,
    /// What it carries.
    pub payload: Payload,
    /// What its client says of itself.
    pub labels: Labels,
    /// Octets.
    pub mtu: Mtu,
    /// Whether it carries packets.
    pub state: ConnectionState,
    /// The client's end.
    pub client: ClientSide,
    /// The endpoint's end.
    pub server: EndpointSide,
    /// Routes of the client beside those to the endpoint's addresses.
    pub src_routes: Vec<Route>,
    /// Routes of the endpoint beside those to the client's addresses.
    pub dst_routes: Vec<Route>,
    /// What its client asked not to be given.
    pub excluded_prefixes: Vec<IpNet>,
    /// When it ends unless it is refreshed; `None`: its node keeps it for as long as the client is there.
    pub expires: Option<Timestamp>,
    /// Its hops.
    pub path: Path,
    /// The plan of its node that its wire last changed in.
    pub generation: u64,
    /// Who asked for it.
    pub owner: Owner,
}

impl Connection {
    /// The permanent neighbours of both ends: `(client's, endpoint's)`. None when an end is an existing interface,
    /// whose hardware address is its own affair.
    #[must_use]
    pub fn neighbours(&self) -> (Vec<Neighbour>, Vec<Neighbour>) {
        let Some(server_mac) = self.server.mac else {
            return (Vec::new(), Vec::new());
        };
        let all = |ips: &[IpAddr], mac| ips.iter().map(|ip| Neighbour { ip: *ip, mac }).collect();
        (
            all(&self.server.addresses, server_mac),
            all(&self.client.addresses, self.client.mac),
        )
    }
}
