//! `tieline delete`: objects by name, or those that a file names.

use std::path::PathBuf;

use clap::Args;
use tieline_model::ObjectKind;
use tieline_proto::tieline::admin::v1::{
    CloseConnectionRequest, DeleteRequest, admin_service_client::AdminServiceClient,
};
use tonic::transport::Channel;

use super::apply;
use crate::{args::Global, error::Failure, exit::Exit, output};

/// Flags of `delete`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline delete networkservice gold-network
  tieline delete endpoint firewall-1 firewall-2
  tieline delete connection 4f2c…             as operator, for its client
  tieline delete -f gold-network.yaml")]
pub(crate) struct DeleteArgs {
    /// Kind of the objects: networkservice (ns), endpoint (nse), networkservicewiring (nsw) or connection (conn)
    #[arg(
        value_enum,
        ignore_case = true,
        value_name = "KIND",
        hide_possible_values = true,
        required_unless_present = "files",
        conflicts_with = "files",
        requires = "names"
    )]
    kind: Option<DeletableKind>,
    /// Their names; ids for connections
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Delete what this file names, last object first; - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Kinds that an operator can delete. Nodes and wires come and go by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DeletableKind {
    /// NetworkServices
    #[value(name = "networkservice", aliases = ["networkservices", "services", "service", "ns"])]
    NetworkService,
    /// NetworkServiceEndpoints
    #[value(name = "endpoint", aliases = ["endpoints", "networkserviceendpoint", "networkserviceendpoints", "nse"])]
    Endpoint,
    /// NetworkServiceWirings
    #[value(name = "networkservicewiring", aliases = ["networkservicewirings", "wiring", "wirings", "nsw"])]
    Wiring,
    /// Connections
    #[value(name = "connection", aliases = ["connections", "conn"])]
    Connection,
}

impl DeletableKind {
    /// One of them, as a person reads it.
    const fn noun(self) -> &'static str {
        match self {
            Self::NetworkService => "networkservice",
            Self::Endpoint => "endpoint",
            Self::Wiring => "networkservicewiring",
            Self::Connection => "connection",
        }
    }
}

impl From<ObjectKind> for DeletableKind {
    fn from(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::NetworkService => Self::NetworkService,
            ObjectKind::NetworkServiceEndpoint => Self::Endpoint,
            ObjectKind::NetworkServiceWiring => Self::Wiring,
        }
    }
}

/// Deletes them, one after the other; the first that fails ends it.
pub(crate) async fn run(global: &Global, args: &DeleteArgs) -> Result<Exit, Failure> {
    let DeleteArgs { kind, names, files } = args;
    let mut targets = Vec::new();
    if let Some(kind) = kind {
        targets.extend(names.iter().map(|name| (*kind, name.clone())));
    }
    for object in apply::read_all(files, None)?.iter().rev() {
        targets.push((object.kind().into(), object.name().to_owned()));
    }
    let mut admin = super::admin(global).await?;
    for (kind, name) in targets {
        delete(&mut admin, kind, name.clone()).await?;
        output::note(&format!("{} {name} is deleted", kind.noun()))?;
    }
    Ok(Exit::Ok)
}

async fn delete(
    admin: &mut AdminServiceClient<Channel>,
    kind: DeletableKind,
    name: String,
) -> Result<(), Failure> {
    let kind = match kind {
        DeletableKind::Connection => {
            admin
                .close_connection(CloseConnectionRequest { id: name })
                .await?;
            return Ok(());
        }
        DeletableKind::NetworkService => ObjectKind::NetworkService,
        DeletableKind::Endpoint => ObjectKind::NetworkServiceEndpoint,
        DeletableKind::Wiring => ObjectKind::NetworkServiceWiring,
    };
    admin
        .delete(DeleteRequest {
            kind: kind.as_str().to_owned(),
            name,
        })
        .await?;
    Ok(())
}
