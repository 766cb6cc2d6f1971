//! Keeps the kernel as the plan says.
//!
//! The contract: nothing is touched before the first plan is known; every call is idempotent and moves only closer;
//! a wire that fails leaves nothing behind and does not disturb others; after a call without faults the next pass
//! carries out no operation; a change costs what the change holds, however many wires there are.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use dataplane_common::{
    Reason,
    abi::{Generation, WireCounters},
};

use crate::{
    apply::{Applied, Place, apply},
    busy::Busy,
    datapath::{Datapath, Description, ObserveError, OpError},
    desired::{Change, Desired, End, IfName, Side, Wire, WireId},
    diff::{self, host_of},
    observed::{Look, Observed, Obstacle, Scope, Want},
    outcome::{Outcome, Postponed, WireFailure},
    slots::Slots,
};

pub use crate::view::{EndView, WireView};

/// A plan could not be carried out at all. The kernel is as it was, or has leftovers that the next pass removes.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The plan is older than the one in the kernel.
    #[error(
        "generation {offered} is older than generation {applied}, which this node already has; if control lost its \
         store on purpose, remove the pins with the agent stopped and start it again"
    )]
    OlderGeneration {
        /// The plan's number.
        offered: Generation,
        /// The number in the kernel.
        applied: Generation,
    },
    /// A change came before the first whole plan.
    #[error("a change to generation {offered} came before any snapshot; ask control for a snapshot")]
    NoPlan {
        /// The change's number.
        offered: Generation,
    },
    /// The kernel could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The generation word could not be written, so the new plan is not in force.
    #[error("generation {generation} is not in force: {error}")]
    Flip {
        /// The plan's number.
        generation: Generation,
        /// What the kernel said.
        error: OpError,
    },
}

/// What an agent that starts finds of its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The generation in the kernel; 0 if there was none.
    pub generation: Generation,
    /// Positions that carry packets now, and go on doing so.
    pub positions: usize,
    /// Interfaces of ours.
    pub interfaces: usize,
}

/// Keeps one node's datapath as planned.
pub struct Reconciler<D> {
    datapath: D,
    desired: Option<Desired>,
    live: BTreeMap<WireId, Live>,
    /// Which wire has an existing interface.
    claims: BTreeMap<IfName, WireId>,
    /// Which wire has an interface of the agent's namespace.
    by_index: BTreeMap<u32, WireId>,
    slots: Slots,
    generation: Generation,
    busy: Busy,
}

/// How a wire stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    /// Client and endpoint; `None` where there is no interface.
    pub(crate) places: [Option<Place>; 2],
    /// Why it does not forward.
    pub(crate) failure: Option<WireFailure>,
}

impl<D: Datapath> Reconciler<D> {
    /// A reconciler that has not looked yet: call [`Self::adopt`] first.
    pub fn new(datapath: D) -> Self {
        Self {
            datapath,
            desired: None,
            live: BTreeMap::new(),
            claims: BTreeMap::new(),
            by_index: BTreeMap::new(),
            slots: Slots::default(),
            generation: 0,
            busy: Busy::default(),
        }
    }

    /// Looks at what is there, and changes nothing: what is not in the first plan may be in the next one.
    pub fn adopt(&mut self) -> Result<Adopted, ReconcileError> {
        let observed = self.datapath.observe(&Scope {
            everything: true,
            ..Scope::default()
        })?;
        self.learn_slots(&observed);
        self.generation = observed.generation;
        Ok(Adopted {
            generation: observed.generation,
            positions: observed.positions().count(),
            interfaces: observed
                .interfaces
                .values()
                .filter(|interface| interface.managed.is_some())
                .count(),
        })
    }

    /// Makes the node what `plan` says, and takes everything else of ours away.
    pub fn snapshot(&mut self, plan: Desired) -> Result<Outcome, ReconcileError> {
        self.refuse_older(plan.generation)?;
        self.desired = Some(plan);
        self.pass()
    }

