//! What the registry is told, and what it answers.

use std::collections::BTreeSet;

use tieline_model::{
    Connection, ConnectionId, ConnectionRequest, EndpointName, EndpointRegistration, MachineId,
    NetworkServiceEndpoint, NodeName, Object, ObjectKind, RegistryDomain, Timestamp, Workload,
};

use crate::{Move, Offer, Reservation, ReservationRequest, Unknown};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// An operator, over the admin API.
    Operator,
    /// A workload, over its node's agent.
    Workload(Workload),
}

/// What the registry is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Create or change objects; all of them or none. Answer: [`Reply::Applied`].
    Apply {
        /// The objects, in the order of the results.
        objects: Vec<Object>,
        /// Only say what would happen.
        dry_run: bool,
    },
    /// Remove an object. Answer: [`Reply::Done`].
    Delete {
        /// Its kind.
        kind: ObjectKind,
        /// Its name.
        name: String,
    },
    /// Drain an endpoint, so that it gets nothing new and what it has is moved; or take it back. Answer:
    /// [`Reply::Moved`].
    Drain {
        /// The endpoint.
        name: EndpointName,
        /// Whether it is drained from now on.
        draining: bool,
    },
    /// A node saw that an endpoint of its lives, or lives no more. Answer: [`Reply::Done`].
    Health {
        /// The node.
        node: NodeName,
        /// The endpoint.
        endpoint: EndpointName,
        /// Whether it lives.
        alive: bool,
    },
    /// Register an endpoint, or refresh or change its registration. Answer: [`Reply::Endpoint`].
    RegisterEndpoint {
        /// Who registers.
        caller: Workload,
        /// What.
        registration: EndpointRegistration,
    },
    /// Remove a registration; an unknown name is not an error. Answer: [`Reply::Done`].
    UnregisterEndpoint {
        /// Who asks.
        caller: Caller,
        /// The endpoint.
        name: EndpointName,
    },
    /// Create, refresh or change a connection. Answer: [`Reply::Connection`].
    Request {
        /// Whose it is or becomes: the client's workload.
        caller: Workload,
        /// What is asked for.
        request: Box<ConnectionRequest>,
    },
    /// Remove a connection; an unknown id is not an error. Answer: [`Reply::Done`], which names the plan that the wire
    /// is gone with.
    Close {
        /// Who asks.
        caller: Caller,
        /// The connection.
        id: ConnectionId,
    },
    /// A node's agent began its session. Answer: [`Reply::Node`]; then send it [`crate::Registry::node_snapshot`] and,
    /// from there on, its changes.
    NodeHello(NodeHello),
    /// A node's session ended. Who waits for a new wire there is refused, and the wire is forgotten. Answer:
    /// [`Reply::Done`].
    NodeBye {
        /// The node.
        node: NodeName,
    },
    /// A node has carried out its plan up to `generation`. Answer: [`Reply::Done`].
    NodeReport {
        /// The node.
        node: NodeName,
        /// The plan.
        generation: u64,
        /// The wires that could not be made.
        failures: Vec<NodeFailure>,
    },
    /// A node is there, and everything that it keeps but what is named. Answer: [`Reply::Done`].
    KeepAlive {
        /// The node.
        node: NodeName,
        /// Connections whose client is gone.
        connections_gone: Vec<ConnectionId>,
        /// Endpoints that are gone.
        endpoints_gone: Vec<EndpointName>,
    },
    /// Another domain says what is registered there. Answer: [`Reply::Done`].
    Import {
        /// The domain.
        domain: RegistryDomain,
        /// What it says.
        offers: Vec<Offer>,
        /// Whether that is everything that there is.
        whole: bool,
    },
    /// Another domain wants addresses for one of its connections. Answer: [`Reply::Reserved`].
    Reserve(Box<ReservationRequest>),
    /// Another domain registers an endpoint of its own. Answer: [`Reply::Done`].
    RegisterForeign {
        /// The domain.
        domain: RegistryDomain,
        /// The endpoint, with its node there.
        endpoint: Box<NetworkServiceEndpoint>,
    },
    /// Another domain names everything that it has of this one. Answer: [`Reply::Held`].
    Hold {
        /// The domain.
        domain: RegistryDomain,
        /// Its connections.
        connections: BTreeSet<ConnectionId>,
        /// The endpoints that it registered.
        endpoints: BTreeSet<EndpointName>,
    },
    /// A node saw a wire change by itself. Answer: [`Reply::Done`].
    Observe {
        /// The node.
        node: NodeName,
        /// The connection.
        id: ConnectionId,
        /// What it saw.
        wire: ObservedWire,
    },
}

