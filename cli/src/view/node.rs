//! Nodes, as control knows them and as their agent does.

use serde::Serialize;
use tieline_proto::tieline::admin::v1::{GetNodeResponse, LabelSource, NodeStatus, ReasonCount};

use super::text::{or_dash, time};
use crate::output::{Row, fields};

/// A node as control knows it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct NodeRow {
    pub(crate) name: String,
    pub(crate) connected: bool,
    pub(crate) planned_generation: u64,
    pub(crate) applied_generation: u64,
    pub(crate) version: String,
    pub(crate) attach_backend: String,
    pub(crate) wires: u32,
    pub(crate) max_wires: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) last_seen: String,
}

impl From<NodeStatus> for NodeRow {
    fn from(node: NodeStatus) -> Self {
        Self {
            name: node.name,
            connected: node.connected,
            planned_generation: node.planned_generation,
            applied_generation: node.applied_generation,
            version: node.version,
            attach_backend: node.attach_backend,
            wires: node.wires,
            max_wires: node.max_wires,
            last_seen: time(node.last_seen),
        }
    }
}

impl NodeRow {
    pub(super) const fn session(&self) -> &'static str {
        if self.connected { "connected" } else { "away" }
    }

    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        fields(&[
            ("Name", self.name.clone()),
            ("Kind", "Node".to_owned()),
            ("Session", self.session().to_owned()),
            ("Planned", self.planned_generation.to_string()),
            ("Applied", self.applied_generation.to_string()),
            ("Wires", format!("{} of {}", self.wires, self.max_wires)),
            ("Back end", or_dash(&self.attach_backend)),
            ("Version", or_dash(&self.version)),
            ("Last seen", or_dash(&self.last_seen)),
        ])
    }
}

impl Row for NodeRow {
    const HEADINGS: &'static [&'static str] = &[
        "NAME", "SESSION", "PLANNED", "APPLIED", "WIRES", "BACK END", "VERSION",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.session().to_owned(),
            self.planned_generation.to_string(),
            self.applied_generation.to_string(),
            format!("{}/{}", self.wires, self.max_wires),
            or_dash(&self.attach_backend),
            or_dash(&self.version),
        ]
    }
}

/// This node as its agent knows it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct NodeView {
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) abi_version: u32,
    pub(crate) attach_backend: String,
    pub(crate) kernel_release: String,
    pub(crate) control_connected: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) control_error: String,
    pub(crate) planned_generation: u64,
    pub(crate) applied_generation: u64,
    pub(crate) wires: u32,
    pub(crate) max_wires: u32,
    pub(crate) reasons: Vec<ReasonView>,
    pub(crate) pin_path: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) label_sources: Vec<LabelSourceView>,
}

/// Where labels come from that the agent can prove.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LabelSourceView {
    pub(crate) path: String,
    pub(crate) entries: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
}

impl From<LabelSource> for LabelSourceView {
    fn from(source: LabelSource) -> Self {
        Self {
            path: source.path,
            entries: source.entries,
            error: source.error,
        }
    }
}

impl LabelSourceView {
    fn line(&self) -> String {
        let state = if self.error.is_empty() { "in force" } else { "bad" };
        format!("{}: {} described, {state}", self.path, self.entries)
    }
}

/// Frames that ended for one reason.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ReasonView {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) packets: u64,
}

impl From<ReasonCount> for ReasonView {
    fn from(reason: ReasonCount) -> Self {
        Self {
            number: reason.number,
            name: reason.name,
            packets: reason.packets,
        }
    }
}

impl From<GetNodeResponse> for NodeView {
    fn from(node: GetNodeResponse) -> Self {
        Self {
            node: node.node,
            version: node.version,
            abi_version: node.abi_version,
            attach_backend: node.attach_backend,
            kernel_release: node.kernel_release,
            control_connected: node.control_connected,
            control_error: node.control_error,
            planned_generation: node.planned_generation,
            applied_generation: node.applied_generation,
            wires: node.wires,
            max_wires: node.max_wires,
            reasons: node.reasons.into_iter().map(ReasonView::from).collect(),
            pin_path: node.pin_path,
            label_sources: node
                .label_sources
                .into_iter()
                .map(LabelSourceView::from)
                .collect(),
        }
    }
}

impl NodeView {
    /// Everything, for people.
    pub(super) fn describe(&self) -> String {
        let reasons = self
            .reasons
            .iter()
            .filter(|reason| reason.packets > 0)
            .map(|reason| format!("{}: {} frames", reason.name, reason.packets))
            .collect::<Vec<_>>();
        let sources = self.label_sources.iter().map(LabelSourceView::line);
        fields(&[
            ("Name", self.node.clone()),
            (
                "Version",
                format!("{}, map ABI {}", self.version, self.abi_version),
            ),
            (
                "Kernel",
                format!("{}, attached by {}", self.kernel_release, self.attach_backend),
            ),
            (
                "Session",
                if self.control_connected {
                    "connected to control"
                } else {
                    "none"
                }
                .to_owned(),
            ),
            (
                "Generation",
                format!("{} of {}", self.applied_generation, self.planned_generation),
            ),
            ("Wires", format!("{} of {}", self.wires, self.max_wires)),
            ("Reasons", or_dash(&reasons.join("\n"))),
            ("Labels from", or_dash(&sources.collect::<Vec<_>>().join("\n"))),
            ("Pins", self.pin_path.clone()),
        ])
    }
}
