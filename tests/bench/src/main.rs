//! Benchmarks: Tieline beside its peers in one run.
//!
//! Every suite measures the same things on every path in interleaved rounds, summarises them by medians, prints a
//! table with the goals beside it, and writes rows of one shape for programs ([`report::Row`]).
#![forbid(unsafe_code)]

mod cpu;
mod environment;
mod goals;
mod kernel;
mod measure;
mod path;
mod report;
mod stats;
mod stop;
mod table;
mod tieline;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures Tieline beside its peers.
#[derive(Debug, Parser)]
#[command(name = "tieline-bench", version)]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// Local vWires beside a direct veth pair, a Linux bridge and a bare redirect.
    Wire(wire::Arguments),
}

fn main() -> ExitCode {
    let Arguments {
        suite: Suite::Wire(arguments),
    } = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &wire::Arguments) -> Result<()> {
    stop::listen()?;
    wire::run(arguments)
}
