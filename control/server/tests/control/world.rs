//! A control with a directory and a socket of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tieline_control::{Config, Control, ControlError, ControlHandle, StoreConfig};
use tieline_proto::tieline::admin::v1 as admin;
use tieline_proto::tieline::admin::v1::admin_service_client::AdminServiceClient;
use tieline_proto::tieline::agent::v1::agent_service_client::AgentServiceClient;
use tieline_store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// Longest time that anything in these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The agents' service, as a client sees it.
pub(crate) type Agents = AgentServiceClient<Channel>;

pub(crate) struct World {
    directory: TempDir,
    pub(crate) config: Config,
    running: Option<Running>,
}

struct Running {
    handle: ControlHandle,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), ControlError>>,
}

impl World {
    /// A control with its state in a file.
    pub(crate) async fn on_redb() -> Self {
        Self::with(|config, directory| config.store = StoreConfig::Redb(directory.join("control.redb"))).await
    }

    /// A control with its state in `store`.
    pub(crate) async fn on(store: Arc<dyn Store>) -> Self {
        Self::with(|config, _| config.store = StoreConfig::Open(store)).await
    }

    /// A control that differs from the defaults as `change` says; its state is in memory unless that says otherwise.
    pub(crate) async fn with(change: impl FnOnce(&mut Config, PathBuf)) -> Self {
        let directory = tempfile::Builder::new().prefix("tl-control-").tempdir().unwrap();
        let mut config = Config::new().unwrap();
        config.unix = Some(directory.path().join("control.sock"));
        config.store = StoreConfig::Memory;
        change(&mut config, directory.path().to_path_buf());
        let mut world = Self {
            directory,
            config,
            running: None,
        };
        world.start().await;
        world
    }

    /// Starts control again after [`stop`](Self::stop).
    pub(crate) async fn start(&mut self) {
        let control = Control::start(self.config.clone()).await.unwrap();
        let (handle, cancel) = (control.handle(), CancellationToken::new());
        let task = tokio::spawn(control.serve(cancel.clone()));
        self.running = Some(Running { handle, cancel, task });
    }

    /// Stops control in order and says how that went.
    pub(crate) async fn stop(&mut self) -> Result<(), ControlError> {
        let running = self.running.take().expect("control runs");
        running.cancel.cancel();
        tokio::time::timeout(PATIENCE, running.task)
            .await
            .expect("control stops")
            .unwrap()
    }

    pub(crate) fn handle(&self) -> &ControlHandle {
        &self.running.as_ref().expect("control runs").handle
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.config.unix.clone().unwrap()
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        self.handle().render_metrics(&mut text);
        text
    }

    pub(crate) async fn channel(&self) -> Channel {
        let uri = format!("unix://{}", self.socket().display());
        Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn agents(&self) -> Agents {
        AgentServiceClient::new(self.channel().await).max_decoding_message_size(64 * 1024 * 1024)
    }

    pub(crate) async fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel().await).max_decoding_message_size(64 * 1024 * 1024)
    }

    pub(crate) async fn status(&self) -> admin::GetStatusResponse {
        self.admin()
            .await
            .get_status(admin::GetStatusRequest {})
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn connections(&self) -> Vec<admin::ConnectionStatus> {
        self.admin()
            .await
            .list_connections(admin::ListRequest::default())
            .await
            .unwrap()
            .into_inner()
            .items
    }

    /// The value of one metric with its labels, 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.cancel.cancel();
        }
    }
}

/// Waits until `holds`, and fails with `what` if that takes too long.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
