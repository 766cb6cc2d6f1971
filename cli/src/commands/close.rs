//! `tieline close`: ends vWires.

use clap::Args;
use tieline_proto::{connection::Connection, tieline::admin::v1::CloseConnectionRequest};

use crate::{args::Global, error::Failure, exit::Exit, output};

/// Flags of `close`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline close 4f2c…
  tieline close --force 4f2c…       as operator, through control: also when its agent is away")]
pub(crate) struct CloseArgs {
    /// Ids of the connections
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Close it for its client, through control
    #[arg(long)]
    force: bool,
}

/// Closes them.
pub(crate) async fn run(global: &Global, args: &CloseArgs) -> Result<Exit, Failure> {
    let CloseArgs { ids, force } = args;
    for id in ids {
        if *force {
            super::admin(global)
                .await?
                .close_connection(CloseConnectionRequest { id: id.clone() })
                .await?;
        } else {
            let connection = Connection {
                id: id.clone(),
                ..Connection::default()
            };
            super::network_service(global).await?.close(connection).await?;
        }
        output::note(&format!("connection {id} is closed"))?;
    }
    Ok(Exit::Ok)
}
