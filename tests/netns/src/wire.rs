//! Requests as a client writes them, and wires as it finds them.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use tieline_lab::NetNs;
use tieline_proto::{
    connection::{Connection, Mechanism, Path, PathSegment},
    networkservice::NetworkServiceRequest,
    registry,
    tieline::admin::v1::{NetworkService, WireStatus},
};

use crate::Api;

/// The URL that names a namespace.
#[must_use]
pub fn netns_url(netns: &NetNs) -> String {
    format!("file://{}", netns.path().display())
}

/// A service with this payload (`IP` or `ETHERNET`) and control's default prefixes.
#[must_use]
pub fn service(name: &str, payload: &str) -> NetworkService {
    let service = registry::NetworkService {
        name: name.to_owned(),
        payload: payload.to_owned(),
        ..Default::default()
    };
    NetworkService {
        service: Some(service),
        ..Default::default()
    }
}

/// A registration of an endpoint at `url` for one service, for an hour.
#[must_use]
pub fn endpoint(name: &str, service: &str, url: &str) -> registry::NetworkServiceEndpoint {
    registry::NetworkServiceEndpoint {
        name: name.to_owned(),
        network_service_names: vec![service.to_owned()],
        url: url.to_owned(),
        expiration_time: Some((SystemTime::now() + Duration::from_secs(3600)).into()),
        ..Default::default()
    }
}

/// A client's request for `service`, from the namespace at `url`.
#[must_use]
pub fn request(id: &str, service: &str, url: &str) -> NetworkServiceRequest {
    let mechanism = Mechanism {
        cls: "LOCAL".to_owned(),
        r#type: "KERNEL".to_owned(),
        parameters: HashMap::from([("inodeURL".to_owned(), url.to_owned())]),
    };
    let connection = Connection {
        id: id.to_owned(),
        network_service: service.to_owned(),
        ..Default::default()
    };
    NetworkServiceRequest {
        connection: Some(connection),
        mechanism_preferences: vec![mechanism],
    }
}

/// The request with this change of its connection.
#[must_use]
pub fn with(
    mut request: NetworkServiceRequest,
    change: impl FnOnce(&mut Connection),
) -> NetworkServiceRequest {
    change(request.connection.get_or_insert_default());
    request
}

/// The request with this interface name.
#[must_use]
pub fn with_interface(mut request: NetworkServiceRequest, name: &str) -> NetworkServiceRequest {
    for mechanism in &mut request.mechanism_preferences {
        mechanism.parameters.insert("name".to_owned(), name.to_owned());
    }
    request
}

/// The request for a lease of this length.
#[must_use]
pub fn with_lifetime(mut request: NetworkServiceRequest, lifetime: Duration) -> NetworkServiceRequest {
    if let Some(connection) = &mut request.connection {
        let segment = PathSegment {
            name: "client".to_owned(),
            id: connection.id.clone(),
            expires: Some((SystemTime::now() + lifetime).into()),
            ..Default::default()
        };
        connection.path = Some(Path {
            index: 0,
            path_segments: vec![segment],
        });
    }
    request
}

/// A wire that was set up.
#[derive(Clone, Debug)]
pub struct Wire {
    /// What the Request answered.
    pub connection: Connection,
    /// Its id.
    pub id: String,
    /// The interface in the client's namespace.
    pub client_interface: String,
    /// The interface in the endpoint's namespace; that of the node for an existing interface.
    pub endpoint_interface: String,
    /// The client's addresses, IPv4 first.
    pub client: Vec<IpAddr>,
    /// The endpoint's addresses, IPv4 first.
    pub endpoint: Vec<IpAddr>,
}

impl Wire {
    /// Requests a wire and finds its two ends.
    pub fn request(api: &Api, request: NetworkServiceRequest) -> Result<Self> {
        let connection = api.request(request)?;
        let status = Self::status(api, &connection.id)?;
        let branch = status.branches.first().context("a branch")?;
        let end = |end: &Option<_>| -> Result<String> {
            let end: &tieline_proto::tieline::admin::v1::EndStatus = end.as_ref().context("an end")?;
            let existing = end.workload_interface.is_empty();
            Ok(if existing {
                &end.host_interface
            } else {
                &end.workload_interface
            }
            .clone())
        };
        let context = connection
            .context
            .clone()
            .unwrap_or_default()
            .ip_context
            .unwrap_or_default();
        Ok(Self {
            id: connection.id.clone(),
            client_interface: end(&status.client)?,
            endpoint_interface: end(&branch.endpoint)?,
            client: addresses(&context.src_ip_addrs)?,
            endpoint: addresses(&context.dst_ip_addrs)?,
            connection,
        })
    }

    /// What the agent says of a wire.
    pub fn status(api: &Api, id: &str) -> Result<WireStatus> {
        let wires = api.wires()?;
        wires
            .into_iter()
            .find(|wire| wire.connection_id == id)
            .with_context(|| format!("the node has no wire {id}"))
    }
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for text in texts {
        addresses.push(
            text.parse::<IpNet>()
                .with_context(|| format!("address {text:?}"))?
                .addr(),
        );
    }
    addresses.sort();
    Ok(addresses)
}
