//! `demo`: from a fresh clone to traffic through a wire.

use std::ffi::OsString;

use anyhow::Result;

use crate::{build, setup, sh};

/// How to run it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of `tieline demo`; `cargo xtask demo -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Need::Traffic)?;
    let built = sh::step("building (the first time takes some minutes)", || {
        build::build(&build::Args { dev: false })
    })?;
    sh::replace_with(sh::command(built.binary).arg("demo").args(&args.rest))
}
