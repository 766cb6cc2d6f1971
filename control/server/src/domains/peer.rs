//! Another registry domain, and what it is asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tieline_model::convert::{addresses_from, ranges_to};
use tieline_model::{ConnectionId, Invalid, NetworkServiceEndpoint, RegistryDomain, ServiceName};
use tieline_proto::dial;
use tieline_proto::tieline::domain::v1 as proto;
use tieline_proto::tieline::domain::v1::domain_service_client::DomainServiceClient;
use tokio::sync::{Notify, RwLock};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::config::PeerConfig;
use crate::failure::Failure;
use crate::grpc::MAX_ADMIN_MESSAGE_BYTES;

/// How long the other control may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

const NO_ADDRESS: &str = "it may ask, and is not asked: it has no address here";

/// Whether what is known of a domain is up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It is.
    Reached,
    /// It is not, for this reason.
    Away(String),
}

/// What a connection needs of the domain of its service.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The connection.
    pub(crate) id: ConnectionId,
    /// The service, by its name there.
    pub(crate) service: ServiceName,
    /// Addresses asked for at the client and at the endpoint.
    pub(crate) asked: [Vec<IpAddr>; 2],
    /// What must not be given: the first and the last address of each range.
    pub(crate) excluded: Vec<(IpAddr, IpAddr)>,
}

/// Another registry domain.
#[derive(Debug)]
pub(crate) struct Peer {
    own: RegistryDomain,
    domain: RegistryDomain,
    way: Option<(String, DomainServiceClient<Channel>)>,
    reach: Mutex<Reach>,
    /// Read by those who ask for something, written by who says what is held: what is asked for meanwhile would be missing
    /// in that, and be taken back.
    gate: RwLock<()>,
    /// Connections whose addresses are reserved and which are not registered yet, with how often they are asked for.
    under_way: Mutex<BTreeMap<ConnectionId, usize>>,
    changed: Notify,
}

