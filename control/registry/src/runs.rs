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

    /// Adds `number`; false if it is there.
    pub(crate) fn insert(&mut self, number: u128) -> bool {
        if self.contains(number) {
            return false;
        }
        let before = self
            .0
            .range(..number)
            .next_back()
            .map(|(start, end)| (*start, *end));
        let start = match before {
            Some((start, end)) if end.checked_add(1) == Some(number) => start,
            _ => number,
        };
        let after = number.checked_add(1).and_then(|next| self.0.remove(&next));
        self.0.insert(start, after.unwrap_or(number));
        true
    }

    /// Takes `number` out; false if it is not there.
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        let run = self
            .0
            .range(..=number)
            .next_back()
            .map(|(start, end)| (*start, *end));
        let Some((start, end)) = run.filter(|(_, end)| *end >= number) else {
            return false;
        };
        self.0.remove(&start);
        if start < number {
            self.0.insert(start, number - 1);
        }
        if number < end {
            self.0.insert(number + 1, end);
        }
        true
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
                let touching = runs.0.values().any(|end| runs.0.contains_key(&(end + 1)));
                prop_assert!(!touching, "{:?}", runs);
            }
        }
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
