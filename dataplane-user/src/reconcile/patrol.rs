//! Comparing everything with the plan a part at a time: on a node with many wires it takes seconds, and what is asked of
//! the agent meanwhile must not wait for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{ReconcileError, Reconciler, round::Around};
use crate::{
    datapath::Datapath,
    desired::{Desired, End, NetnsId, Wire, WireId},
    observed::{Survey, split_numbers},
    outcome::Outcome,
};

/// How far a patrol is.
#[derive(Debug)]
pub struct Patrol {
    /// The wires that have not been looked at yet, from the end on. Those of one workload follow each other, so that few
    /// namespaces are visited in one part.
    wires: Vec<WireId>,
    done: bool,
}

impl Patrol {
    /// Whether everything was looked at.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done
    }
}

fn client_netns(wire: &Wire) -> Option<NetnsId> {
    match &wire.client {
        End::Veth(end) => Some(end.netns.id),
        End::Interface(_) => None,
    }
}

impl<D: Datapath> Reconciler<D> {
    /// A patrol that has not begun. Wires that come later are not part of it: they are looked at as they come.
    #[must_use]
    pub fn patrol(&self) -> Patrol {
        let mut wires: Vec<&Wire> = self
            .desired
            .iter()
            .flat_map(|desired| desired.wires.values())
            .collect();
        wires.sort_by_key(|wire| client_netns(wire));
        Patrol {
            wires: wires.into_iter().map(|wire| wire.id.clone()).collect(),
            done: false,
        }
    }

    /// Does the next part of a patrol: looks at the next wires, so many at a time, and repairs what differs; when it has
    /// looked at all, looks for what belongs to none. In the end everything was compared as by [`Self::pass`].
    pub fn go_on(
        &mut self,
        patrol: &mut Patrol,
        wires: usize,
        now: Instant,
    ) -> Result<Outcome, ReconcileError> {
        if self.generation != self.planned_generation() {
            // What is in force is not the plan, so there is no part of it that could be right by itself.
            patrol.done = true;
            return self.pass(now);
        }
        if patrol.wires.is_empty() {
            return self.look_for_strays(patrol, now);
        }
        let rest = patrol.wires.len().saturating_sub(wires);
        let part = patrol.wires.split_off(rest);
        let Some(desired) = &self.desired else {
            return Ok(self.nothing_done());
        };
        let known = part.iter().filter_map(|id| desired.wires.get_key_value(id));
        let target = Desired {
            generation: desired.generation,
            wires: known.map(|(id, wire)| (id.clone(), wire.clone())).collect(),
        };
        let around = Around {
            thorough: true,
            ..Around::wires(&target, &[])
        };
        let outcome = self.reconcile(&around, now)?;
        self.over_backups(outcome, now)
    }

    fn look_for_strays(&mut self, patrol: &mut Patrol, now: Instant) -> Result<Outcome, ReconcileError> {
        let Some(survey) = self.datapath.survey()? else {
            return Ok(self.nothing_done());
        };
        patrol.done = true;
        if self.has_strays(&survey) {
            return self.pass(now);
        }
        self.learn_supplies(survey.positions.values().copied(), &survey.splits);
        Ok(self.nothing_done())
    }

    /// Whether there is anything that no wire has and that does not linger either.
    fn has_strays(&self, survey: &Survey) -> bool {
        let indexes: BTreeMap<&_, u32> = survey
            .interfaces
            .iter()
            .map(|(name, index)| (name, *index))
            .collect();
        let is_planned = |id: &WireId| {
            let desired = self.desired.as_ref();
            desired.is_some_and(|desired| desired.wires.contains_key(id))
        };
        let is_known =
            |index: &u32| self.by_index.get(index).is_some_and(is_planned) || self.lingering.has(*index);
        let named: BTreeSet<u32> = survey.positions.values().flat_map(split_numbers).collect();
        survey.incomplete
            || !indexes.values().all(is_known)
            || !survey.positions.keys().all(is_known)
            || !survey.splits.keys().all(|number| named.contains(number))
            || !survey.attachments.iter().all(|name| indexes.contains_key(name))
    }
}
