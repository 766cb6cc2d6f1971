//! What every suite reports: rows of summarised samples, their ratio to a reference path, and the machine they
//! were taken on, as JSON for programs.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{environment::Environment, stats};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Its name in JSON and on the command line, unit included.
    pub name: &'static str,
    /// The unit of the values.
    pub unit: &'static str,
    /// The path that ratios refer to; `None` where a ratio says nothing.
    pub reference: Option<&'static str>,
    /// Whether the report has every sample, because it is asked how they are distributed.
    pub distributed: bool,
}

impl Metric {
    /// A metric whose values speak for themselves.
    pub(crate) const fn new(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            reference: None,
            distributed: false,
        }
    }

    /// The same, compared with `reference`.
    pub(crate) const fn beside(mut self, reference: &'static str) -> Self {
        self.reference = Some(reference);
        self
    }

    /// The same, reported with every sample.
    pub(crate) const fn distributed(mut self) -> Self {
        self.distributed = true;
        self
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Which way the packets took.
    pub path: String,
    /// What was measured.
    pub metric: &'static str,
    /// Unit of `min`, `median` and `max`.
    pub unit: &'static str,
    /// Number of samples.
    pub n: usize,
    /// Smallest sample.
    pub min: f64,
    /// Middle sample.
    pub median: f64,
    /// Largest sample.
    pub max: f64,
    /// Median of the per-round ratios to the metric's reference; `None` where that has no meaning.
    pub ratio: Option<f64>,
    /// How many wires there were, where that is part of the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wires: Option<u32>,
    /// Every sample, smallest first, of a metric whose distribution is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<f64>,
}

/// A whole run, as it is written to disk.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The machine and its state.
    pub environment: Environment,
    /// Load averages over 1, 5 and 15 minutes when the run ended.
    pub load_at_end: [f64; 3],
    /// The results.
    pub rows: Vec<Row>,
}

impl Report {
    /// Writes the report as JSON.
    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        fs::write(to, json).with_context(|| format!("write {}", to.display()))
    }
}

/// What identifies a row.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    path: String,
    metric: Metric,
    wires: Option<u32>,
}

#[derive(Debug)]
struct Series {
    key: Key,
    /// Round and value.
    samples: Vec<(u32, f64)>,
}

/// Gathers samples and makes rows of them, in the order in which their first samples came.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    series: Vec<Series>,
}

impl Collector {
    /// Adds one sample of `round`. Ratios are taken between samples of the same round.
    pub(crate) fn add(&mut self, path: &str, metric: Metric, wires: Option<u32>, round: u32, value: f64) {
        let key = Key {
            path: path.to_owned(),
            metric,
            wires,
        };
        match self.series.iter_mut().find(|series| series.key == key) {
            Some(series) => series.samples.push((round, value)),
            None => self.series.push(Series {
                key,
                samples: vec![(round, value)],
            }),
        }
    }

    /// The sample of this round, if there is one.
    #[must_use]
    pub(crate) fn get(&self, path: &str, metric: Metric, round: u32) -> Option<f64> {
        let series = self
            .series
            .iter()
            .find(|s| s.key.path == path && s.key.metric == metric)?;
        series
            .samples
            .iter()
            .find(|(r, _)| *r == round)
            .map(|(_, value)| *value)
    }

    /// Summarises everything.
    #[must_use]
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.series.iter().filter_map(|series| self.row(series)).collect()
    }

    fn row(&self, series: &Series) -> Option<Row> {
        let values: Vec<f64> = series.samples.iter().map(|(_, value)| *value).collect();
        let summary = stats::Summary::of(&values)?;
        let Key { path, metric, wires } = series.key.clone();
        let mut samples = if metric.distributed { values } else { Vec::new() };
        samples.sort_by(f64::total_cmp);
        Some(Row {
            path,
            metric: metric.name,
            unit: metric.unit,
            n: summary.n,
            min: summary.min,
            median: summary.median,
            max: summary.max,
            ratio: self.ratio(series),
            wires,
            samples,
        })
    }

    fn ratio(&self, series: &Series) -> Option<f64> {
        let metric = series.key.metric;
        let reference = metric.reference?;
        let ratios: Vec<f64> = series
            .samples
            .iter()
            .filter_map(|&(round, value)| {
                let reference = self.get(reference, metric, round)?;
                (reference != 0.0).then(|| value / reference)
            })
            .collect();
        stats::median(&ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Metric = Metric::new("udp_pps", "1/s").beside("direct");
    const SIZE: Metric = Metric::new("agent_rss_mib", "MiB");

    #[test]
    fn a_ratio_is_taken_within_each_round_before_the_median() {
        let mut collector = Collector::default();
        // The machine is twice as slow in the second round; the paths keep their relation.
        for (round, direct, wire) in [(0, 100.0, 90.0), (1, 50.0, 45.0), (2, 100.0, 80.0)] {
            collector.add("direct", RATE, None, round, direct);
            collector.add("tieline", RATE, None, round, wire);
        }
        let rows = collector.rows();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].path.as_str(), rows[0].ratio), ("direct", Some(1.0)));
        assert_eq!((rows[1].n, rows[1].median, rows[1].ratio), (3, 80.0, Some(0.9)));
    }

    #[test]
    fn a_path_without_a_reference_in_its_rounds_has_no_ratio() {
        let mut collector = Collector::default();
        collector.add("direct", RATE, None, 0, 100.0);
        collector.add("tieline", RATE, None, 1, 100.0);
        collector.add("tieline", SIZE, Some(10), 0, 12.0);
        let ratios: Vec<_> = collector.rows().iter().map(|row| row.ratio).collect();
        assert_eq!(ratios, [Some(1.0), None, None]);
    }

    #[test]
    fn a_metric_whose_distribution_is_asked_for_keeps_every_sample() {
        const TIME: Metric = Metric::new("heal_ms", "ms").distributed();
        let mut collector = Collector::default();
        for (round, ms) in [(0, 90.0), (1, 60.0), (2, 70.0)] {
            collector.add("backup", TIME, None, round, ms);
            collector.add("backup", SIZE, None, round, ms);
        }
        let rows = collector.rows();
        assert_eq!(rows[0].samples, [60.0, 70.0, 90.0]);
        assert!(rows[1].samples.is_empty());
    }

    #[test]
    fn json_rows_have_the_fields_that_programs_read() {
        let mut collector = Collector::default();
        collector.add("direct", RATE, None, 0, 100.0);
        collector.add("tieline", SIZE, Some(10_000), 0, 12.5);
        let json = serde_json::to_value(collector.rows()).unwrap();
        assert_eq!(
            json,
            serde_json::json!([
                {"path": "direct", "metric": "udp_pps", "unit": "1/s", "n": 1,
                 "min": 100.0, "median": 100.0, "max": 100.0, "ratio": 1.0},
                {"path": "tieline", "metric": "agent_rss_mib", "unit": "MiB", "n": 1,
                 "min": 12.5, "median": 12.5, "max": 12.5, "ratio": null, "wires": 10_000},
            ])
        );
    }

    #[test]
    fn a_report_on_disk_has_environment_and_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bench/wire.json");
        let mut collector = Collector::default();
        collector.add("direct", RATE, None, 0, 100.0);
        let environment = Environment::read().unwrap();
        Report {
            load_at_end: environment.load,
            environment,
            rows: collector.rows(),
        }
        .write(&path)
        .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        for field in ["kernel", "cpu", "cpus", "mitigations", "date", "versions", "load"] {
            assert!(!json["environment"][field].is_null(), "{field}");
        }
        assert_eq!(json["rows"][0]["metric"], "udp_pps");
    }
}
