//! Which host ends carry so many packets that a tcx link of their own pays.
//!
//! An end that shares its block costs a packet some 60 ns more than one with a tcx link; the link costs the kernel
//! two grace periods under its network lock. So only ends that are busy get one, a few at a time, when nothing else
//! is to be done.

use std::collections::{BTreeMap, BTreeSet};

/// Packets between two looks that make an end busy.
pub(crate) const BUSY_PACKETS: u64 = 10_000;
/// How many ends are promoted at a time: each takes some 16 ms.
pub(crate) const AT_ONCE: usize = 4;

/// What was seen of the ends, by interface index.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    packets: BTreeMap<u32, u64>,
    promoted: BTreeSet<u32>,
}

impl Busy {
    /// Whether this end has its link.
    pub(crate) fn is_promoted(&self, index: u32) -> bool {
        self.promoted.contains(&index)
    }

    /// This end has its link, or nothing can be gained.
    pub(crate) fn promoted(&mut self, index: u32) {
        self.packets.remove(&index);
        self.promoted.insert(index);
    }

    /// Takes a new look at all ends without a link, and says which were busiest since the last one.
    pub(crate) fn look(&mut self, ends: impl IntoIterator<Item = (u32, u64)>) -> Vec<u32> {
        let before = std::mem::take(&mut self.packets);
        let mut busy = Vec::new();
        for (index, packets) in ends {
            // Nothing is known of an end that is seen for the first time, nor of one whose counter began anew.
            let since = before.get(&index).and_then(|before| packets.checked_sub(*before));
            if let Some(since) = since.filter(|since| *since >= BUSY_PACKETS) {
                busy.push((since, index));
            }
            self.packets.insert(index, packets);
        }
        busy.sort_unstable_by(|a, b| b.cmp(a));
        busy.into_iter().take(AT_ONCE).map(|(_, index)| index).collect()
    }

    /// Forgets ends that are gone: their index may come back.
    pub(crate) fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.promoted.retain(|index| is_there(*index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_ends_are_chosen_and_quiet_ones_never() {
        let mut busy = Busy::default();
        assert!(
            busy.look((1..=6).map(|i| (i, u64::from(i) * BUSY_PACKETS)))
                .is_empty()
        );
        let grown =
            |i: u32| u64::from(i) * BUSY_PACKETS + if i == 2 { 1 } else { u64::from(i) * BUSY_PACKETS };
        assert_eq!(busy.look((1..=6).map(|i| (i, grown(i)))), [6, 5, 4, 3]);
        assert!(busy.look((1..=6).map(|i| (i, grown(i)))).is_empty());
    }

    #[test]
    fn a_counter_that_began_anew_says_nothing() {
        let mut busy = Busy::default();
        busy.look([(1, 9 * BUSY_PACKETS)]);
        assert!(busy.look([(1, 5)]).is_empty());
        assert_eq!(busy.look([(1, BUSY_PACKETS + 5)]), [1]);
    }
}