    /// Carries out a change of the plan, touching only the wires it names.
    pub fn change(&mut self, change: Change) -> Result<Outcome, ReconcileError> {
        self.refuse_older(change.generation)?;
        let Some(desired) = self.desired.as_mut() else {
            return Err(ReconcileError::NoPlan {
                offered: change.generation,
            });
        };
        desired.generation = change.generation;
        let mut before = Vec::new();
        for id in change.remove {
            before.extend(desired.wires.remove(&id));
        }
        let mut target = Desired {
            generation: change.generation,
            wires: BTreeMap::new(),
        };
        for wire in change.upsert {
            before.extend(desired.wires.insert(wire.id.clone(), wire.clone()));
            target.wires.insert(wire.id.clone(), wire);
        }
        self.reconcile(&target, &before, false)
    }

    /// Compares everything with the plan and repairs what differs. Without a plan it does nothing.
    pub fn pass(&mut self) -> Result<Outcome, ReconcileError> {
        let Some(target) = self.desired.take() else {
            return Ok(Outcome {
                generation: self.generation,
                ..Outcome::default()
            });
        };
        let result = self.reconcile(&target, &[], true);
        self.desired = Some(target);
        result
    }

    /// Looks again at the wires that have one of these interfaces, which are gone or have changed, and repairs or
    /// takes down what is left of them.
    pub fn interfaces_lost(&mut self, indexes: &[u32]) -> Result<Outcome, ReconcileError> {
        let wires: BTreeSet<_> = indexes
            .iter()
            .filter_map(|index| self.by_index.get(index))
            .collect();
        let Some(desired) = self.desired.as_ref().filter(|_| !wires.is_empty()) else {
            return Ok(Outcome {
                generation: self.generation,
                ..Outcome::default()
            });
        };
        let found = wires.into_iter().filter_map(|id| desired.wires.get_key_value(id));
        let wires = found.map(|(id, wire)| (id.clone(), wire.clone())).collect();
        let target = Desired {
            generation: desired.generation,
            wires,
        };
        self.reconcile(&target, &[], false)
    }

    /// Makes packets cheaper at the busiest ends, a few at a time; returns at how many. To be called every few
    /// seconds while nothing changes. An end that cannot be promoted goes on as it is.
    pub fn promote_busy(&mut self) -> Result<usize, ObserveError> {
        let Self {
            busy, by_index, live, ..
        } = self;
        busy.retain(|index| by_index.contains_key(&index));
        let places: Vec<(u32, u32)> = live
            .values()
            .flat_map(|live| live.places.iter().flatten())
            .filter_map(|place| Some((place.index, place.slot?)))
            .filter(|(index, _)| !busy.is_promoted(*index))
            .collect();
        if places.is_empty() {
            return Ok(0);
        }
        let slots: Vec<u32> = places.iter().map(|(_, slot)| *slot).collect();
        let counters = self.datapath.counters(&slots)?;
        let packets = counters.iter().map(|counters| counters.packets);
        let chosen = busy.look(places.iter().map(|(index, _)| *index).zip(packets));
        let ends: Vec<(IfName, u32)> = chosen
            .into_iter()
            .filter_map(|index| Some((self.host_at(index)?, index)))
            .collect();
        let interfaces: Vec<(&IfName, u32)> = ends.iter().map(|(name, index)| (name, *index)).collect();
        let results = self.datapath.promote(&interfaces);
        let mut promoted = 0;
        for ((_, index), result) in ends.iter().zip(results) {
            // One that failed is tried again as long as it is busy.
            if let Ok(gained) = result {
                self.busy.promoted(*index);
                promoted += usize::from(gained);
            }
        }
        Ok(promoted)
    }

    /// The name of the end with this index.
    fn host_at(&self, index: u32) -> Option<IfName> {
        let id = self.by_index.get(&index)?;
        let (wire, live) = (self.desired.as_ref()?.wires.get(id)?, self.live.get(id)?);
        let sides = [Side::Client, Side::Endpoint].into_iter().zip(live.places);
        let mut found = sides.filter(|(_, place)| place.is_some_and(|place| place.index == index));
        found
            .next()
            .map(|(side, _)| host_of(self.datapath.scope(), wire, side))
    }

