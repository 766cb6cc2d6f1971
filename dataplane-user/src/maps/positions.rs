//! The forwarding table: interface index → position. Two maps of the kernel programs hold it, chosen by the index: the
//! interfaces that the agent makes get indexes from [`OWN_INDEX_BASE`] on.

mod others;
mod own;

use std::{io, os::fd::OwnedFd};

use dataplane_common::{abi::Position, limits::OWN_INDEX_BASE};

use self::{others::Others, own::Own};

/// The forwarding table.
#[derive(Debug)]
pub(crate) struct Positions {
    own: Own,
    others: Others,
}

const fn is_own(index: u32) -> bool {
    index >= OWN_INDEX_BASE
}

impl Positions {
    /// Both maps hold `entries`.
    pub(crate) fn new(own: OwnedFd, others: OwnedFd, entries: u32) -> io::Result<Self> {
        Ok(Self {
            own: Own::new(own, entries)?,
            others: Others::new(others, entries)?,
        })
    }

    /// The entry at an interface.
    pub(crate) fn get(&self, index: u32) -> io::Result<Option<Position>> {
        if is_own(index) {
            self.own.get(index)
        } else {
            self.others.get(index)
        }
    }

    /// Every entry.
    pub(crate) fn all(&self) -> io::Result<Vec<(u32, Position)>> {
        let mut entries = self.others.all()?;
        entries.extend(self.own.all()?);
        Ok(entries)
    }

    /// Writes entries; one result each. Packets that pass meanwhile see an entry as it was or as it will be.
    pub(crate) fn put(&self, entries: &[(u32, Position)]) -> Vec<io::Result<()>> {
        apart(
            entries,
            |(index, _)| is_own(*index),
            |own| self.own.put(own),
            |others| self.others.put(others),
        )
    }

    /// Removes entries; one result each, and one that was not there is removed.
    pub(crate) fn remove(&self, indexes: &[u32]) -> Vec<io::Result<()>> {
        apart(
            indexes,
            |index| is_own(*index),
            |own| self.own.remove(own),
            |others| self.others.remove(others),
        )
    }
}

/// Does one thing with the items that are ours and another with the rest; results are in the order of the items.
fn apart<T: Copy>(
    items: &[T],
    is_own: impl Fn(&T) -> bool,
    own: impl FnOnce(&[T]) -> Vec<io::Result<()>>,
    others: impl FnOnce(&[T]) -> Vec<io::Result<()>>,
) -> Vec<io::Result<()>> {
    let (ours, theirs): (Vec<T>, Vec<T>) = items.iter().partition(|item| is_own(item));
    let mut ours = own(&ours).into_iter();
    let mut theirs = others(&theirs).into_iter();
    let missing = || Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    let result = |item| if is_own(item) { ours.next() } else { theirs.next() }.unwrap_or_else(missing);
    items.iter().map(result).collect()
}
