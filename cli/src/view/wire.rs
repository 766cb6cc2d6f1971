//! Wires: what the kernel of this node forwards.

use serde::Serialize;
use tieline_proto::tieline::admin::v1::{EndStatus, WireStatus};

use super::text::or_dash;
use crate::output::{Row, fields};

/// A wire with its counters, read from the kernel.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct WireView {
    pub(crate) connection_id: String,
    pub(crate) network_service: String,
    pub(crate) endpoint_name: String,
    pub(crate) forwarding: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
    pub(crate) mtu: u32,
    pub(crate) client: EndView,
    pub(crate) endpoint: EndView,
}

/// One end: what entered the wire there.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct EndView {
    pub(crate) host_interface: String,
    pub(crate) ifindex: u32,
    pub(crate) workload_interface: String,
    pub(crate) netns: String,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl From<WireStatus> for WireView {
    fn from(wire: WireStatus) -> Self {
        Self {
            connection_id: wire.connection_id,
            network_service: wire.network_service,
            endpoint_name: wire.endpoint_name,
            forwarding: wire.forwarding,
            error: wire.error,
            mtu: wire.mtu,
            client: wire.client.unwrap_or_default().into(),
            endpoint: wire.endpoint.unwrap_or_default().into(),
        }
    }
}

impl From<EndStatus> for EndView {
    fn from(end: EndStatus) -> Self {
        Self {
            host_interface: end.host_interface,
            ifindex: end.ifindex,
            workload_interface: end.workload_interface,
            netns: end.netns,
            packets: end.packets,
            bytes: end.bytes,
        }
    }
}

impl EndView {
    /// `netns/interface` where the workload sees it.
    fn place(&self) -> String {
        if self.workload_interface.is_empty() {
            return or_dash(&self.host_interface);
        }
        let netns = self.netns.rsplit("/netns/").next().unwrap_or_default();
        format!("{netns}:{}", self.workload_interface)
    }

    fn describe(&self) -> String {
        let Self {
            host_interface,
            ifindex,
            packets,
            bytes,
            ..
        } = self;
        format!(
            "{} (host end {host_interface}, ifindex {ifindex})\n{packets} frames, {bytes} octets in",
            self.place()
        )
    }
}

impl WireView {
    const fn state(&self) -> &'static str {
        if self.forwarding { "forwarding" } else { "broken" }
    }

    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        let mut pairs = vec![
            ("Connection", self.connection_id.clone()),
            ("NetworkService", self.network_service.clone()),
            ("Endpoint", self.endpoint_name.clone()),
            ("State", self.state().to_owned()),
        ];
        if !self.error.is_empty() {
            pairs.push(("Error", self.error.clone()));
        }
        pairs.extend([
            ("MTU", self.mtu.to_string()),
            ("Client end", self.client.describe()),
            ("Endpoint end", self.endpoint.describe()),
        ]);
        fields(&pairs)
    }
}

impl Row for WireView {
    const HEADINGS: &'static [&'static str] = &[
        "CONNECTION",
        "SERVICE",
        "ENDPOINT",
        "STATE",
        "CLIENT END",
        "ENDPOINT END",
        "FROM CLIENT",
        "FROM ENDPOINT",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.connection_id.clone(),
            self.network_service.clone(),
            self.endpoint_name.clone(),
            self.state().to_owned(),
            self.client.place(),
            self.endpoint.place(),
            format!("{} / {}", self.client.packets, self.client.bytes),
            format!("{} / {}", self.endpoint.packets, self.endpoint.bytes),
        ]
    }
}
