//! The report for people.

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::{goals::Goal, report::Row};

/// One line per row, with the goals that are about it.
#[must_use]
pub(crate) fn render(rows: &[Row], goals: &[Goal]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "metric", "path", "wires", "n", "min", "median", "max", "ratio", "goal", "met",
    ]);
    let mut sorted: Vec<&Row> = rows.iter().collect();
    // Stable: the paths keep their order within a metric, and metrics that of their first appearance.
    sorted.sort_by_key(|row| rows.iter().position(|first| first.metric == row.metric));
    for row in sorted {
        let verdicts: Vec<_> = goals
            .iter()
            .filter_map(|goal| Some((goal.describe(), goal.met_by(row)?)))
            .collect();
        let goal = verdicts
            .iter()
            .map(|(text, _)| text.clone())
            .collect::<Vec<_>>()
            .join(", ");
        let met = match verdicts.as_slice() {
            [] => "",
            all if all.iter().all(|(_, met)| *met) => "met",
            _ => "NOT MET",
        };
        table.add_row(vec![
            Cell::new(format!("{} [{}]", row.metric, row.unit)),
            Cell::new(&row.path),
            right(row.wires.map(|n| n.to_string()).unwrap_or_default()),
            right(row.n.to_string()),
            right(number(row.min)),
            right(number(row.median)),
            right(number(row.max)),
            right(row.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default()),
            Cell::new(goal),
            Cell::new(met),
        ]);
    }
    table.to_string()
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// As many digits as a noisy machine deserves.
fn number(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 1000.0 => format!("{value:.0}"),
        magnitude if magnitude >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{goals::Bound, report::Metric};

    fn row(path: &str, ratio: f64) -> Row {
        let (path, metric, unit) = (path.to_owned(), "rtt_p50_us", "us");
        Row {
            path,
            metric,
            unit,
            n: 5,
            min: 11.0,
            median: 12.0,
            max: 13.0,
            ratio: Some(ratio),
            wires: None,
            samples: Vec::new(),
        }
    }

    #[test]
    fn goals_stand_beside_the_path_they_are_about() {
        let metric = Metric::new("rtt_p50_us", "us");
        let goal = Goal::new("tieline", metric, None, Bound::RatioAtMost(1.04));
        let text = render(&[row("bridge", 1.15), row("tieline", 1.03)], &[goal]);
        let line = |path: &str| text.lines().find(|line| line.contains(path)).unwrap().to_owned();
        assert!(
            line("tieline").contains("ratio ≤ 1.04") && line("tieline").contains("| met"),
            "{text}"
        );
        assert!(!line("bridge").contains("1.04"), "{text}");
        assert!(render(&[row("tieline", 1.05)], &[goal]).contains("NOT MET"));
    }
}
