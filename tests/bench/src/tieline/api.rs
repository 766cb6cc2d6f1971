//! The public API, as a workload and an operator use it.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use tieline_lab::NetNs;
use tieline_proto::{
    connection::{self, Connection, Mechanism, PathSegment},
    networkservice::{NetworkServiceRequest, network_service_client::NetworkServiceClient},
    registry::{
        NetworkService, NetworkServiceEndpoint,
        network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient,
    },
    tieline::admin::v1::{
        self as admin, ApplyRequest, ListWiresRequest, Object, WireStatus,
        admin_service_client::AdminServiceClient, node_service_client::NodeServiceClient, object,
    },
};
use tokio::{net::UnixStream, runtime::Runtime, task::JoinSet};
use tonic::transport::{Channel, Endpoint};

use crate::stop;

/// Longer than any stage of a suite; longer-lived wires are refreshed by requesting them again.
const LIFETIME: Duration = Duration::from_secs(600);

/// A vWire as its client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    /// The connection's id.
    pub(crate) id: String,
    /// The client's address.
    pub(crate) client: Ipv4Addr,
    /// The endpoint's address.
    pub(crate) endpoint: Ipv4Addr,
}

/// Open channels to a node's agent and control.
pub(crate) struct Api {
    runtime: Runtime,
    agent: Channel,
    control: Channel,
}

impl Api {
    /// Connects to the two sockets.
    pub(crate) fn connect(agent: &Path, control: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (agent, control) =
            runtime.block_on(async { anyhow::Ok((channel(agent).await?, channel(control).await?)) })?;
        Ok(Self {
            runtime,
            agent,
            control,
        })
    }

    /// Declares a NetworkService with IPv4 addresses from `prefix`.
    pub(crate) fn declare_service(&self, name: &str, prefix: &str) -> Result<()> {
        let service = NetworkService {
            name: name.to_owned(),
            ..NetworkService::default()
        };
        let service = admin::NetworkService {
            service: Some(service),
            prefixes: vec![prefix.to_owned()],
            ..admin::NetworkService::default()
        };
        let object = Object {
            object: Some(object::Object::NetworkService(service)),
        };
        let request = ApplyRequest {
            objects: vec![object],
            dry_run: false,
        };
        self.runtime
            .block_on(AdminServiceClient::new(self.control.clone()).apply(request))
            .context("declare a service")?;
        Ok(())
    }

    /// Registers the workload in `netns` as an endpoint of `service`.
    pub(crate) fn register(&self, service: &str, name: &str, netns: &NetNs) -> Result<()> {
        let endpoint = NetworkServiceEndpoint {
            name: name.to_owned(),
            network_service_names: vec![service.to_owned()],
            url: url(netns),
            expiration_time: Some((SystemTime::now() + 6 * LIFETIME).into()),
            ..NetworkServiceEndpoint::default()
        };
        let mut client = NetworkServiceEndpointRegistryClient::new(self.agent.clone());
        self.runtime
            .block_on(client.register(endpoint))
            .with_context(|| format!("register {name}"))?;
        Ok(())
    }

    /// Requests a vWire for the workload in `netns`, or refreshes it.
    pub(crate) fn request(&self, id: &str, service: &str, netns: &NetNs) -> Result<Wire> {
        self.runtime
            .block_on(request(self.agent.clone(), wire_request(id, service, netns)))
    }

    /// Requests all of them with at most `in_flight` unanswered at a time; in the order of the answers.
    pub(crate) fn request_all<'a>(
        &self,
        service: &str,
        wires: impl IntoIterator<Item = (String, &'a NetNs)>,
        in_flight: usize,
    ) -> Result<Vec<Wire>> {
        let requests = wires
            .into_iter()
            .map(|(id, netns)| wire_request(&id, service, netns));
        let agent = self.agent.clone();
        self.runtime
            .block_on(in_parallel(requests, in_flight, move |each| {
                request(agent.clone(), each)
            }))
    }

    /// Closes all of them in the same way.
    pub(crate) fn close_all(&self, wires: &[Wire], in_flight: usize) -> Result<()> {
        let agent = self.agent.clone();
        let close = move |id: String| {
            let mut client = NetworkServiceClient::new(agent.clone());
            async move {
                let connection = Connection {
                    id,
                    ..Connection::default()
                };
                client.close(connection).await.map(drop).context("close")
            }
        };
        let ids = wires.iter().map(|wire| wire.id.clone());
        self.runtime
            .block_on(in_parallel(ids, in_flight, close))
            .map(drop)
    }

    /// What the node says about a wire.
    pub(crate) fn wire_status(&self, id: &str) -> Result<WireStatus> {
        let request = ListWiresRequest {
            connection_ids: vec![id.to_owned()],
        };
        let answer = self
            .runtime
            .block_on(NodeServiceClient::new(self.agent.clone()).list_wires(request))?;
        answer
            .into_inner()
            .wires
            .into_iter()
            .next()
            .with_context(|| format!("the node does not know wire {id}"))
    }
}

async fn channel(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    // The URI only fills the HTTP/2 authority; the connector ignores it.
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("connect to {}", socket.display()))
}

/// Runs `work` on every item with at most `in_flight` at a time. The first failure ends it.
async fn in_parallel<I: Send + 'static, T: Send + 'static, F>(
    items: impl IntoIterator<Item = I>,
    in_flight: usize,
    work: impl Fn(I) -> F,
) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (mut items, mut running, mut done) = (items.into_iter(), JoinSet::new(), Vec::new());
    for item in items.by_ref().take(in_flight) {
        running.spawn(work(item));
    }
    while let Some(outcome) = running.join_next().await {
        stop::check()?;
        done.push(outcome??);
        if let Some(item) = items.next() {
            running.spawn(work(item));
        }
    }
    Ok(done)
}

fn wire_request(id: &str, service: &str, netns: &NetNs) -> NetworkServiceRequest {
    let expires = Some((SystemTime::now() + LIFETIME).into());
    let (name, id) = ("tieline-bench".to_owned(), id.to_owned());
    let segment = PathSegment {
        name,
        id: id.clone(),
        expires,
        ..PathSegment::default()
    };
    let connection = Connection {
        id,
        network_service: service.to_owned(),
        path: Some(connection::Path {
            index: 0,
            path_segments: vec![segment],
        }),
        ..Connection::default()
    };
    let mechanism = Mechanism {
        cls: "LOCAL".to_owned(),
        r#type: "KERNEL".to_owned(),
        parameters: HashMap::from([("inodeURL".to_owned(), url(netns))]),
    };
    NetworkServiceRequest {
        connection: Some(connection),
        mechanism_preferences: vec![mechanism],
    }
}

async fn request(agent: Channel, request: NetworkServiceRequest) -> Result<Wire> {
    let connection = NetworkServiceClient::new(agent)
        .request(request)
        .await
        .context("request")?
        .into_inner();
    let addresses = connection
        .context
        .and_then(|context| context.ip_context)
        .context("an answer without addresses")?;
    Ok(Wire {
        id: connection.id,
        client: first_ipv4(&addresses.src_ip_addrs)?,
        endpoint: first_ipv4(&addresses.dst_ip_addrs)?,
    })
}

fn first_ipv4(prefixes: &[String]) -> Result<Ipv4Addr> {
    let Some(address) = prefixes
        .iter()
        .find_map(|text| text.split('/').next()?.parse().ok())
    else {
        bail!("no IPv4 address among {prefixes:?}");
    };
    Ok(address)
}

fn url(netns: &NetNs) -> String {
    format!("file://{}", netns.path().display())
}
