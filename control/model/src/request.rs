//! What a client asks for.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    ConnectionId, ContextRequest, EndpointName, IfName, Labels, MacAddr, Mtu, Payload, Route, ServiceName,
    Timestamp,
};

/// A Request, validated. A client that refreshes may send back what it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRequest {
    /// The connection's id.
    pub id: ConnectionId,
    /// The service asked for.
    pub service: ServiceName,
    /// The endpoint asked for by name; `None`: any.
    pub endpoint: Option<EndpointName>,
    /// The payload that the client expects; `None`: the service's.
    pub payload: Option<Payload>,
    /// What the client says of itself.
    pub labels: Labels,
    /// The interface name asked for; `None`: the first free one.
    pub interface: Option<IfName>,
    /// The MTU asked for; `None`: the network's choice.
    pub mtu: Option<Mtu>,
    /// Addresses asked for at the client.
    pub src_addresses: Vec<IpAddr>,
    /// Addresses asked for at the endpoint.
    pub dst_addresses: Vec<IpAddr>,
    /// Routes of the client.
    pub src_routes: Vec<Route>,
    /// Routes of the endpoint.
    pub dst_routes: Vec<Route>,
    /// Addresses that the client cannot use.
    pub excluded_prefixes: Vec<IpNet>,
    /// Addresses at the client and at the endpoint that the domain of the service has reserved for it; `None`: the service
    /// is of this domain, or the connection has its addresses.
    pub reserved: Option<[Vec<IpAddr>; 2]>,
    /// What it wants of the rest.
    pub context: ContextRequest,
    /// Hardware addresses that the client expects, at its own and at the endpoint's end.
    pub macs: [Option<MacAddr>; 2],
    /// When the client asks it to end; `None`: as late as is granted.
    pub expires: Option<Timestamp>,
    /// Whether its node shall keep it for as long as the client is there.
    pub kept_by_node: bool,
    /// The client's name in the path; empty if it has none.
    pub client_name: String,
}

impl ConnectionRequest {
    /// A request with nothing said but what must be.
    #[must_use]
    pub fn new(id: ConnectionId, service: ServiceName) -> Self {
        Self {
            id,
            service,
            endpoint: None,
            payload: None,
            labels: Labels::default(),
            interface: None,
            mtu: None,
            src_addresses: Vec::new(),
            dst_addresses: Vec::new(),
            src_routes: Vec::new(),
            dst_routes: Vec::new(),
            excluded_prefixes: Vec::new(),
            reserved: None,
            context: ContextRequest::default(),
            macs: [None, None],
            expires: None,
            kept_by_node: false,
            client_name: String::new(),
        }
    }
}
