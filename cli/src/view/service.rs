//! NetworkServices.

use std::collections::BTreeMap;

use serde::Serialize;
use tieline_proto::{
    connectioncontext::DnsConfig,
    registry,
    tieline::admin::v1::{NetworkServiceStatus, OrderedSelector, Rebalance, SelectionPolicy},
};

use super::text::{join, labels, or_dash, path, sorted};
use crate::output::{Row, fields};

/// A NetworkService with how much it is used.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ServiceView {
    pub(crate) name: String,
    pub(crate) payload: String,
    pub(crate) policy: &'static str,
    pub(crate) rebalance: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) selector: BTreeMap<String, String>,
    /// Functions that its clients' packets pass, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ordered_selector: Option<OrderView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) matches: Vec<MatchView>,
    pub(crate) prefixes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) excluded_prefixes: Vec<String>,
    /// Octets; 0: the default.
    pub(crate) mtu: u32,
    /// What its clients reach through their wires, beside the endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) dns: Vec<DnsView>,
    pub(crate) endpoints: u32,
    pub(crate) connections: u32,
}

/// A label whose values stand in order.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct OrderView {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
}

/// NSM's `DNSConfig`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct DnsView {
    pub(crate) dns_server_ips: Vec<String>,
    pub(crate) search_domains: Vec<String>,
}

/// NSM's `Match`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct MatchView {
    pub(crate) source_selector: BTreeMap<String, String>,
    pub(crate) routes: Vec<RouteView>,
    pub(crate) fallthrough: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
}

/// NSM's `Destination`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct RouteView {
    pub(crate) destination_selector: BTreeMap<String, String>,
    pub(crate) weight: u32,
}

impl From<NetworkServiceStatus> for ServiceView {
    fn from(status: NetworkServiceStatus) -> Self {
        let service = status.service.unwrap_or_default();
        let policy = match service.policy() {
            SelectionPolicy::Unspecified | SelectionPolicy::RoundRobin => "round-robin",
            SelectionPolicy::LeastLoaded => "least-loaded",
            SelectionPolicy::SameNodeFirst => "same-node-first",
        };
        let rebalance = match service.rebalance() {
            Rebalance::Unspecified | Rebalance::Keep => "keep",
            Rebalance::Rebalance => "rebalance",
        };
        let order = |list: OrderedSelector| OrderView {
            key: list.key,
            values: list.values,
        };
        let dns = |one: DnsConfig| DnsView {
            dns_server_ips: one.dns_server_ips,
            search_domains: one.search_domains,
        };
        let inner = service.service.unwrap_or_default();
        Self {
            rebalance,
            ordered_selector: service.ordered_selector.map(order),
            routes: service.routes,
            dns: service.dns.into_iter().map(dns).collect(),
            name: inner.name,
            payload: if inner.payload.is_empty() {
                "IP".to_owned()
            } else {
                inner.payload
            },
            policy,
            selector: sorted(service.selector),
            matches: inner.matches.into_iter().map(MatchView::from).collect(),
            prefixes: service.prefixes,
            excluded_prefixes: service.excluded_prefixes,
            mtu: service.mtu,
            endpoints: status.endpoints,
            connections: status.connections,
        }
    }
}

impl From<registry::Match> for MatchView {
    fn from(rule: registry::Match) -> Self {
        Self {
            source_selector: sorted(rule.source_selector),
            routes: rule.routes.into_iter().map(RouteView::from).collect(),
            fallthrough: rule.fallthrough,
            metadata: sorted(rule.metadata.unwrap_or_default().labels),
        }
    }
}

impl From<registry::Destination> for RouteView {
    fn from(destination: registry::Destination) -> Self {
        Self {
            destination_selector: sorted(destination.destination_selector),
            weight: destination.weight,
        }
    }
}

impl Row for ServiceView {
    const HEADINGS: &'static [&'static str] = &[
        "NAME",
        "PAYLOAD",
        "POLICY",
        "PREFIXES",
        "ENDPOINTS",
        "CONNECTIONS",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.payload.clone(),
            self.policy.to_owned(),
            if self.prefixes.is_empty() {
                "default".to_owned()
            } else {
                join(&self.prefixes)
            },
            self.endpoints.to_string(),
            self.connections.to_string(),
        ]
    }
}

impl ServiceView {
    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        let prefixes = if self.prefixes.is_empty() {
            "control's default".to_owned()
        } else {
            self.prefixes.join("\n")
        };
        fields(&[
            ("Name", self.name.clone()),
            ("Kind", "NetworkService".to_owned()),
            ("Payload", self.payload.clone()),
            ("Policy", self.policy.to_owned()),
            ("Selector", self.selected()),
            ("Rebalance", self.rebalance.to_owned()),
            (
                "Matches",
                or_dash(
                    &self
                        .matches
                        .iter()
                        .map(MatchView::line)
                        .collect::<Vec<_>>()
                        .join("\n"),
                ),
            ),
            ("Prefixes", prefixes),
            ("Excluded", or_dash(&self.excluded_prefixes.join("\n"))),
            (
                "MTU",
                if self.mtu == 0 {
                    "default".to_owned()
                } else {
                    self.mtu.to_string()
                },
            ),
            ("Routes", or_dash(&self.routes.join("\n"))),
            ("DNS", or_dash(&self.name_servers().join("\n"))),
            ("Endpoints", self.endpoints.to_string()),
            ("Connections", self.connections.to_string()),
        ])
    }

    fn selected(&self) -> String {
        match &self.ordered_selector {
            None => labels(&self.selector),
            Some(order) => {
                let list = format!("{}: {}", order.key, path(order.values.iter().map(String::as_str)));
                if self.selector.is_empty() {
                    list
                } else {
                    format!("{list}, each {}", labels(&self.selector))
                }
            }
        }
    }

    fn name_servers(&self) -> Vec<String> {
        let one = |dns: &DnsView| {
            let about = if dns.search_domains.is_empty() {
                String::new()
            } else {
                format!(" for {}", dns.search_domains.join(", "))
            };
            dns.dns_server_ips.join(", ") + &about
        };
        self.dns.iter().map(one).collect()
    }
}

impl MatchView {
    fn line(&self) -> String {
        let routes = self
            .routes
            .iter()
            .map(|route| {
                let weight = if route.weight > 1 {
                    format!(" (weight {})", route.weight)
                } else {
                    String::new()
                };
                labels(&route.destination_selector) + &weight
            })
            .collect::<Vec<_>>();
        let next = if self.fallthrough {
            ", else the next match"
        } else {
            ""
        };
        let to = if routes.is_empty() {
            "any endpoint".to_owned()
        } else {
            routes.join(" or ")
        };
        format!("from {} to {to}{next}", labels(&self.source_selector))
    }
}
