//! What all suites share: what can be said of a run, and how it ends.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    environment::{self, Environment},
    goals::Goal,
    report::{Collector, Report},
    table,
};

/// What every suite is told.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Each metric once and briefly: shows that everything works, not how fast it is.
    #[arg(long)]
    pub quick: bool,
    /// Interleaved rounds; medians of fewer than 5 are worth little.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the JSON goes [default: target/bench/SUITE.json]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Arguments {
    /// How many rounds.
    pub(crate) const fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }
}

/// What was chosen, or everything where nothing was.
pub(crate) fn all_or<T: ValueEnum + Clone>(chosen: &[T]) -> Vec<T> {
    if chosen.is_empty() {
        T::value_variants().to_vec()
    } else {
        chosen.to_vec()
    }
}

/// A suite's run.
pub(crate) struct Run {
    environment: Environment,
}

impl Run {
    /// Notes and prints what the machine is like before anything is measured.
    pub(crate) fn begin() -> Result<Self> {
        let environment = Environment::read()?;
        println!("{}\n", environment.describe());
        Ok(Self { environment })
    }

    /// Prints the table with the goals beside it, and writes the JSON.
    pub(crate) fn end(
        self,
        suite: &str,
        collector: &Collector,
        goals: &[Goal],
        arguments: &Arguments,
    ) -> Result<()> {
        let report = Report {
            load_at_end: environment::load()?,
            environment: self.environment,
            rows: collector.rows(),
        };
        println!("{}", table::render(&report.rows, goals));
        let [one, five, fifteen] = report.load_at_end;
        println!("\nload at the end: {one} {five} {fifteen}");
        let default = || PathBuf::from(format!("target/bench/{suite}.json"));
        let output = arguments.output.clone().unwrap_or_else(default);
        report.write(&output)?;
        println!("written to {}", output.display());
        Ok(())
    }
}
