//! Where split positions lead: number → split. A split is written once, before anything leads to it, and removed when
//! nothing does any more.

use std::{io, os::fd::OwnedFd};

use dataplane_common::abi::Split;

use crate::sys::bpf::Table;

/// The splits.
#[derive(Debug)]
pub(crate) struct Splits {
    table: Table<u32, Split>,
    entries: usize,
}

impl Splits {
    pub(crate) fn new(fd: OwnedFd, entries: u32) -> io::Result<Self> {
        Ok(Self {
            table: Table::new(fd, 1)?,
            entries: entries as usize,
        })
    }

    /// Every split, by number.
    pub(crate) fn all(&self) -> io::Result<Vec<(u32, Split)>> {
        let (numbers, splits) = self.table.all(self.entries)?;
        Ok(numbers.into_iter().zip(splits).collect())
    }

    /// One split.
    pub(crate) fn get(&self, number: u32) -> io::Result<Option<Split>> {
        Ok(self.table.get(number)?.and_then(|values| values.first().copied()))
    }

    /// Writes a split.
    pub(crate) fn put(&self, number: u32, split: Split) -> io::Result<()> {
        self.table.put(number, split)
    }

    /// Removes a split; one that is not there is removed.
    pub(crate) fn remove(&self, number: u32) -> io::Result<()> {
        self.table.remove(number).map(drop)
    }
}
