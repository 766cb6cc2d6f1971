//! The status of control and of this node, and what to do about it.

use std::time::SystemTime;

use serde::Serialize;
use tieline_proto::tieline::admin::v1::{DomainStatus, GetStatusResponse};

use super::{
    node::{NodeRow, NodeView},
    text::{or_dash, time},
};
use crate::output::fields;

/// Control's own state.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ControlView {
    pub(crate) version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) started: String,
    pub(crate) store: String,
    pub(crate) store_revision: u64,
    pub(crate) network_services: u32,
    pub(crate) endpoints: u32,
    pub(crate) connections: u32,
    pub(crate) nodes: Vec<NodeRow>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) domains: Vec<DomainRow>,
    #[serde(skip)]
    pub(crate) up_for: String,
}

impl ControlView {
    /// The view at this moment.
    pub(crate) fn new(status: GetStatusResponse, now: SystemTime) -> Self {
        let started = status.started.and_then(|at| SystemTime::try_from(at).ok());
        let age = started
            .and_then(|at| now.duration_since(at).ok())
            .map(|age| age.as_secs());
        Self {
            version: status.version,
            started: time(status.started),
            store: status.store,
            store_revision: status.store_revision,
            network_services: status.network_services,
            endpoints: status.endpoints,
            connections: status.connections,
            nodes: status.nodes.into_iter().map(NodeRow::from).collect(),
            domain: status.domain,
            domains: status.domains.into_iter().map(DomainRow::from).collect(),
            up_for: age.map_or_else(String::new, |age| {
                humantime::format_duration(std::time::Duration::from_secs(age)).to_string()
            }),
        }
    }
}

/// Another registry domain.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct DomainRow {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) address: String,
    pub(crate) reached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
    pub(crate) network_services: u32,
    pub(crate) endpoints: u32,
    pub(crate) connections: u32,
}

impl From<DomainStatus> for DomainRow {
    fn from(status: DomainStatus) -> Self {
        Self {
            name: status.name,
            address: status.address,
            reached: status.reached,
            error: status.error,
            network_services: status.network_services,
            endpoints: status.endpoints,
            connections: status.connections,
        }
    }
}

impl DomainRow {
    fn describe(&self) -> String {
        let Self {
            name,
            network_services,
            endpoints,
            connections,
            ..
        } = self;
        let reach = match (self.reached, self.address.is_empty()) {
            (true, _) => "reached",
            (false, false) => "away",
            (false, true) => return format!("{name}: may ask, and is not asked"),
        };
        format!(
            "{name}: {reach}, {network_services} services, {endpoints} endpoints, {connections} connections"
        )
    }
}

/// What `tieline status` shows: each half or the sentence why it is missing, and what to do.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct StatusView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control: Option<ControlView>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) control_error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<NodeView>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) node_error: String,
    pub(crate) advice: Vec<String>,
}

impl StatusView {
    /// Fills in the advice from what the halves say.
    pub(crate) fn advise(&mut self) {
        let mut advice = Vec::new();
        if let Some(node) = &self.node {
            if !node.control_connected {
                let error = if node.control_error.is_empty() {
                    "no session"
                } else {
                    &node.control_error
                };
                advice.push(format!(
                    "the agent has no session with control ({error}): existing wires go on, new requests are refused"
                ));
            }
            if node.planned_generation != node.applied_generation {
                advice.push(format!(
                    "the kernel has generation {}, the plan {}: `tieline get wires` shows what is broken",
                    node.applied_generation, node.planned_generation
                ));
            }
            for source in node
                .label_sources
                .iter()
                .filter(|source| !source.error.is_empty())
            {
                advice.push(format!(
                    "{} is bad ({}): the labels it gave before stay in force; where it gave none, calls are refused",
                    source.path, source.error
                ));
            }
            if node.max_wires > 0 && node.wires >= node.max_wires / 10 * 9 {
                advice.push(format!(
                    "{} of {} wires are in use: restart the agent with a larger --max-wires",
                    node.wires, node.max_wires
                ));
            }
        }
        for node in self
            .control
            .iter()
            .flat_map(|control| &control.nodes)
            .filter(|node| !node.connected)
        {
            advice.push(format!(
                "node {} is away: start its agent, or see its log",
                node.name
            ));
        }
        let domains = self.control.iter().flat_map(|control| &control.domains);
        for domain in domains.filter(|domain| !domain.reached && !domain.address.is_empty()) {
            let DomainRow {
                name, address, error, ..
            } = domain;
            advice.push(format!(
                "registry domain {name} is away ({error}): wires to it go on, new requests are refused; look at its control at {address}"
            ));
        }
        if self
            .control
            .as_ref()
            .is_some_and(|control| control.network_services == 0)
        {
            advice.push(
                "no NetworkService is declared: `tieline apply -f` one, or `tieline register`".to_owned(),
            );
        }
        self.advice = advice;
    }

    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        let control = self.control.as_ref().map_or_else(
            || format!("  {}\n", self.control_error),
            |control| indent(&control.describe()),
        );
        let node = self.node.as_ref().map_or_else(
            || format!("  {}\n", self.node_error),
            |node| indent(&node.describe()),
        );
        let mut text = format!("Control\n{control}\nNode\n{node}");
        if !self.advice.is_empty() {
            text.push_str("\nAdvice\n");
            for line in &self.advice {
                text.push_str(&format!("  - {line}\n"));
            }
        }
        text
    }
}

impl ControlView {
    fn describe(&self) -> String {
        let nodes = self
            .nodes
            .iter()
            .map(|node| {
                let NodeRow { name, wires, applied_generation, planned_generation, .. } = node;
                let session = node.session();
                format!("{name}: {session}, {wires} wires, generation {applied_generation} of {planned_generation}")
            })
            .collect::<Vec<_>>();
        let domains: Vec<String> = self.domains.iter().map(DomainRow::describe).collect();
        fields(&[
            ("Version", self.version.clone()),
            ("Up for", or_dash(&self.up_for)),
            (
                "Store",
                format!("{}, revision {}", self.store, self.store_revision),
            ),
            ("NetworkServices", self.network_services.to_string()),
            ("Endpoints", self.endpoints.to_string()),
            ("Connections", self.connections.to_string()),
            ("Nodes", or_dash(&nodes.join("\n"))),
            ("Domain", or_dash(&self.domain)),
            ("Domains", or_dash(&domains.join("\n"))),
        ])
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
