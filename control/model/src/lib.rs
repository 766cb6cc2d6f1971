//! Validated types of the control plane: services, endpoints, connections, labels, addresses, and the conversions
//! at its border.
//!
//! A value of a type in this crate is valid: every way to make one checks its rules and answers with [`Invalid`],
//! which names the field, the value and the rule. [`convert`] is the border to the API's messages, [`yaml`] the one
//! to files. There is no IO and no clock here.
#![forbid(unsafe_code)]

mod circuit;
mod connection;
mod context;
pub mod convert;
mod dns;
mod domain;
mod endpoint;
mod invalid;
mod labels;
pub mod limits;
mod machine;
mod name;
mod net;
mod object;
mod plumbing;
mod policy_route;
mod query;
mod report;
mod request;
mod selector;
mod service;
mod service_selector;
mod template;
mod text;
mod time;
mod traffic;
mod wire;
mod wiring;
pub mod yaml;

pub use circuit::{
    Branch, Circuit, EndpointSide, HopEnd, HopSide, Side, derive_hop_mac, derive_interface, derive_mac,
};
pub use connection::{Before, ClientSide, Connection, ConnectionState, Path, PathSegment};
pub use context::{Context, ContextRequest, DNS_KEY, DNS_VALUE, ExtraPrefixRequest};
pub use dns::DnsConfig;
pub use endpoint::{EndpointRegistration, NetworkServiceEndpoint, Owner, PLUMBING_LABEL, Workload};
pub use invalid::Invalid;
pub use labels::Labels;
pub use machine::MachineId;
pub use name::{ConnectionId, DomainName, EndpointName, NodeName, RegistryDomain, ServiceName, WiringName};
pub use net::{Attachment, IfName, MacAddr, Mtu, Neighbour, NetnsId, NetnsRef, Route};
pub use object::{Object, ObjectKind};
pub use plumbing::Plumbing;
pub use policy_route::{PolicyRoute, PolicyText, ProtocolNumber, check_policies};
pub use query::{EndpointQuery, MonitorScope, SegmentPattern, ServiceQuery};
pub use report::{Chosen, Decision, MAX_LISTED, Removal, Removed, Report, Step};
pub use request::ConnectionRequest;
pub use selector::{Operator, Requirement, Selector};
pub use service::{Destination, Match, NetworkService, Payload, Policy, Rebalance};
pub use service_selector::ServiceSelector;
pub use template::{LabelPattern, MatchSelector};
pub use time::{Lease, Timestamp};
pub use traffic::{Ports, Protocol, TrafficSelector};
pub use wire::{EndPolicy, NodeWire, VethEnd, WireBranch, WireCircuit, WireDraining, WireEnd, WireHop};
pub use wiring::{NetworkServiceWiring, SourceService, WiringRoute, WiringSource};
