//! Which interface indexes the agent gives to the interfaces it makes. The truth is in the kernel; this is a guess that
//! saves asking, and a wrong one costs a second try.

use dataplane_common::limits::{OWN_INDEX_BASE, POSITIONS_PER_WIRE};

use crate::slots::Slots;

/// The agent's range of indexes.
#[derive(Debug)]
pub(super) struct Indexes(Slots);

impl Indexes {
    /// The range for `max_wires` wires, of which the kernel has `used`.
    pub(super) fn new(max_wires: u32, used: impl IntoIterator<Item = u32>) -> Self {
        let capacity = max_wires.saturating_mul(POSITIONS_PER_WIRE);
        let used = used
            .into_iter()
            .filter_map(|index| index.checked_sub(OWN_INDEX_BASE));
        Self(Slots::new(capacity, used))
    }

    /// An index that is free as far as is known; `None` when all are taken: let the kernel choose then.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.0.take().map(|slot| slot + OWN_INDEX_BASE)
    }

    /// The interface with this index is gone.
    pub(super) fn release(&mut self, index: u32) {
        if let Some(slot) = index.checked_sub(OWN_INDEX_BASE) {
            self.0.release(slot);
        }
    }
}
