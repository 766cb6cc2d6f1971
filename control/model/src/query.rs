//! Which objects a Find or Monitor is about, with NSM's meaning.

use std::collections::BTreeMap;

use crate::{Connection, Labels, NetworkService, NetworkServiceEndpoint, Payload};

/// Which services of one registry domain a Find is about. What is `None` or empty matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceQuery {
    /// Equal name.
    pub name: Option<String>,
    /// Equal payload.
    pub payload: Option<Payload>,
}

impl ServiceQuery {
    /// Whether `service` is among them.
    #[must_use]
    pub fn matches(&self, service: &NetworkService) -> bool {
        self.domain() == service.name().domain()
            && self
                .name
                .as_deref()
                .is_none_or(|name| name == service.name().as_str())
            && self.payload.is_none_or(|payload| payload == service.payload())
    }
}

/// Which endpoints of one registry domain a Find is about. What is `None` or empty matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointQuery {
    /// Equal name.
    pub name: Option<String>,
    /// All of these services are offered.
    pub services: Vec<String>,
    /// The endpoint has these labels for these services.
    pub labels: BTreeMap<String, Labels>,
    /// A part of its url.
    pub url: String,
}

impl EndpointQuery {
    /// Whether `endpoint` is among them.
    #[must_use]
    pub fn matches(&self, endpoint: &NetworkServiceEndpoint) -> bool {
        let offers = |name: &String| endpoint.services().contains_key(name.as_str());
        let labelled = |(service, labels): (&String, &Labels)| {
            endpoint
                .services()
                .get(service.as_str())
                .is_some_and(|has| has.contains(labels))
        };
        self.domain() == endpoint.name().domain()
            && self
                .name
                .as_deref()
                .is_none_or(|name| name == endpoint.name().as_str())
            && self.services.iter().all(offers)
            && self.labels.iter().all(labelled)
            && crate::convert::endpoint_url(endpoint.attachment()).contains(&self.url)
    }
}

/// A hop of a path, empty texts matching any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentPattern {
    /// Equal name.
    pub name: String,
    /// Equal id.
    pub id: String,
    /// Equal token. Tieline's hops carry none.
    pub token: String,
}

/// Which connections a Monitor is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MonitorScope {
    /// A sub-array of the path; empty: any path.
    pub segments: Vec<SegmentPattern>,
    /// One of these services; empty: any.
    pub services: Vec<String>,
}

impl MonitorScope {
    /// Whether `connection` is among them.
    #[must_use]
    pub fn matches(&self, connection: &Connection) -> bool {
        let any_or = |pattern: &str, value: &str| pattern.is_empty() || pattern == value;
        let service = connection.service.as_str();
        if !self.services.is_empty() && !self.services.iter().any(|name| name == service) {
            return false;
        }
        if self.segments.is_empty() {
            return true;
        }
        connection.path.segments.windows(self.segments.len()).any(|hops| {
            hops.iter().zip(&self.segments).all(|(hop, pattern)| {
                any_or(&pattern.name, &hop.name) && any_or(&pattern.id, &hop.id) && pattern.token.is_empty()
            })
        })
    }
}
