//! NetworkServiceWirings.

use serde::Serialize;
use tieline_proto::tieline::admin::v1::{NetworkServiceWiringStatus, TrafficSelector, WiringRoute};

use super::text::{join, or_dash};
use crate::output::{Row, fields};

/// A NetworkServiceWiring with how much it decides.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct WiringView {
    pub(crate) name: String,
    pub(crate) target: Vec<String>,
    pub(crate) priority: i32,
    pub(crate) source: SourceView,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) traffic: Vec<TrafficView>,
    pub(crate) route: Vec<WiringRouteView>,
    /// Connections that it decided about.
    pub(crate) connections: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}

/// Whose traffic it is about.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct SourceView {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) source_service: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) pod_selector: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) client_selector: String,
}

/// A part of the traffic.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct TrafficView {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) protocol: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) ports: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) prefix: String,
}

/// A destination.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct WiringRouteView {
    pub(crate) pod_selector: String,
    pub(crate) weight: u32,
}

impl From<NetworkServiceWiringStatus> for WiringView {
    fn from(status: NetworkServiceWiringStatus) -> Self {
        let wiring = status.wiring.unwrap_or_default();
        let source = wiring.source.unwrap_or_default();
        Self {
            name: wiring.name,
            target: wiring.target,
            priority: wiring.priority,
            source: SourceView {
                source_service: source.source_service,
                pod_selector: source.pod_selector,
                client_selector: source.client_selector,
            },
            traffic: wiring.traffic.into_iter().map(TrafficView::from).collect(),
            route: wiring.route.into_iter().map(WiringRouteView::from).collect(),
            connections: status.connections,
            warnings: status.warnings,
        }
    }
}

impl From<TrafficSelector> for TrafficView {
    fn from(traffic: TrafficSelector) -> Self {
        Self {
            protocol: traffic.protocol,
            ports: traffic.ports,
            prefix: traffic.prefix,
        }
    }
}

impl From<WiringRoute> for WiringRouteView {
    fn from(route: WiringRoute) -> Self {
        Self {
            pod_selector: route.pod_selector,
            weight: route.weight,
        }
    }
}

impl SourceView {
    fn text(&self) -> String {
        let part = |name: &str, text: &str| (!text.is_empty()).then(|| format!("{name}{text}"));
        let parts = [
            part("", &self.source_service),
            part("pod ", &self.pod_selector),
            part("client ", &self.client_selector),
        ];
        let text: Vec<String> = parts.into_iter().flatten().collect();
        if text.is_empty() {
            "everybody".to_owned()
        } else {
            text.join(" and ")
        }
    }
}

impl TrafficView {
    fn text(&self) -> String {
        let mut text = if self.protocol.is_empty() {
            "any"
        } else {
            &self.protocol
        }
        .to_owned();
        if !self.ports.is_empty() {
            text.push_str(&format!("/{}", self.ports));
        }
        if !self.prefix.is_empty() {
            text.push_str(&format!(" to {}", self.prefix));
        }
        text
    }
}

impl WiringRouteView {
    fn text(&self) -> String {
        let who = if self.pod_selector.is_empty() {
            "any endpoint"
        } else {
            &self.pod_selector
        };
        if self.weight > 0 {
            format!("{who} (weight {})", self.weight)
        } else {
            who.to_owned()
        }
    }
}

impl WiringView {
    fn routes(&self) -> Vec<String> {
        self.route.iter().map(WiringRouteView::text).collect()
    }

    fn parts(&self) -> Vec<String> {
        self.traffic.iter().map(TrafficView::text).collect()
    }

    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        let all = |parts: Vec<String>| {
            if parts.is_empty() {
                "all".to_owned()
            } else {
                parts.join("\n")
            }
        };
        fields(&[
            ("Name", self.name.clone()),
            ("Kind", "NetworkServiceWiring".to_owned()),
            ("Target", self.target.join("\n")),
            ("Priority", self.priority.to_string()),
            ("From", self.source.text()),
            ("Traffic", all(self.parts())),
            ("To", self.routes().join("\n")),
            ("Connections", self.connections.to_string()),
            ("Warnings", or_dash(&self.warnings.join("\n"))),
        ])
    }
}

impl Row for WiringView {
    const HEADINGS: &'static [&'static str] = &[
        "NAME",
        "TARGET",
        "PRIORITY",
        "FROM",
        "TRAFFIC",
        "TO",
        "CONNECTIONS",
        "WARNINGS",
    ];

    fn cells(&self) -> Vec<String> {
        let parts = self.parts();
        vec![
            self.name.clone(),
            join(&self.target),
            self.priority.to_string(),
            self.source.text(),
            if parts.is_empty() {
                "all".to_owned()
            } else {
                parts.join(", ")
            },
            self.routes().join(" or "),
            self.connections.to_string(),
            self.warnings.len().to_string(),
        ]
    }
}
