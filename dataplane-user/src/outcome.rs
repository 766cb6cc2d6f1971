//! What came of carrying out a plan.

use std::collections::BTreeSet;

use dataplane_common::abi::Generation;

use crate::desired::WireId;

/// The result of one reconcile pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The generation now in the kernel.
    pub generation: Generation,
    /// How many operations were carried out; 0 when nothing differed.
    pub operations: usize,
    /// Wires of the plan that are not forwarding. Nothing of a failed wire is left in the kernel.
    pub failures: Vec<WireFailure>,
    /// Wires among `failures` that forwarded before: their namespace or interface went away.
    pub lost: Vec<WireId>,
    /// Wires that failed before and forward now.
    pub restored: Vec<WireId>,
    /// What could not be taken away; the next full pass tries again.
    pub postponed: Vec<Postponed>,
    /// For control to hear of.
    pub news: News,
    /// Wires of which a workload is gone, and the numbers of the ends there in the layout.
    pub(crate) bereft: Vec<(WireId, BTreeSet<usize>)>,
}

/// What the node has found out and decided by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Endpoints and functions that have died, by name; and how that was seen.
    pub dead: Vec<(String, &'static str)>,
    /// Endpoints that answer, for the first time or again.
    pub alive: Vec<String>,
    /// Wires that were led over their backup, and the endpoint that it ends at.
    pub switched: Vec<(WireId, String)>,
    /// The same of wires that were led there before, of which control may know nothing.
    pub still_switched: Vec<(WireId, String)>,
    /// Wires that lead to an endpoint that does not answer, for they have no other; and the endpoint.
    pub unanswered: Vec<(WireId, String)>,
    /// Wires, and the endpoint at which the last flow has ended.
    pub drained: Vec<(WireId, String)>,
}

impl News {
    /// Adds what has come since.
    pub(crate) fn append(&mut self, mut later: Self) {
        self.dead.append(&mut later.dead);
        self.alive.append(&mut later.alive);
        self.switched.append(&mut later.switched);
        self.still_switched.append(&mut later.still_switched);
        self.unanswered.append(&mut later.unanswered);
        self.drained.append(&mut later.drained);
    }
}

/// Something that should have been taken away and is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// The wire it belonged to, or the interface's name if the wire is not known; `None`: the node.
    pub wire: Option<WireId>,
    /// What was tried and what the kernel said.
    pub message: String,
}

/// One wire that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireFailure {
    /// The wire.
    pub wire: WireId,
    /// What kind of failure.
    pub kind: FailureKind,
    /// A sentence for the operator: what was tried, what the kernel said, what to do.
    pub message: String,
    /// Which request field the failure is about, in NSM's spelling, and its value.
    pub field: Option<(String, String)>,
    /// The function or endpoint whose end it is about; `None`: the client, or not known.
    pub workload: Option<String>,
}

/// Kinds of failures, as in `tieline.agent.v1.FailureKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The workload's network namespace does not exist (any more).
    NetnsGone,
    /// The interface name is in use in that namespace by something that is not ours.
    NameTaken,
    /// The existing interface that an endpoint named is not there.
    InterfaceGone,
    /// An address or route conflicts with one that is not ours.
    AddressTaken,
    /// The node's tables are full.
    Capacity,
    /// Anything else the kernel refused.
    Kernel,
}
