//! `tieline.domain.v1.DomainService`: what other registry domains ask, and calls of workloads that are about them.

use std::sync::Arc;

use tieline_model::convert::{addresses_from, ranges_from};
use tieline_model::{
    Connection, ConnectionId, ConnectionRequest, EndpointName, EndpointRegistration, NetworkServiceEndpoint,
    ObjectKind, ServiceName, Workload,
};
use tieline_proto::tieline::domain::v1 as proto;
use tieline_proto::tieline::domain::v1::domain_service_server::DomainService;
use tieline_proto::tieline::domain::v1::watch_response::Change;
use tieline_registry::{Caller, ChangeKind, Command, RegistryEvent, Reply, ReservationRequest};
use tonic::{Request, Response, Status};

use super::stream::{Answers, answers};
use super::{Api, required};
use crate::domains::{Reach, Wish};
use crate::engine::Topic;
use crate::failure::Failure;

const FIELD_SERVICE: &str = "connection.network_service";
const FIELD_ENDPOINT: &str = "endpoint.name";

#[tonic::async_trait]
impl DomainService for Api {
    type WatchStream = Answers<proto::WatchResponse>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let outcome = self.offer(&request.into_inner()).await;
        self.answer("DomainService.Watch", outcome)
    }

    async fn reserve(
        &self,
        request: Request<proto::ReserveRequest>,
    ) -> Result<Response<proto::ReserveResponse>, Status> {
        let outcome = self.reserve_for(request.into_inner()).await;
        self.answer("DomainService.Reserve", outcome)
    }

    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterResponse>, Status> {
        let outcome = self.register_for(request.into_inner()).await;
        self.answer("DomainService.Register", outcome)
    }

    async fn hold(
        &self,
        request: Request<proto::HoldRequest>,
    ) -> Result<Response<proto::HoldResponse>, Status> {
        let outcome = self.hold_for(request.into_inner()).await;
        self.answer("DomainService.Hold", outcome)
    }
}

impl Api {
    async fn offer(&self, message: &proto::WatchRequest) -> Result<Answers<proto::WatchResponse>, Failure> {
        self.domains.caller(&message.domain)?;
        let (present, inlet) = self.engine.watch(Topic::Offered).await?;
        let mut present: Vec<_> = present.into_iter().filter_map(watch_response).collect();
        present.push(changed(Change::Complete(proto::Complete {})));
        Ok(answers(present, inlet, watch_response))
    }

    async fn reserve_for(&self, message: proto::ReserveRequest) -> Result<proto::ReserveResponse, Failure> {
        let asked = ReservationRequest {
            domain: self.domains.caller(&message.domain)?,
            id: ConnectionId::parse("connection_id", &message.connection_id)?,
            service: ServiceName::parse("network_service", &message.network_service)?,
            asked: [
                addresses_from("client_addresses", &message.client_addresses)?,
                addresses_from("endpoint_addresses", &message.endpoint_addresses)?,
            ],
            excluded: ranges_from("excluded", &message.excluded)?,
        };
        match self.engine.execute(Command::Reserve(Box::new(asked))).await? {
            Reply::Reserved(reservation) => Ok(proto::ReserveResponse {
                client_addresses: reservation.client.iter().map(ToString::to_string).collect(),
                endpoint_addresses: reservation.endpoint.iter().map(ToString::to_string).collect(),
            }),
            other => Err(mismatch("Reserve", &other)),
        }
    }

    async fn register_for(
        &self,
        message: proto::RegisterRequest,
    ) -> Result<proto::RegisterResponse, Failure> {
        let command = Command::RegisterForeign {
            domain: self.domains.caller(&message.domain)?,
            endpoint: Box::new(required("endpoint", message.endpoint)?.try_into()?),
        };
        self.engine.execute(command).await?;
        Ok(proto::RegisterResponse {})
    }

    async fn hold_for(&self, message: proto::HoldRequest) -> Result<proto::HoldResponse, Failure> {
        let connections = message.connection_ids.iter();
        let endpoints = message.endpoints.iter();
        let command = Command::Hold {
            domain: self.domains.caller(&message.domain)?,
            connections: connections
                .map(|id| ConnectionId::parse("connection_ids", id))
                .collect::<Result<_, _>>()?,
            endpoints: endpoints
                .map(|name| EndpointName::parse("endpoints", name))
                .collect::<Result<_, _>>()?,
        };
        let lease = self.engine.look(|registry, _| registry.node_lease()).await?;
        match self.engine.execute(command).await? {
            Reply::Held(unknown) => Ok(proto::HoldResponse {
                unknown_connection_ids: unknown.connections.iter().map(ToString::to_string).collect(),
                unknown_endpoints: unknown.endpoints.iter().map(ToString::to_string).collect(),
                lease: lease.as_millis(),
            }),
            other => Err(mismatch("Hold", &other)),
        }
    }

