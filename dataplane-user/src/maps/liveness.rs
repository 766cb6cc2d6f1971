//! When replies to probes came in, by position slot.

use std::{io, os::fd::OwnedFd};

use crate::sys::bpf::Table;

/// The times of all positions.
#[derive(Debug)]
pub(crate) struct Liveness {
    table: Table<u32, u64>,
    entries: u32,
}

impl Liveness {
    pub(crate) fn new(fd: OwnedFd, entries: u32) -> io::Result<Self> {
        Ok(Self {
            table: Table::new(fd, 1)?,
            entries,
        })
    }

    /// The time (`CLOCK_MONOTONIC`, nanoseconds) of the last reply at a slot; 0: none yet. It may be older than the position
    /// that has the slot.
    pub(crate) fn read(&self, slot: u32) -> io::Result<u64> {
        if slot >= self.entries {
            return Ok(0);
        }
        let values = self.table.get(slot)?;
        Ok(values.and_then(|values| values.first().copied()).unwrap_or(0))
    }

    /// A slot is another position's from here on: nothing has come in there.
    pub(crate) fn clear(&self, slot: u32) -> io::Result<()> {
        if slot >= self.entries {
            return Ok(());
        }
        self.table.put(slot, 0)
    }

    /// The same map, for another thread.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            table: self.table.try_clone()?,
            entries: self.entries,
        })
    }
}
