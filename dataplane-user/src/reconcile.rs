//! Keeps the kernel as the plan says.
//!
//! The contract: nothing is touched before the first plan is known; every call is idempotent and moves only closer;
//! a wire that fails disturbs no other, and leaves nothing behind but the client's end if it had one; after a call without faults the next pass
//! carries out no operation; a change costs what the change holds, however many wires there are.

mod drain;
mod failover;
mod found;
mod local;
mod patrol;
mod round;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use dataplane_common::{
    Reason,
    abi::{Generation, Position, Split, SplitBranch, SplitFlags, WireCounters},
};

use self::{found::Found, local::Local, round::Around};
use crate::{
    apply::{Place, Supplies},
    busy::Busy,
    circuit::Path,
    datapath::{Datapath, Description, ObserveError, OpError},
    desired::{Change, Desired, IfName, Wire, WireId},
    diff::{
        Laid,
        split::{branch_hash, is_branch},
    },
    linger::Lingering,
    liveness::Target,
    observed::{Scope, split_numbers},
    outcome::{Outcome, WireFailure},
    slots::Slots,
};

pub use self::patrol::Patrol;
pub use crate::linger::LINGER;
pub use crate::view::{BranchView, EndView, HopView, WireView};

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
    /// How many of `live` forward, and how many are parked as planned.
    standing: [usize; 2],
    /// Which wire has an existing interface.
    claims: BTreeMap<IfName, WireId>,
    /// Which wire has an interface of the agent's namespace.
    by_index: BTreeMap<u32, WireId>,
    lingering: Lingering,
    local: Local,
    supplies: Supplies,
    generation: Generation,
    busy: Busy,
}

/// How many wires of the plan stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    /// Packets pass.
    pub forwarding: usize,
    /// As planned they lead nowhere.
    pub parked: usize,
    /// They cannot be made as planned.
    pub failed: usize,
}

impl WireCounts {
    /// All of them.
    #[must_use]
    pub const fn planned(&self) -> usize {
        self.forwarding + self.parked + self.failed
    }
}

/// How a wire stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    /// By end, as the wire's layout numbers them; `None` where there is no interface.
    pub(crate) places: Vec<Option<Place>>,
    /// Whether it leads nowhere as planned.
    pub(crate) parked: bool,
    /// Why it does not forward.
    pub(crate) failure: Option<WireFailure>,
    /// Where its paths are asked whether they are alive.
    pub(crate) targets: Vec<(Path, Target)>,
}

impl Live {
    /// Its number in [`Reconciler::standing`]; `None` when it failed.
    fn standing(&self) -> Option<usize> {
        self.failure.is_none().then_some(usize::from(self.parked))
    }
}

