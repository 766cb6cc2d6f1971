//! The kernel behind a small trait, so that everything above it runs on an in-memory fake as well.

use std::collections::BTreeMap;

use dataplane_common::{
    Reason,
    abi::{FlowKey, FlowPin, Generation, Position, Split, WireCounters},
};

use crate::{
    desired::{IfName, NetnsRef},
    liveness::WatchChange,
    observed::{Observed, Obstacle, Scope, Survey},
    op::{InnerChange, NewEnd, Settle},
    outcome::FailureKind,
    ownership::{Managed, NodeScope},
};

/// Why one operation failed. Nothing of that operation remains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OpError {
    /// Its kind in the agent protocol.
    pub kind: FailureKind,
    /// What was tried, what the kernel said, what to do.
    pub message: String,
    /// The request field it is about, in NSM's spelling, and the value.
    pub field: Option<(String, String)>,
}

impl OpError {
    /// The kernel refused something that should work.
    #[must_use]
    pub fn kernel(message: String) -> Self {
        Self {
            kind: FailureKind::Kernel,
            message,
            field: None,
        }
    }
}

impl From<Obstacle> for OpError {
    fn from(obstacle: Obstacle) -> Self {
        Self {
            kind: obstacle.kind(),
            message: obstacle.to_string(),
            field: obstacle.field(),
        }
    }
}

/// The kernel could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}: {source}; see that the agent still has CAP_NET_ADMIN and CAP_BPF")]
pub struct ObserveError {
    /// What was read.
    pub what: &'static str,
    /// What the kernel said.
    pub source: std::io::Error,
}

/// One result per item, in order.
pub type Results<T> = Vec<Result<T, OpError>>;

/// What a datapath is, for status and for control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `block+tcx`, `block+clsact` or `tcx`: see `docs/kernel-support.md`.
    pub attach_backend: &'static str,
    /// Where the pins are.
    pub pin_path: String,
    /// As in `uname -r`.
    pub kernel_release: String,
    /// How many wires the tables hold.
    pub max_wires: u32,
}

/// What the reconciler needs of the kernel. Each method does one kind of operation on many items: the items are
/// independent of each other, and there is one result for each, in order.
pub trait Datapath: Send {
    /// What it is.
    fn description(&self) -> Description;

    /// The scope in the marks of this node.
    fn scope(&self) -> &NodeScope;

    /// Looks, and changes nothing.
    fn observe(&mut self, scope: &Scope<'_>) -> Result<Observed, ObserveError>;

    /// Lists what is ours, in parts of some milliseconds: `None` until the last. Operations may come in between; of what
    /// they make and take away the list may tell or not.
    fn survey(&mut self) -> Result<Option<Survey>, ObserveError>;

    /// Makes veth pairs, marked; returns the host ends' indexes.
    fn create(&mut self, ends: &[&NewEnd]) -> Results<u32>;

    /// Puts host ends right.
    fn settle(&mut self, ends: &[&Settle]) -> Results<()>;

    /// Changes workloads' ends.
    fn configure(&mut self, changes: &[&InnerChange]) -> Results<()>;

    /// Sets the counters of slots to zero.
    fn zero_counters(&mut self, slots: &[u32]) -> Result<(), OpError>;

    /// Writes forwarding entries.
    fn write_positions(&mut self, entries: &[(u32, Position)]) -> Results<()>;

    /// Takes forwarding entries away; one that is not there counts as taken away.
    fn delete_positions(&mut self, indexes: &[u32]) -> Results<()>;

    /// The split with this number, if there is one.
    fn split(&self, number: u32) -> Result<Option<Split>, ObserveError>;

    /// Writes splits that nothing leads to yet, by number.
    fn write_splits(&mut self, splits: &[(u32, Split)]) -> Results<()>;

    /// Takes splits away that nothing leads to any more; one that is not there counts as taken away.
    fn delete_splits(&mut self, numbers: &[u32]) -> Results<()>;

    /// How many of the flows for which `counts` holds go by each branch: by scope and id of the branch.
    fn count_flows(
        &self,
        counts: &dyn Fn(&FlowKey, &FlowPin) -> bool,
    ) -> Result<BTreeMap<(u64, u32), u32>, ObserveError>;

    /// Watches wires otherwise; does nothing where nobody watches.
    fn watch(&mut self, changes: Vec<WatchChange>);

    /// The time of the kernel's tables: `CLOCK_MONOTONIC` in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Writes the generation word.
    fn set_generation(&mut self, generation: Generation) -> Result<(), OpError>;

    /// Attaches the program to interfaces, by name and index.
    fn attach(&mut self, interfaces: &[(&IfName, u32)]) -> Results<()>;

    /// Makes packets cheaper at host ends that are attached and carry many, for which the kernel waits once per end,
    /// now and when the end goes. Says for each whether that is so now; `false` where there is nothing to gain.
    fn promote(&mut self, interfaces: &[(&IfName, u32)]) -> Results<bool>;

    /// Takes the program off interfaces; where it is not attached there is nothing to do.
    fn detach(&mut self, interfaces: &[&IfName]) -> Results<()>;

    /// Deletes veth pairs of ours, with what is attached to them; one that is gone counts as deleted.
    fn delete(&mut self, links: &[&Managed]) -> Results<()>;

    /// Takes policies away whose interfaces are gone; in a namespace that is gone there are none.
    fn sweep(&mut self, namespaces: &[&NetnsRef]) -> Results<()>;

    /// The sums over all processors, by slot.
    fn counters(&self, slots: &[u32]) -> Result<Vec<WireCounters>, ObserveError>;

    /// Frames by reason since the tables were made.
    fn reasons(&self) -> Result<Vec<(Reason, u64)>, ObserveError>;
}
