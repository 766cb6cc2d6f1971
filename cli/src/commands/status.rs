//! `tieline status`: control, this node, and what to do.

use std::time::SystemTime;

use clap::Args;
use tieline_proto::tieline::admin::v1::{
    GetNodeRequest, GetNodeResponse, GetStatusRequest, GetStatusResponse,
};

use crate::{
    args::Global,
    error::{self, Failure},
    exit::Exit,
    output,
    view::{ControlView, StatusView},
};

/// Flags of `status`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline status
  tieline status -o json | jq .node.applied_generation")]
pub(crate) struct StatusArgs {}

/// Shows whatever answers; unreachable only if nothing does.
pub(crate) async fn run(global: &Global) -> Result<Exit, Failure> {
    let (control, node) = tokio::join!(control(global), node(global));
    let mut status = StatusView::default();
    let (control, node) = match (control, node) {
        (Err(failure), Err(_)) => return Err(failure),
        halves => halves,
    };
    match control {
        Ok(answer) => status.control = Some(ControlView::new(answer, SystemTime::now())),
        Err(failure) => status.control_error = error::sentence(&failure),
    }
    match node {
        Ok(answer) => status.node = Some(answer.into()),
        Err(failure) => status.node_error = error::sentence(&failure),
    }
    status.advise();
    output::object(global.output, &status, || status.describe())?;
    Ok(Exit::Ok)
}

async fn control(global: &Global) -> Result<GetStatusResponse, Failure> {
    Ok(super::admin(global)
        .await?
        .get_status(GetStatusRequest {})
        .await?
        .into_inner())
}

async fn node(global: &Global) -> Result<GetNodeResponse, Failure> {
    Ok(super::node(global)
        .await?
        .get_node(GetNodeRequest {})
        .await?
        .into_inner())
}
