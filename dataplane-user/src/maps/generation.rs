//! The generation word: one write puts a whole plan in force.

use std::{io, os::fd::OwnedFd};

use dataplane_common::abi::Generation;

use crate::sys::bpf::Table;

const WORD: u32 = 0;

/// The node's generation.
#[derive(Debug)]
pub(crate) struct GenerationWord(Table<u32, Generation>);

impl GenerationWord {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Table::new(fd, 1)?))
    }

    pub(crate) fn get(&self) -> io::Result<Generation> {
        Ok(self
            .0
            .get(WORD)?
            .and_then(|values| values.first().copied())
            .unwrap_or(0))
    }

    pub(crate) fn set(&self, generation: Generation) -> io::Result<()> {
        self.0.put(WORD, generation)
    }
}
