//! `tieline drain`: hands over what an endpoint has.

use clap::{Args, Subcommand};
use serde::Serialize;
use tieline_proto::tieline::admin::v1::DrainEndpointRequest;

use crate::{args::Global, error::Failure, exit::Exit, output, view::MoveView};

/// Flags of `drain`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline drain endpoint firewall-1          it gets nothing new, and what it has is moved
  tieline drain endpoint firewall-1 --off    take it back")]
pub(crate) struct DrainArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// An endpoint gets nothing new, and what it has is moved; what nobody else can take stays
    #[command(aliases = ["endpoints", "nse"], after_help = "Examples:\n  tieline drain endpoint firewall-1")]
    Endpoint {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Take it back
        #[arg(long)]
        off: bool,
    },
}

/// What was moved.
#[derive(Serialize)]
struct Drained {
    name: String,
    draining: bool,
    moves: Vec<MoveView>,
    /// How many there are in all.
    moved: u32,
}

/// Drains it.
pub(crate) async fn run(global: &Global, args: DrainArgs) -> Result<Exit, Failure> {
    let What::Endpoint { name, off } = args.what;
    let request = DrainEndpointRequest {
        name: name.clone(),
        off,
    };
    let answer = super::admin(global)
        .await?
        .drain_endpoint(request)
        .await?
        .into_inner();
    let drained = Drained {
        name,
        draining: !off,
        moves: answer.moves.into_iter().map(MoveView::from).collect(),
        moved: answer.moved,
    };
    if global.output == output::Format::Table {
        output::list(global.output, &drained.moves, "no connection leads elsewhere now")?;
        let verb = if off {
            "takes connections again"
        } else {
            "is drained"
        };
        output::note(&format!(
            "endpoint {} {verb}; {} connections were moved",
            drained.name, drained.moved
        ))?;
    } else {
        output::object(global.output, &drained, String::new)?;
    }
    Ok(Exit::Ok)
}
