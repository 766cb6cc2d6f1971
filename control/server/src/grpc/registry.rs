//! NSM's registries: services, and endpoints as operators declare them. Workloads register at their node's agent,
//! which knows who they are.

use std::collections::HashMap;

use tieline_model::{
    EndpointName, EndpointQuery, NetworkService, NodeName, Object, ServiceName, ServiceQuery,
};
use tieline_model::{NetworkServiceEndpoint, ObjectKind};
use tieline_proto::registry as proto;
use tieline_proto::registry::network_service_endpoint_registry_server::NetworkServiceEndpointRegistry;
use tieline_proto::registry::network_service_registry_server::NetworkServiceRegistry;
use tieline_proto::tieline::admin::v1 as admin;
use tieline_registry::{Caller, ChangeKind, Command, Refusal, RegistryEvent};
use tonic::{Request, Response, Status};

use super::Api;
use super::stream::{Answers, answers, present};
use crate::engine::Topic;
use crate::failure::Failure;

#[tonic::async_trait]
impl NetworkServiceRegistry for Api {
    type FindStream = Answers<proto::NetworkServiceResponse>;

    async fn register(
        &self,
        request: Request<proto::NetworkService>,
    ) -> Result<Response<proto::NetworkService>, Status> {
        let outcome = self.register_service(request.into_inner()).await;
        self.answer("NetworkServiceRegistry.Register", outcome)
    }

    async fn find(
        &self,
        request: Request<proto::NetworkServiceQuery>,
    ) -> Result<Response<Self::FindStream>, Status> {
        let outcome = self.find_services(request.into_inner()).await;
        self.answer("NetworkServiceRegistry.Find", outcome)
    }

    async fn unregister(&self, request: Request<proto::NetworkService>) -> Result<Response<()>, Status> {
        let outcome = self.unregister_service(&request.into_inner().name).await;
        self.answer("NetworkServiceRegistry.Unregister", outcome)
    }
}

#[tonic::async_trait]
impl NetworkServiceEndpointRegistry for Api {
    type FindStream = Answers<proto::NetworkServiceEndpointResponse>;

    async fn register(
        &self,
        request: Request<proto::NetworkServiceEndpoint>,
    ) -> Result<Response<proto::NetworkServiceEndpoint>, Status> {
        let outcome = self.declare_endpoint(request.into_inner()).await;
        self.answer("NetworkServiceEndpointRegistry.Register", outcome)
    }

    async fn find(
        &self,
        request: Request<proto::NetworkServiceEndpointQuery>,
    ) -> Result<Response<Self::FindStream>, Status> {
        let outcome = self.find_endpoints(request.into_inner()).await;
        self.answer("NetworkServiceEndpointRegistry.Find", outcome)
    }

    async fn unregister(
        &self,
        request: Request<proto::NetworkServiceEndpoint>,
    ) -> Result<Response<()>, Status> {
        let outcome = self.withdraw_endpoint(&request.into_inner().name).await;
        self.answer("NetworkServiceEndpointRegistry.Unregister", outcome)
    }
}

impl Api {
    /// NSM's message has no word for all that operators may say of a service; what they said stays.
    async fn register_service(
        &self,
        message: proto::NetworkService,
    ) -> Result<proto::NetworkService, Failure> {
        let asked = NetworkService::try_from(message)?;
        let name = asked.name().clone();
        let known = self
            .engine
            .look(move |registry, _| registry.service(&name).cloned())
            .await?;
        let service = match known {
            Some(known) => {
                let kept = NetworkService::clone(&known).with_payload(asked.payload());
                kept.with_matches(asked.matches().to_vec())?
            }
            None => asked,
        };
        let answer = proto::NetworkService::from(&service);
        self.apply_one(Object::NetworkService(service)).await?;
        Ok(answer)
    }

