//! A vWire as one node is told of it.

use ipnet::IpNet;

use crate::{
    ConnectionId, EndpointName, IfName, MacAddr, Mtu, Neighbour, NetnsRef, Payload, Route, ServiceName,
};

/// What a node's agent makes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeWire {
    /// The connection.
    pub connection: ConnectionId,
    /// The service it is for.
    pub service: ServiceName,
    /// The endpoint that serves it.
    pub endpoint_name: EndpointName,
    /// What it carries.
    pub payload: Payload,
    /// Octets.
    pub mtu: Mtu,
    /// The client's end.
    pub client: WireEnd,
    /// The endpoint's end.
    pub endpoint: WireEnd,
}

/// One end of a wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireEnd {
    /// An interface that the agent makes.
    Veth(VethEnd),
    /// An interface that is there and is left as it is.
    Interface(IfName),
}

/// An interface that the agent makes in a workload's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethEnd {
    /// The namespace.
    pub netns: NetnsRef,
    /// The interface's name there.
    pub name: IfName,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its addresses, with prefix length.
    pub addresses: Vec<IpNet>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Its permanent neighbours.
    pub neighbours: Vec<Neighbour>,
}
