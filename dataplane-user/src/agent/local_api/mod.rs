//! What workloads and operators on this node call: NSM's services, and the node's own.
//!
//! The agent knows who calls; control knows what may be. A call that changes something is attested here and
//! decided there. Without a session nothing can be decided, so such calls fail at once and say why.

mod listener;
mod monitor;
mod networkservice;
mod node;
mod peer;
mod registry;
#[cfg(test)]
pub(crate) mod relay;
mod workload;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tieline_proto::{
    connection::monitor_connection_server::MonitorConnectionServer,
    lease,
    networkservice::network_service_server::NetworkServiceServer,
    registry::{
        network_service_endpoint_registry_server::NetworkServiceEndpointRegistryServer,
        network_service_registry_server::NetworkServiceRegistryServer,
    },
    tieline::{admin::v1::node_service_server::NodeServiceServer, agent::v1::Keeper},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status as RpcStatus, Streaming,
    server::NamedService,
    transport::{Channel, Server, server::Router},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::debug;

pub(crate) use self::{listener::Listener, workload::Attestor};
use self::{
    listener::{Caller, Connection},
    peer::Peer,
};
use super::{
    dial,
    error::{AgentError, CallError},
    status::{SessionState, Status},
    telemetry::CallLabels,
    worker::Job,
};

/// The longest message a caller may send. A larger one is answered with `OUT_OF_RANGE`.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// The longest message control may send: all connections of a node at once.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How long control may take for a decision, setting up the wire included.
const DECISION_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls that one connection may have open.
const MAX_STREAMS: u32 = 256;
/// Events of a stream that may wait for their reader. Then control's stream waits too.
const MAX_EVENTS: usize = 64;

/// Shared by the services of the local API.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) channel: Channel,
    pub(crate) address: Arc<str>,
    pub(crate) attestor: Attestor,
    pub(crate) status: Arc<Status>,
    /// Weak: the worker ends when the last job is done, whoever still has a connection open.
    pub(crate) jobs: mpsc::WeakSender<Job>,
    pub(crate) shutdown: CancellationToken,
}

