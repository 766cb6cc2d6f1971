//! `build`: the kernel programs and the binary that carries them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{messages, setup, sh};

/// What to build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Do not optimise: builds faster, into `target/debug`
    #[arg(long)]
    pub dev: bool,
}

/// What a build made.
pub(crate) struct Built {
    /// The `tieline` binary.
    pub binary: PathBuf,
    /// The object with the kernel programs, as it is inside the binary.
    pub object: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let built = build(args)?;
    println!("kernel programs  {}", built.object.display());
    println!("binary           {}", built.binary.display());
    Ok(())
}

/// Builds both, after making sure that they can be built.
pub(crate) fn build(args: &Args) -> Result<Built> {
    setup::ensure(setup::Need::Build)?;
    let mut cargo = sh::cargo();
    cargo.args(["build", "--package", "tieline", "--bin", "tieline"]);
    if !args.dev {
        cargo.arg("--release");
    }
    let messages = messages::of_cargo(&mut cargo)?;
    Ok(Built {
        binary: messages
            .executable("tieline")
            .context("cargo built no binary called `tieline`")?,
        object: messages
            .build_script_env("dataplane-user", "TIELINE_EBPF_EMBEDDED")
            .map(PathBuf::from)
            .context("dataplane-user/build.rs did not name the object: see TIELINE_EBPF_EMBEDDED there")?,
    })
}
