//! What the shell around the registry must do.

use std::{collections::BTreeMap, sync::Arc};

use tieline_model::{
    Connection, ConnectionId, NetworkService, NetworkServiceEndpoint, NetworkServiceWiring, NodeName,
};
use tieline_planner::Delta;

use crate::Refusal;

/// Everything that happened since the last call of [`crate::Registry::take_effects`]. Write first; then the rest.
#[derive(Debug, Default)]
pub struct Effects {
    /// One transaction of the store.
    pub writes: Vec<Write>,
    /// What to send to connected nodes. Empty deltas are not sent.
    pub node_changes: BTreeMap<NodeName, Delta>,
    /// For those who watch, in order.
    pub events: Vec<RegistryEvent>,
    /// For those who wait for a wire.
    pub settled: Vec<Settled>,
}

impl Effects {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.node_changes.is_empty()
            && self.events.is_empty()
            && self.settled.is_empty()
    }
}

/// One key of the store: a new value, or `None` to delete it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Option<Vec<u8>>,
}

/// What those who watch are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryEvent {
    /// A service was created, changed or removed.
    Service(ChangeKind, Arc<NetworkService>),
    /// An endpoint was registered, refreshed, changed or removed.
    Endpoint(ChangeKind, Arc<NetworkServiceEndpoint>),
    /// A wiring was created, changed or removed.
    Wiring(ChangeKind, Arc<NetworkServiceWiring>),
    /// A connection was made, changed or removed.
    Connection(ChangeKind, Arc<Connection>),
}

/// Whether something is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is there, in this form.
    Update,
    /// It is gone; this was its last form.
    Delete,
}

/// A Request that waited for its wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The connection.
    pub id: ConnectionId,
    /// The connection as it stands, or why it does not.
    pub result: Result<Arc<Connection>, Refusal>,
}