/// Names a connection until the registry does.
#[derive(Debug)]
pub(crate) struct UnderWay {
    peer: Arc<Peer>,
    id: ConnectionId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = lock(&self.peer.under_way);
        if let Some(count) = under_way.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.id);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that is done under these locks can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    pub(super) fn new(own: RegistryDomain, configured: &PeerConfig) -> Result<Self, Invalid> {
        let way = configured.address.as_ref().map(|address| {
            let channel = dial::channel(address).map_err(|_| {
                let rule = "write unix:///PATH or http://HOST:PORT, where the other control listens";
                Invalid::new("peer", address.as_str(), rule)
            })?;
            let client = DomainServiceClient::new(channel).max_decoding_message_size(MAX_ADMIN_MESSAGE_BYTES);
            Ok((address.clone(), client))
        });
        let first = match configured.address {
            Some(_) => "it was not asked yet",
            None => NO_ADDRESS,
        };
        Ok(Self {
            own,
            domain: configured.domain.clone(),
            way: way.transpose()?,
            reach: Mutex::new(Reach::Away(first.to_owned())),
            gate: RwLock::default(),
            under_way: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Its name.
    pub(crate) fn domain(&self) -> &RegistryDomain {
        &self.domain
    }

    /// Where its control listens; `None`: it is not asked.
    pub(crate) fn address(&self) -> Option<&str> {
        self.way.as_ref().map(|(address, _)| address.as_str())
    }

    /// Whether what is known of it is up to date.
    pub(crate) fn reach(&self) -> Reach {
        lock(&self.reach).clone()
    }

    pub(super) fn set_reach(&self, reach: Reach) {
        let before = std::mem::replace(&mut *lock(&self.reach), reach.clone());
        if before == reach {
            return;
        }
        match reach {
            Reach::Reached => tracing::info!(domain = %self.domain, "registry domain reached"),
            Reach::Away(why) => tracing::warn!(domain = %self.domain, why, "registry domain away"),
        }
    }

    /// Refuses while what is known of it is not up to date.
    pub(crate) fn check_reached(&self) -> Result<(), Failure> {
        match self.reach() {
            Reach::Reached => Ok(()),
            Reach::Away(why) => Err(self.away(why)),
        }
    }

    pub(super) fn away(&self, why: String) -> Failure {
        Failure::DomainAway {
            domain: self.domain.clone(),
            address: self.address().unwrap_or_default().to_owned(),
            why,
        }
    }

    /// What this domain has of it has changed: it is told as soon as possible.
    pub(crate) fn tell_soon(&self) {
        self.changed.notify_one();
    }

    pub(super) async fn to_be_told(&self) {
        self.changed.notified().await;
    }

    /// From here until the guard is dropped the connection counts as one of this domain.
    pub(crate) fn begin(self: &Arc<Self>, id: &ConnectionId) -> UnderWay {
        *lock(&self.under_way).entry(id.clone()).or_default() += 1;
        UnderWay {
            peer: Arc::clone(self),
            id: id.clone(),
        }
    }

    /// Has addresses reserved there.
    pub(crate) async fn reserve(&self, wish: Wish) -> Result<[Vec<IpAddr>; 2], Failure> {
        let _gate = self.gate.read().await;
        self.reserve_inside(wish).await
    }

    /// While nothing else is asked for.
    async fn reserve_inside(&self, wish: Wish) -> Result<[Vec<IpAddr>; 2], Failure> {
        let texts = |addresses: Vec<IpAddr>| addresses.iter().map(IpAddr::to_string).collect();
        let [client, endpoint] = wish.asked;
        let message = proto::ReserveRequest {
            domain: self.own.to_string(),
            connection_id: wish.id.to_string(),
            network_service: wish.service.to_string(),
            client_addresses: texts(client),
            endpoint_addresses: texts(endpoint),
            excluded: ranges_to(wish.excluded),
        };
        let mut client = self.client()?;
        let answer = self.answer(client.reserve(message)).await?;
        Ok([
            addresses_from("client_addresses", &answer.client_addresses)?,
            addresses_from("endpoint_addresses", &answer.endpoint_addresses)?,
        ])
    }

    /// Registers an endpoint of this domain there.
    pub(crate) async fn register(&self, endpoint: NetworkServiceEndpoint) -> Result<(), Failure> {
        let _gate = self.gate.read().await;
        self.register_inside(endpoint).await
    }

    async fn register_inside(&self, endpoint: NetworkServiceEndpoint) -> Result<(), Failure> {
        let message = proto::RegisterRequest {
            domain: self.own.to_string(),
            endpoint: Some((&endpoint.in_its_domain()).into()),
        };
        let mut client = self.client()?;
        self.answer(client.register(message)).await.map(drop)
    }

    pub(super) async fn watch(&self) -> Result<tonic::Streaming<proto::WatchResponse>, Failure> {
        let message = proto::WatchRequest {
            domain: self.own.to_string(),
        };
        let mut client = self.client()?;
        self.answer(client.watch(message)).await
    }

    /// Says everything that this domain has there; `held` looks it up. What is not known there is asked for again. How long
    /// this domain may be silent.
    pub(super) async fn hold(
        &self,
        held: impl Future<Output = Result<Held, Failure>>,
    ) -> Result<Duration, Failure> {
        let _gate = self.gate.write().await;
        let under_way: Vec<ConnectionId> = lock(&self.under_way).keys().cloned().collect();
        let held = held.await?;
        let ids = held.connections.iter().map(|wish| &wish.id).chain(&under_way);
        let message = proto::HoldRequest {
            domain: self.own.to_string(),
            connection_ids: ids.map(ToString::to_string).collect(),
            endpoints: held
                .endpoints
                .iter()
                .map(|one| one.name().local().to_string())
                .collect(),
        };
        let mut client = self.client()?;
        let answer = self.answer(client.hold(message)).await?;
        let lost = |wish: &Wish| {
            answer
                .unknown_connection_ids
                .iter()
                .any(|id| id == wish.id.as_str())
        };
        for wish in held.connections.into_iter().filter(lost) {
            let (id, has) = (wish.id.clone(), wish.asked.clone());
            let domain = &self.domain;
            match self.reserve_inside(wish).await {
                Ok(given) if given == has => {}
                Ok(_) => tracing::warn!(%id, %domain, "the addresses of a wire are somebody else's there"),
                Err(failure) => tracing::warn!(%id, %failure, "the addresses of a wire are not reserved"),
            }
        }
        for endpoint in held.endpoints {
            let name = endpoint.name().local();
            if answer.unknown_endpoints.iter().any(|one| one == name.as_str())
                && let Err(failure) = self.register_inside(endpoint).await
            {
                tracing::warn!(%name, %failure, "an endpoint is not registered in the other domain");
            }
        }
        Ok(Duration::from_millis(answer.lease))
    }

    fn client(&self) -> Result<DomainServiceClient<Channel>, Failure> {
        let way = self.way.as_ref().map(|(_, client)| client.clone());
        way.ok_or_else(|| self.away(NO_ADDRESS.to_owned()))
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_WITHIN, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.refused(&status)),
            Err(_) => Err(self.away(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
        }
    }

    /// A stream ended, by the other control or without it.
    pub(super) fn broken(&self, status: &Status) -> Failure {
        self.away(dial::describe(status))
    }

    /// What the other control says, or that nobody does.
    fn refused(&self, status: &Status) -> Failure {
        if dial::is_transport(status) || matches!(status.code(), Code::Unavailable | Code::Cancelled) {
            return self.away(dial::describe(status));
        }
        Failure::DomainRefuses {
            domain: self.domain.clone(),
            code: status.code(),
            message: status.message().to_owned(),
        }
    }
}

/// What this domain has of another one.
#[derive(Debug)]
pub(super) struct Held {
    /// Connections with the addresses that they have.
    pub(super) connections: Vec<Wish>,
    /// Endpoints of workloads here.
    pub(super) endpoints: Vec<NetworkServiceEndpoint>,
}
