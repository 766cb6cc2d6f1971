//! A datapath that refuses operations at a chosen point.

use std::collections::BTreeMap;

use dataplane_common::{
    Reason,
    abi::{FlowKey, FlowPin, Generation, Position, Split, WireCounters},
};

use crate::{
    datapath::{Datapath, Description, ObserveError, OpError, Results},
    desired::{IfName, NetnsRef},
    liveness::WatchChange,
    observed::{Observed, Scope, Survey},
    op::{InnerChange, NewEnd, Settle},
    ownership::{Managed, NodeScope},
};

/// Which operations are refused, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    Never,
    /// This one alone.
    At(usize),
    /// This one and all later ones: the process died.
    From(usize),
}

/// Passes operations on to `D` one by one, and refuses some.
pub struct Faulty<D> {
    inner: D,
    fault: Fault,
    count: usize,
}

impl<D> Faulty<D> {
    /// Wraps a datapath.
    pub const fn new(inner: D, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            count: 0,
        }
    }

    /// Refuses other operations, counted from here on.
    pub const fn set_fault(&mut self, fault: Fault) {
        self.fault = fault;
        self.count = 0;
    }

    /// How many operations were asked for since the fault was set.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The wrapped datapath.
    pub const fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    /// The wrapped datapath.
    pub const fn inner(&self) -> &D {
        &self.inner
    }

    /// The wrapped datapath, which outlives the fault.
    pub fn into_inner(self) -> D {
        self.inner
    }

    fn refuses(&mut self) -> bool {
        let n = self.count;
        self.count += 1;
        match self.fault {
            Fault::Never => false,
            Fault::At(at) => n == at,
            Fault::From(from) => n >= from,
        }
    }

    fn one_by_one<I: Copy, T>(
        &mut self,
        items: &[I],
        act: impl Fn(&mut D, &[I]) -> Results<T>,
    ) -> Results<T> {
        let one = |this: &mut Self, item: &I| {
            if this.refuses() {
                return vec![Err(refused())];
            }
            act(&mut this.inner, &[*item])
        };
        items.iter().flat_map(|item| one(self, item)).collect()
    }
}

fn refused() -> OpError {
    OpError::kernel("injected fault".to_owned())
}

impl<D: Datapath> Datapath for Faulty<D> {
    fn description(&self) -> Description {
        self.inner.description()
    }

    fn scope(&self) -> &NodeScope {
        self.inner.scope()
    }

    fn observe(&mut self, scope: &Scope<'_>) -> Result<Observed, ObserveError> {
        self.inner.observe(scope)
    }

    fn survey(&mut self) -> Result<Option<Survey>, ObserveError> {
        self.inner.survey()
    }

    fn create(&mut self, ends: &[&NewEnd]) -> Results<u32> {
        self.one_by_one(ends, D::create)
    }

    fn settle(&mut self, ends: &[&Settle]) -> Results<()> {
        self.one_by_one(ends, D::settle)
    }

    fn configure(&mut self, changes: &[&InnerChange]) -> Results<()> {
        self.one_by_one(changes, D::configure)
    }

    fn zero_counters(&mut self, slots: &[u32]) -> Result<(), OpError> {
        if self.refuses() {
            Err(refused())
        } else {
            self.inner.zero_counters(slots)
        }
    }

    fn write_positions(&mut self, entries: &[(u32, Position)]) -> Results<()> {
        self.one_by_one(entries, D::write_positions)
    }

    fn delete_positions(&mut self, indexes: &[u32]) -> Results<()> {
        self.one_by_one(indexes, D::delete_positions)
    }

    fn split(&self, number: u32) -> Result<Option<Split>, ObserveError> {
        self.inner.split(number)
    }

    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }

    fn write_splits(&mut self, splits: &[(u32, Split)]) -> Results<()> {
        self.one_by_one(splits, D::write_splits)
    }

    fn delete_splits(&mut self, numbers: &[u32]) -> Results<()> {
        self.one_by_one(numbers, D::delete_splits)
    }

    fn count_flows(
        &self,
        counts: &dyn Fn(&FlowKey, &FlowPin) -> bool,
    ) -> Result<BTreeMap<(u64, u32), u32>, ObserveError> {
        self.inner.count_flows(counts)
    }

    fn watch(&mut self, changes: Vec<WatchChange>) {
        self.inner.watch(changes);
    }

    fn set_generation(&mut self, generation: Generation) -> Result<(), OpError> {
        if self.refuses() {
            Err(refused())
        } else {
            self.inner.set_generation(generation)
        }
    }

    fn attach(&mut self, interfaces: &[(&IfName, u32)]) -> Results<()> {
        self.one_by_one(interfaces, D::attach)
    }

    fn promote(&mut self, interfaces: &[(&IfName, u32)]) -> Results<bool> {
        self.one_by_one(interfaces, D::promote)
    }

    fn detach(&mut self, interfaces: &[&IfName]) -> Results<()> {
        self.one_by_one(interfaces, D::detach)
    }

    fn delete(&mut self, links: &[&Managed]) -> Results<()> {
        self.one_by_one(links, D::delete)
    }

    fn sweep(&mut self, namespaces: &[&NetnsRef]) -> Results<()> {
        self.one_by_one(namespaces, D::sweep)
    }

    fn counters(&self, slots: &[u32]) -> Result<Vec<WireCounters>, ObserveError> {
        self.inner.counters(slots)
    }

    fn reasons(&self) -> Result<Vec<(Reason, u64)>, ObserveError> {
        self.inner.reasons()
    }
}
