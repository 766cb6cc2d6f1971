//! NSM's registries: endpoints are attested here, everything is kept by control.

use tieline_proto::{
    registry::{
        NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceEndpointResponse,
        NetworkServiceQuery, NetworkServiceResponse,
        network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient,
        network_service_endpoint_registry_server::NetworkServiceEndpointRegistry,
        network_service_registry_client::NetworkServiceRegistryClient,
        network_service_registry_server::NetworkServiceRegistry,
    },
    tieline::agent::v1::{Keeper, RegisterEndpointRequest, UnregisterEndpointRequest},
};
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    Api, EventStream, MAX_ANSWER_BYTES, attest, caller, keeper, listener::Caller, workload::Purpose,
};
use crate::agent::{error::CallError, tenants::place_of};

const RULE_SERVICES: &str = "only root in the agent's own user and pid namespaces may declare or remove network \
                             services, because they steer the traffic of other workloads";

#[tonic::async_trait]
impl NetworkServiceEndpointRegistry for Api {
    type FindStream = EventStream<NetworkServiceEndpointResponse>;

    async fn register(
        &self,
        request: Request<NetworkServiceEndpoint>,
    ) -> Result<Response<NetworkServiceEndpoint>, Status> {
        self.answer("NetworkServiceEndpointRegistry/Register", async {
            let (caller, keeper) = (caller(&request)?, keeper(request.metadata())?);
            let endpoint = request.into_inner();
            let (attestor, url) = (self.attestor.clone(), endpoint.url.clone());
            let (workload, interface) =
                attest(caller, move |peer| attestor.endpoint(peer, &url, Purpose::Attach)).await?;
            let place = place_of(&workload, &interface).filter(|_| keeper == Keeper::Node);
            let message = RegisterEndpointRequest {
                workload: Some(workload),
                endpoint: Some(endpoint),
                interface,
                keeper: keeper.into(),
            };
            let mut control = self.control();
            let registered = self
                .ask(message, |message| control.register_endpoint(message))
                .await?;
            self.status.tenants.registered(registered.name.clone(), place);
            Ok(registered)
        })
        .await
    }

    async fn find(
        &self,
        request: Request<NetworkServiceEndpointQuery>,
    ) -> Result<Response<Self::FindStream>, Status> {
        self.answer("NetworkServiceEndpointRegistry/Find", async {
            let mut client = NetworkServiceEndpointRegistryClient::new(self.channel.clone())
                .max_decoding_message_size(MAX_ANSWER_BYTES);
            let stream = self
                .follow(request.into_inner(), |message| client.find(message))
                .await?;
            Ok(self.relay(stream))
        })
        .await
    }

    async fn unregister(&self, request: Request<NetworkServiceEndpoint>) -> Result<Response<()>, Status> {
        self.answer("NetworkServiceEndpointRegistry/Unregister", async {
            let caller = caller(&request)?;
            let endpoint = request.into_inner();
            let (attestor, url) = (self.attestor.clone(), endpoint.url.clone());
            let (workload, _) = attest(caller, move |peer| {
                attestor.endpoint(peer, &url, Purpose::Release)
            })
            .await?;
            let name = endpoint.name.clone();
            let message = UnregisterEndpointRequest {
                workload: Some(workload),
                endpoint: Some(endpoint),
            };
            let mut control = self.control();
            self.ask(message, |message| control.unregister_endpoint(message))
                .await?;
            self.status.tenants.unregistered(&name);
            Ok(())
        })
        .await
    }
}

#[tonic::async_trait]
impl NetworkServiceRegistry for Api {
    type FindStream = EventStream<NetworkServiceResponse>;

    async fn register(&self, request: Request<NetworkService>) -> Result<Response<NetworkService>, Status> {
        self.answer("NetworkServiceRegistry/Register", async {
            require_operator(caller(&request)?, &request.get_ref().name).await?;
            let mut client = self.services();
            self.ask(request.into_inner(), |message| client.register(message))
                .await
        })
        .await
    }

    async fn find(
        &self,
        request: Request<NetworkServiceQuery>,
    ) -> Result<Response<Self::FindStream>, Status> {
        self.answer("NetworkServiceRegistry/Find", async {
            let mut client = self.services();
            let stream = self
                .follow(request.into_inner(), |message| client.find(message))
                .await?;
            Ok(self.relay(stream))
        })
        .await
    }

    async fn unregister(&self, request: Request<NetworkService>) -> Result<Response<()>, Status> {
        self.answer("NetworkServiceRegistry/Unregister", async {
            require_operator(caller(&request)?, &request.get_ref().name).await?;
            let mut client = self.services();
            self.ask(request.into_inner(), |message| client.unregister(message))
                .await
        })
        .await
    }
}

impl Api {
    fn services(&self) -> NetworkServiceRegistryClient<Channel> {
        NetworkServiceRegistryClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

async fn require_operator(caller: Caller, name: &str) -> Result<(), CallError> {
    let value = name.to_owned();
    attest(caller, move |peer| {
        if peer.is_operator()? {
            Ok(())
        } else {
            Err(CallError::Forbidden {
                field: "name",
                value,
                rule: RULE_SERVICES,
            })
        }
    })
    .await
}
