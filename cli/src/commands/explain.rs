//! `tieline explain`: why something is as it is.

use clap::{Args, Subcommand};
use tieline_proto::tieline::admin::v1::ExplainConnectionRequest;

use crate::{args::Global, error::Failure, exit::Exit, output, view::ExplainView};

/// Flags of `explain`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline explain connection 4f2c…           where it leads, which rules decided, whom they took out
  tieline explain connection 4f2c… -o json")]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Why a connection leads where it leads
    #[command(aliases = ["connections", "conn"], after_help = "Examples:\n  tieline explain connection 4f2c…")]
    Connection {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Shows it.
pub(crate) async fn run(global: &Global, args: ExplainArgs) -> Result<Exit, Failure> {
    let What::Connection { id } = args.what;
    let mut admin = super::admin(global).await?;
    let answer = admin.explain_connection(ExplainConnectionRequest { id }).await?;
    let view = ExplainView::from(answer.into_inner());
    output::object(global.output, &view, || view.describe())?;
    Ok(Exit::Ok)
}