/// What an agent says when its session begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHello {
    /// The node.
    pub node: NodeName,
    /// Release of the agent.
    pub version: String,
    /// The generation in the node's kernel, 0 if none.
    pub generation: u64,
    /// `block+tcx`, `block+clsact` or `tcx`: see `docs/kernel-support.md`.
    pub attach_backend: String,
    /// How many wires the node can hold.
    pub max_wires: u32,
    /// The machine that it is on, if the agent knows.
    pub machine: Option<MachineId>,
}

/// A wire that an agent could not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFailure {
    /// The connection.
    pub id: ConnectionId,
    /// Of what kind the failure is.
    pub kind: WireFailureKind,
    /// The request's field that it is about, in NSM's spelling; empty if none.
    pub field: String,
    /// The field's value.
    pub value: String,
    /// What was tried, what the kernel said, what to do.
    pub message: String,
}

/// Why a wire could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireFailureKind {
    /// The workload's network namespace does not exist.
    NetnsGone,
    /// The interface name is in use by something that is not ours.
    NameTaken,
    /// The existing interface that an endpoint named is not there.
    InterfaceGone,
    /// An address or route conflicts with one that is not ours.
    AddressTaken,
    /// The node's tables are full.
    Capacity,
    /// Anything else.
    Kernel,
}

/// What an agent saw of a wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedWire {
    /// It does not forward.
    Lost {
        /// The endpoint whose end is gone, or that is not reached any more; `None`: it is the client's end, or another
        /// reason.
        endpoint: Option<EndpointName>,
        /// Why.
        message: String,
    },
    /// It forwards again.
    Restored,
    /// The node leads it over its backup, because an endpoint on its way died.
    Switched {
        /// The endpoint that it ends at.
        endpoint: EndpointName,
    },
    /// The last flow has ended at an endpoint that drains, and the node took the way there away.
    Drained {
        /// The endpoint.
        endpoint: EndpointName,
    },
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What became of each object, and of connections.
    Applied(Outcome),
    /// The connections that are moved.
    Moved(Vec<Move>),
    /// The endpoint as registered, with the lease granted.
    Endpoint(Box<NetworkServiceEndpoint>),
    /// The connection.
    Connection(Box<Granted>),
    /// The node's plan.
    Node(NodeGeneration),
    /// Addresses for another domain.
    Reserved(Box<Reservation>),
    /// What another domain does not have.
    Held(Unknown),
    /// It is done; if wires went, these plans carry it out.
    Done(Vec<NodeGeneration>),
}

/// A connection as granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The connection.
    pub connection: Connection,
    /// The plan that its wire stands with. `None`: nothing changed, answer at once. `Some`: answer when
    /// [`crate::Effects::settled`] names the connection.
    pub settles: Option<NodeGeneration>,
}

/// A plan of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeGeneration {
    /// The node.
    pub node: NodeName,
    /// The plan.
    pub generation: u64,
}

/// What applying objects does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What became of each object.
    pub results: Vec<Applied>,
    /// The connections that are moved.
    pub moves: Vec<Move>,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// What happened, or would.
    pub action: ApplyAction,
    /// What the operator should know although it was accepted.
    pub warnings: Vec<String>,
}

/// What applying an object does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyAction {
    /// It was not there.
    Created,
    /// It was there and differed.
    Changed,
    /// It was there just so.
    Unchanged,
}

/// The moment that an expiry asks for, and what is granted at `now`.
pub(crate) fn granted_until(
    field: &str,
    asked: Option<Timestamp>,
    now: Timestamp,
    default: tieline_model::Lease,
    most: tieline_model::Lease,
) -> Result<Timestamp, tieline_model::Invalid> {
    match asked {
        None => Ok(now.after(default)),
        Some(asked) if asked <= now => {
            let value = asked.to_string();
            Err(tieline_model::Invalid::new(
                field,
                value,
                "lies in the past: ask for a later moment, or leave it out",
            ))
        }
        Some(asked) => Ok(asked.min(now.after(most))),
    }
}
