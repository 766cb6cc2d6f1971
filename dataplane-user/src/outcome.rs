//! What came of carrying out a plan.

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
    /// Wires that were led over their backup, because a workload that a branch led to is gone; and the endpoint that the
    /// backup ends at.
    pub switched: Vec<(WireId, String)>,
    /// Wires that cannot be made because a workload is gone, and the number of the end there in the layout.
    pub(crate) bereft: Vec<(WireId, usize)>,
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
