//! Calls to a node, from the test's own process: root, so an operator.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use tieline_lab::slow;
use tieline_proto::{
    connection::{Connection, MonitorScopeSelector, monitor_connection_client::MonitorConnectionClient},
    lease,
    networkservice::{NetworkServiceRequest, network_service_client::NetworkServiceClient},
    registry::{
        NetworkServiceEndpoint,
        network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient,
    },
    tieline::admin::v1::{
        self as admin, ConnectionStatus, GetNodeResponse, GetStatusResponse, NetworkService, NodeStatus,
        WireStatus, admin_service_client::AdminServiceClient, node_service_client::NodeServiceClient,
    },
};
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::Monitor;

/// Longer than any answer may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);
/// The largest answer taken: every connection of a node.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The outcome of a call.
pub type Call<T> = Result<T, Status>;

/// The node's local API and control's, called one at a time and waited for. A node that was restarted is connected
/// to anew by itself.
#[derive(Clone, Debug)]
pub struct Api {
    agent: Channel,
    control: Channel,
}

/// Calls of all tests share one runtime: channels need it as long as they live.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    #[expect(clippy::expect_used, reason = "a test process without threads cannot go on")]
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads for the calls")
    })
}

fn channel(socket: PathBuf) -> Channel {
    let _inside = runtime().enter();
    let connect = move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(connect))
}

/// A call for what the node shall keep.
fn kept<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let value = tonic::metadata::MetadataValue::from_static(lease::NODE);
    request.metadata_mut().insert(lease::HEADER, value);
    request
}

