//! Control's API, as an operator uses it.

use std::path::Path;

use anyhow::{Context as _, Result};
use tieline_proto::{
    registry,
    tieline::admin::v1::{
        ApplyRequest, ConnectionStatus, GetStatusRequest, GetStatusResponse, ListRequest, NetworkService,
        NodeStatus, Object, admin_service_client::AdminServiceClient, object,
    },
};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::channel;

/// An open channel to control.
pub(crate) struct Control {
    runtime: Runtime,
    channel: Channel,
}

impl Control {
    /// Connects to its socket.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let runtime = channel::runtime()?;
        let channel = runtime.block_on(channel::connect(socket))?;
        Ok(Self { runtime, channel })
    }

    /// Declares a NetworkService with IPv4 addresses from `prefix`.
    pub(crate) fn declare_service(&self, name: &str, prefix: &str) -> Result<()> {
        self.apply_service(service(name, prefix))
            .with_context(|| format!("declare {name}"))
            .map(drop)
    }

    /// Declares or changes a NetworkService; how many live connections are moved by that.
    pub(crate) fn apply_service(&self, service: NetworkService) -> Result<u32> {
        let request = ApplyRequest {
            objects: vec![Object {
                object: Some(object::Object::NetworkService(service)),
            }],
            dry_run: false,
        };
        let answer = self
            .runtime
            .block_on(AdminServiceClient::new(self.channel.clone()).apply(request))?;
        Ok(answer.into_inner().moved)
    }

    /// What it knows of its only node.
    pub(crate) fn node(&self) -> Result<NodeStatus> {
        let request = ListRequest::default();
        let answer = self
            .runtime
            .block_on(AdminServiceClient::new(self.channel.clone()).list_nodes(request))?;
        let first = answer.into_inner().items.into_iter().next();
        first.context("control knows no node")
    }

    /// What it knows of a connection.
    pub(crate) fn connection(&self, id: &str) -> Result<ConnectionStatus> {
        let request = ListRequest {
            names: vec![id.to_owned()],
        };
        let answer = self
            .runtime
            .block_on(AdminServiceClient::new(self.channel.clone()).list_connections(request))?;
        let first = answer.into_inner().items.into_iter().next();
        first.with_context(|| format!("control does not know connection {id}"))
    }

    /// What it says of itself.
    pub(crate) fn status(&self) -> Result<GetStatusResponse> {
        let answer = self
            .runtime
            .block_on(AdminServiceClient::new(self.channel.clone()).get_status(GetStatusRequest {}))?;
        Ok(answer.into_inner())
    }
}

/// A service with IPv4 addresses from `prefix`.
pub(crate) fn service(name: &str, prefix: &str) -> NetworkService {
    NetworkService {
        service: Some(registry::NetworkService {
            name: name.to_owned(),
            ..registry::NetworkService::default()
        }),
        prefixes: vec![prefix.to_owned()],
        ..NetworkService::default()
    }
}
