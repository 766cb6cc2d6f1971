//! `tieline describe`: one object in full.

use clap::Args;
use serde::Serialize;

use super::{
    get,
    kind::{KINDS_HELP, Kind},
};
use crate::{args::Global, error::Failure, exit::Exit, output, view::WireView};

/// Flags of `describe`.
#[derive(Args, Debug)]
#[command(after_help = format!("{KINDS_HELP}\n
Examples:
  tieline describe networkservice gold-network
  tieline describe conn 4f2c…       with the kernel's counters when it is on this node"))]
pub(crate) struct DescribeArgs {
    /// Kind of the object
    #[arg(
        value_enum,
        ignore_case = true,
        value_name = "KIND",
        hide_possible_values = true
    )]
    kind: Kind,
    /// Its name; the id for a connection or a wire
    #[arg(value_name = "NAME")]
    name: String,
}

/// Shows it.
pub(crate) async fn run(global: &Global, args: &DescribeArgs) -> Result<Exit, Failure> {
    let DescribeArgs { kind, name } = args;
    let names = std::slice::from_ref(name);
    match kind {
        Kind::NetworkService => show(global, *kind, name, get::services(global, names).await?, |v| {
            v.describe()
        })?,
        Kind::Endpoint => show(global, *kind, name, get::endpoints(global, names).await?, |v| {
            v.describe()
        })?,
        Kind::Wiring => show(global, *kind, name, get::wirings(global, names).await?, |v| {
            v.describe()
        })?,
        Kind::Node => show(global, *kind, name, get::nodes(global, names).await?, |v| {
            v.describe()
        })?,
        Kind::Wire => show(
            global,
            *kind,
            name,
            get::wires(global, names).await?,
            WireView::describe,
        )?,
        Kind::Connection => connection(global, name).await?,
    }
    Ok(Exit::Ok)
}

fn show<V: Serialize>(
    global: &Global,
    kind: Kind,
    name: &str,
    views: Vec<V>,
    human: fn(&V) -> String,
) -> Result<(), Failure> {
    let view = first(kind, name, views)?;
    output::object(global.output, &view, || human(&view))
}

fn first<V>(kind: Kind, name: &str, views: Vec<V>) -> Result<V, Failure> {
    views.into_iter().next().ok_or_else(|| Failure::NotFound {
        kind: kind.singular(),
        name: name.to_owned(),
    })
}

/// A connection, and the wire below it if this node carries it.
async fn connection(global: &Global, id: &str) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Both<C: Serialize> {
        #[serde(flatten)]
        connection: C,
        #[serde(skip_serializing_if = "Option::is_none")]
        wire: Option<WireView>,
    }
    let names = [id.to_owned()];
    let connection = first(Kind::Connection, id, get::connections(global, &names).await?)?;
    let wire = match get::wires(global, &names).await {
        Ok(wires) => wires.into_iter().next(),
        // Another node's, or the agent is down: the connection is still worth showing.
        Err(error) => {
            tracing::info!("no wire shown: {error}");
            None
        }
    };
    let both = Both { connection, wire };
    output::object(global.output, &both, || {
        let wire = both
            .wire
            .as_ref()
            .map(|wire| format!("\nWire\n{}", wire.describe()))
            .unwrap_or_default();
        both.connection.describe() + &wire
    })
}
