//! That an endpoint has drained: the node finds out by the flows that it sees.

use std::time::Instant;

use dataplane_common::abi::FlowKey;

use super::{ReconcileError, Reconciler};
use crate::{
    datapath::Datapath,
    desired::WireId,
    diff::{
        Laid,
        split::{branch_hash, is_branch, is_open, scope},
    },
    outcome::Outcome,
};

/// How long a flow without a packet still counts: of TCP, longer than any pause that a connection should make; of others,
/// as long as their timers commonly run.
const TCP_IDLE_NS: u64 = 350_000_000_000;
const IDLE_NS: u64 = 120_000_000_000;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl<D: Datapath> Reconciler<D> {
    /// Takes away what has drained: no open flow goes there, and there was time to learn which do.
    pub fn end_drains(&mut self, now: Instant) -> Result<Outcome, ReconcileError> {
        if !self.is_draining() {
            return Ok(self.nothing_done());
        }
        let mut all = self.desired.iter().flat_map(|desired| desired.wires.values());
        self.local.drains = all.any(|wire| !wire.draining.is_empty());
        let now_ns = self.datapath.now_ns();
        let open = self.datapath.count_flows(&|key, pin| {
            let idle = if key.protocol == TCP { TCP_IDLE_NS } else { IDLE_NS };
            counts(key) && is_open(pin, now_ns, idle)
        })?;
        let wires = self.desired.iter().flat_map(|desired| desired.wires.values());
        let (mut changed, mut drained) = (Vec::new(), Vec::new());
        for wire in wires.filter(|wire| !wire.draining.is_empty() && !self.is_learning(&wire.id, now_ns)) {
            let laid = Laid::new(self.datapath.scope(), wire);
            let branches = wire.branches.len();
            let (scope, mut kept) = (scope(&laid), wire.clone());
            kept.draining.clear();
            for (number, draining) in wire.draining.iter().enumerate() {
                let hash = branch_hash(&laid, branches + number);
                let is_it = |id: u32| hash.is_some_and(|hash| is_branch(id, hash));
                if open.keys().any(|(of, id)| *of == scope && is_it(*id)) {
                    kept.draining.push(draining.clone());
                } else {
                    let endpoint = draining.circuit.endpoint_name.clone();
                    drained.push((wire.id.clone(), endpoint));
                }
            }
            if kept.draining.len() < wire.draining.len() {
                changed.push(kept);
            }
        }
        if changed.is_empty() {
            return Ok(self.nothing_done());
        }
        let mut outcome = self.decide(changed, now)?;
        outcome.news.drained.append(&mut drained);
        Ok(outcome)
    }

    /// Whether a wire may have something that drains: then [`Self::end_drains`] is to be called every now and then.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.local.drains
    }

    /// Whether one of the wire's splits takes what it sees for the first time for older than itself.
    fn is_learning(&self, id: &WireId, now_ns: u64) -> bool {
        let places = self
            .live
            .get(id)
            .into_iter()
            .flat_map(|live| live.places.iter().flatten());
        let mut splits = places.filter_map(|place| self.datapath.split(place.split?).ok()?);
        splits.any(|split| now_ns < split.learn_until_ns)
    }
}

/// Whether a flow keeps an endpoint from having drained: echoes do not, the agent's own among them, and fragments belong
/// to flows.
const fn counts(key: &FlowKey) -> bool {
    key.kind != FlowKey::FRAGMENT && key.protocol != ICMP && key.protocol != ICMPV6
}
