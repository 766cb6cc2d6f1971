//! The one executor: carries out a plan's steps in order, in runs of one kind.

use std::{cell::RefCell, collections::BTreeMap};

use dataplane_common::abi::{Generation, Hop, Position, Split, SplitBranch};

use crate::{
    datapath::{Datapath, OpError, Results},
    desired::{IfName, WireId},
    diff::{hop, split::LEARN_NS},
    observed::Observed,
    op::{Lead, Learn, NewSplit, NewWay, Op, Point, SlotPlan, Step},
    outcome::FailureKind,
    slots::Slots,
};

/// What came of the steps.
#[derive(Debug, Default)]
pub struct Applied {
    /// How many steps were carried out.
    pub done: usize,
    /// The first failure of each wire; the wire's later steps were left out.
    pub failed: BTreeMap<WireId, OpError>,
    /// The host end that it was about, if it was about one.
    pub failed_at: BTreeMap<WireId, IfName>,
    /// Failures of steps that belong to no wire.
    pub node_errors: Vec<OpError>,
    /// The generation word could not be written; nothing was done after that.
    pub flip_error: Option<OpError>,
    /// Where the interfaces are: index, and counter slot if there is an entry.
    pub places: BTreeMap<IfName, Place>,
}

/// An interface in the agent's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Interface index.
    pub index: u32,
    /// Counter slot; `None` while it is no position.
    pub slot: Option<u32>,
    /// Number of the split that it leads to.
    pub split: Option<u32>,
}

/// What positions and splits are given.
#[derive(Debug, Default)]
pub struct Supplies {
    /// Counter slots.
    pub slots: Slots,
    /// The number of the next split: none is given twice, for a program may still read one that is gone.
    pub next_split: u32,
}

/// Carries out `steps`. `now` is the generation in the kernel, `since` the one that the steps lead to.
pub fn apply<D: Datapath>(
    datapath: &mut D,
    supplies: &mut Supplies,
    observed: &Observed,
    since: Generation,
    steps: &[Step],
) -> Applied {
    let places = observed.interfaces.iter().map(|(host, found)| {
        (
            host.clone(),
            Place {
                index: found.index,
                slot: found.position.map(|position| position.slot),
                split: found
                    .position
                    .and_then(|position| Some(observed.split_of(&position)?.0)),
            },
        )
    });
    let applied = Applied {
        places: places.collect(),
        ..Applied::default()
    };
    let mut run = Run {
        datapath,
        supplies,
        now: observed.generation,
        since,
        applied,
    };
    for chunk in steps.chunk_by(|a, b| std::mem::discriminant(&a.op) == std::mem::discriminant(&b.op)) {
        if run.applied.flip_error.is_some() {
            break;
        }
        run.chunk(chunk);
    }
    run.applied
}

struct Run<'a, D> {
    datapath: &'a mut D,
    supplies: &'a mut Supplies,
    now: Generation,
    since: Generation,
    applied: Applied,
}

/// An entry that is about to be written.
struct Prepared {
    entry: (u32, Position),
    split: Option<(u32, Split)>,
    /// Slots that it has taken.
    fresh: Vec<u32>,
}

/// Picks the payload of one kind of operation out of a run of steps of that kind.
macro_rules! payloads {
    ($steps:expr, $variant:path) => {
        $steps.iter().filter_map(|step| {
            if let $variant(payload) = &step.op {
                Some(payload)
            } else {
                None
            }
        })
    };
}

