//! NetworkServiceEndpoints.

use std::{collections::BTreeMap, time::SystemTime};

use prost_types::Timestamp;
use serde::Serialize;
use tieline_model::PLUMBING_LABEL;
use tieline_proto::{registry::NetworkServiceEndpoint, tieline::admin::v1::EndpointStatus};

use super::connection::KEPT;
use super::text::{self, join, labels, or_dash, remaining, sorted, time};
use crate::output::{Row, fields};

/// A NetworkServiceEndpoint, where it is, and how long it lives.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct EndpointView {
    pub(crate) name: String,
    pub(crate) network_service_names: Vec<String>,
    /// By service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) network_service_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// What is proven of it, or what the operator who declared it vouches for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) attested_labels: BTreeMap<String, String>,
    pub(crate) node: String,
    pub(crate) attachment: String,
    pub(crate) declared: bool,
    /// How it stands in a path; none: that follows from the rules that lead to it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) plumbing: String,
    /// It gets nothing new, and what it has is moved.
    pub(crate) draining: bool,
    pub(crate) connections: u32,
    /// Connections that left it and have flows there that were there before.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) connections_draining: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) initial_registration_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) expiration_time: String,
    #[serde(skip)]
    pub(crate) expires_in: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl EndpointView {
    /// The view at this moment.
    pub(crate) fn new(status: EndpointStatus, now: SystemTime) -> Self {
        let endpoint = status.endpoint.unwrap_or_default();
        let mut plumbing = String::new();
        let mut own = |map: std::collections::HashMap<String, String>| {
            let mut labels = sorted(map);
            plumbing = labels.remove(PLUMBING_LABEL).unwrap_or_default();
            labels
        };
        let labels = endpoint.network_service_labels.into_iter();
        let labels = labels
            .map(|(service, value)| (service, own(value.labels)))
            .collect();
        Self {
            name: endpoint.name,
            network_service_names: endpoint.network_service_names,
            network_service_labels: labels,
            plumbing,
            draining: status.draining,
            attested_labels: sorted(status.labels),
            node: status.node,
            attachment: status.attachment,
            declared: status.declared,
            connections: status.connections,
            connections_draining: status.connections_draining,
            initial_registration_time: time(endpoint.initial_registration_time),
            expiration_time: time(endpoint.expiration_time),
            expires_in: if status.declared {
                "-".to_owned()
            } else {
                lifetime(endpoint.expiration_time, now)
            },
        }
    }

    /// Labels that the endpoint has for any of its services, for a table.
    fn all_labels(&self) -> String {
        let merged = self.network_service_labels.values().flatten();
        labels(&merged.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        let labels = self
            .network_service_labels
            .iter()
            .map(|(service, map)| format!("{service}: {}", labels(map)))
            .collect::<Vec<_>>();
        fields(&[
            ("Name", self.name.clone()),
            ("Kind", "NetworkServiceEndpoint".to_owned()),
            ("Services", self.network_service_names.join("\n")),
            ("Labels", or_dash(&labels.join("\n"))),
            ("Attested labels", text::labels(&self.attested_labels)),
            ("Node", or_dash(&self.node)),
            ("Attachment", or_dash(&self.attachment)),
            (
                "Declared",
                if self.declared {
                    "by an operator: it does not expire"
                } else {
                    "no"
                }
                .to_owned(),
            ),
            (
                "Plumbing",
                Some(self.plumbing.clone())
                    .filter(|one| !one.is_empty())
                    .unwrap_or_else(|| "as the rules ask for".to_owned()),
            ),
            (
                "Draining",
                if self.draining {
                    "yes: it gets nothing new"
                } else {
                    "no"
                }
                .to_owned(),
            ),
            ("Registered", or_dash(&self.initial_registration_time)),
            ("Expires in", self.expires_in.clone()),
            ("Connections", self.connections.to_string()),
            ("Left with flows here", self.connections_draining.to_string()),
        ])
    }
}

impl Row for EndpointView {
    const HEADINGS: &'static [&'static str] = &[
        "NAME",
        "SERVICES",
        "NODE",
        "ATTACHMENT",
        "LABELS",
        "CONNECTIONS",
        "EXPIRES IN",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            join(&self.network_service_names),
            or_dash(&self.node),
            or_dash(&self.attachment),
            self.all_labels(),
            self.connections.to_string(),
            self.expires_in.clone(),
        ]
    }
}

/// How long a registration lives: one without an end lives as its node keeps it.
fn lifetime(end: Option<Timestamp>, now: SystemTime) -> String {
    end.map_or_else(|| KEPT.to_owned(), |end| remaining(Some(end), now))
}

/// What a registration was granted.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct RegistrationView {
    pub(crate) name: String,
    pub(crate) network_service_names: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) url: String,
    pub(crate) expiration_time: String,
    #[serde(skip)]
    pub(crate) expires_in: String,
}

impl RegistrationView {
    /// The view at this moment.
    pub(crate) fn new(endpoint: NetworkServiceEndpoint, now: SystemTime) -> Self {
        Self {
            name: endpoint.name,
            network_service_names: endpoint.network_service_names,
            url: endpoint.url,
            expiration_time: time(endpoint.expiration_time),
            expires_in: lifetime(endpoint.expiration_time, now),
        }
    }

    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        fields(&[
            ("Name", self.name.clone()),
            ("Services", self.network_service_names.join("\n")),
            ("Url", or_dash(&self.url)),
            ("Expires in", self.expires_in.clone()),
        ])
    }
}
