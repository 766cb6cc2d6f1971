//! What the node decides by itself about a wire: to lead it over its backup, and that an endpoint has drained.
//!
//! Such a decision holds until the plan for that wire changes. A plan that says of the wire what it said before, as every
//! snapshot does, changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use dataplane_common::abi::{FlowKey, Hop, Position};

use super::{ReconcileError, Reconciler, round::Around};
use crate::{
    circuit::{Leads, Path},
    datapath::Datapath,
    desired::{Branch, Circuit, Desired, IfName, Wire, WireId},
    diff::{
        Laid, hop,
        split::{branch_hash, is_branch, is_open, scope},
        target,
    },
    observed::Scope,
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
    /// Paths at which nothing answers.
    dead: BTreeSet<Path>,
    /// Wires that lead over a dead path, for they have nothing else.
    lost: BTreeMap<WireId, Path>,
}

impl Local {
    /// What becomes of a wire of a plan: what it is now, if the plan says nothing new.
    fn shape(&mut self, planned: Wire, now: Option<&Wire>) -> Wire {
        self.drains |= !planned.draining.is_empty();
        match (self.planned.get(&planned.id), now) {
            (Some(before), Some(now)) if *before == planned => now.clone(),
            _ => {
                self.forget(&planned.id);
                planned
            }
        }
    }

