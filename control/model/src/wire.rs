//! A vWire as one node is told of it.

use ipnet::IpNet;

use crate::{
    ConnectionId, EndpointName, IfName, MacAddr, Mtu, Neighbour, NetnsRef, Payload, Route, ServiceName,
    TrafficSelector,
};

/// What a node's agent makes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeWire {
    /// The connection.
    pub connection: ConnectionId,
    /// The service it is for.
    pub service: ServiceName,
    /// What it carries.
    pub payload: Payload,
    /// Octets.
    pub mtu: Mtu,
    /// The client's end.
    pub client: WireEnd,
    /// Where it leads; none: it is parked.
    pub branches: Vec<WireBranch>,
    /// What the node may switch to by itself.
    pub backup: Option<WireCircuit>,
    /// Whether the node watches that the endpoints live.
    pub probe: bool,
    /// Circuits that keep the flows that they have, and get no new ones.
    pub draining: Vec<WireDraining>,
}

/// A circuit on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireDraining {
    /// Where flows go that are there.
    pub circuit: WireCircuit,
    /// Index of the branch that gets the new ones.
    pub branch: usize,
}

/// A circuit and the flows that take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireBranch {
    /// The flows; none: all that no other branch takes.
    pub traffic: Vec<TrafficSelector>,
    /// Share among the branches that match a flow.
    pub weight: u32,
    /// Where they go.
    pub circuit: WireCircuit,
}

/// A way from the client to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireCircuit {
    /// The passthrough functions, from the client's side on.
    pub hops: Vec<WireHop>,
    /// The endpoint that terminates.
    pub endpoint_name: EndpointName,
    /// The end there.
    pub endpoint: WireEnd,
}

/// A passthrough function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireHop {
    /// The function.
    pub endpoint_name: EndpointName,
    /// Its end that faces the client.
    pub inside: WireEnd,
    /// Its end that faces the endpoint.
    pub outside: WireEnd,
}

/// Routes for packets that came in at one interface, so that the circuits through one function are kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transit {
    /// That interface, in the same namespace.
    pub from: IfName,
    /// The routes.
    pub routes: Vec<Route>,
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
    /// Whether packets are routed through it.
    pub forwards: bool,
    /// Routes through it for packets that came in at one other interface.
    pub transit: Option<Transit>,
}
