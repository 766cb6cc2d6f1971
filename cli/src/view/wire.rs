//! Wires: what the kernel of this node forwards.

use serde::Serialize;
use tieline_proto::tieline::admin::v1::{EndStatus, HopStatus, WireBranchStatus, WireStatus};

use super::text::{or_dash, path};
use crate::output::{Row, fields};

/// A wire with its counters, read from the kernel.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct WireView {
    pub(crate) connection_id: String,
    pub(crate) network_service: String,
    pub(crate) forwarding: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
    pub(crate) mtu: u32,
    pub(crate) client: EndView,
    /// Where it leads; none: it is parked.
    pub(crate) branches: Vec<BranchView>,
}

/// A circuit of a wire: the functions on it, and the endpoint.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct BranchView {
    pub(crate) hops: Vec<HopView>,
    pub(crate) endpoint_name: String,
    pub(crate) endpoint: EndView,
    /// What came from the client and took this branch.
    pub(crate) taken_packets: u64,
    pub(crate) taken_bytes: u64,
}

/// A function that packets pass.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct HopView {
    pub(crate) endpoint_name: String,
    /// Faces the client.
    pub(crate) inside: EndView,
    /// Faces the endpoint.
    pub(crate) outside: EndView,
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
            forwarding: wire.forwarding,
            error: wire.error,
            mtu: wire.mtu,
            client: wire.client.unwrap_or_default().into(),
            branches: wire.branches.into_iter().map(BranchView::from).collect(),
        }
    }
}

impl From<WireBranchStatus> for BranchView {
    fn from(branch: WireBranchStatus) -> Self {
        Self {
            hops: branch.hops.into_iter().map(HopView::from).collect(),
            endpoint_name: branch.endpoint_name,
            endpoint: branch.endpoint.unwrap_or_default().into(),
            taken_packets: branch.taken_packets,
            taken_bytes: branch.taken_bytes,
        }
    }
}

impl From<HopStatus> for HopView {
    fn from(hop: HopStatus) -> Self {
        Self {
            endpoint_name: hop.endpoint_name,
            inside: hop.inside.unwrap_or_default().into(),
            outside: hop.outside.unwrap_or_default().into(),
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

impl BranchView {
    /// `firewall-1 → gateway-1`.
    fn path(&self) -> String {
        let hops = self.hops.iter().map(|hop| hop.endpoint_name.as_str());
        path(hops.chain([self.endpoint_name.as_str()]))
    }
}

/// What each of several circuits says, one below the other; a wire that leads nowhere says nothing.
fn each(branches: &[BranchView], say: impl Fn(&BranchView) -> String) -> String {
    or_dash(&branches.iter().map(say).collect::<Vec<_>>().join("\n"))
}

impl WireView {
    fn state(&self) -> &'static str {
        match (self.forwarding, self.branches.is_empty()) {
            (true, _) => "forwarding",
            (false, true) => "parked",
            (false, false) => "broken",
        }
    }

    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        let mut pairs = vec![
            ("Connection", self.connection_id.clone()),
            ("NetworkService", self.network_service.clone()),
            ("Path", each(&self.branches, BranchView::path)),
            ("State", self.state().to_owned()),
        ];
        if !self.error.is_empty() {
            pairs.push(("Error", self.error.clone()));
        }
        pairs.extend([
            ("MTU", self.mtu.to_string()),
            ("Client end", self.client.describe()),
        ]);
        for branch in &self.branches {
            for hop in &branch.hops {
                pairs.push(("Through", hop.endpoint_name.clone()));
                pairs.push(("Inner end", hop.inside.describe()));
                pairs.push(("Outer end", hop.outside.describe()));
            }
            pairs.push(("Endpoint", branch.endpoint_name.clone()));
            pairs.push(("Endpoint end", branch.endpoint.describe()));
        }
        fields(&pairs)
    }
}

impl Row for WireView {
    const HEADINGS: &'static [&'static str] = &[
        "CONNECTION",
        "SERVICE",
        "PATH",
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
            each(&self.branches, BranchView::path),
            self.state().to_owned(),
            self.client.place(),
            each(&self.branches, |branch| branch.endpoint.place()),
            format!("{} / {}", self.client.packets, self.client.bytes),
            each(&self.branches, |branch| {
                format!("{} / {}", branch.endpoint.packets, branch.endpoint.bytes)
            }),
        ]
    }
}
