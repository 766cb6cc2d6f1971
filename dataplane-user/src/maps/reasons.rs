//! Frames by reason, one copy per processor.

use std::{io, os::fd::OwnedFd};

use dataplane_common::Reason;

use crate::sys::bpf::Table;

/// The counters of all reasons.
#[derive(Debug)]
pub(crate) struct Reasons(Table<u32, u64>);

impl Reasons {
    pub(crate) fn new(fd: OwnedFd, cpus: usize) -> io::Result<Self> {
        Ok(Self(Table::new(fd, cpus)?))
    }

    /// The sums of all reasons.
    pub(crate) fn read(&self) -> io::Result<Vec<(Reason, u64)>> {
        let sum = |reason: &Reason| {
            let copies = self.0.get(reason.number())?.unwrap_or_default();
            Ok((*reason, copies.into_iter().fold(0, u64::wrapping_add)))
        };
        Reason::ALL.iter().map(sum).collect()
    }
}
