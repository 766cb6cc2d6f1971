//! Leading wires over their backup when what they lead to has died.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use dataplane_common::abi::{Hop, Position};

use super::{ReconcileError, Reconciler};
use crate::{
    circuit::Leads,
    datapath::Datapath,
    desired::{Branch, IfName, Wire, WireId},
    diff::{Laid, hop, target},
    liveness::Notice,
    observed::Scope,
    outcome::Outcome,
};

/// How a death is seen.
const GONE: &str = "its network namespace is gone";

/// Wires and the numbers of their ends that are gone.
type Bereft = Vec<(WireId, BTreeSet<usize>)>;

impl<D: Datapath> Reconciler<D> {
    /// Paths have died, come back or answered for the first time. Every wire that is watched and leads over a dead one
    /// leads over its backup from here on, if that is not known to be dead as well. The dead circuit becomes the backup: it
    /// stays there as long as its ends do, and is watched.
    pub fn paths_changed(&mut self, notices: &[Notice], now: Instant) -> Result<Outcome, ReconcileError> {
        for notice in notices {
            self.local.dead.remove(&notice.path);
            if !notice.alive {
                self.note_dead(&notice.path, &notice.endpoint);
            } else if notice.path.is_direct() {
                self.local.news.alive.push(notice.endpoint.clone());
            }
        }
        self.forget_unwatched();
        let Self { local, desired, .. } = self;
        let back = local
            .lost
            .iter()
            .filter(|(_, path)| !local.dead.contains_key(*path));
        let back: Vec<WireId> = back.map(|(wire, _)| wire.clone()).collect();
        local.lost.retain(|wire, _| !back.contains(wire));
        let mut changed = Vec::new();
        for wire in desired.iter().flat_map(|desired| desired.wires.values()) {
            if let Some((wire, endpoint)) = local.over_living(wire) {
                local.news.switched.push((wire.id.clone(), endpoint));
                changed.push(wire);
            }
        }
        let mut outcome = if changed.is_empty() {
            self.nothing_done()
        } else {
            self.lead_elsewhere(&changed)?;
            self.decide(changed, now)?
        };
        outcome.restored.extend(back);
        self.add_news(&mut outcome);
        Ok(outcome)
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

    /// Wires of which a workload is gone that a branch leads to lead over their backup, if that is not gone as well.
    pub(super) fn over_backups(
        &mut self,
        mut outcome: Outcome,
        now: Instant,
    ) -> Result<Outcome, ReconcileError> {
        let bereft = std::mem::take(&mut outcome.bereft);
        self.tell_gone(&bereft);
        let changed = self.bereft_over_backups(&bereft, &outcome);
        if !changed.is_empty() {
            let before: Vec<(Option<Wire>, Option<Wire>)> = changed
                .iter()
                .map(|wire| {
                    let desired = self.desired.as_ref();
                    let was = desired.and_then(|desired| desired.wires.get(&wire.id));
                    (was.cloned(), self.local.planned.get(&wire.id).cloned())
                })
                .collect();
            let changed_ids: BTreeSet<WireId> = changed.iter().map(|wire| wire.id.clone()).collect();
            let more = self.decide(changed, now)?;
            self.tell_gone(&more.bereft);
            let failed: BTreeSet<_> = more.failures.iter().map(|failure| &failure.wire).collect();
            // What did not help is undone: the wire is parked in both forms.
            for (was, planned) in before {
                if let Some(was) = was.filter(|was| failed.contains(&was.id)) {
                    self.undecide(was, planned);
                }
            }
            let helped = |id: &WireId| changed_ids.contains(id) && !failed.contains(id);
            let restored = more.restored.iter().filter(|id| !outcome.lost.contains(id));
            let restored: Vec<WireId> = restored.cloned().collect();
            outcome.restored.extend(restored);
            outcome.lost.retain(|id| !helped(id));
            outcome.failures.retain(|failure| !helped(&failure.wire));
            outcome.operations += more.operations;
            outcome.postponed = more.postponed;
        }
        self.add_news(&mut outcome);
        Ok(outcome)
    }

    /// What can be led over its backup of the wires that could not be made.
    fn bereft_over_backups(&mut self, bereft: &Bereft, outcome: &Outcome) -> Vec<Wire> {
        let failed: BTreeSet<&WireId> = outcome.failures.iter().map(|failure| &failure.wire).collect();
        let mut changed = Vec::new();
        for (id, ends) in bereft.iter().filter(|(id, _)| failed.contains(id)) {
            let wire = self.desired.as_ref().and_then(|desired| desired.wires.get(id));
            let Some(wire) = wire else { continue };
            let layout = wire.layout();
            let passes = |circuit: usize| {
                let chain = layout.chains.get(circuit);
                chain.is_some_and(|chain| chain.iter().any(|end| ends.contains(end)))
            };
            if passes(wire.branches.len() + wire.draining.len()) {
                continue;
            }
            let gone = |number: usize, _: &Branch| passes(number);
            let living = self.local.over_backup(wire, gone);
            if let Some((wire, endpoint)) = living.or_else(|| self.local.over_dead_backup(wire, gone)) {
                self.local.news.switched.push((wire.id.clone(), endpoint));
                changed.push(wire);
            }
        }
        changed
    }

    /// A decision about a wire is taken back.
    fn undecide(&mut self, was: Wire, planned: Option<Wire>) {
        self.local.planned.remove(&was.id);
        self.local
            .planned
            .extend(planned.map(|planned| (planned.id.clone(), planned)));
        if let Some(desired) = &mut self.desired {
            desired.wires.insert(was.id.clone(), was);
        }
    }

    /// Control hears once of each workload whose namespace is gone.
    fn tell_gone(&mut self, bereft: &Bereft) {
        for (id, ends) in bereft {
            let wire = self.desired.as_ref().and_then(|desired| desired.wires.get(id));
            let Some(wire) = wire else { continue };
            for (endpoint, netns) in ends.iter().filter_map(|end| wire.workload_at(*end)) {
                // An interface may come back.
                let Some(netns) = netns else { continue };
                if self.local.gone.insert((endpoint.to_owned(), netns)) {
                    self.local.news.dead.push((endpoint.to_owned(), GONE));
                }
            }
        }
    }
}
