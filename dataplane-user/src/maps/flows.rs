//! The flows of split wires and the branches that they took. The kernel programs write this table; the agent counts.

use std::{collections::BTreeMap, io, os::fd::OwnedFd};

use dataplane_common::{
    abi::{FlowKey, FlowPin},
    limits::MAX_FLOWS,
};

use crate::sys::bpf::Table;

/// The table of flows.
#[derive(Debug)]
pub(crate) struct Flows(Table<FlowKey, FlowPin>);

impl Flows {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Table::new(fd, 1)?))
    }

    /// How many flows that are still open hold to each branch: by scope and branch. `is_open` looks at one flow.
    pub(crate) fn count(
        &self,
        is_open: impl Fn(&FlowKey, &FlowPin) -> bool,
    ) -> io::Result<BTreeMap<(u64, u32), u32>> {
        let (keys, pins) = self.0.all(MAX_FLOWS as usize)?;
        let mut counts = BTreeMap::new();
        for (key, pin) in keys.iter().zip(&pins).filter(|(key, pin)| is_open(key, pin)) {
            *counts.entry((key.scope, pin.branch)).or_default() += 1;
        }
        Ok(counts)
    }
}
