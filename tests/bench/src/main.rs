//! Benchmarks: Tieline beside its peers in one run.
//!
//! Every suite measures the same things on every path in interleaved rounds, summarises them by medians, prints a
//! table with the goals beside it, and writes rows of one shape for programs ([`report::Row`]).
#![forbid(unsafe_code)]

mod control;
mod cpu;
mod environment;
mod goals;
mod kernel;
mod measure;
mod path;
mod report;
mod stats;
mod stop;
mod suite;
mod table;
mod tieline;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures Tieline beside its peers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// Local vWires beside a direct veth pair, a Linux bridge and a bare redirect.
    Wire(wire::Arguments),
    /// The control plane: Requests, planning, restoring, and what wires cost.
    Control(control::Arguments),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().suite) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(suite: &Suite) -> Result<()> {
    stop::listen()?;
    match suite {
        Suite::Wire(arguments) => wire::run(arguments),
        Suite::Control(arguments) => control::run(arguments),
    }
}
