//! Wires as status and metrics show them.

use dataplane_common::abi::WireCounters;

use crate::{
    desired::{Circuit, End, Hop, IfName, NetnsRef, Wire, WireId},
    diff::Laid,
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
    /// Octets.
    pub mtu: u32,
    /// Whether packets pass.
    pub forwarding: bool,
    /// Why they do not.
    pub failure: Option<WireFailure>,
    /// The client's end.
    pub client: EndView,
    /// Where it leads; none: it is parked.
    pub branches: Vec<BranchView>,
}

/// One circuit of a wire, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchView {
    /// The passthrough functions, from the client's side on.
    pub hops: Vec<HopView>,
    /// The endpoint that terminates.
    pub endpoint_name: String,
    /// The end there.
    pub endpoint: EndView,
    /// What came from the client and took this branch.
    pub taken: WireCounters,
}

impl BranchView {
    /// Its ends, from the client's side on.
    pub fn ends(&self) -> impl Iterator<Item = &EndView> {
        let hops = self.hops.iter().flat_map(|hop| [&hop.inside, &hop.outside]);
        hops.chain(std::iter::once(&self.endpoint))
    }
}

/// A passthrough function, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopView {
    /// The function.
    pub endpoint_name: String,
    /// Its end that faces the client.
    pub inside: EndView,
    /// Its end that faces the endpoint.
    pub outside: EndView,
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
    /// Every end: the client's, then branch by branch from the client's side on.
    pub fn ends(&self) -> impl Iterator<Item = &EndView> {
        std::iter::once(&self.client).chain(self.branches.iter().flat_map(BranchView::ends))
    }

    /// `counters` are the ends', in the order of the wire's layout; `taken` are those of the branches, where there are
    /// several.
    pub(crate) fn new(
        scope: &NodeScope,
        wire: &Wire,
        live: &Live,
        counters: &[WireCounters],
        taken: &[WireCounters],
    ) -> Self {
        let laid = Laid::new(scope, wire);
        let mut ends: Vec<EndView> = Vec::with_capacity(laid.hosts.len());
        for (number, (facing, host)) in laid.ends().enumerate() {
            let (workload_interface, netns) = match facing.end {
                End::Veth(end) => (Some(end.name.clone()), Some(end.netns.clone())),
                End::Interface(_) => (None, None),
            };
            ends.push(EndView {
                host_interface: host.clone(),
                ifindex: live
                    .places
                    .get(number)
                    .copied()
                    .flatten()
                    .map(|place| place.index),
                workload_interface,
                netns,
                counters: counters.get(number).copied().unwrap_or_default(),
            });
        }
        let branches = wire.branches.iter().zip(&laid.layout.chains);
        let all = counters.first().copied().unwrap_or_default();
        let branches: Vec<BranchView> = branches
            .enumerate()
            .filter_map(|(number, (branch, chain))| {
                let taken = taken.get(number).copied().unwrap_or(all);
                branch_view(&branch.circuit, chain, &ends, taken)
            })
            .collect();
        Self {
            id: wire.id.clone(),
            network_service: wire.network_service.clone(),
            mtu: wire.mtu,
            forwarding: live.failure.is_none() && is_whole(&laid, live),
            failure: live.failure.clone(),
            client: ends.swap_remove(0),
            branches,
        }
    }
}

/// Whether the wire leads somewhere and every end that its packets pass is there. What is only held ready, or drains,
/// concerns nobody who uses it.
fn is_whole(laid: &Laid<'_>, live: &Live) -> bool {
    let is_there = |number: &usize| live.places.get(*number).is_some_and(Option::is_some);
    let branches = laid.layout.chains.iter().take(laid.wire.branches.len());
    !laid.wire.branches.is_empty() && is_there(&0) && branches.flatten().all(is_there)
}

/// A circuit whose ends are those of these numbers.
fn branch_view(
    circuit: &Circuit,
    chain: &[usize],
    ends: &[EndView],
    taken: WireCounters,
) -> Option<BranchView> {
    let (last, pairs) = chain.split_last()?;
    let end = |number: &usize| ends.get(*number).cloned();
    let hops = circuit.hops.iter().zip(pairs.chunks_exact(2));
    let hop = |(hop, pair): (&Hop, &[usize])| {
        Some(HopView {
            endpoint_name: hop.endpoint_name.clone(),
            inside: end(pair.first()?)?,
            outside: end(pair.last()?)?,
        })
    };
    Some(BranchView {
        hops: hops.map(hop).collect::<Option<_>>()?,
        endpoint_name: circuit.endpoint_name.clone(),
        endpoint: end(last)?,
        taken,
    })
}