    /// Makes, refreshes or changes a connection, to a service of any domain.
    pub(super) async fn connect(
        &self,
        caller: Workload,
        mut request: ConnectionRequest,
    ) -> Result<Arc<Connection>, Failure> {
        request.settle_domain(self.domains.own())?;
        let Some(domain) = request.service.domain() else {
            return self.engine.request(caller, request).await;
        };
        let peer = Arc::clone(
            self.domains
                .meant(FIELD_SERVICE, request.service.as_str(), domain)?,
        );
        let (asking, asked) = (caller.clone(), request.clone());
        let looked = self.engine.look(move |registry, _| {
            // What stands has its addresses, and is refreshed whether the other domain is there or not.
            let stands = registry.connection(&asked.id).is_some();
            (!stands).then(|| registry.not_for(&asking, &asked))
        });
        let Some(excluded) = looked.await? else {
            return self.engine.request(caller, request).await;
        };
        peer.check_reached()?;
        let under_way = peer.begin(&request.id);
        let wish = Wish {
            id: request.id.clone(),
            service: request.service.local(),
            asked: [request.src_addresses.clone(), request.dst_addresses.clone()],
            excluded,
        };
        request.reserved = Some(peer.reserve(wish).await?);
        let outcome = self.engine.request(caller, request).await;
        drop(under_way);
        if outcome.is_err() {
            peer.tell_soon();
        }
        outcome
    }

    /// Registers an endpoint of a workload here, in any domain.
    pub(super) async fn register_workload(
        &self,
        caller: Workload,
        registration: EndpointRegistration,
    ) -> Result<Box<NetworkServiceEndpoint>, Failure> {
        let registration = registration.settle_domain(self.domains.own());
        let name = registration.name().clone();
        let peer = match registration.domain() {
            Some(domain) => Some(Arc::clone(self.domains.meant(
                FIELD_ENDPOINT,
                name.as_str(),
                domain,
            )?)),
            None => None,
        };
        let sought = name.clone();
        let known = match &peer {
            Some(_) => {
                self.engine
                    .look(move |registry, _| registry.endpoint(&sought).is_some_and(|one| !one.is_foreign()))
                    .await?
            }
            None => true,
        };
        if let Some(peer) = peer.as_ref().filter(|_| !known) {
            peer.check_reached()?;
        }
        let command = Command::RegisterEndpoint {
            caller: caller.clone(),
            registration,
        };
        let endpoint = match self.engine.execute(command).await? {
            Reply::Endpoint(endpoint) => endpoint,
            other => return Err(mismatch("RegisterEndpoint", &other)),
        };
        // One that is known is registered again when the other domain is back.
        let Some(peer) = peer.filter(|peer| !known || peer.reach() == Reach::Reached) else {
            return Ok(endpoint);
        };
        match peer.register(NetworkServiceEndpoint::clone(&endpoint)).await {
            Err(Failure::DomainAway { .. }) if known => Ok(endpoint),
            Err(failure) => {
                let caller = Caller::Workload(caller);
                self.engine
                    .execute(Command::UnregisterEndpoint { caller, name })
                    .await?;
                Err(failure)
            }
            Ok(()) => Ok(endpoint),
        }
    }

    /// Refuses a question about a domain that is not known or, if the answer has to be whole now, not reached.
    pub(super) fn check_domain(&self, domain: Option<&str>, watch: bool) -> Result<(), Failure> {
        let Some(domain) = domain else { return Ok(()) };
        let peer = self.domains.meant("name", &format!("@{domain}"), domain)?;
        if watch { Ok(()) } else { peer.check_reached() }
    }
}

fn mismatch(asked: &'static str, got: &Reply) -> Failure {
    Failure::Mismatch {
        asked,
        got: format!("{got:?}"),
    }
}

fn changed(change: Change) -> proto::WatchResponse {
    proto::WatchResponse { change: Some(change) }
}

fn watch_response(event: RegistryEvent) -> Option<proto::WatchResponse> {
    let gone = |kind: ObjectKind, name: &str| {
        Change::Gone(proto::Gone {
            kind: kind.to_string(),
            name: name.to_owned(),
        })
    };
    Some(changed(match event {
        RegistryEvent::Service(ChangeKind::Update, service) => Change::Service((&*service).into()),
        RegistryEvent::Wiring(ChangeKind::Update, wiring) => Change::Wiring((&*wiring).into()),
        RegistryEvent::Endpoint(ChangeKind::Update, endpoint) => Change::Endpoint((&*endpoint).into()),
        RegistryEvent::Service(ChangeKind::Delete, service) => {
            gone(ObjectKind::NetworkService, service.name().as_str())
        }
        RegistryEvent::Wiring(ChangeKind::Delete, wiring) => {
            gone(ObjectKind::NetworkServiceWiring, wiring.name().as_str())
        }
        RegistryEvent::Endpoint(ChangeKind::Delete, endpoint) => {
            gone(ObjectKind::NetworkServiceEndpoint, endpoint.name().as_str())
        }
        RegistryEvent::Connection(..) => return None,
    }))
}
