//! `tieline completion`: scripts for shells.

use clap::Args;
use clap_complete::Shell;

use crate::{args, error::Failure, exit::Exit, output};

/// Flags of `completion`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline completion bash > /usr/share/bash-completion/completions/tieline
  tieline completion zsh > \"${fpath[1]}/_tieline\"")]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "tieline", &mut script);
    output::text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
