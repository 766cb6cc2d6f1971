//! Validated types of the control plane: services, endpoints, connections, labels, addresses, and the conversions
//! at its border.
//!
//! A value of a type in this crate is valid: every way to make one checks its rules and answers with [`Invalid`],
//! which names the field, the value and the rule. [`convert`] is the border to the API's messages, [`yaml`] the one
//! to files. There is no IO and no clock here.
#![forbid(unsafe_code)]

mod connection;
pub mod convert;
mod endpoint;
mod invalid;
mod labels;
pub mod limits;
mod name;
mod net;
mod plumbing;
mod query;
mod request;
mod selector;
mod service;
mod template;
mod text;
mod time;
mod traffic;
mod wire;
pub mod yaml;

pub use connection::{ClientSide, Connection, ConnectionState, EndpointSide, Path, PathSegment};
pub use endpoint::{EndpointRegistration, NetworkServiceEndpoint, Object, ObjectKind, Owner, Workload};
pub use invalid::Invalid;
pub use labels::Labels;
pub use name::{ConnectionId, EndpointName, NodeName, ServiceName};
pub use net::{Attachment, IfName, MacAddr, Mtu, Neighbour, NetnsId, NetnsRef, Route};
pub use plumbing::Plumbing;
pub use query::{EndpointQuery, MonitorScope, SegmentPattern, ServiceQuery};
pub use request::ConnectionRequest;
pub use selector::{Operator, Requirement, Selector};
pub use service::{Destination, Match, NetworkService, Payload, Policy};
pub use template::{LabelPattern, MatchSelector};
pub use time::{Lease, Timestamp};
pub use traffic::{Ports, Protocol, TrafficSelector};
pub use wire::{NodeWire, VethEnd, WireEnd};
