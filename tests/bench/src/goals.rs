//! What the design asks for, and whether a run reached it.

use crate::report::{Metric, Row};

/// Which number of a row a goal is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// The median is at most this.
    AtMost(f64),
    /// The median is at least this.
    AtLeast(f64),
    /// The ratio to the reference path is at most this.
    RatioAtMost(f64),
    /// The ratio to the reference path is at least this.
    RatioAtLeast(f64),
}

/// One line of the design's table of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// Whose number is judged.
    pub path: &'static str,
    /// Name of the metric.
    pub metric: &'static str,
    /// For how many wires; `None` for metrics without that question.
    pub wires: Option<u32>,
    /// What is asked for.
    pub bound: Bound,
}

impl Goal {
    /// The goal of `path` for `metric`.
    pub(crate) const fn new(path: &'static str, metric: Metric, wires: Option<u32>, bound: Bound) -> Self {
        Self {
            path,
            metric: metric.name,
            wires,
            bound,
        }
    }

    /// Whether `row` reaches this goal; `None` when the row is about something else or lacks the number.
    #[must_use]
    pub(crate) fn met_by(&self, row: &Row) -> Option<bool> {
        if row.path != self.path || row.metric != self.metric || row.wires != self.wires {
            return None;
        }
        match self.bound {
            Bound::AtMost(limit) => Some(row.median <= limit),
            Bound::AtLeast(limit) => Some(row.median >= limit),
            Bound::RatioAtMost(limit) => row.ratio.map(|ratio| ratio <= limit),
            Bound::RatioAtLeast(limit) => row.ratio.map(|ratio| ratio >= limit),
        }
    }

    /// The bound, as people write it.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match self.bound {
            Bound::AtMost(limit) => format!("≤ {limit}"),
            Bound::AtLeast(limit) => format!("≥ {limit}"),
            Bound::RatioAtMost(limit) => format!("ratio ≤ {limit}"),
            Bound::RatioAtLeast(limit) => format!("ratio ≥ {limit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Metric = Metric::new("udp_pps", "1/s");

    fn row(median: f64, ratio: Option<f64>, wires: Option<u32>) -> Row {
        Row {
            path: "tieline".to_owned(),
            metric: RATE.name,
            unit: RATE.unit,
            n: 1,
            min: median,
            median,
            max: median,
            ratio,
            wires,
            samples: Vec::new(),
        }
    }

    #[test]
    fn a_goal_judges_the_number_it_names() {
        let goal = |bound| Goal::new("tieline", RATE, None, bound);
        let row = row(100.0, Some(0.98), None);
        assert_eq!(goal(Bound::AtMost(100.0)).met_by(&row), Some(true));
        assert_eq!(goal(Bound::AtMost(99.0)).met_by(&row), Some(false));
        assert_eq!(goal(Bound::AtLeast(101.0)).met_by(&row), Some(false));
        assert_eq!(goal(Bound::RatioAtLeast(0.98)).met_by(&row), Some(true));
        assert_eq!(goal(Bound::RatioAtMost(0.97)).met_by(&row), Some(false));
    }

    #[test]
    fn a_goal_is_silent_about_other_rows_and_missing_ratios() {
        let goal = Goal::new("tieline", RATE, None, Bound::RatioAtLeast(0.98));
        assert_eq!(goal.met_by(&row(100.0, None, None)), None);
        assert_eq!(goal.met_by(&row(100.0, Some(1.0), Some(10))), None);
        let mut other = row(100.0, Some(1.0), None);
        other.path = "bridge".to_owned();
        assert_eq!(goal.met_by(&other), None);
    }
}
