//! Which services are served, with which limits.

use tieline_proto::connection::monitor_connection_server::MonitorConnectionServer;
use tieline_proto::registry::network_service_endpoint_registry_server::NetworkServiceEndpointRegistryServer;
use tieline_proto::registry::network_service_registry_server::NetworkServiceRegistryServer;
use tieline_proto::tieline::admin::v1::admin_service_server::AdminServiceServer;
use tieline_proto::tieline::agent::v1::agent_service_server::AgentServiceServer;
use tieline_proto::tieline::domain::v1::domain_service_server::DomainServiceServer;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::server::HealthReporter;

use super::{Api, MAX_ADMIN_MESSAGE_BYTES, MAX_MESSAGE_BYTES, MAX_SESSION_MESSAGE_BYTES};
use crate::error::ControlError;

type Agents = AgentServiceServer<Api>;
type Operators = AdminServiceServer<Api>;
type Peers = DomainServiceServer<Api>;
type Monitor = MonitorConnectionServer<Api>;
type Services = NetworkServiceRegistryServer<Api>;
type Endpoints = NetworkServiceEndpointRegistryServer<Api>;

/// All services, with health and reflection. NSM's `NetworkService` is not among them: only a node's agent knows who asks.
pub(crate) async fn routes(api: &Api) -> Result<(HealthReporter, Routes), ControlError> {
    let agents = Agents::new(api.clone())
        .max_decoding_message_size(MAX_SESSION_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_SESSION_MESSAGE_BYTES);
    let operators = Operators::new(api.clone())
        .max_decoding_message_size(MAX_ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_SESSION_MESSAGE_BYTES);
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<Agents>().await;
    health.set_serving::<Operators>().await;
    health.set_serving::<Peers>().await;
    health.set_serving::<Monitor>().await;
    health.set_serving::<Services>().await;
    health.set_serving::<Endpoints>().await;
    let damaged = |error: tonic_reflection::server::Error| ControlError::Reflection(error.to_string());
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(agents)
        .add_service(operators)
        .add_service(Peers::new(api.clone()).max_decoding_message_size(MAX_SESSION_MESSAGE_BYTES))
        .add_service(Monitor::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(Services::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(Endpoints::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(health_server)
        .add_service(reflection().build_v1().map_err(damaged)?)
        .add_service(reflection().build_v1alpha().map_err(damaged)?);
    Ok((health, routes.routes()))
}

/// The description holds every package; only what is served here is announced.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tieline_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(Agents::NAME)
        .with_service_name(Operators::NAME)
        .with_service_name(Peers::NAME)
        .with_service_name(Monitor::NAME)
        .with_service_name(Services::NAME)
        .with_service_name(Endpoints::NAME)
        .with_service_name("grpc.health.v1.Health")
}