impl Api {
    /// For the node with this folder of sockets.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        Self {
            agent: channel(run_dir.join("agent.sock")),
            control: channel(run_dir.join("control.sock")),
        }
    }

    fn wait<T>(&self, call: impl Future<Output = Call<tonic::Response<T>>>) -> Call<T> {
        let limit = slow(DEADLINE);
        let late = |_| Err(Status::deadline_exceeded(format!("no answer within {limit:?}")));
        let answer =
            runtime().block_on(async { tokio::time::timeout(limit, call).await.unwrap_or_else(late) });
        answer.map(tonic::Response::into_inner)
    }

    /// NSM's Request.
    pub fn request(&self, request: NetworkServiceRequest) -> Call<Connection> {
        self.wait(NetworkServiceClient::new(self.agent.clone()).request(request))
    }

    /// NSM's Request for a wire whose lease the node keeps.
    pub fn request_kept(&self, request: NetworkServiceRequest) -> Call<Connection> {
        self.wait(NetworkServiceClient::new(self.agent.clone()).request(kept(request)))
    }

    /// Registers an endpoint whose lease the node keeps.
    pub fn register_kept(&self, mut endpoint: NetworkServiceEndpoint) -> Call<NetworkServiceEndpoint> {
        endpoint.expiration_time = None;
        self.wait(NetworkServiceEndpointRegistryClient::new(self.agent.clone()).register(kept(endpoint)))
    }

    /// NSM's Close.
    pub fn close(&self, connection: Connection) -> Call<()> {
        self.wait(NetworkServiceClient::new(self.agent.clone()).close(connection))
    }

    /// Registers an endpoint.
    pub fn register(&self, endpoint: NetworkServiceEndpoint) -> Call<NetworkServiceEndpoint> {
        self.wait(NetworkServiceEndpointRegistryClient::new(self.agent.clone()).register(endpoint))
    }

    /// Unregisters an endpoint.
    pub fn unregister(&self, endpoint: NetworkServiceEndpoint) -> Call<()> {
        self.wait(NetworkServiceEndpointRegistryClient::new(self.agent.clone()).unregister(endpoint))
    }

    /// What the agent says of itself.
    pub fn node(&self) -> Call<GetNodeResponse> {
        self.wait(NodeServiceClient::new(self.agent.clone()).get_node(admin::GetNodeRequest {}))
    }

    /// The node's wires with their counters.
    pub fn wires(&self) -> Call<Vec<WireStatus>> {
        let mut client = NodeServiceClient::new(self.agent.clone()).max_decoding_message_size(MAX_ANSWER);
        Ok(self
            .wait(client.list_wires(admin::ListWiresRequest::default()))?
            .wires)
    }

    /// Declares a service.
    pub fn apply(&self, service: NetworkService) -> Call<admin::ApplyResponse> {
        self.declare(admin::object::Object::NetworkService(service))
    }

    /// Declares an object of any kind.
    pub fn declare(&self, object: admin::object::Object) -> Call<admin::ApplyResponse> {
        let objects = vec![admin::Object { object: Some(object) }];
        let request = admin::ApplyRequest {
            objects,
            dry_run: false,
        };
        self.wait(AdminServiceClient::new(self.control.clone()).apply(request))
    }

    /// Deletes an object of this kind (`NetworkService`, `NetworkServiceEndpoint`) at control.
    pub fn delete(&self, kind: &str, name: &str) -> Call<()> {
        let request = admin::DeleteRequest {
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        self.wait(AdminServiceClient::new(self.control.clone()).delete(request))
            .map(drop)
    }

    /// The names of the endpoints that control knows, in order.
    pub fn endpoints(&self) -> Call<Vec<String>> {
        let call = async {
            AdminServiceClient::new(self.control.clone())
                .list_endpoints(admin::ListRequest::default())
                .await
        };
        let items = self.wait(call)?.items.into_iter();
        let mut names: Vec<String> = items.filter_map(|item| Some(item.endpoint?.name)).collect();
        names.sort();
        Ok(names)
    }

    /// The names of the wirings that control knows, in order.
    pub fn wirings(&self) -> Call<Vec<String>> {
        let call = async {
            AdminServiceClient::new(self.control.clone())
                .list_network_service_wirings(admin::ListRequest::default())
                .await
        };
        let items = self.wait(call)?.items.into_iter();
        let mut names: Vec<String> = items.filter_map(|item| Some(item.wiring?.name)).collect();
        names.sort();
        Ok(names)
    }

    /// Drains an endpoint, or takes it back.
    pub fn drain(&self, name: &str, off: bool) -> Call<()> {
        let request = admin::DrainEndpointRequest {
            name: name.to_owned(),
            off,
        };
        self.wait(AdminServiceClient::new(self.control.clone()).drain_endpoint(request))
            .map(drop)
    }

    /// Control's list of connections, in order of their ids.
    pub fn connections(&self) -> Call<Vec<ConnectionStatus>> {
        let mut client = AdminServiceClient::new(self.control.clone()).max_decoding_message_size(MAX_ANSWER);
        let mut items = self
            .wait(client.list_connections(admin::ListRequest::default()))?
            .items;
        items.sort_by_key(|item| item.connection.as_ref().map(|connection| connection.id.clone()));
        Ok(items)
    }

    /// Control's list of nodes.
    pub fn nodes(&self) -> Call<Vec<NodeStatus>> {
        let request = admin::ListRequest::default();
        Ok(self
            .wait(AdminServiceClient::new(self.control.clone()).list_nodes(request))?
            .items)
    }

    /// Closes a connection at control, for its client.
    pub fn close_at_control(&self, id: &str) -> Call<()> {
        let request = admin::CloseConnectionRequest { id: id.to_owned() };
        self.wait(AdminServiceClient::new(self.control.clone()).close_connection(request))
            .map(drop)
    }

    /// What control says of itself.
    pub fn status(&self) -> Call<GetStatusResponse> {
        self.wait(AdminServiceClient::new(self.control.clone()).get_status(admin::GetStatusRequest {}))
    }

    /// Follows all connections through the agent, as a workload does.
    pub fn monitor(&self) -> Result<Monitor> {
        Self::follow(&self.agent).context("monitor through the agent")
    }

    /// Follows all connections at control.
    pub fn monitor_at_control(&self) -> Result<Monitor> {
        Self::follow(&self.control).context("monitor at control")
    }

    fn follow(channel: &Channel) -> Result<Monitor> {
        let mut client = MonitorConnectionClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER);
        let stream = runtime()
            .block_on(async { client.monitor_connections(MonitorScopeSelector::default()).await })?
            .into_inner();
        Ok(Monitor::new(stream))
    }
}
