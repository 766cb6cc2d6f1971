//! A control that does what a test tells it, over a real unix socket, and a plan to send.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tieline_proto::{
    connection::{
        Connection, ConnectionEvent, ConnectionEventType, MonitorScopeSelector,
        monitor_connection_server::{MonitorConnection, MonitorConnectionServer},
    },
    registry::NetworkServiceEndpoint,
    tieline::agent::v1::{
        self as proto,
        agent_service_server::{AgentService, AgentServiceServer},
        session_down, session_up,
    },
};
use tokio::{net::UnixListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status as RpcStatus, Streaming, transport::Server};

use super::{
    config::{Config, ControlAddress},
    status::Status,
    telemetry::{AgentHandle, Jobs},
};
use crate::{desired::NetnsRef, fake::Fake, reconcile::WireCounts};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Fails a test that would hang.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens in time")
}

/// Waits until `check` holds.
pub(crate) async fn until(mut check: impl FnMut() -> bool) {
    soon(async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The value of one metric, as it is scraped.
pub(crate) fn metric(status: &Arc<Status>, name: &str) -> String {
    let mut text = String::new();
    AgentHandle::new(Arc::clone(status), Jobs::default())
        .render_metrics(&mut text)
        .unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value
        .unwrap_or_else(|| panic!("{name} in\n{text}"))
        .trim()
        .to_owned()
}

/// An agent's settings with everything in `folder`.
pub(crate) fn config(folder: &Path) -> Config {
    Config {
        socket: folder.join("agent.sock"),
        control: address(folder),
        state_dir: folder.join("state"),
        resync_interval: Duration::from_millis(100),
        resolver_dir: folder.join("netns"),
        ..Config::new("tl-node")
    }
}

pub(crate) fn address(folder: &Path) -> ControlAddress {
    format!("unix://{}", socket(folder).display()).parse().unwrap()
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// A machine in memory with room for `max_wires`, and two namespaces on it.
pub(crate) fn machine(max_wires: u32) -> (Fake, NetnsRef, NetnsRef) {
    let mut fake = Fake::new("tl-node", max_wires);
    let client = fake.add_netns("/run/netns/tl-client", 101);
    let endpoint = fake.add_netns("/run/netns/tl-endpoint", 102);
    (fake, client, endpoint)
}

/// The wire number `n` between the two namespaces of [`machine`].
pub(crate) fn wire(n: u8) -> proto::Wire {
    let end = |path: &str, inode, side: u8| proto::WireEnd {
        attachment: Some(proto::wire_end::Attachment::Veth(proto::VethEnd {
            netns: Some(proto::NetworkNamespace {
                path: path.into(),
                device: 4,
                inode,
            }),
            name: format!("nsm-{n}"),
            mac: format!("02:00:00:00:{n:02x}:{side:02x}"),
            addresses: vec![format!("10.0.{n}.{side}/32")],
            ..proto::VethEnd::default()
        })),
    };
    proto::Wire {
        connection_id: format!("c{n}"),
        network_service: "gold".into(),
        payload: proto::Payload::Ip.into(),
        mtu: 1500,
        client: Some(end("/run/netns/tl-client", 101, 1)),
        branches: vec![leading_to(end("/run/netns/tl-endpoint", 102, 2))],
        ..proto::Wire::default()
    }
}

pub(crate) fn wire_counts(forwarding: usize, failed: usize) -> WireCounts {
    WireCounts {
        forwarding,
        failed,
        ..WireCounts::default()
    }
}

/// The only branch of a wire, straight to an endpoint.
pub(crate) fn leading_to(endpoint: proto::WireEnd) -> proto::WireBranch {
    proto::WireBranch {
        circuit: Some(proto::WireCircuit {
            hops: Vec::new(),
            endpoint_name: "gold-1".into(),
            endpoint: Some(endpoint),
        }),
        ..proto::WireBranch::default()
    }
}

/// A wire whose client's namespace does not exist.
pub(crate) fn lost_wire(n: u8) -> proto::Wire {
    let mut wire = wire(n);
    if let Some(proto::wire_end::Attachment::Veth(end)) = wire.client.as_mut().unwrap().attachment.as_mut() {
        end.netns.as_mut().unwrap().path = "/run/netns/tl-gone".into();
    }
    wire
}

pub(crate) fn snapshot(generation: u64, wires: Vec<proto::Wire>) -> proto::Snapshot {
    proto::Snapshot {
        generation,
        wires,
        ..proto::Snapshot::default()
    }
}

pub(crate) fn delta(parent: u64, upsert: Vec<proto::Wire>, remove: &[&str]) -> proto::Delta {
    let remove = remove.iter().map(ToString::to_string).collect();
    proto::Delta {
        generation: parent + 1,
        parent,
        upsert,
        remove,
    }
}

/// A control on a unix socket. Ends when dropped, like a killed process.
pub(crate) struct FakeControl {
    sessions: mpsc::Receiver<ControlSession>,
    pub(crate) seen: Seen,
    server: Option<Runtime>,
    socket: PathBuf,
}

/// What workloads' calls looked like when they arrived.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) requests: Arc<Mutex<Vec<proto::RequestConnectionRequest>>>,
    pub(crate) closes: Arc<Mutex<Vec<proto::CloseConnectionRequest>>>,
    pub(crate) endpoints: Arc<Mutex<Vec<proto::RegisterEndpointRequest>>>,
}

impl FakeControl {
    pub(crate) fn start(folder: &Path) -> Self {
        let socket = socket(folder);
        let (sender, sessions) = mpsc::channel(8);
        let seen = Seen::default();
        let service = Service {
            sessions: sender,
            seen: seen.clone(),
        };
        let router = Server::builder()
            .add_service(AgentServiceServer::new(service.clone()))
            .add_service(MonitorConnectionServer::new(service));
        // A runtime of its own: connections end with it, as with a process.
        let server = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        server.spawn(async move {
            let listener = UnixListener::from_std(listener).unwrap();
            router
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            sessions,
            seen,
            server: Some(server),
            socket,
        }
    }

    /// The next session that an agent opens.
    pub(crate) async fn session(&mut self) -> ControlSession {
        soon(self.sessions.recv()).await.unwrap()
    }
}

impl FakeControl {
    /// Ends at once, without a word to anybody.
    pub(crate) fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
            // The test's folder may be gone already.
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

impl Drop for FakeControl {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One session, seen from control.
pub(crate) struct ControlSession {
    pub(crate) down: mpsc::Sender<Result<proto::SessionDown, RpcStatus>>,
    up: Streaming<proto::SessionUp>,
}

impl ControlSession {
    pub(crate) async fn send(&self, message: session_down::Message) {
        self.down
            .send(Ok(proto::SessionDown {
                message: Some(message),
            }))
            .await
            .unwrap();
    }

    pub(crate) async fn snapshot(&self, generation: u64, wires: Vec<proto::Wire>) {
        self.send(session_down::Message::Snapshot(snapshot(generation, wires)))
            .await;
    }

    pub(crate) async fn delta(&self, delta: proto::Delta) {
        self.send(session_down::Message::Delta(delta)).await;
    }

    pub(crate) async fn next(&mut self) -> Option<session_up::Message> {
        soon(self.up.message())
            .await
            .ok()
            .flatten()
            .and_then(|message| message.message)
    }

    pub(crate) async fn hello(&mut self) -> proto::Hello {
        match self.next().await {
            Some(session_up::Message::Hello(hello)) => hello,
            other => panic!("a session begins with a Hello, not {other:?}"),
        }
    }

    /// The next acknowledgement.
    pub(crate) async fn ack(&mut self) -> proto::Ack {
        match self.next().await {
            Some(session_up::Message::Ack(ack)) => ack,
            other => panic!("an acknowledgement was due, not {other:?}"),
        }
    }

    /// Its generation and the ids of the wires that failed.
    pub(crate) async fn ack_ids(&mut self) -> (u64, Vec<String>) {
        let ack = self.ack().await;
        (
            ack.generation,
            ack.failures
                .into_iter()
                .map(|failure| failure.connection_id)
                .collect(),
        )
    }
}

#[derive(Clone)]
struct Service {
    sessions: mpsc::Sender<ControlSession>,
    seen: Seen,
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = ReceiverStream<Result<proto::SessionDown, RpcStatus>>;

    async fn session(
        &self,
        request: Request<Streaming<proto::SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, RpcStatus> {
        let (down, receiver) = mpsc::channel(2048);
        let session = ControlSession {
            down,
            up: request.into_inner(),
        };
        self.sessions
            .send(session)
            .await
            .map_err(|_| RpcStatus::unavailable("the test has ended"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn request_connection(
        &self,
        request: Request<proto::RequestConnectionRequest>,
    ) -> Result<Response<Connection>, RpcStatus> {
        let request = request.into_inner();
        let connection = request.request.clone().unwrap().connection.unwrap();
        self.seen.requests.lock().unwrap().push(request);
        if connection.network_service == "unknown" {
            return Err(RpcStatus::not_found(
                "connection.network_service \"unknown\": no such service",
            ));
        }
        Ok(Response::new(connection))
    }

    async fn close_connection(
        &self,
        request: Request<proto::CloseConnectionRequest>,
    ) -> Result<Response<()>, RpcStatus> {
        self.seen.closes.lock().unwrap().push(request.into_inner());
        Ok(Response::new(()))
    }

    async fn register_endpoint(
        &self,
        request: Request<proto::RegisterEndpointRequest>,
    ) -> Result<Response<NetworkServiceEndpoint>, RpcStatus> {
        let request = request.into_inner();
        let endpoint = request.endpoint.clone().unwrap();
        self.seen.endpoints.lock().unwrap().push(request);
        Ok(Response::new(endpoint))
    }

    async fn unregister_endpoint(
        &self,
        _: Request<proto::UnregisterEndpointRequest>,
    ) -> Result<Response<()>, RpcStatus> {
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl MonitorConnection for Service {
    type MonitorConnectionsStream = ReceiverStream<Result<ConnectionEvent, RpcStatus>>;

    /// Says that there is nothing, and then stays silent.
    async fn monitor_connections(
        &self,
        _: Request<MonitorScopeSelector>,
    ) -> Result<Response<Self::MonitorConnectionsStream>, RpcStatus> {
        let (sender, receiver) = mpsc::channel(1);
        let first = ConnectionEvent {
            r#type: ConnectionEventType::InitialStateTransfer.into(),
            ..ConnectionEvent::default()
        };
        tokio::spawn(async move {
            let _ = sender.send(Ok(first)).await;
            sender.closed().await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
