//! Packets and octets by position slot, one copy per processor.

use std::{io, os::fd::OwnedFd};

use dataplane_common::abi::WireCounters;

use crate::sys::bpf::Table;

/// From this many slots on, the whole map is read in a few calls in place of one call per slot.
const READ_ALL_FROM: usize = 64;

/// The counters of all positions.
#[derive(Debug)]
pub(crate) struct Counters {
    table: Table<u32, WireCounters>,
    cpus: usize,
    entries: usize,
}

impl Counters {
    pub(crate) fn new(fd: OwnedFd, cpus: usize, entries: u32) -> io::Result<Self> {
        Ok(Self {
            table: Table::new(fd, cpus)?,
            cpus,
            entries: entries as usize,
        })
    }

    /// The same map, for another thread.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            table: self.table.try_clone()?,
            ..*self
        })
    }

    /// The sums of the slots, in order; a slot that does not exist has counted nothing.
    pub(crate) fn read(&self, slots: &[u32]) -> io::Result<Vec<WireCounters>> {
        if slots.len() >= READ_ALL_FROM
            && let Ok((_, values)) = self.table.all(self.entries)
        {
            let copies = |slot: u32| {
                let start = slot as usize * self.cpus;
                values.get(start..start + self.cpus).unwrap_or(&[])
            };
            return Ok(slots.iter().map(|slot| sum(copies(*slot))).collect());
        }
        slots
            .iter()
            .map(|slot| Ok(sum(&self.table.get(*slot)?.unwrap_or_default())))
            .collect()
    }

    /// Sets slots to zero on every processor.
    pub(crate) fn zero(&self, slots: &[u32]) -> io::Result<()> {
        let zeroes = vec![WireCounters::default(); slots.len() * self.cpus];
        if self.table.put_all(slots, &zeroes).is_ok() {
            return Ok(());
        }
        slots
            .iter()
            .try_for_each(|slot| self.table.put(*slot, WireCounters::default()))
    }
}

fn sum(copies: &[WireCounters]) -> WireCounters {
    copies
        .iter()
        .fold(WireCounters::default(), |sum, copy| WireCounters {
            packets: sum.packets.wrapping_add(copy.packets),
            bytes: sum.bytes.wrapping_add(copy.bytes),
        })
}
