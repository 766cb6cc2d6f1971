//! `tieline plan`: which live connections a file would move, and why.

use clap::Args;

use super::apply::{self, Sources};
use crate::{args::Global, error::Failure, exit::Exit, output};

/// Flags of `plan`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline plan -f wirings.yaml               what would move, and why; nothing is changed
  tieline plan -f wirings.yaml -o json")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    sources: Sources,
}

/// Shows it.
pub(crate) async fn run(global: &Global, args: &PlanArgs) -> Result<Exit, Failure> {
    let plan = apply::carry_out(global, &args.sources, true).await?;
    plan.warn()?;
    if global.output == output::Format::Table {
        output::list(
            global.output,
            &plan.moves,
            "no live connection would lead elsewhere",
        )?;
        plan.note_further()?;
    } else {
        output::object(global.output, &plan, String::new)?;
    }
    output::note("this is a plan: nothing was changed")?;
    Ok(Exit::Ok)
}
