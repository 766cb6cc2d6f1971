//! The agent's API, as a workload uses it.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use tieline_lab::NetNs;
use tieline_proto::{
    connection::{self, Connection, Mechanism, PathSegment},
    networkservice::{NetworkServiceRequest, network_service_client::NetworkServiceClient},
    registry::{
        NetworkServiceEndpoint, NetworkServiceLabels,
        network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient,
    },
    tieline::admin::v1::{
        GetNodeRequest, ListWiresRequest, WireStatus, node_service_client::NodeServiceClient,
    },
};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::channel::{self, in_parallel};

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

/// An open channel to a node's agent.
pub(crate) struct Api {
    runtime: Runtime,
    socket: PathBuf,
    agent: Channel,
}

impl Api {
    /// Connects to the agent's socket.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let runtime = channel::runtime()?;
        let agent = runtime.block_on(channel::connect(socket))?;
        Ok(Self {
            runtime,
            socket: socket.to_owned(),
            agent,
        })
    }

    /// Registers the workload in `netns` as an endpoint of `service`, with these labels.
    pub(crate) fn register(
        &self,
        service: &str,
        name: &str,
        netns: &NetNs,
        labels: &[(&str, &str)],
    ) -> Result<()> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let labels = NetworkServiceLabels {
            labels: labels.collect(),
        };
        let endpoint = NetworkServiceEndpoint {
            name: name.to_owned(),
            network_service_names: vec![service.to_owned()],
            network_service_labels: HashMap::from([(service.to_owned(), labels)]),
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

    /// Takes a registration back.
    pub(crate) fn unregister(&self, name: &str) -> Result<()> {
        let endpoint = NetworkServiceEndpoint {
            name: name.to_owned(),
            ..NetworkServiceEndpoint::default()
        };
        let mut client = NetworkServiceEndpointRegistryClient::new(self.agent.clone());
        self.runtime
            .block_on(client.unregister(endpoint))
            .with_context(|| format!("unregister {name}"))?;
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

    /// So many clients, each with a connection of its own to the agent.
    pub(crate) fn clients(&self, count: usize) -> Result<Clients<'_>> {
        let connect = || self.runtime.block_on(channel::connect(&self.socket));
        Ok(Clients {
            api: self,
            channels: (0..count).map(|_| connect()).collect::<Result<_>>()?,
        })
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

    /// How many wires the node can hold.
    pub(crate) fn max_wires(&self) -> Result<u32> {
        let answer = self
            .runtime
            .block_on(NodeServiceClient::new(self.agent.clone()).get_node(GetNodeRequest {}))?;
        Ok(answer.into_inner().max_wires)
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

/// Clients that do not share a connection.
pub(crate) struct Clients<'a> {
    api: &'a Api,
    channels: Vec<Channel>,
}

impl Clients<'_> {
    /// They request all of these, each one at a time.
    pub(crate) fn request_all<'a>(
        &self,
        service: &str,
        wires: impl IntoIterator<Item = (String, &'a NetNs)>,
    ) -> Result<Vec<Wire>> {
        let wires = wires.into_iter();
        let requests: VecDeque<_> = wires
            .map(|(id, netns)| wire_request(&id, service, netns))
            .collect();
        let waiting = Arc::new(Mutex::new(requests));
        let one_by_one = |agent: Channel| {
            let waiting = Arc::clone(&waiting);
            async move {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let mut made = Vec::new();
                while let Some(each) = next() {
                    made.push(request(agent.clone(), each).await?);
                }
                Ok(made)
            }
        };
        let all = in_parallel(self.channels.iter().cloned(), self.channels.len(), one_by_one);
        Ok(self.api.runtime.block_on(all)?.into_iter().flatten().collect())
    }
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
