//! Putting control together, serving, and stopping in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tieline_model::Timestamp;
use tieline_store::{MemoryStore, RedbStore, Store};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::config::{Config, StoreConfig};
use crate::domains::Domains;
use crate::engine::{self, EngineHandle, Setup};
use crate::error::ControlError;
use crate::grpc::{About, Api, routes};
use crate::listen::{self, SocketFile};
use crate::metrics::Metrics;
use crate::readiness::{Condition, Readiness};

/// How often an idle peer is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Calls of one connection that are under way at once: an agent passes its workloads' calls on over one.
const MAX_CONCURRENT_CALLS: u32 = 4096;

/// Looks into a running control: metrics and readiness for the process around it.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    metrics: Arc<Metrics>,
    condition: Arc<Condition>,
    unix: Option<PathBuf>,
    tcp: Option<SocketAddr>,
}

impl ControlHandle {
    /// Appends control's metrics in OpenMetrics text form, without the closing `# EOF`.
    pub fn render_metrics(&self, text: &mut String) {
        self.metrics.render(text);
    }

    /// Whether control can do its work.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.condition.get()
    }

    /// The unix socket that control listens on.
    #[must_use]
    pub fn unix(&self) -> Option<&PathBuf> {
        self.unix.as_ref()
    }

    /// The TCP address that control listens on, with the port that port 0 became.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }
}

/// A control that has its state and its addresses. Calls wait until [`serve`](Self::serve) takes them.
#[derive(Debug)]
pub struct Control {
    handle: ControlHandle,
    unix: Option<(UnixListener, SocketFile)>,
    tcp: Option<TcpListener>,
    engine: EngineHandle,
    engine_task: JoinHandle<()>,
    api: Api,
    shutdown_deadline: Duration,
}

/// Runs control until `cancel` is cancelled or something breaks.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), ControlError> {
    Control::start(config).await?.serve(cancel).await
}

impl Control {
    /// Takes the addresses, opens the store, reads the state, and ends the leases that ran out meanwhile.
    pub async fn start(config: Config) -> Result<Self, ControlError> {
        if config.unix.is_none() && config.tcp.is_none() {
            return Err(ControlError::NoAddress);
        }
        let domains = Domains::new(config.registry.domain.clone(), &config.peers)?;
        let unix = config.unix.as_deref().map(listen::unix).transpose()?;
        let tcp = match config.tcp {
            Some(address) => Some(listen::tcp(address).await?),
            None => None,
        };
        let store = open(config.store).await?;
        let (metrics, condition) = (Arc::new(Metrics::new()), Arc::new(Condition::starting()));
        let about = Arc::new(About {
            store: store.describe(),
            started: now(),
        });
        let (engine, engine_task) = engine::start(Setup {
            store,
            registry: config.registry,
            patience: config.wire_deadline,
            max_waiting: config.max_waiting,
            metrics: Arc::clone(&metrics),
            condition: Arc::clone(&condition),
        })
        .await?;
        let api = Api {
            engine: engine.clone(),
            metrics: Arc::clone(&metrics),
            about,
            domains,
        };
        let handle = ControlHandle {
            metrics,
            condition,
            unix: unix.as_ref().map(|(_, file)| file.path().to_path_buf()),
            tcp: tcp.as_ref().and_then(|listener| listener.local_addr().ok()),
        };
        let shutdown_deadline = config.shutdown_deadline;
        Ok(Self {
            handle,
            unix,
            tcp,
            engine,
            engine_task,
            api,
            shutdown_deadline,
        })
    }

    /// Looks into this control, also while and after it serves.
    #[must_use]
    pub fn handle(&self) -> ControlHandle {
        self.handle.clone()
    }

