//! The one executor: carries out a plan's steps in order, in runs of one kind.

use std::collections::{BTreeMap, BTreeSet};

use dataplane_common::abi::{Generation, Hop, Position};

use crate::{
    datapath::{Datapath, OpError, Results},
    desired::{IfName, WireId},
    diff::hop,
    observed::Observed,
    op::{Op, Point, Step},
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
    /// Failures of steps that belong to no wire.
    pub node_errors: Vec<OpError>,
    /// The generation word could not be written; nothing was done after that.
    pub flip_error: Option<OpError>,
    /// Where the interfaces are: index, and counter slot if there is an entry.
    pub places: BTreeMap<IfName, Place>,
}

/// Index and counter slot of an interface in the agent's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Interface index.
    pub index: u32,
    /// Counter slot; `None` while it is no position.
    pub slot: Option<u32>,
}

/// Carries out `steps`. `now` is the generation in the kernel, `since` the one that the steps lead to.
pub fn apply<D: Datapath>(
    datapath: &mut D,
    slots: &mut Slots,
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
            },
        )
    });
    let applied = Applied {
        places: places.collect(),
        ..Applied::default()
    };
    let mut run = Run {
        datapath,
        slots,
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
    slots: &'a mut Slots,
    now: Generation,
    since: Generation,
    applied: Applied,
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
            Op::Delete(_) => {
                let links: Vec<_> = payloads!(steps, Op::Delete).collect();
                let results = self.datapath.delete(&links);
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
                    },
                );
            }
        }
        self.note(steps, results);
    }

    fn point(&mut self, steps: &[&Step]) {
        let prepared: Vec<_> = payloads!(steps, Op::Point)
            .map(|point| self.entry(point))
            .collect();
        let fresh: BTreeSet<u32> = payloads!(steps, Op::Point)
            .zip(&prepared)
            .filter_map(|(point, entry)| Some(entry.as_ref().ok()?.1.slot).filter(|_| point.was.is_none()))
            .collect();
        let zeroed = if fresh.is_empty() {
            Ok(())
        } else {
            self.datapath
                .zero_counters(&fresh.iter().copied().collect::<Vec<_>>())
        };
        let entries: Vec<_> = prepared
            .iter()
            .filter_map(|entry| entry.as_ref().ok().copied())
            .collect();
        let written = match zeroed {
            Ok(()) => self.datapath.write_positions(&entries),
            Err(error) => vec![Err(error); entries.len()],
        };
        let mut written = written.into_iter();
        let results: Results<()> = prepared
            .iter()
            .map(|entry| entry.clone().and_then(|_| written.next().unwrap_or(Ok(()))))
            .collect();
        for (point, (entry, result)) in payloads!(steps, Op::Point).zip(prepared.iter().zip(&results)) {
            let Ok((_, position)) = entry else { continue };
            if result.is_err() && point.was.is_none() {
                self.slots.release(position.slot);
            } else if let Some(place) = self.applied.places.get_mut(&point.at) {
                place.slot = Some(position.slot);
            }
        }
        self.note(steps, results);
    }

    /// The entry for one position, which takes a slot if it is new.
    fn entry(&mut self, point: &Point) -> Result<(u32, Position), OpError> {
        let at = self.index(&point.at)?;
        let to = match &point.to {
            Some(target) => hop(target.kind, self.index(&target.host)?),
            None => Hop::PARKED,
        };
        let position = match point.was {
            Some(was) => Position {
                flags: point.flags.bits(),
                ..was.staged(self.now, self.since, to)
            },
            None => Position::starting(self.since, to, self.slot()?, point.flags),
        };
        Ok((at, position))
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
        let capacity = self.slots.capacity();
        self.slots.take().ok_or_else(|| OpError {
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
                self.slots.release(entry.slot);
            }
        }
        self.note(steps, results);
    }

    fn note<T>(&mut self, steps: &[&Step], results: Results<T>) {
        debug_assert_eq!(steps.len(), results.len());
        for (step, result) in steps.iter().zip(results) {
            match (result, &step.wire) {
                (Ok(_), _) => self.applied.done += 1,
                (Err(error), Some(wire)) => {
                    self.applied.failed.entry(wire.clone()).or_insert(error);
                }
                (Err(error), None) => self.applied.node_errors.push(error),
            }
        }
    }
}