    fn forget(&mut self, id: &WireId) {
        self.planned.remove(id);
        self.lost.remove(id);
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
        self.local.lost.retain(|id, _| wires.contains_key(id));
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

    /// These paths have died: every wire that is watched and leads over one leads over its backup from here on, if that
    /// is not known to be dead as well. The dead circuit becomes the backup: it stays there as long as its ends do, and is
    /// watched.
    pub fn paths_died(&mut self, paths: &BTreeSet<Path>, now: Instant) -> Result<Switched, ReconcileError> {
        let live = &self.live;
        // Of a path that nobody watches any more, nobody will say that it lives.
        let watched = |path: &Path| {
            live.values()
                .any(|live| live.targets.iter().any(|(one, _)| one == path))
        };
        self.local.dead.retain(watched);
        self.local.dead.extend(paths.iter().cloned());
        let mut result = Switched {
            outcome: self.nothing_done(),
            ..Switched::default()
        };
        let wires = self.desired.iter().flat_map(|desired| desired.wires.values());
        let mut changed = Vec::new();
        for wire in wires.filter(|wire| wire.probe) {
            let is_lost = |branch: &&Branch| paths.contains(&branch.circuit.path());
            let Some(lost) = wire.branches.iter().find(is_lost) else {
                continue;
            };
            match self.over_backup(wire, |_, branch| paths.contains(&branch.circuit.path())) {
                Some((wire, endpoint)) => {
                    result.switched.push((wire.id.clone(), endpoint));
                    changed.push(wire);
                }
                None => {
                    let circuit = &lost.circuit;
                    result.lost.push((wire.id.clone(), circuit.endpoint_name.clone()));
                    self.local.lost.insert(wire.id.clone(), circuit.path());
                }
            }
        }
        if !changed.is_empty() {
            self.lead_elsewhere(&changed)?;
            result.outcome = self.decide(changed, now)?;
        }
        Ok(result)
    }

    /// Leads wires to what is there already, by the tables alone: everything else may take its time, for interfaces are
    /// looked at under a lock that others may hold. What this leaves out, and what it cannot write, is done by the pass
    /// that follows.
    fn lead_elsewhere(&mut self, wires: &[Wire]) -> Result<(), ReconcileError> {
        let mut leads = BTreeMap::new();
        for wire in wires {
            leads.extend(self.plain_leads(wire));
        }
        let scope = Scope {
            indexes: leads.keys().copied().collect(),
            ..Scope::default()
        };
        let observed = self.datapath.observe(&scope)?;
        let now = observed.generation;
        let entry = |(index, position): (&u32, &Position)| {
            let hop = *leads.get(index)?;
            let differs = !position.is_absent() && position.hop_at(now) != hop;
            differs.then(|| (*index, position.staged(now, now, hop)))
        };
        let entries: Vec<_> = observed.stray_positions.iter().filter_map(entry).collect();
        if !entries.is_empty() {
            let written = self.datapath.write_positions(&entries);
            if let Some(error) = written.into_iter().find_map(Result::err) {
                tracing::warn!(%error, "a wire is led over its backup a moment later");
            }
        }
        Ok(())
    }

    /// Where the ends of a wire lead that are there and do not part flows, by index.
    fn plain_leads(&self, wire: &Wire) -> Vec<(u32, Hop)> {
        let node = self.datapath.scope();
        let now = self
            .desired
            .as_ref()
            .and_then(|desired| desired.wires.get(&wire.id));
        let (Some(now), Some(live)) = (now, self.live.get(&wire.id)) else {
            return Vec::new();
        };
        let known = Laid::new(node, now);
        let places = known.hosts.iter().zip(&live.places);
        let index: BTreeMap<_, _> = places
            .filter_map(|(host, place)| Some((host, (*place)?.index)))
            .collect();
        let laid = Laid::new(node, wire);
        let leads = laid.hosts.iter().zip(&laid.layout.leads);
        let lead = |(host, leads): (&IfName, &Leads)| match leads {
            Leads::To(to) => {
                let target = target(&laid, *to)?;
                Some((*index.get(host)?, hop(target.kind, *index.get(&target.host)?)))
            }
            Leads::Nowhere | Leads::ByFlow(_) => None,
        };
        leads.filter_map(lead).collect()
    }

    /// These paths answer again; the wires that had been lost with them.
    pub fn paths_revived(&mut self, paths: &BTreeSet<Path>) -> Vec<WireId> {
        self.local.dead.retain(|path| !paths.contains(path));
        let lost = self.local.lost.iter();
        let back = lost.filter(|(_, path)| paths.contains(path));
        let back: Vec<WireId> = back.map(|(wire, _)| wire.clone()).collect();
        back.iter().for_each(|wire| drop(self.local.lost.remove(wire)));
        back
    }

    /// Wires of which an end of a branch stands in the way lead over their backup, if that is clear.
    pub(super) fn over_backups(
        &mut self,
        mut outcome: Outcome,
        now: Instant,
    ) -> Result<Outcome, ReconcileError> {
        let mut changed = Vec::new();
        for (id, end) in std::mem::take(&mut outcome.bereft) {
            let wire = self.desired.as_ref().and_then(|desired| desired.wires.get(&id));
            let Some(wire) = wire else { continue };
            let layout = wire.layout();
            let passes = |circuit: usize| {
                layout
                    .chains
                    .get(circuit)
                    .is_some_and(|chain| chain.contains(&end))
            };
            let backup = wire.branches.len() + wire.draining.len();
            if wire.backup.is_none() || passes(backup) {
                continue;
            }
            if let Some((wire, endpoint)) = self.over_backup(wire, |number, _| passes(number)) {
                outcome.switched.push((wire.id.clone(), endpoint));
                changed.push(wire);
            }
        }
        if changed.is_empty() {
            return Ok(outcome);
        }
        let more = self.decide(changed, now)?;
        let again: BTreeSet<WireId> = outcome.switched.iter().map(|(id, _)| id.clone()).collect();
        let was_lost = |id: &WireId| outcome.lost.contains(id);
        let restored = more.restored.into_iter().filter(|id| !was_lost(id));
        outcome.restored.extend(restored.collect::<Vec<_>>());
        let failed: BTreeSet<_> = more.failures.iter().map(|failure| failure.wire.clone()).collect();
        outcome
            .lost
            .retain(|id| !again.contains(id) || failed.contains(id));
        outcome.failures.retain(|failure| !again.contains(&failure.wire));
        outcome.failures.extend(more.failures);
        outcome.switched.retain(|(id, _)| !failed.contains(id));
        outcome.operations += more.operations;
        outcome.postponed = more.postponed;
        Ok(outcome)
    }

    /// The wire with its backup in the place of the branches that are `gone`, and where that ends; `None` if there is
    /// none, or it is dead.
    fn over_backup(&self, wire: &Wire, gone: impl Fn(usize, &Branch) -> bool) -> Option<(Wire, String)> {
        let alive = |backup: &&Circuit| !self.local.dead.contains(&backup.path());
        let backup = wire.backup.as_ref().filter(alive)?;
        let mut switched = wire.clone();
        for (number, branch) in switched.branches.iter_mut().enumerate() {
            if gone(number, branch) {
                switched.backup = Some(std::mem::replace(&mut branch.circuit, backup.clone()));
            }
        }
        Some((switched, backup.endpoint_name.clone()))
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

/// Whether a flow keeps an endpoint from having drained: echoes do not, the agent's own among them, and fragments belong
/// to flows.
const fn counts(key: &FlowKey) -> bool {
    key.kind != FlowKey::FRAGMENT && key.protocol != ICMP && key.protocol != ICMPV6
}
