//! `tieline monitor`: connections as they change.

use std::time::SystemTime;

use clap::Args;
use tieline_proto::connection::MonitorScopeSelector;

use crate::{
    args::Global, client::Server, error::Failure, exit::Exit, output, output::Format, view::EventView,
};

/// Flags of `monitor`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline monitor
  tieline monitor --service gold-network -o json    one object per line")]
pub(crate) struct MonitorArgs {
    /// Only connections to this NetworkService; may be repeated [default: all]
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
}

/// Prints the state there is, then each change, until the stream or the process is ended.
pub(crate) async fn run(global: &Global, args: &MonitorArgs) -> Result<Exit, Failure> {
    let selector = MonitorScopeSelector {
        network_services: args.services.clone(),
        ..MonitorScopeSelector::default()
    };
    let mut events = super::monitor_connection(global)
        .await?
        .monitor_connections(selector)
        .await?
        .into_inner();
    if global.output == Format::Table {
        output::text(&EventView::heading())?;
    }
    while let Some(event) = events.message().await? {
        for view in EventView::of(event, SystemTime::now()) {
            output::element(global.output, &view, || view.line())?;
        }
    }
    Err(Failure::StreamEnded {
        server: Server::Agent,
    })
}
