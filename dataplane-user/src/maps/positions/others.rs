//! The positions of interfaces that the agent did not make: a hash by index. Elements are replaced whole.

use std::{io, os::fd::OwnedFd};

use dataplane_common::abi::Position;

use crate::sys::bpf::Table;

/// The hash.
#[derive(Debug)]
pub(super) struct Others {
    table: Table<u32, Position>,
    entries: usize,
}

impl Others {
    pub(super) fn new(fd: OwnedFd, entries: u32) -> io::Result<Self> {
        Ok(Self {
            table: Table::new(fd, 1)?,
            entries: entries as usize,
        })
    }

    /// The entry at an interface.
    pub(super) fn get(&self, index: u32) -> io::Result<Option<Position>> {
        Ok(self.table.get(index)?.and_then(|values| values.first().copied()))
    }

    /// Every entry.
    pub(super) fn all(&self) -> io::Result<Vec<(u32, Position)>> {
        let (keys, values) = self.table.all(self.entries)?;
        Ok(keys.into_iter().zip(values).collect())
    }

    /// Writes entries; one result each.
    pub(super) fn put(&self, entries: &[(u32, Position)]) -> Vec<io::Result<()>> {
        let (keys, values): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
        match self.table.put_all(&keys, &values) {
            Ok(()) => entries.iter().map(|_| Ok(())).collect(),
            // Writing an entry again changes nothing, so the ones that were written are simply written again.
            Err(_) => entries
                .iter()
                .map(|(index, position)| self.table.put(*index, *position))
                .collect(),
        }
    }

    /// Removes entries; one result each, and one that was not there is removed.
    pub(super) fn remove(&self, indexes: &[u32]) -> Vec<io::Result<()>> {
        match self.table.remove_all(indexes) {
            Ok(()) => indexes.iter().map(|_| Ok(())).collect(),
            // The batch stops at the first missing key.
            Err(_) => indexes
                .iter()
                .map(|index| self.table.remove(*index).map(drop))
                .collect(),
        }
    }
}