    /// Serves until `cancel` is cancelled or something breaks; then stops in order: no new calls, the engine finishes what it
    /// has and ends all streams, the calls under way end, the store closes, the socket goes.
    pub async fn serve(mut self, cancel: CancellationToken) -> Result<(), ControlError> {
        let (health, routes) = routes(&self.api).await?;
        let followers = self.api.domains.follow(&self.engine).await;
        let mut followers = followers.map_err(|failure| ControlError::Domains(failure.to_string()))?;
        let no_new_calls = CancellationToken::new();
        let mut servers = JoinSet::new();
        let file = self.unix.take().map(|(listener, file)| {
            servers.spawn(serve_unix(
                listener,
                format!("unix://{}", file.path().display()),
                routes.clone(),
                no_new_calls.clone(),
            ));
            file
        });
        if let Some(listener) = self.tcp.take() {
            servers.spawn(serve_tcp(listener, routes, no_new_calls.clone()));
        }
        tracing::info!(unix = ?self.handle.unix, tcp = ?self.handle.tcp, store = %self.api.about.store, "control serves");
        let follower = tokio::spawn(follow(health.clone(), Arc::clone(&self.handle.condition)));

        let outcome = tokio::select! {
            () = cancel.cancelled() => Ok(()),
            ended = servers.join_next() => Err(server_end(ended)),
            _ = &mut self.engine_task => Err(ControlError::TaskEnded { task: "engine" }),
        };
        follower.abort();
        followers.shutdown().await;
        health.set_service_status("", ServingStatus::NotServing).await;
        no_new_calls.cancel();
        let Self {
            engine,
            engine_task,
            api,
            shutdown_deadline,
            ..
        } = self;
        drop(api);
        engine.stop().await;
        drop(engine);
        let all_ended = async { while servers.join_next().await.is_some() {} };
        if tokio::time::timeout(shutdown_deadline, all_ended).await.is_err() {
            tracing::warn!("some calls did not end within {shutdown_deadline:?} and are cut off");
            servers.shutdown().await;
        }
        if !engine_task.is_finished() {
            // The store closes with the engine. That it was cancelled or panicked is told by `outcome`.
            drop(engine_task.await);
        }
        drop(file);
        tracing::info!("control has stopped");
        outcome
    }
}

/// Health says what readiness says.
async fn follow(health: HealthReporter, condition: Arc<Condition>) {
    let mut changes = condition.subscribe();
    loop {
        let status = match *changes.borrow_and_update() {
            Readiness::Ready => ServingStatus::Serving,
            Readiness::NotReady(_) => ServingStatus::NotServing,
        };
        health.set_service_status("", status).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(MAX_CONCURRENT_CALLS)
}

async fn serve_unix(
    listener: UnixListener,
    address: String,
    routes: Routes,
    no_new_calls: CancellationToken,
) -> Result<(), ControlError> {
    let incoming = UnixListenerStream::new(listener);
    let served = server()
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, no_new_calls.cancelled_owned());
    served.await.map_err(|source| ControlError::Serve {
        address,
        source: source.into(),
    })
}

async fn serve_tcp(
    listener: TcpListener,
    routes: Routes,
    no_new_calls: CancellationToken,
) -> Result<(), ControlError> {
    let address = listener
        .local_addr()
        .map_or_else(|_| "TCP".to_owned(), |address| format!("http://{address}"));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = server()
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, no_new_calls.cancelled_owned());
    served.await.map_err(|source| ControlError::Serve {
        address,
        source: source.into(),
    })
}

fn server_end(ended: Option<Result<Result<(), ControlError>, tokio::task::JoinError>>) -> ControlError {
    match ended {
        Some(Ok(Err(error))) => error,
        _ => ControlError::TaskEnded { task: "server" },
    }
}

async fn open(config: StoreConfig) -> Result<Arc<dyn Store>, ControlError> {
    match config {
        StoreConfig::Open(store) => Ok(store),
        StoreConfig::Memory => Ok(Arc::new(MemoryStore::new())),
        StoreConfig::Redb(path) => {
            let opened = tokio::task::spawn_blocking(|| RedbStore::open(path)).await;
            let store = opened.map_err(|_| ControlError::TaskEnded {
                task: "opening of the store",
            })??;
            Ok(Arc::new(store))
        }
    }
}

fn now() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
