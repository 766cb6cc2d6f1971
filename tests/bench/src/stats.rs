//! Order statistics of few samples. A median of interleaved rounds is what a noisy machine can still say truly.

/// Smallest, middle and largest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// How many values.
    pub n: usize,
    /// The smallest.
    pub min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of `values`, in any order; `None` when there are none.
    #[must_use]
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        Some(Self {
            n: sorted.len(),
            min: *sorted.first()?,
            median: middle(&sorted)?,
            max: *sorted.last()?,
        })
    }
}

/// The middle of `values`, in any order.
#[must_use]
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    middle(&sorted(values))
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len().is_multiple_of(2) {
        let lower = *sorted.get(sorted.len() / 2 - 1)?;
        Some(lower.midpoint(upper))
    } else {
        Some(upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_odd_number_is_a_value_and_of_an_even_number_a_mean() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 6.0]), Some(5.5));
        assert_eq!(median(&[7.0]), Some(7.0));
    }

    #[test]
    fn one_outlier_moves_the_largest_but_not_the_middle() {
        let summary = Summary::of(&[10.0, 11.0, 12.0, 10_000.0, 9.0]).unwrap();
        assert_eq!(
            summary,
            Summary {
                n: 5,
                min: 9.0,
                median: 11.0,
                max: 10_000.0
            }
        );
    }

    #[test]
    fn nothing_has_no_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(Summary::of(&[]), None);
    }
}
