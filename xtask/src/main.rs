//! The developers' door: toolchain, build, tests, verifier, kernels, bench, ci.
//!
//! One file per command. `sh` starts processes, `workspace` knows the tree; nothing else is shared.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod ci;
mod demo;
mod kernels;
mod lint;
mod messages;
mod report;
mod setup;
mod sh;
mod source;
mod test;
mod tidy;
mod up;
mod verifier;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The developers' door to Tieline. Every command installs what it needs, or says how.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what builds the kernel programs; instant when nothing is to do
    Setup(setup::Args),
    /// Build the kernel programs and the `tieline` binary
    Build(build::Args),
    /// Build, then run `tieline up` with the arguments given
    Up(up::Args),
    /// Build in release mode, then run `tieline demo`: two workloads, one wire, real traffic
    Demo(demo::Args),
    /// Run the test floors, from pure logic up to real traffic
    Test(test::Args),
    /// Format, clippy (host and kernel programs), documentation, dependency policy
    Lint(lint::Args),
    /// Hold the rules that no compiler knows: arrows between crates, ABI, documents, paths
    Tidy(tidy::Args),
    /// Load every kernel program and compare its cost with the committed budget
    Verifier(verifier::Args),
    /// Boot other kernels in virtual machines and run the tests there
    Kernels(kernels::Args),
    /// Measure Tieline beside its peers
    Bench(bench::Args),
    /// Exactly what CI runs, each step timed
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Verifier(args) => verifier::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Ci(args) => ci::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
