//! What the node decides by itself about a wire: to lead it over its backup, and that an endpoint has drained.
//!
//! Such a decision holds until the plan for that wire changes. A plan that says of the wire what it said before, as every
//! snapshot does, changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use dataplane_common::abi::FlowKey;

use super::{ReconcileError, Reconciler, round::Around};
use crate::{
    circuit::Path,
    datapath::Datapath,
    desired::{Branch, Desired, Wire, WireId},
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

/// Wires that are not as control planned them.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    /// As control planned them.
    planned: BTreeMap<WireId, Wire>,
    /// Whether a wire may have something that drains.
    drains: bool,
}

impl Local {
    /// What becomes of a wire of a plan: what it is now, if the plan says nothing new.
    fn shape(&mut self, planned: Wire, now: Option<&Wire>) -> Wire {
        self.drains |= !planned.draining.is_empty();
        match (self.planned.get(&planned.id), now) {
            (Some(before), Some(now)) if *before == planned => now.clone(),
            _ => {
                self.planned.remove(&planned.id);
                planned
            }
        }
    }

    fn forget(&mut self, id: &WireId) {
        self.planned.remove(id);
    }
}

/// What came of the death of endpoints.
#[derive(Debug, Default)]
pub struct Switched {
    /// Of the wires that were switched.
    pub outcome: Outcome,
    /// Wires that lead over their backup, and the endpoint that it ends at.
    pub switched: Vec<(WireId, String)>,
    /// Wires that have no backup, or whose backup is dead as well, and the endpoint that they have lost.
    pub lost: Vec<(WireId, String)>,
}

/// What came of looking at endpoints that drain.
#[derive(Debug, Default)]
pub struct Drained {
    /// Of the wires whose endpoints have drained.
    pub outcome: Outcome,
    /// Wires, and the endpoint at which the last flow has ended.
    pub drained: Vec<(WireId, String)>,
}

impl<D: Datapath> Reconciler<D> {
    /// The plan with what was decided here.
    pub(super) fn with_local(&mut self, wires: BTreeMap<WireId, Wire>) -> BTreeMap<WireId, Wire> {
        self.local.planned.retain(|id, _| wires.contains_key(id));
        let Self { local, desired, .. } = self;
        let now = |id: &WireId| desired.as_ref().and_then(|desired| desired.wires.get(id));
        let wires = wires.into_iter();
        wires
            .map(|(id, wire)| {
                let wire = local.shape(wire, now(&id));
                (id, wire)
            })
            .collect()
    }

    /// The same for one wire of a change.
    pub(super) fn one_with_local(&mut self, wire: Wire) -> Wire {
        let Self { local, desired, .. } = self;
        let now = desired.as_ref().and_then(|desired| desired.wires.get(&wire.id));
        local.shape(wire, now)
    }

    /// A wire goes.
    pub(super) fn forget_local(&mut self, id: &WireId) {
        self.local.forget(id);
    }

    /// These paths are dead: every wire that is watched and leads over one leads over its backup from here on, if that is
    /// not known to be dead as well. The dead circuit becomes the backup: it stays there as long as its ends do, and is
    /// watched.
    pub fn switch(&mut self, dead: &BTreeSet<Path>, now: Instant) -> Result<Switched, ReconcileError> {
        let mut result = Switched {
            outcome: self.nothing_done(),
            ..Switched::default()
        };
        let wires = self.desired.iter().flat_map(|desired| desired.wires.values());
        let mut changed = Vec::new();
        for wire in wires.filter(|wire| wire.probe) {
            let is_dead = |branch: &&Branch| dead.contains(&branch.circuit.path());
            let Some(lost) = wire.branches.iter().find(is_dead) else {
                continue;
            };
            match over_backup(wire, dead) {
                Some((wire, endpoint)) => {
                    result.switched.push((wire.id.clone(), endpoint));
                    changed.push(wire);
                }
                None => result
                    .lost
                    .push((wire.id.clone(), lost.circuit.endpoint_name.clone())),
            }
        }
        if !changed.is_empty() {
            result.outcome = self.decide(changed, now)?;
        }
        Ok(result)
    }

    /// Takes away what has drained: no open flow goes there, and there was time to learn which do.
    pub fn end_drains(&mut self, now: Instant) -> Result<Drained, ReconcileError> {
        let mut result = Drained {
            outcome: self.nothing_done(),
            ..Drained::default()
        };
        if !self.is_draining() {
            return Ok(result);
        }
        let mut all = self.desired.iter().flat_map(|desired| desired.wires.values());
        self.local.drains = all.any(|wire| !wire.draining.is_empty());
        let now_ns = self.datapath.now_ns();
        let open = self.datapath.count_flows(&|key, pin| {
            let idle = if key.protocol == TCP { TCP_IDLE_NS } else { IDLE_NS };
            counts(key) && is_open(pin, now_ns, idle)
        })?;
        let wires = self.desired.iter().flat_map(|desired| desired.wires.values());
        let mut changed = Vec::new();
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
                    result.drained.push((wire.id.clone(), endpoint));
                }
            }
            if kept.draining.len() < wire.draining.len() {
                changed.push(kept);
            }
        }
        if !changed.is_empty() {
            result.outcome = self.decide(changed, now)?;
        }
        Ok(result)
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

    /// Makes these wires so, though control planned them otherwise.
    fn decide(&mut self, wires: Vec<Wire>, now: Instant) -> Result<Outcome, ReconcileError> {
        let Some(desired) = self.desired.as_mut() else {
            return Ok(self.nothing_done());
        };
        let mut target = Desired {
            generation: desired.generation,
            wires: BTreeMap::new(),
        };
        let mut before = Vec::new();
        for wire in wires {
            if let Some(was) = desired.wires.insert(wire.id.clone(), wire.clone()) {
                self.local
                    .planned
                    .entry(wire.id.clone())
                    .or_insert_with(|| was.clone());
                before.push(was);
            }
            target.wires.insert(wire.id.clone(), wire);
        }
        self.reconcile(&Around::wires(&target, &before), now)
    }
}

/// The wire with its backup in the place of the branches that are dead, and where that ends; `None` if there is none that
/// is alive.
fn over_backup(wire: &Wire, dead: &BTreeSet<Path>) -> Option<(Wire, String)> {
    let backup = wire
        .backup
        .as_ref()
        .filter(|backup| !dead.contains(&backup.path()))?;
    let mut switched = wire.clone();
    for branch in &mut switched.branches {
        if dead.contains(&branch.circuit.path()) {
            switched.backup = Some(std::mem::replace(&mut branch.circuit, backup.clone()));
        }
    }
    Some((switched, backup.endpoint_name.clone()))
}

/// Whether a flow keeps an endpoint from having drained: echoes do not, the agent's own among them, and fragments belong
/// to flows.
const fn counts(key: &FlowKey) -> bool {
    key.kind != FlowKey::FRAGMENT && key.protocol != ICMP && key.protocol != ICMPV6
}
