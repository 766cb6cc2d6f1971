//! `tieline.admin.v1.AdminService`.

use std::collections::BTreeSet;
use std::sync::Arc;

use tieline_model::convert::{endpoint_status, timestamp_to_proto};
use tieline_model::limits::MAX_OBJECTS;
use tieline_model::{ConnectionId, Invalid, NetworkService, NetworkServiceWiring, Object, ObjectKind};
use tieline_proto::tieline::admin::v1 as proto;
use tieline_proto::tieline::admin::v1::admin_service_server::AdminService;
use tieline_registry::{Applied, ApplyAction, Caller, Command, Finding, NodeState, Registry, Reply};
use tieline_store::Revision;
use tonic::{Request, Response, Status};

use super::Api;
use super::steering::moves;
use crate::domains::{Peer, Reach};
use crate::failure::Failure;

#[tonic::async_trait]
impl AdminService for Api {
    async fn apply(
        &self,
        request: Request<proto::ApplyRequest>,
    ) -> Result<Response<proto::ApplyResponse>, Status> {
        let outcome = self.apply_objects(request.into_inner()).await;
        self.answer("Apply", outcome)
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteResponse>, Status> {
        let outcome = self.delete_object(request.into_inner()).await;
        self.answer("Delete", outcome)
    }

    async fn list_network_services(
        &self,
        request: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListNetworkServicesResponse>, Status> {
        let names = Names::from(request.into_inner());
        let items = self
            .engine
            .look(move |registry, _| services(registry, &names))
            .await;
        self.answer(
            "ListNetworkServices",
            items.map(|items| proto::ListNetworkServicesResponse { items }),
        )
    }

    async fn list_endpoints(
        &self,
        request: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListEndpointsResponse>, Status> {
        let names = Names::from(request.into_inner());
        let items = self
            .engine
            .look(move |registry, _| endpoints(registry, &names))
            .await;
        self.answer(
            "ListEndpoints",
            items.map(|items| proto::ListEndpointsResponse { items }),
        )
    }

    async fn list_network_service_wirings(
        &self,
        request: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListNetworkServiceWiringsResponse>, Status> {
        let names = Names::from(request.into_inner());
        let items = self
            .engine
            .look(move |registry, _| wirings(registry, &names))
            .await;
        self.answer(
            "ListNetworkServiceWirings",
            items.map(|items| proto::ListNetworkServiceWiringsResponse { items }),
        )
    }

    async fn list_connections(
        &self,
        request: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListConnectionsResponse>, Status> {
        let names = Names::from(request.into_inner());
        let found = self.engine.look(move |registry, _| {
            let wanted = registry
                .connections()
                .filter(|connection| names.want(connection.id.as_str()));
            wanted.cloned().collect::<Vec<_>>()
        });
        // Ten thousand messages are built here, not in the engine.
        let items = found
            .await
            .map(|found| found.iter().map(|one| (&**one).into()).collect());
        self.answer(
            "ListConnections",
            items.map(|items| proto::ListConnectionsResponse { items }),
        )
    }

    async fn list_nodes(
        &self,
        request: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListNodesResponse>, Status> {
        let names = Names::from(request.into_inner());
        let items = self.engine.look(move |registry, _| nodes(registry, &names)).await;
        self.answer("ListNodes", items.map(|items| proto::ListNodesResponse { items }))
    }

    async fn get_status(
        &self,
        _request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let outcome = self.status().await;
        self.answer("GetStatus", outcome)
    }

    async fn explain_connection(
        &self,
        request: Request<proto::ExplainConnectionRequest>,
    ) -> Result<Response<proto::ExplainConnectionResponse>, Status> {
        let outcome = self.explain(&request.into_inner().id).await;
        self.answer("ExplainConnection", outcome)
    }

    async fn drain_endpoint(
        &self,
        request: Request<proto::DrainEndpointRequest>,
    ) -> Result<Response<proto::DrainEndpointResponse>, Status> {
        let outcome = self.drain(request.into_inner()).await;
        self.answer("DrainEndpoint", outcome)
    }

    async fn close_connection(
        &self,
        request: Request<proto::CloseConnectionRequest>,
    ) -> Result<Response<proto::CloseConnectionResponse>, Status> {
        let outcome = self.close_for_operator(&request.into_inner().id).await;
        self.answer(
            "AdminCloseConnection",
            outcome.map(|()| proto::CloseConnectionResponse {}),
        )
    }
}

impl Api {
    async fn apply_objects(&self, message: proto::ApplyRequest) -> Result<proto::ApplyResponse, Failure> {
        let objects = message.objects.len();
        if objects > MAX_OBJECTS {
            let rule = format!("at most {MAX_OBJECTS} objects at once: apply them in parts");
            return Err(Invalid::new("objects", objects.to_string(), rule).into());
        }
        let read = |(n, object)| {
            Object::try_from(object).map_err(|error: Invalid| error.within(&format!("objects[{n}]")))
        };
        let objects = message
            .objects
            .into_iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()?;
        match self
            .engine
            .execute(Command::Apply {
                objects,
                dry_run: message.dry_run,
            })
            .await?
        {
            Reply::Applied(outcome) => Ok(proto::ApplyResponse {
                results: outcome.results.into_iter().map(applied).collect(),
                moved: count(outcome.moves.len()),
                moves: moves(&outcome.moves),
            }),
            other => Err(Failure::Mismatch {
                asked: "Apply",
                got: format!("{other:?}"),
            }),
        }
    }

    async fn delete_object(&self, message: proto::DeleteRequest) -> Result<proto::DeleteResponse, Failure> {
        let kind: ObjectKind = message.kind.parse()?;
        self.engine
            .execute(Command::Delete {
                kind,
                name: message.name,
            })
            .await?;
        Ok(proto::DeleteResponse {})
    }

    async fn status(&self) -> Result<proto::GetStatusResponse, Failure> {
        let peers = self.domains.clone();
        let look = move |registry: &Registry, revision: Revision| {
            (
                registry.counts(),
                nodes(registry, &Names(BTreeSet::new())),
                peers.peers().map(|peer| domain_status(registry, peer)).collect(),
                revision,
            )
        };
        let (counts, nodes, domains, revision) = self.engine.look(look).await?;
        Ok(proto::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: Some(timestamp_to_proto(self.about.started)),
            store: self.about.store.clone(),
            store_revision: revision.0,
            network_services: count(counts.services),
            endpoints: count(counts.endpoints),
            connections: count(counts.connections),
            nodes,
            domain: self.domains.own().map(ToString::to_string).unwrap_or_default(),
            domains,
        })
    }

    async fn close_for_operator(&self, id: &str) -> Result<(), Failure> {
        let id = ConnectionId::parse("id", id)?;
        self.engine.close(Caller::Operator, id).await
    }
}

/// Which objects a list is about; empty: all.
struct Names(BTreeSet<String>);

impl From<proto::ListRequest> for Names {
    fn from(message: proto::ListRequest) -> Self {
        Self(message.names.into_iter().collect())
    }
}

impl Names {
    fn want(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.contains(name)
    }
}

fn services(registry: &Registry, names: &Names) -> Vec<proto::NetworkServiceStatus> {
    let wanted = registry
        .services()
        .filter(|service| names.want(service.name().as_str()));
    let status = |service: &Arc<NetworkService>| proto::NetworkServiceStatus {
        service: Some((&**service).into()),
        endpoints: count(registry.endpoints_of_service(service.name())),
        connections: count(registry.connections_of_service(service.name())),
    };
    wanted.map(status).collect()
}

fn endpoints(registry: &Registry, names: &Names) -> Vec<proto::EndpointStatus> {
    let wanted = registry
        .endpoints()
        .filter(|endpoint| names.want(endpoint.name().as_str()));
    let connections = |name| {
        let (here, left) = (
            registry.connections_of_endpoint(name),
            registry.connections_draining_at(name),
        );
        [count(here), count(left)]
    };
    wanted
        .map(|endpoint| endpoint_status(endpoint, connections(endpoint.name())))
        .collect()
}

fn wirings(registry: &Registry, names: &Names) -> Vec<proto::NetworkServiceWiringStatus> {
    let wanted = registry
        .wirings()
        .filter(|wiring| names.want(wiring.name().as_str()));
    let findings = registry.findings();
    let warnings = |name: &str| {
        let own = |one: &&Finding| one.kind == ObjectKind::NetworkServiceWiring && one.name == name;
        findings.iter().filter(own).map(ToString::to_string).collect()
    };
    let status = |wiring: &Arc<NetworkServiceWiring>| proto::NetworkServiceWiringStatus {
        wiring: Some((&**wiring).into()),
        connections: count(registry.connections_of_wiring(wiring.name())),
        warnings: warnings(wiring.name().as_str()),
    };
    wanted.map(status).collect()
}

fn nodes(registry: &Registry, names: &Names) -> Vec<proto::NodeStatus> {
    let wanted = registry.nodes().filter(|node| names.want(node.name.as_str()));
    wanted.map(|node| node_status(registry, node)).collect()
}

fn node_status(registry: &Registry, node: &NodeState) -> proto::NodeStatus {
    proto::NodeStatus {
        name: node.name.to_string(),
        connected: node.connected,
        planned_generation: node.generation,
        applied_generation: node.applied,
        version: node.version.clone(),
        attach_backend: node.attach_backend.clone(),
        wires: count(registry.wires_of_node(&node.name)),
        max_wires: node.max_wires,
        last_seen: (node.last_seen.as_millis() != 0).then(|| timestamp_to_proto(node.last_seen)),
    }
}

fn domain_status(registry: &Registry, peer: &Peer) -> proto::DomainStatus {
    let domain = peer.domain();
    let (reached, error) = match peer.reach() {
        Reach::Reached => (true, String::new()),
        Reach::Away(why) => (false, why),
    };
    let theirs = registry.endpoints();
    let theirs = theirs.filter(|one| one.name().domain() == Some(domain.as_str()));
    proto::DomainStatus {
        name: domain.to_string(),
        address: peer.address().unwrap_or_default().to_owned(),
        reached,
        error,
        network_services: count(registry.services_of(domain).count()),
        endpoints: count(theirs.count()),
        connections: count(registry.connected_to(domain).count()),
    }
}

fn applied(applied: Applied) -> proto::ApplyResult {
    let action = match applied.action {
        ApplyAction::Created => proto::ApplyAction::Created,
        ApplyAction::Changed => proto::ApplyAction::Changed,
        ApplyAction::Unchanged => proto::ApplyAction::Unchanged,
    };
    proto::ApplyResult {
        kind: applied.kind.to_string(),
        name: applied.name,
        action: action.into(),
        warnings: applied.warnings,
    }
}

/// What one control holds is far below the type's end.
pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
