//! Control's API, as an operator uses it.

use std::path::Path;

use anyhow::{Context as _, Result};
use tieline_proto::{
    registry,
    tieline::admin::v1::{
        ApplyRequest, GetStatusRequest, GetStatusResponse, NetworkService, Object,
        admin_service_client::AdminServiceClient, object,
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
    }

    /// Declares or changes a NetworkService.
    fn apply_service(&self, service: NetworkService) -> Result<()> {
        let request = ApplyRequest {
            objects: vec![Object {
                object: Some(object::Object::NetworkService(service)),
            }],
            dry_run: false,
        };
        self.runtime
            .block_on(AdminServiceClient::new(self.channel.clone()).apply(request))?;
        Ok(())
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
fn service(name: &str, prefix: &str) -> NetworkService {
    NetworkService {
        service: Some(registry::NetworkService {
            name: name.to_owned(),
            ..registry::NetworkService::default()
        }),
        prefixes: vec![prefix.to_owned()],
        ..NetworkService::default()
    }
}
