//! NSM's `registry` package.

use std::collections::{BTreeMap, HashMap};

use tieline_proto::registry as proto;

use super::{labels_from, labels_to, match_selector_from, timestamp_from_proto, timestamp_to_proto};
use crate::{
    Attachment, Destination, EndpointName, EndpointQuery, EndpointRegistration, IfName, Invalid, Labels,
    Match, NetnsRef, NetworkService, NetworkServiceEndpoint, PLUMBING_LABEL, Payload, Plumbing, ServiceName,
    ServiceQuery,
    limits::{MAX_DESTINATIONS, MAX_ENDPOINT_SERVICES, MAX_MATCHES},
    service::check_count,
};

impl TryFrom<proto::NetworkService> for NetworkService {
    type Error = Invalid;

    fn try_from(message: proto::NetworkService) -> Result<Self, Invalid> {
        let name = ServiceName::parse("name", &message.name)?;
        let payload = Payload::parse("payload", &message.payload)?;
        check_count("matches", message.matches.len(), MAX_MATCHES)?;
        let matches: Result<_, _> = message
            .matches
            .into_iter()
            .enumerate()
            .map(|(i, rule)| match_from(rule).map_err(|e| e.within(&format!("matches[{i}]"))))
            .collect();
        Self::new(name).with_payload(payload).with_matches(matches?)
    }
}

fn match_from(message: proto::Match) -> Result<Match, Invalid> {
    check_count("routes", message.routes.len(), MAX_DESTINATIONS)?;
    let route = |(i, route): (usize, proto::Destination)| {
        let field = format!("routes[{i}].destination_selector");
        let destination_selector = match_selector_from(&field, route.destination_selector)?;
        Ok(Destination {
            destination_selector,
            weight: route.weight,
        })
    };
    let metadata = message
        .metadata
        .map(|metadata| labels_from("metadata.labels", metadata.labels));
    Ok(Match {
        source_selector: match_selector_from("source_selector", message.source_selector)?,
        routes: message
            .routes
            .into_iter()
            .enumerate()
            .map(route)
            .collect::<Result<_, Invalid>>()?,
        fallthrough: message.fallthrough,
        metadata: metadata.transpose()?,
    })
}

impl From<&NetworkService> for proto::NetworkService {
    fn from(service: &NetworkService) -> Self {
        Self {
            name: service.name().to_string(),
            payload: service.payload().to_string(),
            matches: service.matches().iter().map(match_to).collect(),
            path_ids: Vec::new(),
        }
    }
}

fn match_to(rule: &Match) -> proto::Match {
    let route = |route: &Destination| proto::Destination {
        destination_selector: BTreeMap::from(route.destination_selector.clone())
            .into_iter()
            .collect(),
        weight: route.weight,
    };
    proto::Match {
        source_selector: BTreeMap::from(rule.source_selector.clone()).into_iter().collect(),
        routes: rule.routes.iter().map(route).collect(),
        fallthrough: rule.fallthrough,
        metadata: rule.metadata.as_ref().map(|labels| proto::Metadata {
            labels: labels_to(labels),
        }),
    }
}

/// What an endpoint message offers, with the labels for each service, and how it says it is plumbed.
pub(super) fn services_from(
    message: &mut proto::NetworkServiceEndpoint,
) -> Result<(BTreeMap<ServiceName, Labels>, Option<Plumbing>), Invalid> {
    check_count(
        "network_service_names",
        message.network_service_names.len(),
        MAX_ENDPOINT_SERVICES,
    )?;
    check_count(
        "network_service_labels",
        message.network_service_labels.len(),
        MAX_ENDPOINT_SERVICES,
    )?;
    let mut labels: BTreeMap<_, _> = std::mem::take(&mut message.network_service_labels)
        .into_iter()
        .collect();
    let (mut services, mut plumbing) = (BTreeMap::new(), None);
    for (i, name) in message.network_service_names.iter().enumerate() {
        let field = format!("network_service_names[{i}]");
        let service = ServiceName::parse(&field, name)?;
        let field = format!("network_service_labels[{name}].labels");
        let mut own = labels.remove(name).unwrap_or_default().labels;
        if let Some(text) = own.remove(PLUMBING_LABEL) {
            let field = format!("{field}[{PLUMBING_LABEL}]");
            let said = Plumbing::parse(&field, &text)?;
            if let Some(other) = plumbing.replace(said).filter(|other| *other != said) {
                let rule = format!("another service says {other}: an endpoint is plumbed in one way");
                return Err(Invalid::new(field, text, rule));
            }
        }
        services.insert(service, labels_from(&field, own)?);
    }
    match labels.keys().next() {
        Some(name) => {
            let rule = "labels for a service that is not in network_service_names: add it there";
            Err(Invalid::new("network_service_labels", name, rule))
        }
        None => Ok((services, plumbing)),
    }
}

