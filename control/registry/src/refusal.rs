//! Why a command is refused.

use ipnet::IpNet;
use tieline_model::{ConnectionId, EndpointName, IfName, Invalid, NodeName};
use tieline_planner::SelectError;

use crate::WireFailureKind;

/// A hint for the code of the API's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request breaks a rule whatever the state.
    InvalidArgument,
    /// It names what is not there.
    NotFound,
    /// It would make what is there.
    AlreadyExists,
    /// The caller may not.
    PermissionDenied,
    /// Something is used up.
    ResourceExhausted,
    /// The state does not admit it.
    FailedPrecondition,
    /// Try again later.
    Unavailable,
    /// Ours to repair.
    Internal,
}

/// Why a command is refused. Nothing of it happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A value breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No such service.
    #[error("{field} \"{name}\": no such NetworkService: apply it, or see `tieline get networkservices`")]
    UnknownService {
        /// The field that names it.
        field: &'static str,
        /// Its name.
        name: String,
    },
    /// No such endpoint.
    #[error("name \"{name}\": no such NetworkServiceEndpoint: see `tieline get endpoints`")]
    UnknownEndpoint {
        /// Its name.
        name: String,
    },
    /// No such connection.
    #[error("id \"{id}\": no such connection: see `tieline get connections`")]
    UnknownConnection {
        /// Its id.
        id: ConnectionId,
    },
    /// No such wiring.
    #[error("name \"{name}\": no such NetworkServiceWiring: see `tieline get networkservicewirings`")]
    UnknownWiring {
        /// Its name.
        name: String,
    },
    /// A node that never said hello.
    #[error("node \"{node}\": no such node: start `tieline agent` there")]
    UnknownNode {
        /// Its name.
        node: NodeName,
    },
    /// No endpoint can serve.
    #[error(transparent)]
    NoEndpoint(#[from] SelectError),
    /// A passthrough function without a namespace to put its two interfaces in.
    #[error(
        "endpoint \"{name}\": an existing interface cannot be passed through: register the function in its namespace"
    )]
    NotPassthrough {
        /// The function.
        name: EndpointName,
    },
    /// The connection is another workload's.
    #[error("connection.id \"{id}\": it belongs to another workload: use an id of your own")]
    ForeignConnection {
        /// The connection.
        id: ConnectionId,
    },
    /// The endpoint is somebody else's.
    #[error("name \"{name}\": this endpoint belongs to {owner}: use another name")]
    ForeignEndpoint {
        /// The endpoint.
        name: String,
        /// Whose it is.
        owner: String,
    },
    /// Only operators may.
    #[error("{field} \"{value}\": only root of the node may do that: run it as root")]
    NotAnOperator {
        /// The field that asks for it.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// The interface name is used by another connection.
    #[error(
        "{field} \"{interface}\": connection {by} has an interface of that name in {netns}: choose another name, or none"
    )]
    InterfaceTaken {
        /// The field that names it.
        field: &'static str,
        /// The interface.
        interface: IfName,
        /// The namespace.
        netns: String,
        /// The connection that has it.
        by: ConnectionId,
    },
    /// The address is another connection's.
    #[error("{field} \"{address}\": another connection has this address: ask for another one, or none")]
    AddressTaken {
        /// The field that asks for it.
        field: &'static str,
        /// The address.
        address: std::net::IpAddr,
    },
    /// Every address is given out or excluded.
    #[error("prefixes {}: every address of {service} is in use or excluded: add a prefix to it, or close connections", list(.prefixes))]
    AddressesExhausted {
        /// The service.
        service: String,
        /// Its prefixes of the family that is used up.
        prefixes: Vec<IpNet>,
    },
    /// Not so many prefixes are free.
    #[error(
        "{field} \"{required}\": NetworkService {service} has {found} free prefixes of length /{length}: ask for fewer or smaller ones, or add a prefix to it"
    )]
    ExtraPrefixesExhausted {
        /// The field that asks for them.
        field: String,
        /// How many are needed.
        required: u32,
        /// Their length.
        length: u8,
        /// The service.
        service: String,
        /// How many there are.
        found: u32,
    },
    /// Another wire of the same client has the route.
    #[error(
        "{field} \"{prefix}\": connection {by} of the same client has this route: leave it out of one of them"
    )]
    RouteTaken {
        /// The field that asks for it.
        field: String,
        /// The route's prefix.
        prefix: IpNet,
        /// The connection that has it.
        by: ConnectionId,
    },
    /// Prefixes of two services overlap without being equal.
    #[error("{field} \"{prefix}\": overlaps {other} of {service}: use an equal or a disjoint prefix")]
    PrefixesOverlap {
        /// The field that names it.
        field: String,
        /// The prefix.
        prefix: IpNet,
        /// What it overlaps.
        other: IpNet,
        /// Whose that is.
        service: String,
    },
    /// The service has connections.
    #[error("name \"{name}\": {connections} connections use this NetworkService: close them first")]
    ServiceInUse {
        /// The service.
        name: String,
        /// How many.
        connections: usize,
    },
    /// A connection cannot be changed so.
    #[error("{field} \"{value}\": connection {id} has \"{has}\" and keeps it: close it and request it anew")]
    NotChangeable {
        /// The field.
        field: &'static str,
        /// The value asked for.
        value: String,
        /// The connection.
        id: ConnectionId,
        /// What it has.
        has: String,
    },
    /// The node's agent is not connected.
    #[error(
        "node \"{node}\": its agent has no session with control: try again when `tieline status` shows it connected"
    )]
    NodeAway {
        /// The node.
        node: NodeName,
    },
    /// The node's agent went away before it made the wire.
    #[error("node \"{node}\": its agent went away before connection {id} was set up: request it again")]
    NodeLeft {
        /// The node.
        node: NodeName,
        /// The connection.
        id: ConnectionId,
    },
    /// The node holds no more wires.
    #[error(
        "node \"{node}\": it holds {max} wires and no more: close some, or start its agent with larger tables"
    )]
    NodeFull {
        /// The node.
        node: NodeName,
        /// How many it holds.
        max: u32,
    },
    /// The connection went while a Request waited for it.
    #[error("connection.id \"{id}\": closed before it was set up")]
    ClosedMeanwhile {
        /// The connection.
        id: ConnectionId,
    },
    /// The node could not make the wire.
    #[error("{}{message}", field_prefix(.field, .value))]
    Wire {
        /// Of what kind the failure is.
        kind: WireFailureKind,
        /// The request's field, empty if none.
        field: String,
        /// The field's value.
        value: String,
        /// What the agent says.
        message: String,
    },
    /// The state does not fit together.
    #[error("registry state: {what} {key} is missing: restart control; if it happens again, report it")]
    Inconsistent {
        /// Of what kind.
        what: &'static str,
        /// Which.
        key: String,
    },
    /// A record cannot be written down.
    #[error("record {key}: cannot be encoded: {message}")]
    Encoding {
        /// The record's key.
        key: String,
        /// What the encoder says.
        message: String,
    },
}

