//! `bench`: Tieline beside its peers in one run.

use std::ffi::OsString;

use anyhow::Result;

use crate::{build, setup, sh};

/// Which suite, and its arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The suite and its arguments; without one the suites are listed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Need::Traffic)?;
    let built = sh::step("building what is measured", || {
        build::build(&build::Args { dev: false })
    })?;
    let mut cargo = sh::cargo();
    cargo.env("TIELINE_BENCH_PROGRAM", built.binary);
    cargo.args(["run", "--release", "--package", "tieline-bench", "--"]);
    cargo.args(&args.rest);
    sh::replace_with(&mut cargo)
}