    /// The generation in the kernel.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The generation of the latest plan; 0 before the first.
    #[must_use]
    pub fn planned_generation(&self) -> Generation {
        self.desired.as_ref().map_or(0, |desired| desired.generation)
    }

    /// How many wires the plan has, and how many of them forward.
    #[must_use]
    pub fn wire_counts(&self) -> (usize, usize) {
        let planned = self.desired.as_ref().map_or(0, |desired| desired.wires.len());
        (
            planned,
            self.live.values().filter(|live| live.failure.is_none()).count(),
        )
    }

    /// The wires of the plan with their counters, read at this moment; all, or those in `ids`.
    pub fn wires(&self, ids: Option<&[WireId]>) -> Result<Vec<WireView>, ObserveError> {
        let Some(desired) = &self.desired else {
            return Ok(Vec::new());
        };
        let wires: Vec<&Wire> = match ids {
            Some(ids) => ids.iter().filter_map(|id| desired.wires.get(id)).collect(),
            None => desired.wires.values().collect(),
        };
        let none = Live::default();
        let live: Vec<&Live> = wires
            .iter()
            .map(|wire| self.live.get(&wire.id).unwrap_or(&none))
            .collect();
        let slots: Vec<u32> = live
            .iter()
            .flat_map(|live| &live.places)
            .filter_map(|place| place.as_ref()?.slot)
            .collect();
        let mut counters = self.datapath.counters(&slots)?.into_iter();
        let scope = self.datapath.scope();
        let mut next = |place: Option<Place>| match place.and_then(|place| place.slot) {
            Some(_) => counters.next().unwrap_or_default(),
            None => WireCounters::default(),
        };
        let views = wires.into_iter().zip(live).map(|(wire, live)| {
            let counters = live.places.map(&mut next);
            WireView::new(scope, wire, live, counters)
        });
        Ok(views.collect())
    }

    /// Frames by reason since the tables were made.
    pub fn reasons(&self) -> Result<Vec<(Reason, u64)>, ObserveError> {
        self.datapath.reasons()
    }

    /// What the datapath is.
    #[must_use]
    pub fn description(&self) -> Description {
        self.datapath.description()
    }

    /// The datapath underneath, to look at.
    pub const fn datapath(&self) -> &D {
        &self.datapath
    }

    /// The datapath underneath, for tests that change the world behind the reconciler's back.
    pub const fn datapath_mut(&mut self) -> &mut D {
        &mut self.datapath
    }

    /// Lets go of everything; what is in the kernel stays and goes on forwarding.
    pub fn into_datapath(self) -> D {
        self.datapath
    }

    fn refuse_older(&self, offered: Generation) -> Result<(), ReconcileError> {
        let applied = self.generation.max(self.planned_generation());
        if offered < applied {
            return Err(ReconcileError::OlderGeneration { offered, applied });
        }
        Ok(())
    }