/// The url of an attachment: `file://PATH` of a namespace or `interface:///NAME`.
#[must_use]
pub fn endpoint_url(attachment: &Attachment) -> String {
    match attachment {
        Attachment::Netns(netns) => format!("file://{}", netns.path()),
        Attachment::Interface(name) => format!("interface:///{name}"),
    }
}

/// Reads an attachment's url. The namespace's identity is not in it.
pub(super) fn attachment_from(field: &str, url: &str) -> Result<Attachment, Invalid> {
    if let Some(path) = url.strip_prefix("file://") {
        return Ok(Attachment::Netns(NetnsRef::parse(field, path, None)?));
    }
    if let Some(name) = url.strip_prefix("interface:///") {
        return Ok(Attachment::Interface(IfName::parse(field, name)?));
    }
    let rule = "an endpoint is at file:///run/netns/NAME, file:///proc/PID/ns/net or interface:///NAME";
    Err(Invalid::new(field, url, rule))
}

/// A registration. Its attachment is left to the agent's word: the url is not read here.
impl TryFrom<proto::NetworkServiceEndpoint> for EndpointRegistration {
    type Error = Invalid;

    fn try_from(mut message: proto::NetworkServiceEndpoint) -> Result<Self, Invalid> {
        let name = EndpointName::parse("name", &message.name)?;
        let (services, plumbing) = services_from(&mut message)?;
        let mut registration = Self::new(name, services)?;
        registration.plumbing = plumbing;
        registration.expires = message
            .expiration_time
            .map(|at| timestamp_from_proto("expiration_time", at))
            .transpose()?;
        Ok(registration)
    }
}

impl From<&NetworkServiceEndpoint> for proto::NetworkServiceEndpoint {
    fn from(endpoint: &NetworkServiceEndpoint) -> Self {
        let plumbing = endpoint
            .plumbing()
            .map(|one| (PLUMBING_LABEL.to_owned(), one.to_string()));
        let labelled = |(name, labels): (&ServiceName, &Labels)| {
            let mut labels = labels_to(labels);
            labels.extend(plumbing.clone());
            (name.to_string(), proto::NetworkServiceLabels { labels })
        };
        Self {
            name: endpoint.name().to_string(),
            network_service_names: endpoint.services().keys().map(ToString::to_string).collect(),
            network_service_labels: endpoint.services().iter().map(labelled).collect(),
            url: endpoint_url(endpoint.attachment()),
            expiration_time: endpoint.expires().map(timestamp_to_proto),
            initial_registration_time: Some(timestamp_to_proto(endpoint.registered_at())),
            path_ids: Vec::new(),
        }
    }
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl TryFrom<proto::NetworkServiceQuery> for ServiceQuery {
    type Error = Invalid;

    fn try_from(message: proto::NetworkServiceQuery) -> Result<Self, Invalid> {
        let service = message.network_service.unwrap_or_default();
        let payload = non_empty(service.payload).map(|text| Payload::parse("network_service.payload", &text));
        Ok(Self {
            name: non_empty(service.name),
            payload: payload.transpose()?,
        })
    }
}

impl TryFrom<proto::NetworkServiceEndpointQuery> for EndpointQuery {
    type Error = Invalid;

    fn try_from(message: proto::NetworkServiceEndpointQuery) -> Result<Self, Invalid> {
        let endpoint = message.network_service_endpoint.unwrap_or_default();
        let field = "network_service_endpoint.network_service_labels";
        check_count(
            field,
            endpoint.network_service_labels.len(),
            MAX_ENDPOINT_SERVICES,
        )?;
        let labels = |map: HashMap<String, proto::NetworkServiceLabels>| {
            map.into_iter()
                .map(|(name, own)| Ok((name, labels_from(field, own.labels)?)))
                .collect::<Result<_, Invalid>>()
        };
        Ok(Self {
            name: non_empty(endpoint.name),
            services: endpoint.network_service_names,
            labels: labels(endpoint.network_service_labels)?,
            url: endpoint.url,
        })
    }
}