fn list(prefixes: &[IpNet]) -> String {
    prefixes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn field_prefix(field: &str, value: &str) -> String {
    if field.is_empty() {
        String::new()
    } else {
        format!("{field} \"{value}\": ")
    }
}

impl Refusal {
    /// The hint for the API's status.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) | Self::PrefixesOverlap { .. } => Code::InvalidArgument,
            Self::UnknownService { .. }
            | Self::UnknownEndpoint { .. }
            | Self::UnknownWiring { .. }
            | Self::UnknownConnection { .. }
            | Self::UnknownNode { .. } => Code::NotFound,
            Self::ForeignConnection { .. } | Self::ForeignEndpoint { .. } | Self::NotAnOperator { .. } => {
                Code::PermissionDenied
            }
            Self::InterfaceTaken { .. } | Self::AddressTaken { .. } | Self::RouteTaken { .. } => {
                Code::AlreadyExists
            }
            Self::AddressesExhausted { .. } | Self::ExtraPrefixesExhausted { .. } | Self::NodeFull { .. } => {
                Code::ResourceExhausted
            }
            Self::NoEndpoint(_)
            | Self::NotPassthrough { .. }
            | Self::ServiceInUse { .. }
            | Self::NotChangeable { .. } => Code::FailedPrecondition,
            Self::NodeAway { .. } | Self::NodeLeft { .. } | Self::ClosedMeanwhile { .. } => Code::Unavailable,
            Self::Wire { kind, .. } => match kind {
                WireFailureKind::NetnsGone | WireFailureKind::InterfaceGone => Code::FailedPrecondition,
                WireFailureKind::NameTaken | WireFailureKind::AddressTaken => Code::AlreadyExists,
                WireFailureKind::Capacity => Code::ResourceExhausted,
                WireFailureKind::Kernel => Code::Internal,
            },
            Self::Inconsistent { .. } | Self::Encoding { .. } => Code::Internal,
        }
    }
}