    /// One look, one plan, one execution; then, if wires failed, one more round that takes away what there is of
    /// them. `before` are wires as they were, whose interfaces may have to go.
    fn reconcile(
        &mut self,
        plan: &Desired,
        before: &[Wire],
        everything: bool,
    ) -> Result<Outcome, ReconcileError> {
        let mut outcome = Outcome {
            generation: self.generation,
            ..Outcome::default()
        };
        let mut failures = self.claim(plan, before, everything);
        let around = Around {
            plan,
            before,
            everything,
        };
        let target = without(plan, &failures);
        let (observed, work) = self.look(&target, &around)?;
        if observed.generation > plan.generation {
            let (offered, applied) = (plan.generation, observed.generation);
            return Err(ReconcileError::OlderGeneration { offered, applied });
        }
        let applied = apply(
            &mut self.datapath,
            &mut self.slots,
            &observed,
            plan.generation,
            &work.steps,
        );
        if let Some(error) = applied.flip_error {
            return Err(ReconcileError::Flip {
                generation: plan.generation,
                error,
            });
        }
        outcome.operations += applied.done;
        failures.extend(
            work.refused
                .iter()
                .map(|(wire, obstacle)| (wire.clone(), refusal(wire, obstacle))),
        );
        let half_made: Vec<_> = applied
            .failed
            .iter()
            .filter(|(wire, _)| plan.wires.contains_key(*wire))
            .collect();
        for (wire, error) in &half_made {
            failures
                .entry((*wire).clone())
                .or_insert_with(|| failure(wire, error));
        }
        let mut errors = leftovers(&applied, |wire| !plan.wires.contains_key(wire));
        if !half_made.is_empty() {
            let (observed, work) = self.look(&without(plan, &failures), &around)?;
            let cleaned = apply(
                &mut self.datapath,
                &mut self.slots,
                &observed,
                plan.generation,
                &work.steps,
            );
            outcome.operations += cleaned.done;
            errors = leftovers(&cleaned, |_| true);
        }
        outcome.postponed = errors;
        self.generation = plan.generation;
        outcome.generation = plan.generation;
        self.remember(&around, &applied.places, &failures, &mut outcome);
        outcome.failures = failures.into_values().collect();
        Ok(outcome)
    }

    /// Looks at everything, or at the interfaces that the wires in question have or had, and plans for `target`.
    fn look(
        &mut self,
        target: &Desired,
        around: &Around<'_>,
    ) -> Result<(Observed, diff::Plan), ReconcileError> {
        let node = self.datapath.scope().clone();
        let was = around.before.iter().map(|wire| (wire, false));
        let is = around
            .plan
            .wires
            .values()
            .map(|wire| (wire, target.wires.contains_key(&wire.id)));
        let mut looks = BTreeMap::new();
        let mut indexes = Vec::new();
        for (wire, wanted) in was.chain(is) {
            for (side, end) in wire.ends() {
                let want = match end {
                    End::Interface(end) if self.claims.get(&end.name).is_some_and(|by| *by != wire.id) => {
                        continue;
                    }
                    _ if !wanted => Want::Nothing,
                    End::Veth(end) => Want::Veth(end),
                    End::Interface(_) => Want::Existing,
                };
                let host = host_of(&node, wire, side);
                looks.insert(
                    host.clone(),
                    Look {
                        wire: &wire.id,
                        host,
                        want,
                    },
                );
            }
            let places = self
                .live
                .get(&wire.id)
                .into_iter()
                .flat_map(|live| live.places.iter().flatten());
            indexes.extend(places.map(|place| place.index));
        }
        let scope = Scope {
            everything: around.everything,
            looks: looks.into_values().collect(),
            indexes,
        };
        let observed = self.datapath.observe(&scope)?;
        if around.everything {
            self.learn_slots(&observed);
        }
        let work = diff::diff(&node, target, &observed);
        Ok((observed, work))
    }

    /// Notes which wire has which existing interface; wires that name one that another wire has are refused.
    fn claim(&mut self, plan: &Desired, before: &[Wire], everything: bool) -> BTreeMap<WireId, WireFailure> {
        if everything {
            self.claims
                .retain(|name, by| plan.wires.get(by).is_some_and(|wire| names(wire, name)));
        }
        for wire in before {
            for name in existing(wire) {
                let kept = plan.wires.get(&wire.id).is_some_and(|now| names(now, name));
                if !kept && self.claims.get(name) == Some(&wire.id) {
                    self.claims.remove(name);
                }
            }
        }
        let mut refused = BTreeMap::new();
        for wire in plan.wires.values() {
            for name in existing(wire) {
                let by = self.claims.entry(name.clone()).or_insert_with(|| wire.id.clone());
                if *by != wire.id {
                    let obstacle = Obstacle::InterfaceBusy {
                        name: name.clone(),
                        by: by.clone(),
                    };
                    refused.insert(wire.id.clone(), refusal(&wire.id, &obstacle));
                }
            }
        }
        self.claims.retain(|_, by| !refused.contains_key(by));
        refused
    }

