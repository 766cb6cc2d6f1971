//! `tieline.admin.v1`: objects, and how they are shown.

use tieline_proto::tieline::admin::v1 as proto;

use super::{
    labels_from, labels_to, prefixes_from,
    registry::{attachment_from, services_from},
    required, timestamp_to_proto, to_texts,
};
use crate::{
    Connection, ConnectionState, EndpointName, Invalid, Mtu, NetworkService, NetworkServiceEndpoint,
    NodeName, Object, Policy, limits::MAX_PREFIXES,
};

impl TryFrom<proto::Object> for Object {
    type Error = Invalid;

    fn try_from(message: proto::Object) -> Result<Self, Invalid> {
        match required("object", message.object)? {
            proto::object::Object::NetworkService(service) => {
                let service = NetworkService::try_from(service).map_err(|e| e.within("network_service"))?;
                Ok(Self::NetworkService(service))
            }
            proto::object::Object::Endpoint(endpoint) => {
                let endpoint =
                    NetworkServiceEndpoint::try_from(endpoint).map_err(|e| e.within("endpoint"))?;
                Ok(Self::NetworkServiceEndpoint(endpoint))
            }
        }
    }
}

impl From<&Object> for proto::Object {
    fn from(object: &Object) -> Self {
        let object = match object {
            Object::NetworkService(service) => proto::object::Object::NetworkService(service.into()),
            Object::NetworkServiceEndpoint(endpoint) => proto::object::Object::Endpoint(endpoint.into()),
        };
        Self { object: Some(object) }
    }
}

impl TryFrom<proto::NetworkService> for NetworkService {
    type Error = Invalid;

    fn try_from(message: proto::NetworkService) -> Result<Self, Invalid> {
        let policy = match message.policy() {
            proto::SelectionPolicy::Unspecified | proto::SelectionPolicy::RoundRobin => Policy::RoundRobin,
        };
        if proto::SelectionPolicy::try_from(message.policy).is_err() {
            let rule = "a policy is SELECTION_POLICY_ROUND_ROBIN";
            return Err(Invalid::new("policy", message.policy.to_string(), rule));
        }
        let prefixes = prefixes_from("prefixes", &message.prefixes, MAX_PREFIXES)?;
        let excluded = prefixes_from("excluded_prefixes", &message.excluded_prefixes, MAX_PREFIXES)?;
        Self::try_from(required("service", message.service)?)
            .map_err(|e| e.within("service"))?
            .with_selector(labels_from("selector", message.selector)?)
            .with_policy(policy)
            .with_mtu(Mtu::parse_optional("mtu", message.mtu)?)
            .with_prefixes(prefixes, excluded)
    }
}

impl From<&NetworkService> for proto::NetworkService {
    fn from(service: &NetworkService) -> Self {
        let policy = match service.policy() {
            Policy::RoundRobin => proto::SelectionPolicy::RoundRobin,
        };
        Self {
            service: Some(service.into()),
            selector: labels_to(service.selector()),
            policy: policy.into(),
            prefixes: to_texts(service.prefixes()),
            excluded_prefixes: to_texts(service.excluded_prefixes()),
            mtu: service.mtu().map(Mtu::octets).unwrap_or_default(),
        }
    }
}

impl TryFrom<proto::NetworkServiceEndpoint> for NetworkServiceEndpoint {
    type Error = Invalid;

    fn try_from(message: proto::NetworkServiceEndpoint) -> Result<Self, Invalid> {
        let node = NodeName::parse("node", &message.node)?;
        let mut endpoint = required("endpoint", message.endpoint)?;
        let name = EndpointName::parse("endpoint.name", &endpoint.name)?;
        if endpoint.expiration_time.is_some() {
            let rule = "a declared endpoint does not expire: leave it out";
            return Err(Invalid::new("endpoint.expiration_time", "", rule));
        }
        let attachment = attachment_from("endpoint.url", &endpoint.url)?;
        let services = services_from(&mut endpoint).map_err(|e| e.within("endpoint"))?;
        Self::declared(name, services, node, attachment).map_err(|e| e.within("endpoint"))
    }
}

/// Meant for what an operator declares: lease and owner are not in the message.
impl From<&NetworkServiceEndpoint> for proto::NetworkServiceEndpoint {
    fn from(endpoint: &NetworkServiceEndpoint) -> Self {
        let mut inner = tieline_proto::registry::NetworkServiceEndpoint::from(endpoint);
        inner.expiration_time = None;
        inner.initial_registration_time = None;
        Self {
            endpoint: Some(inner),
            node: endpoint.node().to_string(),
        }
    }
}

/// An endpoint as operators see it, with how many connections end there.
#[must_use]
pub fn endpoint_status(endpoint: &NetworkServiceEndpoint, connections: u32) -> proto::EndpointStatus {
    proto::EndpointStatus {
        endpoint: Some(endpoint.into()),
        node: endpoint.node().to_string(),
        attachment: endpoint.attachment().to_string(),
        connections,
        declared: endpoint.is_declared(),
    }
}

/// A connection as operators see it.
impl From<&Connection> for proto::ConnectionStatus {
    fn from(connection: &Connection) -> Self {
        Self {
            connection: Some(connection.into()),
            node: connection.client.node.to_string(),
            client_netns: connection.client.netns.path().to_owned(),
            client_interface: connection.client.interface.to_string(),
            endpoint_attachment: connection.server.attachment.to_string(),
            endpoint_interface: connection.server.interface.to_string(),
            expires: Some(timestamp_to_proto(connection.expires)),
            generation: connection.generation,
            reason: match &connection.state {
                ConnectionState::Up => String::new(),
                ConnectionState::Pending => "being set up".to_owned(),
                ConnectionState::Down { reason } => reason.clone(),
            },
        }
    }
}
