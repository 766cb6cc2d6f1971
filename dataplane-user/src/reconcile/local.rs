//! What the node decides by itself about a wire: to lead it over its backup, and that an endpoint has drained.
//!
//! Such a decision holds until the plan for that wire changes. A plan that says of the wire what it said before, as every
//! snapshot does, changes nothing; and none leads a wire to what is known to be dead while its backup lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{ReconcileError, Reconciler, found::Found, round::Around};
use crate::{
    circuit::Path,
    datapath::Datapath,
    desired::{Branch, Circuit, Desired, NetnsId, Wire, WireId},
    outcome::{News, Outcome},
    ownership::NodeScope,
};

/// How a death is seen.
const SILENT: &str = "it does not answer any more";

/// Wires that are not as control planned them, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    /// As control planned them.
    pub(super) planned: BTreeMap<WireId, Wire>,
    /// Whether a wire may have something that drains.
    pub(super) drains: bool,
    /// Paths at which nothing answers, and the endpoint that each ends at.
    pub(super) dead: BTreeMap<Path, String>,
    /// Wires that lead over a dead path, for they have nothing else.
    pub(super) lost: BTreeMap<WireId, Path>,
    /// Workloads of which control was told that their namespace is gone.
    pub(super) gone: BTreeSet<(String, NetnsId)>,
    /// Until the first plan.
    pub(super) found: Found,
    /// What control has not heard of yet.
    pub(super) news: News,
}

/// From whom a plan for a wire comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// From a snapshot: what it says may be old.
    Whole,
    /// From a change of this wire.
    Change,
}

impl Local {
    /// What becomes of a wire of a plan: what it is now, if the plan says nothing new.
    fn shape(&mut self, scope: &NodeScope, planned: Wire, now: Option<&Wire>, said: Said) -> Wire {
        self.drains |= !planned.draining.is_empty();
        let same = self.planned.get(&planned.id) == Some(&planned);
        if let Some(now) = now.filter(|now| same && (said == Said::Whole || !leads_elsewhere(&planned, now)))
        {
            self.tell_again(&planned, now);
            return now.clone();
        }
        self.forget(&planned.id);
        let wire = if let Some((wire, endpoint)) = self.over_living(&planned) {
            self.news.switched.push((wire.id.clone(), endpoint));
            wire
        } else if let Some((wire, endpoint)) = self.as_found(scope, &planned) {
            self.news.still_switched.push((wire.id.clone(), endpoint));
            wire
        } else {
            return planned;
        };
        self.planned.insert(planned.id.clone(), planned);
        wire
    }

    fn forget(&mut self, id: &WireId) {
        self.planned.remove(id);
        self.lost.remove(id);
    }

    /// Control seems not to know what was decided about a wire.
    fn tell_again(&mut self, planned: &Wire, now: &Wire) {
        let id = || now.id.clone();
        let pairs = planned.branches.iter().zip(&now.branches);
        let mut led = pairs.filter(|(before, now)| before.circuit != now.circuit);
        if let Some((_, branch)) = led.next() {
            let endpoint = branch.circuit.endpoint_name.clone();
            self.news.still_switched.push((id(), endpoint));
        }
        let ended = planned.draining.iter().filter(|one| !now.draining.contains(one));
        let ended = ended.map(|one| (id(), one.circuit.endpoint_name.clone()));
        self.news.drained.extend(ended);
        let path = self.lost.get(&now.id);
        if let Some(endpoint) = path.and_then(|path| self.dead.get(path)) {
            self.news.unanswered.push((id(), endpoint.clone()));
        }
    }

    /// The wire over its backup, if a branch leads over a dead path and the backup does not. Notes wires that have nothing
    /// else.
    pub(super) fn over_living(&mut self, wire: &Wire) -> Option<(Wire, String)> {
        if self.dead.is_empty() || !wire.probe {
            return None;
        }
        let is_dead = |circuit: &Circuit| self.dead.contains_key(&circuit.path());
        let dead = wire.branches.iter().find(|branch| is_dead(&branch.circuit))?;
        let led = self.over_backup(wire, |_, branch| is_dead(&branch.circuit));
        if led.is_some() {
            self.lost.remove(&wire.id);
        } else if self.lost.insert(wire.id.clone(), dead.circuit.path()).is_none() {
            let endpoint = dead.circuit.endpoint_name.clone();
            self.news.unanswered.push((wire.id.clone(), endpoint));
        }
        led
    }

    /// The wire over its backup, if that is how the agent before this one has left it.
    fn as_found(&self, scope: &NodeScope, wire: &Wire) -> Option<(Wire, String)> {
        (0..wire.branches.len()).find_map(|left| {
            let led = self.over_backup(wire, |number, _| number == left)?;
            self.found.leads_as(scope, &led.0, wire).then_some(led)
        })
    }