impl<D: Datapath> Run<'_, D> {
    /// All of one kind.
    fn chunk(&mut self, steps: &[Step]) {
        let live = |step: &&Step| {
            step.wire
                .as_ref()
                .is_none_or(|wire| !self.applied.failed.contains_key(wire))
        };
        let steps: Vec<&Step> = steps.iter().filter(live).collect();
        let Some(first) = steps.first() else { return };
        match &first.op {
            Op::Create(_) => self.create(&steps),
            Op::Settle(_) => {
                let ends: Vec<_> = payloads!(steps, Op::Settle).collect();
                let results = self.datapath.settle(&ends);
                self.note(&steps, results);
            }
            Op::Configure(_) => {
                let changes: Vec<_> = payloads!(steps, Op::Configure).map(AsRef::as_ref).collect();
                let results = self.datapath.configure(&changes);
                self.note(&steps, results);
            }
            Op::Point(_) => self.point(&steps),
            Op::Attach(_) => self.attach(&steps),
            Op::Flip(generation) => match self.datapath.set_generation(*generation) {
                Ok(()) => self.applied.done += 1,
                Err(error) => self.applied.flip_error = Some(error),
            },
            Op::Unpoint(_) => self.unpoint(&steps),
            Op::Detach(_) => {
                let hosts: Vec<_> = payloads!(steps, Op::Detach).collect();
                let results = self.datapath.detach(&hosts);
                self.note(&steps, results);
            }
            Op::Unsplit(_) => self.unsplit(&steps),
            Op::Delete(_) => {
                let links: Vec<_> = payloads!(steps, Op::Delete).collect();
                let results = self.datapath.delete(&links);
                self.note(&steps, results);
            }
            Op::Sweep(_) => {
                let namespaces: Vec<_> = payloads!(steps, Op::Sweep).collect();
                let results = self.datapath.sweep(&namespaces);
                self.note(&steps, results);
            }
        }
    }

    fn create(&mut self, steps: &[&Step]) {
        let ends: Vec<_> = payloads!(steps, Op::Create).map(AsRef::as_ref).collect();
        let results = self.datapath.create(&ends);
        for (end, result) in ends.iter().zip(&results) {
            if let Ok(index) = result {
                self.applied.places.insert(
                    end.host.clone(),
                    Place {
                        index: *index,
                        slot: None,
                        split: None,
                    },
                );
            }
        }
        self.note(steps, results);
    }

    fn point(&mut self, steps: &[&Step]) {
        let mut prepared: Vec<_> = payloads!(steps, Op::Point)
            .map(|point| self.prepare(point))
            .collect();
        self.zero(&mut prepared);
        self.write_splits(&mut prepared);
        let entries: Vec<_> = prepared
            .iter()
            .filter_map(|entry| Some(entry.as_ref().ok()?.entry))
            .collect();
        let mut written = self.datapath.write_positions(&entries).into_iter();
        let results: Results<()> = prepared
            .iter()
            .map(|entry| match entry {
                Ok(_) => written.next().unwrap_or(Ok(())),
                Err(error) => Err(error.clone()),
            })
            .collect();
        for ((point, entry), result) in payloads!(steps, Op::Point).zip(&prepared).zip(&results) {
            let Ok(entry) = entry else { continue };
            if result.is_err() {
                self.give_back(entry);
            } else if let Some(place) = self.applied.places.get_mut(&point.at) {
                place.slot = Some(entry.entry.1.slot);
                place.split = entry.split.map(|(number, _)| number);
            }
        }
        self.note(steps, results);
    }

    /// The entry for one position, which takes slots if it is new, and a number if it leads to a split.
    fn prepare(&mut self, point: &Point) -> Result<Prepared, OpError> {
        let at = self.index(&point.at)?;
        let mut fresh = Vec::new();
        let (to, split) = match &point.to {
            Lead::Parked => (Hop::PARKED, None),
            Lead::To(target) => (hop(target.kind, self.index(&target.host)?), None),
            Lead::Split(new) => {
                let split = self.split(new, &mut fresh)?;
                let number = self.supplies.next_split;
                self.supplies.next_split += 1;
                (Hop::split(number), Some((number, split)))
            }
        };
        let position = match point.was {
            Some(was) => Position {
                flags: point.flags.bits(),
                ..was.staged(self.now, self.since, to)
            },
            None => {
                let slot = self.slot()?;
                fresh.push(slot);
                Position::starting(self.since, to, slot, point.flags)
            }
        };
        Ok(Prepared {
            entry: (at, position),
            split,
            fresh,
        })
    }

    fn split(&mut self, new: &NewSplit, fresh: &mut Vec<u32>) -> Result<Split, OpError> {
        for way in &new.ways {
            self.index(&way.target.host)?;
            if way.slot == SlotPlan::New {
                fresh.push(self.slot()?);
            }
        }
        let taken = RefCell::new(fresh.iter());
        let slot = |way: &NewWay| match way.slot {
            SlotPlan::None => Some(SplitBranch::NO_SLOT),
            SlotPlan::Keep(slot) => Some(slot),
            SlotPlan::New => taken.borrow_mut().next().copied(),
        };
        let learn_until = match new.learn {
            Learn::Keep(until) => until,
            Learn::Begin => self.datapath.now_ns().saturating_add(LEARN_NS),
        };
        let built = new.build(|host| self.index(host).ok(), slot, learn_until);
        built.ok_or_else(|| {
            OpError::kernel("an interface vanished meanwhile; the next pass tries again".to_owned())
        })
    }

    /// Sets the counters of slots to zero that were taken.
    fn zero(&mut self, prepared: &mut [Result<Prepared, OpError>]) {
        let fresh: Vec<u32> = prepared
            .iter()
            .flatten()
            .flat_map(|entry| &entry.fresh)
            .copied()
            .collect();
        if fresh.is_empty() {
            return;
        }
        if let Err(error) = self.datapath.zero_counters(&fresh) {
            self.refuse(prepared, |_| true, &error);
        }
    }

    fn write_splits(&mut self, prepared: &mut [Result<Prepared, OpError>]) {
        let splits: Vec<_> = prepared
            .iter()
            .flatten()
            .filter_map(|entry| entry.split)
            .collect();
        if splits.is_empty() {
            return;
        }
        let results = self.datapath.write_splits(&splits);
        for ((number, _), result) in splits.iter().zip(results) {
            if let Err(error) = result {
                let is_it = |entry: &Prepared| entry.split.is_some_and(|(other, _)| other == *number);
                self.refuse(prepared, is_it, &error);
            }
        }
    }

    /// Gives up what was prepared.
    fn refuse(
        &mut self,
        prepared: &mut [Result<Prepared, OpError>],
        which: impl Fn(&Prepared) -> bool,
        error: &OpError,
    ) {
        for entry in prepared {
            if let Ok(given_up) = entry
                && which(given_up)
            {
                self.give_back(given_up);
                *entry = Err(error.clone());
            }
        }
    }

    /// Nothing leads to it: its slots are free, and its split goes.
    fn give_back(&mut self, entry: &Prepared) {
        entry
            .fresh
            .iter()
            .for_each(|slot| self.supplies.slots.release(*slot));
        if let Some((number, _)) = entry.split {
            // One that stays is found by the next full pass.
            let _ = self.datapath.delete_splits(&[number]);
        }
    }

    fn unsplit(&mut self, steps: &[&Step]) {
        let numbers: Vec<u32> = payloads!(steps, Op::Unsplit).map(|split| split.number).collect();
        let results = self.datapath.delete_splits(&numbers);
        for (split, result) in payloads!(steps, Op::Unsplit).zip(&results) {
            if result.is_ok() {
                split
                    .slots
                    .iter()
                    .for_each(|slot| self.supplies.slots.release(*slot));
            }
        }
        self.note(steps, results);
    }

    fn index(&self, host: &IfName) -> Result<u32, OpError> {
        let place = self.applied.places.get(host);
        place.map(|place| place.index).ok_or_else(|| {
            OpError::kernel(format!(
                "interface {host} vanished meanwhile; the next pass tries again"
            ))
        })
    }

    fn slot(&mut self) -> Result<u32, OpError> {
        let capacity = self.supplies.slots.capacity();
        self.supplies.slots.take().ok_or_else(|| OpError {
            kind: FailureKind::Capacity,
            message: format!(
                "all {capacity} positions of this node are in use; close wires or start the agent with a larger --max-wires"
            ),
            field: None,
        })
    }

    fn attach(&mut self, steps: &[&Step]) {
        let places: Vec<_> = payloads!(steps, Op::Attach)
            .map(|host| self.index(host).map(|index| (host, index)))
            .collect();
        let present: Vec<_> = places
            .iter()
            .filter_map(|place| place.as_ref().ok().copied())
            .collect();
        let mut results = self.datapath.attach(&present).into_iter();
        let results = places
            .into_iter()
            .map(|place| place.and_then(|_| results.next().unwrap_or(Ok(()))));
        let results = results.collect();
        self.note(steps, results);
    }

    fn unpoint(&mut self, steps: &[&Step]) {
        let entries: Vec<_> = payloads!(steps, Op::Unpoint).copied().collect();
        let results = self
            .datapath
            .delete_positions(&entries.iter().map(|entry| entry.index).collect::<Vec<_>>());
        for (entry, result) in entries.iter().zip(&results) {
            if result.is_ok() {
                self.supplies.slots.release(entry.slot);
            }
        }
        self.note(steps, results);
    }

    fn note<T>(&mut self, steps: &[&Step], results: Results<T>) {
        debug_assert_eq!(steps.len(), results.len());
        for (step, result) in steps.iter().zip(results) {
            match (result, &step.wire) {
                (Ok(_), _) => self.applied.done += 1,
                (Err(error), Some(wire)) if !self.applied.failed.contains_key(wire) => {
                    let at = step.op.at().map(|host| (wire.clone(), host.clone()));
                    self.applied.failed_at.extend(at);
                    self.applied.failed.insert(wire.clone(), error);
                }
                (Err(_), Some(_)) => {}
                (Err(error), None) => self.applied.node_errors.push(error),
            }
        }
    }
}