impl<D: Datapath> Reconciler<D> {
    /// A reconciler that has not looked yet: call [`Self::adopt`] first.
    pub fn new(datapath: D) -> Self {
        Self {
            datapath,
            desired: None,
            live: BTreeMap::new(),
            standing: [0; 2],
            claims: BTreeMap::new(),
            by_index: BTreeMap::new(),
            lingering: Lingering::default(),
            local: Local::default(),
            supplies: Supplies::default(),
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
        self.learn_supplies(
            observed.positions().map(|(_, position)| position),
            &observed.splits,
        );
        self.generation = observed.generation;
        self.local.found = Found::new(&observed);
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
    pub fn snapshot(&mut self, plan: Desired, now: Instant) -> Result<Outcome, ReconcileError> {
        self.refuse_older(plan.generation)?;
        let plan = Desired {
            wires: self.with_local(plan.wires),
            ..plan
        };
        let before = self.desired.take().unwrap_or_default().wires;
        let changed = before
            .into_values()
            .filter(|was| plan.wires.get(&was.id) != Some(was));
        let before: Vec<Wire> = changed.collect();
        self.desired = Some(plan);
        let outcome = self.everything(&before, now);
        self.local.found = Found::default();
        outcome
    }

    /// Carries out a change of the plan, touching only the wires it names.
    pub fn change(&mut self, change: Change, now: Instant) -> Result<Outcome, ReconcileError> {
        self.refuse_older(change.generation)?;
        if self.desired.is_none() {
            return Err(ReconcileError::NoPlan {
                offered: change.generation,
            });
        }
        for id in &change.remove {
            self.forget_local(id);
        }
        let upsert: Vec<Wire> = change
            .upsert
            .into_iter()
            .map(|wire| self.one_with_local(wire))
            .collect();
        let desired = self.desired.get_or_insert_default();
        desired.generation = change.generation;
        let mut before = Vec::new();
        for id in change.remove {
            before.extend(desired.wires.remove(&id));
        }
        let mut target = Desired {
            generation: change.generation,
            wires: BTreeMap::new(),
        };
        for wire in upsert {
            before.extend(desired.wires.insert(wire.id.clone(), wire.clone()));
            target.wires.insert(wire.id.clone(), wire);
        }
        let outcome = self.reconcile(&Around::wires(&target, &before), now)?;
        self.over_backups(outcome, now)
    }

    /// Compares everything with the plan and repairs what differs. Without a plan it does nothing.
    pub fn pass(&mut self, now: Instant) -> Result<Outcome, ReconcileError> {
        self.everything(&[], now)
    }

    fn everything(&mut self, before: &[Wire], now: Instant) -> Result<Outcome, ReconcileError> {
        let Some(target) = self.desired.take() else {
            return Ok(self.nothing_done());
        };
        let around = Around {
            everything: true,
            ..Around::wires(&target, before)
        };
        let result = self.reconcile(&around, now);
        self.desired = Some(target);
        self.over_backups(result?, now)
    }

    /// When the next end that wires do not want any more is due to go: call [`Self::end_lingering`] then.
    #[must_use]
    pub fn lingers_until(&self) -> Option<Instant> {
        self.lingering.next()
    }

    /// Takes away the ends that nobody wants any more and that have lingered long enough.
    pub fn end_lingering(&mut self, now: Instant) -> Result<Outcome, ReconcileError> {
        let due = self.lingering.take_due(now);
        if due.is_empty() {
            return Ok(self.nothing_done());
        }
        let target = Desired {
            generation: self.planned_generation(),
            ..Desired::default()
        };
        let around = Around {
            due: &due,
            ..Around::wires(&target, &[])
        };
        self.reconcile(&around, now)
    }

    fn nothing_done(&self) -> Outcome {
        Outcome {
            generation: self.generation,
            ..Outcome::default()
        }
    }

    /// Looks again at the wires that have one of these interfaces, which are gone or have changed, and repairs or
    /// takes down what is left of them.
    pub fn interfaces_lost(&mut self, indexes: &[u32], now: Instant) -> Result<Outcome, ReconcileError> {
        let wires: BTreeSet<_> = indexes
            .iter()
            .filter_map(|index| self.by_index.get(index))
            .collect();
        let Some(desired) = self.desired.as_ref().filter(|_| !wires.is_empty()) else {
            return Ok(self.nothing_done());
        };
        let found = wires.into_iter().filter_map(|id| desired.wires.get_key_value(id));
        let wires = found.map(|(id, wire)| (id.clone(), wire.clone())).collect();
        let target = Desired {
            generation: desired.generation,
            wires,
        };
        let outcome = self.reconcile(&Around::wires(&target, &[]), now)?;
        self.over_backups(outcome, now)
    }

    /// Whether a wire has the interface with this index.
    #[must_use]
    pub fn has_interface(&self, index: u32) -> bool {
        self.by_index.contains_key(&index)
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
        let at = |place: &Option<Place>| place.is_some_and(|place| place.index == index);
        let number = live.places.iter().position(at)?;
        let mut laid = Laid::new(self.datapath.scope(), wire);
        (number < laid.hosts.len()).then(|| laid.hosts.swap_remove(number))
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

    /// The plan, with what the node has decided by itself about wires of it.
    #[must_use]
    pub const fn plan(&self) -> Option<&Desired> {
        self.desired.as_ref()
    }

    /// How the wires of the plan stand.
    #[must_use]
    pub fn wire_counts(&self) -> WireCounts {
        let planned = self.desired.as_ref().map_or(0, |desired| desired.wires.len());
        let [forwarding, parked] = self.standing;
        WireCounts {
            forwarding,
            parked,
            // A wire of which nothing is known is in a plan that could not be carried out.
            failed: planned.saturating_sub(forwarding + parked),
        }
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
            let counters: Vec<_> = live.places.iter().copied().map(&mut next).collect();
            let taken = self.taken(wire, live)?;
            Ok(WireView::new(scope, wire, live, &counters, &taken))
        });
        views.collect()
    }

    /// What took each branch, where the wire's flows part; nothing where they do not.
    fn taken(&self, wire: &Wire, live: &Live) -> Result<Vec<WireCounters>, ObserveError> {
        let numbers = live.places.iter().flatten().filter_map(|place| place.split);
        for number in numbers {
            let split = self.datapath.split(number)?;
            let Some(split) = split.filter(|split| split.has(SplitFlags::DECIDES)) else {
                continue;
            };
            let laid = Laid::new(self.datapath.scope(), wire);
            let slot = |branch: usize| {
                let hash = branch_hash(&laid, branch)?;
                let found = split.branches.iter().find(|found| is_branch(found.id, hash));
                found.map(|found| found.slot)
            };
            let slots = (0..wire.branches.len()).map(|branch| slot(branch).unwrap_or(SplitBranch::NO_SLOT));
            return self.datapath.counters(&slots.collect::<Vec<_>>());
        }
        Ok(Vec::new())
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

    /// What is in use is what the tables hold.
    fn learn_supplies(&mut self, positions: impl Iterator<Item = Position>, splits: &BTreeMap<u32, Split>) {
        let capacity = self.datapath.description().max_wires * dataplane_common::limits::POSITIONS_PER_WIRE;
        let branches = splits.values().flat_map(|split| &split.branches);
        let of_branches = branches.filter(|branch| branch.id != 0).map(|branch| branch.slot);
        let mut highest = splits.keys().next_back().copied();
        let mut slots: Vec<u32> = of_branches.collect();
        for position in positions {
            slots.push(position.slot);
            highest = highest.max(split_numbers(&position).max());
        }
        self.supplies = Supplies {
            slots: Slots::new(capacity, slots),
            next_split: highest.unwrap_or(0).max(self.supplies.next_split) + 1,
        };
    }
}