    /// The wire with its backup in the place of the branches that are `gone`, and where that ends; `None` if there is
    /// none, or it is dead, or no branch is gone.
    pub(super) fn over_backup(
        &self,
        wire: &Wire,
        gone: impl Fn(usize, &Branch) -> bool,
    ) -> Option<(Wire, String)> {
        let backup = wire.backup.as_ref()?;
        let is_alive = !self.dead.contains_key(&backup.path());
        is_alive.then(|| led_over(wire, backup, gone)).flatten()
    }

    /// The same over a dead backup, where the workload of a branch is gone for good: the backup's may answer again, and is
    /// watched only if the wire has an end there. Nothing is kept of the branch.
    pub(super) fn over_dead_backup(
        &mut self,
        wire: &Wire,
        gone: impl Fn(usize, &Branch) -> bool,
    ) -> Option<(Wire, String)> {
        let backup = wire.backup.as_ref()?;
        let (mut led, endpoint) = led_over(wire, backup, gone)?;
        led.backup = None;
        self.lost.insert(wire.id.clone(), backup.path());
        self.news.unanswered.push((wire.id.clone(), endpoint.clone()));
        Some((led, endpoint))
    }
}

/// The wire with `backup` in the place of the branches that are `gone`, the last of which becomes its backup; and where
/// that ends. `None`: none is gone.
fn led_over(wire: &Wire, backup: &Circuit, gone: impl Fn(usize, &Branch) -> bool) -> Option<(Wire, String)> {
    let mut led = wire.clone();
    let mut any = false;
    for (number, branch) in led.branches.iter_mut().enumerate() {
        if gone(number, branch) {
            led.backup = Some(std::mem::replace(&mut branch.circuit, backup.clone()));
            any = true;
        }
    }
    any.then(|| (led, backup.endpoint_name.clone()))
}

/// Whether branches of a wire lead where they were not planned to.
fn leads_elsewhere(planned: &Wire, now: &Wire) -> bool {
    planned.branches != now.branches
}

impl<D: Datapath> Reconciler<D> {
    /// The whole plan with what was decided here. Whoever sends it may know nothing of that.
    pub(super) fn with_local(&mut self, wires: BTreeMap<WireId, Wire>) -> BTreeMap<WireId, Wire> {
        self.forget_unwatched();
        self.local.gone.clear();
        self.local.planned.retain(|id, _| wires.contains_key(id));
        self.local.lost.retain(|id, _| wires.contains_key(id));
        let Self {
            local,
            desired,
            datapath,
            ..
        } = self;
        let direct = local.dead.iter().filter(|(path, _)| path.is_direct());
        let dead = direct.map(|(_, endpoint)| (endpoint.clone(), SILENT));
        local.news.dead.extend(dead);
        let now = |id: &WireId| desired.as_ref().and_then(|desired| desired.wires.get(id));
        let wires = wires.into_iter();
        wires
            .map(|(id, wire)| {
                let wire = local.shape(datapath.scope(), wire, now(&id), Said::Whole);
                (id, wire)
            })
            .collect()
    }

    /// The same for one wire of a change.
    pub(super) fn one_with_local(&mut self, wire: Wire) -> Wire {
        self.forget_unwatched();
        let Self {
            local,
            desired,
            datapath,
            ..
        } = self;
        let now = desired.as_ref().and_then(|desired| desired.wires.get(&wire.id));
        local.shape(datapath.scope(), wire, now, Said::Change)
    }

    /// A wire goes.
    pub(super) fn forget_local(&mut self, id: &WireId) {
        self.local.forget(id);
    }

    /// Notes that a path has died; where that leads to is known if there is nothing else on it.
    pub(super) fn note_dead(&mut self, path: &Path, endpoint: &str) {
        self.local.dead.insert(path.clone(), endpoint.to_owned());
        if path.is_direct() {
            self.local.news.dead.push((endpoint.to_owned(), SILENT));
        }
    }

    /// Of a path that nobody watches any more, nobody will say that it lives again.
    pub(super) fn forget_unwatched(&mut self) {
        let live = &self.live;
        let watched = |path: &Path| {
            live.values()
                .any(|live| live.targets.iter().any(|(one, _)| one == path))
        };
        self.local.dead.retain(|path, _| watched(path));
    }

    /// Makes these wires so, though control planned them otherwise.
    pub(super) fn decide(&mut self, wires: Vec<Wire>, now: Instant) -> Result<Outcome, ReconcileError> {
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

    /// Adds what control shall hear of. Of a wire that could not be made its failure says enough.
    pub(super) fn add_news(&mut self, outcome: &mut Outcome) {
        outcome.news.append(std::mem::take(&mut self.local.news));
        let failures = &outcome.failures;
        let failed: BTreeSet<&WireId> = failures.iter().map(|failure| &failure.wire).collect();
        for switched in [&mut outcome.news.switched, &mut outcome.news.still_switched] {
            switched.retain(|(id, _)| !failed.contains(id));
        }
    }
}