impl Api {
    /// Serves on `listener` until the shutdown that it was given, then lets calls end.
    pub(crate) async fn serve(
        self,
        accepted: mpsc::Receiver<std::io::Result<Connection>>,
    ) -> Result<(), AgentError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let router =
            services(Server::builder().max_concurrent_streams(MAX_STREAMS), &self)?.add_service(health);
        let (status, shutdown) = (Arc::clone(&self.status), self.shutdown.clone());
        status.set_serving(true);
        let serve = router
            .serve_with_incoming_shutdown(ReceiverStream::new(accepted), shutdown.clone().cancelled_owned());
        let served = tokio::select! {
            served = serve => served,
            () = report_health(&reporter, &status) => Ok(()),
        };
        status.set_serving(false);
        served.map_err(|error| AgentError::TaskEnded {
            task: "local API",
            reason: error.to_string(),
        })
    }

    /// Runs a call, counts it, and turns its error into a status.
    async fn answer<T>(
        &self,
        method: &'static str,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<Response<T>, RpcStatus> {
        let began = Instant::now();
        let result = work.await.map_err(RpcStatus::from);
        let code = result.as_ref().map_or_else(RpcStatus::code, |_| tonic::Code::Ok);
        let labels = CallLabels {
            method,
            code: tieline_proto::code_name(code),
        };
        self.status
            .metrics
            .calls
            .get_or_create(&labels)
            .observe(began.elapsed().as_secs_f64());
        if let Err(status) = &result {
            debug!(method, %status, "call refused");
        }
        result.map(Response::new)
    }

    /// Asks control for a decision.
    async fn ask<M, T, F>(&self, message: M, call: impl FnOnce(Request<M>) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, RpcStatus>>,
    {
        if let SessionState::Away { reason } = self.status.session() {
            return Err(self.away(reason));
        }
        let mut request = Request::new(message);
        request.set_timeout(DECISION_TIMEOUT);
        match tokio::time::timeout(DECISION_TIMEOUT, call(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refusal(&status)),
            Err(_) => Err(CallError::ControlSlow {
                address: self.address.to_string(),
                timeout: DECISION_TIMEOUT,
            }),
        }
    }

    /// Opens a stream of control's. It has no end in time, only its beginning has.
    async fn follow<M, T, F>(
        &self,
        message: M,
        call: impl FnOnce(Request<M>) -> F,
    ) -> Result<Streaming<T>, CallError>
    where
        F: Future<Output = Result<Response<Streaming<T>>, RpcStatus>>,
    {
        if let SessionState::Away { reason } = self.status.session() {
            return Err(self.away(reason));
        }
        match tokio::time::timeout(DECISION_TIMEOUT, call(Request::new(message))).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refusal(&status)),
            Err(_) => Err(CallError::ControlSlow {
                address: self.address.to_string(),
                timeout: DECISION_TIMEOUT,
            }),
        }
    }

    /// Passes control's stream on until either side ends it.
    fn relay<T: Send + 'static>(&self, mut stream: Streaming<T>) -> EventStream<T> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        let api = self.clone();
        tokio::spawn(async move {
            loop {
                let item = tokio::select! {
                    () = sender.closed() => return,
                    () = api.shutdown.cancelled() => Err(CallError::ShuttingDown),
                    message = stream.message() => match message {
                        Ok(Some(event)) => Ok(event),
                        Ok(None) => return,
                        Err(status) => Err(api.refusal(&status)),
                    },
                };
                let last = item.is_err();
                if sender.send(item.map_err(RpcStatus::from)).await.is_err() || last {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    /// What control said, or that it is away.
    fn refusal(&self, status: &RpcStatus) -> CallError {
        if dial::is_transport(status) {
            return self.away(dial::describe(status));
        }
        CallError::Control {
            code: status.code(),
            message: status.message().to_owned(),
        }
    }

    fn away(&self, reason: String) -> CallError {
        CallError::ControlAway {
            address: self.address.to_string(),
            reason,
        }
    }
}

/// A stream of events to a caller.
type EventStream<T> = ReceiverStream<Result<T, RpcStatus>>;

/// The process that sent this request.
fn caller<T>(request: &Request<T>) -> Result<Caller, CallError> {
    let unknown = || CallError::UnknownCaller("the connection has no peer".to_owned());
    request.extensions().get::<Caller>().cloned().ok_or_else(unknown)
}

/// Who keeps the lease of what is asked for, as the caller says in a header.
fn keeper(metadata: &tonic::metadata::MetadataMap) -> Result<Keeper, CallError> {
    let Some(value) = metadata.get(lease::HEADER) else {
        return Ok(Keeper::Client);
    };
    match value.to_str() {
        Ok(lease::CLIENT) => Ok(Keeper::Client),
        Ok(lease::NODE) => Ok(Keeper::Node),
        _ => Err(CallError::Invalid {
            field: lease::HEADER,
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            rule: "is \"client\", who refreshes it, or \"node\", which keeps it while the workload is there",
        }),
    }
}

/// Looks a caller up. `/proc` and `/run/netns` are files, so this happens on a thread that may block.
async fn attest<T: Send + 'static>(
    caller: Caller,
    work: impl FnOnce(&Peer) -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    let ended = |_| CallError::ShuttingDown;
    tokio::task::spawn_blocking(move || work(caller.peer()?))
        .await
        .map_err(ended)?
}

fn services(mut server: Server, api: &Api) -> Result<Router, AgentError> {
    let network_service = NetworkServiceServer::new(api.clone()).max_decoding_message_size(MAX_REQUEST_BYTES);
    let monitor = MonitorConnectionServer::new(api.clone()).max_decoding_message_size(MAX_REQUEST_BYTES);
    let services =
        NetworkServiceRegistryServer::new(api.clone()).max_decoding_message_size(MAX_REQUEST_BYTES);
    let endpoints =
        NetworkServiceEndpointRegistryServer::new(api.clone()).max_decoding_message_size(MAX_REQUEST_BYTES);
    let node = NodeServiceServer::new(api.clone()).max_decoding_message_size(MAX_REQUEST_BYTES);
    let names = [
        name_of(&network_service),
        name_of(&monitor),
        name_of(&services),
        name_of(&endpoints),
        name_of(&node),
        "grpc.health.v1.Health",
    ];
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tieline_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        names
            .into_iter()
            .fold(builder, tonic_reflection::server::Builder::with_service_name)
    };
    Ok(server
        .add_service(network_service)
        .add_service(monitor)
        .add_service(services)
        .add_service(endpoints)
        .add_service(node)
        .add_service(reflection().build_v1().map_err(AgentError::Reflection)?)
        .add_service(reflection().build_v1alpha().map_err(AgentError::Reflection)?))
}

fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

/// The services that need control, for health checks.
const DECIDED_BY_CONTROL: [&str; 4] = [
    "networkservice.NetworkService",
    "connection.MonitorConnection",
    "registry.NetworkServiceRegistry",
    "registry.NetworkServiceEndpointRegistry",
];

/// Keeps gRPC health as the session is. The empty name, the agent as a whole, serves for as long as it answers.
async fn report_health(reporter: &HealthReporter, status: &Status) {
    let mut session = status.watch_session();
    loop {
        let serving = match &*session.borrow_and_update() {
            SessionState::Up => ServingStatus::Serving,
            SessionState::Away { .. } => ServingStatus::NotServing,
        };
        for service in DECIDED_BY_CONTROL {
            reporter.set_service_status(service, serving).await;
        }
        if session.changed().await.is_err() {
            return;
        }
    }
}
