//! Nodes: their sessions, plans and what they report.

use serde::{Deserialize, Serialize};
use tieline_model::{NodeName, Timestamp};

/// A node that has said hello at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its name.
    pub name: NodeName,
    /// Its plan. It only ever grows.
    pub generation: u64,
    /// The plan that it has carried out, as far as it told since this control began.
    #[serde(skip)]
    pub applied: u64,
    /// Whether its agent has a session.
    #[serde(skip)]
    pub connected: bool,
    /// Release of its agent.
    pub version: String,
    /// "tcx" or "clsact".
    pub attach_backend: String,
    /// How many wires it can hold.
    pub max_wires: u32,
    /// When its session last began or ended, or it last reported.
    #[serde(skip)]
    pub last_seen: Timestamp,
}