    fn learn_slots(&mut self, observed: &Observed) {
        let capacity = self.datapath.description().max_wires * dataplane_common::limits::POSITIONS_PER_WIRE;
        self.slots = Slots::new(capacity, observed.positions().map(|(_, position)| position.slot));
    }

    /// Remembers how the wires stand and notes which ones went down or came back.
    fn remember(
        &mut self,
        around: &Around<'_>,
        places: &BTreeMap<IfName, Place>,
        failures: &BTreeMap<WireId, WireFailure>,
        outcome: &mut Outcome,
    ) {
        let node = self.datapath.scope().clone();
        let wires = &around.plan.wires;
        for wire in around.before.iter().filter(|wire| !wires.contains_key(&wire.id)) {
            self.forget(&wire.id);
        }
        if around.everything {
            let gone: Vec<_> = self
                .live
                .keys()
                .filter(|id| !wires.contains_key(*id))
                .cloned()
                .collect();
            for id in &gone {
                self.forget(id);
            }
        }
        for (id, wire) in wires {
            let failure = failures.get(id).cloned();
            match (self.forget(id).map(|live| live.failure.is_none()), &failure) {
                (Some(true), Some(_)) => outcome.lost.push(id.clone()),
                (Some(false), None) => outcome.restored.push(id.clone()),
                _ => {}
            }
            let place = |side| {
                places
                    .get(&host_of(&node, wire, side))
                    .copied()
                    .filter(|_| failure.is_none())
            };
            let places = [Side::Client, Side::Endpoint].map(place);
            self.by_index
                .extend(places.iter().flatten().map(|place| (place.index, id.clone())));
            self.live.insert(id.clone(), Live { places, failure });
        }
    }

    fn forget(&mut self, id: &WireId) -> Option<Live> {
        let live = self.live.remove(id)?;
        for place in live.places.iter().flatten() {
            if self.by_index.get(&place.index) == Some(id) {
                self.by_index.remove(&place.index);
            }
        }
        Some(live)
    }
}

/// The wires in question of one reconcile.
struct Around<'a> {
    /// As they shall be.
    plan: &'a Desired,
    /// As they were.
    before: &'a [Wire],
    /// Whether `plan` is the whole plan.
    everything: bool,
}

/// The plan without the wires that failed.
fn without<'a>(plan: &'a Desired, failures: &BTreeMap<WireId, WireFailure>) -> Cow<'a, Desired> {
    if failures.is_empty() {
        return Cow::Borrowed(plan);
    }
    let mut kept = plan.clone();
    kept.wires.retain(|wire, _| !failures.contains_key(wire));
    Cow::Owned(kept)
}

/// The existing interfaces that a wire names.
fn existing(wire: &Wire) -> impl Iterator<Item = &IfName> {
    wire.ends().into_iter().filter_map(|(_, end)| match end {
        End::Interface(end) => Some(&end.name),
        End::Veth(_) => None,
    })
}

fn names(wire: &Wire, name: &IfName) -> bool {
    existing(wire).any(|named| named == name)
}

fn leftovers(applied: &Applied, of: impl Fn(&WireId) -> bool) -> Vec<Postponed> {
    let wires = applied.failed.iter().filter(|(wire, _)| of(wire));
    let wires = wires.map(|(wire, error)| Postponed {
        wire: Some(wire.clone()),
        message: error.message.clone(),
    });
    let node = applied.node_errors.iter().map(|error| Postponed {
        wire: None,
        message: error.message.clone(),
    });
    wires.chain(node).collect()
}

fn refusal(wire: &WireId, obstacle: &Obstacle) -> WireFailure {
    WireFailure {
        wire: wire.clone(),
        kind: obstacle.kind(),
        message: obstacle.to_string(),
        field: obstacle.field(),
    }
}

fn failure(wire: &WireId, error: &OpError) -> WireFailure {
    WireFailure {
        wire: wire.clone(),
        kind: error.kind,
        message: error.message.clone(),
        field: error.field.clone(),
    }
}
