//! Wires as status and metrics show them.

use dataplane_common::abi::WireCounters;

use crate::{
    desired::{End, IfName, NetnsRef, Side, Wire, WireId},
    diff::host_of,
    outcome::WireFailure,
    ownership::NodeScope,
    reconcile::Live,
};

/// One wire of the plan, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireView {
    /// The connection's id.
    pub id: WireId,
    /// The service it carries.
    pub network_service: String,
    /// The endpoint that serves it.
    pub endpoint_name: String,
    /// Octets.
    pub mtu: u32,
    /// Whether packets pass.
    pub forwarding: bool,
    /// Why they do not.
    pub failure: Option<WireFailure>,
    /// The client's end.
    pub client: EndView,
    /// The endpoint's end.
    pub endpoint: EndView,
}

/// One end of a wire, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndView {
    /// Name of the interface in the agent's namespace: the position.
    pub host_interface: IfName,
    /// Its index; `None` while it does not exist.
    pub ifindex: Option<u32>,
    /// Name in the workload's namespace; `None` for an existing interface.
    pub workload_interface: Option<IfName>,
    /// The workload's namespace; `None` for an existing interface.
    pub netns: Option<NetnsRef>,
    /// What entered the wire here and was handed to the other end.
    pub counters: WireCounters,
}

impl WireView {
    pub(crate) fn new(scope: &NodeScope, wire: &Wire, live: &Live, counters: [WireCounters; 2]) -> Self {
        let [client, endpoint] = counters;
        let view = |side, index: usize, counters| {
            let (workload_interface, netns) = match wire.end(side) {
                End::Veth(end) => (Some(end.name.clone()), Some(end.netns.clone())),
                End::Interface(_) => (None, None),
            };
            EndView {
                host_interface: host_of(scope, wire, side),
                ifindex: live.places.get(index).copied().flatten().map(|place| place.index),
                workload_interface,
                netns,
                counters,
            }
        };
        Self {
            id: wire.id.clone(),
            network_service: wire.network_service.clone(),
            endpoint_name: wire.endpoint_name.clone(),
            mtu: wire.mtu,
            forwarding: live.failure.is_none() && live.places.iter().all(Option::is_some),
            failure: live.failure.clone(),
            client: view(Side::Client, 0, client),
            endpoint: view(Side::Endpoint, 1, endpoint),
        }
    }
}