    async fn unregister_service(&self, name: &str) -> Result<(), Failure> {
        let name = ServiceName::parse("name", name)?.to_string();
        let command = Command::Delete {
            kind: ObjectKind::NetworkService,
            name,
        };
        match self.engine.execute(command).await {
            // As in NSM: to remove what is not there is not an error.
            Ok(_) | Err(Failure::Refused(Refusal::UnknownService { .. })) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn find_services(
        &self,
        message: proto::NetworkServiceQuery,
    ) -> Result<Answers<proto::NetworkServiceResponse>, Failure> {
        let watch = message.watch;
        let mut query = ServiceQuery::try_from(message)?;
        query.settle_domain(self.domains.own());
        self.check_domain(query.domain(), watch)?;
        let topic = Topic::Services(query);
        let (found, inlet) = self.engine.watch(topic).await?;
        let found = found.into_iter().filter_map(service_response).collect();
        Ok(if watch {
            answers(found, inlet, service_response)
        } else {
            present(found)
        })
    }

    /// The endpoint is on the only node there is; with several, NSM's message cannot say on which.
    async fn declare_endpoint(
        &self,
        message: proto::NetworkServiceEndpoint,
    ) -> Result<proto::NetworkServiceEndpoint, Failure> {
        let names = |registry: &tieline_registry::Registry, _| {
            registry
                .nodes()
                .map(|node| node.name.clone())
                .collect::<Vec<NodeName>>()
        };
        let nodes = self.engine.look(names).await?;
        let [node] = &nodes[..] else {
            return Err(Failure::WhichNode {
                url: message.url,
                nodes: nodes.len(),
            });
        };
        let declared = admin::NetworkServiceEndpoint {
            endpoint: Some(message),
            node: node.to_string(),
            labels: HashMap::new(),
        };
        let endpoint = NetworkServiceEndpoint::try_from(declared)?;
        let answer = proto::NetworkServiceEndpoint::from(&endpoint);
        self.apply_one(Object::NetworkServiceEndpoint(endpoint)).await?;
        Ok(answer)
    }

    async fn withdraw_endpoint(&self, name: &str) -> Result<(), Failure> {
        let name = EndpointName::parse("name", name)?;
        let command = Command::UnregisterEndpoint {
            caller: Caller::Operator,
            name,
        };
        self.engine.execute(command).await.map(drop)
    }

    async fn find_endpoints(
        &self,
        message: proto::NetworkServiceEndpointQuery,
    ) -> Result<Answers<proto::NetworkServiceEndpointResponse>, Failure> {
        let watch = message.watch;
        let mut query = EndpointQuery::try_from(message)?;
        query.settle_domain(self.domains.own());
        self.check_domain(query.domain(), watch)?;
        let topic = Topic::Endpoints(query);
        let (found, inlet) = self.engine.watch(topic).await?;
        let found = found.into_iter().filter_map(endpoint_response).collect();
        Ok(if watch {
            answers(found, inlet, endpoint_response)
        } else {
            present(found)
        })
    }

    async fn apply_one(&self, object: Object) -> Result<(), Failure> {
        self.engine
            .execute(Command::Apply {
                objects: vec![object],
                dry_run: false,
            })
            .await
            .map(drop)
    }
}

fn service_response(event: RegistryEvent) -> Option<proto::NetworkServiceResponse> {
    let RegistryEvent::Service(kind, service) = event else {
        return None;
    };
    let network_service = Some((&*service).into());
    Some(proto::NetworkServiceResponse {
        network_service,
        deleted: kind == ChangeKind::Delete,
    })
}

fn endpoint_response(event: RegistryEvent) -> Option<proto::NetworkServiceEndpointResponse> {
    let RegistryEvent::Endpoint(kind, endpoint) = event else {
        return None;
    };
    let network_service_endpoint = Some((&*endpoint).into());
    Some(proto::NetworkServiceEndpointResponse {
        network_service_endpoint,
        deleted: kind == ChangeKind::Delete,
    })
}
