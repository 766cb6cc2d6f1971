//! `up`: build and start Tieline on this machine.

use std::ffi::OsString;

use anyhow::Result;

use crate::{build, sh};

/// What to start.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the build without optimisation, which is made faster
    #[arg(long)]
    dev: bool,
    /// Arguments of `tieline up`; `cargo xtask up -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let built = build::build(&build::Args { dev: args.dev })?;
    sh::replace_with(sh::command(built.binary).arg("up").args(&args.rest))
}
