//! Which counter slots are in use. The truth is in the forwarding table; this is its index.

/// A set of slots below a capacity.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    words: Vec<u64>,
    capacity: u32,
    /// No slot below this word is free.
    first_free_word: usize,
}

const WORD_BITS: u32 = u64::BITS;

impl Slots {
    /// All of `capacity` slots free, but for `used`.
    #[must_use]
    pub fn new(capacity: u32, used: impl IntoIterator<Item = u32>) -> Self {
        let words = usize::try_from(capacity.div_ceil(WORD_BITS)).unwrap_or(usize::MAX);
        let mut slots = Self {
            words: vec![0; words],
            capacity,
            first_free_word: 0,
        };
        for slot in used {
            if let Some((word, bit)) = slots.locate(slot) {
                slots.words[word] |= bit;
            }
        }
        slots
    }

    /// How many there are.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Takes the lowest free slot.
    pub fn take(&mut self) -> Option<u32> {
        let word = (self.first_free_word..self.words.len()).find(|&word| self.words[word] != u64::MAX)?;
        self.first_free_word = word;
        let bit = (!self.words[word]).trailing_zeros();
        let slot = u32::try_from(word).ok()? * WORD_BITS + bit;
        if slot >= self.capacity {
            return None;
        }
        self.words[word] |= 1 << bit;
        Some(slot)
    }

    /// Gives a slot back.
    pub fn release(&mut self, slot: u32) {
        if let Some((word, bit)) = self.locate(slot) {
            self.words[word] &= !bit;
            self.first_free_word = self.first_free_word.min(word);
        }
    }

    /// How many are in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    fn locate(&self, slot: u32) -> Option<(usize, u64)> {
        if slot >= self.capacity {
            return None;
        }
        Some((usize::try_from(slot / WORD_BITS).ok()?, 1 << (slot % WORD_BITS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn no_slot_is_given_twice_and_none_is_lost(capacity in 0..200u32, ops in prop::collection::vec(0..3u8, 0..400)) {
            let mut slots = Slots::new(capacity, []);
            let mut held = BTreeSet::new();
            for op in ops {
                if op > 0 {
                    match slots.take() {
                        Some(slot) => prop_assert!(slot < capacity && held.insert(slot)),
                        None => prop_assert_eq!(held.len(), capacity as usize),
                    }
                } else if let Some(slot) = held.pop_last() {
                    slots.release(slot);
                }
                prop_assert_eq!(slots.used() as usize, held.len());
            }
        }
    }
}
