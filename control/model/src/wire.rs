//! A vWire as one node is told of it.

use ipnet::IpNet;

use crate::{
    ConnectionId, DnsConfig, EndpointName, IfName, MacAddr, Mtu, Neighbour, NetnsRef, Payload, Ports,
    ProtocolNumber, Route, ServiceName, TrafficSelector,
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

/// Packets of one address family that go by a table of their own. What is not given is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndPolicy {
    /// The interface of the same namespace that they came in at: so are the circuits through one function kept apart.
    pub input: Option<IfName>,
    /// Where they come from.
    pub from: Option<IpNet>,
    /// Their protocol.
    pub protocol: Option<ProtocolNumber>,
    /// The ports that they go to.
    pub dst_ports: Option<Ports>,
    /// The ports that they come from.
    pub src_ports: Option<Ports>,
    /// Their routes, at least one, all of one family.
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
    /// Packets that go by tables of their own, in the order in which they are looked at.
    pub policies: Vec<EndPolicy>,
    /// Name servers for the namespace's resolver.
    pub name_servers: Vec<DnsConfig>,
}
