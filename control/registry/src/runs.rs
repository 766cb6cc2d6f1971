//! A set of numbers kept as runs of neighbours, so that the first free one is found in O(log n) however full it is.

use std::collections::BTreeMap;

/// The set: first number of each run → its last number. Runs never touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs(BTreeMap<u128, u128>);

impl Runs {
    /// The last number of the run that holds `number`.
    pub(crate) fn run_end(&self, number: u128) -> Option<u128> {
        let (_, end) = self.0.range(..=number).next_back()?;
        (*end >= number).then_some(*end)
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.run_end(number).is_some()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last number of the last run that has any of `first` to `last`.
    fn end_of_any(&self, first: u128, last: u128) -> Option<u128> {
        let (_, end) = self.0.range(..=last).next_back()?;
        (*end >= first).then_some(*end)
    }

    /// Every run, as its first and last number.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u128, u128)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// Adds `number`; false if it is there.
    pub(crate) fn insert(&mut self, number: u128) -> bool {
        self.insert_range(number, number)
    }

    /// Adds `first` to `last`; false, and nothing is added, if any of them is there.
    pub(crate) fn insert_range(&mut self, first: u128, last: u128) -> bool {
        if self.end_of_any(first, last).is_some() {
            return false;
        }
        let before = self
            .0
            .range(..first)
            .next_back()
            .map(|(start, end)| (*start, *end));
        let start = match before {
            Some((start, end)) if end.checked_add(1) == Some(first) => start,
            _ => first,
        };
        let after = last.checked_add(1).and_then(|next| self.0.remove(&next));
        self.0.insert(start, after.unwrap_or(last));
        true
    }

    /// Takes `number` out; false if it is not there.
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        self.remove_range(number, number)
    }

    /// Takes `first` to `last` out; false, and nothing is taken out, if one of them is not there.
    pub(crate) fn remove_range(&mut self, first: u128, last: u128) -> bool {
        let run = self
            .0
            .range(..=first)
            .next_back()
            .map(|(start, end)| (*start, *end));
        let Some((start, end)) = run.filter(|(_, end)| *end >= last) else {
            return false;
        };
        self.0.remove(&start);
        if start < first {
            self.0.insert(start, first - 1);
        }
        if last < end {
            self.0.insert(last + 1, end);
        }
        true
    }

    /// The first of a block of 2^`bits` numbers from `at` to `last` that begins at a multiple of its size and has none
    /// in the set or in one of the `skip` ranges.
    pub(crate) fn first_free_block(
        &self,
        at: u128,
        last: u128,
        bits: u32,
        skip: &[(u128, u128)],
    ) -> Option<u128> {
        let size = 1_u128.checked_shl(bits)?;
        let align = |number: u128| Some(number.checked_add(size - 1)? & !(size - 1));
        let mut start = align(at)?;
        loop {
            let end = start.checked_add(size - 1).filter(|end| *end <= last)?;
            let skipped = skip
                .iter()
                .filter(|(from, to)| *from <= end && *to >= start)
                .map(|(_, to)| *to)
                .max();
            match self.end_of_any(start, end).max(skipped) {
                Some(taken) => start = align(taken.checked_add(1)?)?,
                None => return Some(start),
            }
        }
    }

    /// The first number from `at` to `last` that is neither in the set nor in one of the `skip` ranges. Passes each
    /// of those at most once.
    pub(crate) fn first_free(&self, mut at: u128, last: u128, skip: &[(u128, u128)]) -> Option<u128> {
        while at <= last {
            let skipped = skip
                .iter()
                .filter(|(from, to)| (*from..=*to).contains(&at))
                .map(|(_, to)| *to)
                .max();
            match self.run_end(at).max(skipped) {
                Some(end) => at = end.checked_add(1)?,
                None => return Some(at),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_behave_like_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0_u128..40), 0..200)) {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for (add, number) in steps {
                if add {
                    prop_assert_eq!(runs.insert(number), model.insert(number));
                } else {
                    prop_assert_eq!(runs.remove(number), model.remove(&number));
                }
                for n in 0..42 {
                    prop_assert_eq!(runs.contains(n), model.contains(&n));
                    let free = (n..=30).find(|m| !model.contains(m) && !(7..=9).contains(m));
                    prop_assert_eq!(runs.first_free(n, 30, &[(7, 9)]), free);
                }
                for bits in 0..4 {
                    let size = 1 << bits;
                    let is_free = |start: &u128| (*start..start + size).all(|n| !model.contains(&n) && !(7..=9).contains(&n));
                    let block = (0..=30).step_by(1 << bits).find(|start| start + size <= 31 && is_free(start));
                    prop_assert_eq!(runs.first_free_block(0, 30, bits, &[(7, 9)]), block);
                }
                let touching = runs.0.values().any(|end| runs.0.contains_key(&(end + 1)));
                prop_assert!(!touching, "{:?}", runs);
            }
        }
    }

    #[test]
    fn a_range_is_added_and_taken_out_whole_or_not_at_all() {
        let mut runs = Runs::default();
        assert!(
            runs.insert_range(8, 15) && runs.insert(7) && !runs.insert_range(15, 20) && !runs.contains(16)
        );
        assert!(!runs.remove_range(14, 16) && runs.contains(14));
        assert!(runs.remove_range(8, 15) && runs.contains(7) && !runs.contains(8));
        assert_eq!(runs.first_free_block(u128::MAX, u128::MAX, 4, &[]), None);
        assert_eq!(runs.first_free_block(0, u128::MAX, 128, &[]), None);
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        let mut runs = Runs::default();
        assert!(runs.insert(u128::MAX) && runs.insert(u128::MAX - 1));
        assert_eq!(runs.first_free(u128::MAX - 1, u128::MAX, &[]), None);
        assert!(runs.remove(u128::MAX));
        assert_eq!(
            runs.first_free(0, u128::MAX, &[(0, u128::MAX - 1)]),
            Some(u128::MAX)
        );
    }
}
