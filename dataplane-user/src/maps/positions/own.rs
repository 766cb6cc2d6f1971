//! The positions of interfaces that the agent made: an array by index less [`OWN_INDEX_BASE`]. Its elements are written
//! in place while packets pass, so every change is made of the writes that `Position::writes_in_place` orders.

use std::{io, os::fd::OwnedFd};

use dataplane_common::{abi::Position, limits::OWN_INDEX_BASE};

use crate::sys::bpf::Table;

/// How many writes a change is made of.
const WRITES: usize = 3;

/// The array.
#[derive(Debug)]
pub(super) struct Own {
    table: Table<u32, Position>,
    entries: u32,
}

impl Own {
    pub(super) fn new(fd: OwnedFd, entries: u32) -> io::Result<Self> {
        let table = Table::new(fd, 1)?;
        Ok(Self { table, entries })
    }

    pub(super) fn get(&self, index: u32) -> io::Result<Option<Position>> {
        let Ok(key) = self.key(index) else { return Ok(None) };
        Ok(Some(self.element(key)?).filter(|position| !position.is_absent()))
    }

    pub(super) fn all(&self) -> io::Result<Vec<(u32, Position)>> {
        let (keys, values) = self.table.all(self.entries as usize)?;
        let elements = keys.into_iter().zip(values);
        let present = elements.filter(|(_, position)| !position.is_absent());
        Ok(present
            .map(|(key, position)| (OWN_INDEX_BASE + key, position))
            .collect())
    }

    pub(super) fn put(&self, entries: &[(u32, Position)]) -> Vec<io::Result<()>> {
        self.change(entries, |old, (_, to)| old.writes_in_place(to))
    }

    pub(super) fn remove(&self, indexes: &[u32]) -> Vec<io::Result<()>> {
        let entries: Vec<_> = indexes.iter().map(|&index| (index, Position::ABSENT)).collect();
        self.change(&entries, |old, _| old.removal_in_place())
    }

    /// The first write of every entry, then the second of every entry, and so on.
    fn change(
        &self,
        entries: &[(u32, Position)],
        writes: impl Fn(&Position, &(u32, Position)) -> [Position; WRITES],
    ) -> Vec<io::Result<()>> {
        let plan = |entry: &(u32, Position)| {
            let key = self.key(entry.0)?;
            Ok((key, writes(&self.element(key)?, entry)))
        };
        let mut planned: Vec<io::Result<(u32, [Position; WRITES])>> = entries.iter().map(plan).collect();
        for step in 0..WRITES {
            let ready = planned.iter().flatten();
            let (keys, values): (Vec<_>, Vec<_>) = ready.map(|(key, writes)| (*key, writes[step])).unzip();
            if self.table.put_all(&keys, &values).is_ok() {
                continue;
            }
            // Writing an element again changes nothing; one that is refused gets none of its later writes.
            for entry in &mut planned {
                if let Ok((key, writes)) = entry
                    && let Err(error) = self.table.put(*key, writes[step])
                {
                    *entry = Err(error);
                }
            }
        }
        planned.into_iter().map(|entry| entry.map(drop)).collect()
    }

    fn key(&self, index: u32) -> io::Result<u32> {
        let key = index.wrapping_sub(OWN_INDEX_BASE);
        if key < self.entries {
            Ok(key)
        } else {
            Err(io::Error::from_raw_os_error(libc::E2BIG))
        }
    }

    fn element(&self, key: u32) -> io::Result<Position> {
        let values = self.table.get(key)?;
        Ok(values
            .and_then(|values| values.first().copied())
            .unwrap_or(Position::ABSENT))
    }
}
