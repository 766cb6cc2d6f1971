//! From a plan to the kernel, in a few rounds of one look, one plan of operations and one execution.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Instant,
};

use super::{Live, ReconcileError, Reconciler};
use crate::{
    apply::{Applied, Place, apply},
    circuit::Facing,
    datapath::{Datapath, OpError},
    desired::{Desired, End, IfName, Wire, WireId},
    diff::{Laid, diff},
    linger::{Before, Due, Round},
    liveness::{WatchChange, targets},
    observed::{Look, Observed, Obstacle, Scope, Want},
    outcome::{FailureKind, Outcome, Postponed, WireFailure},
    ownership::NodeScope,
};

/// A wire is made as planned; if that fails, without its backup, without what drains, its client's end alone, not at all.
const MAX_ROUNDS: usize = 5;

/// What one reconcile is about.
pub(super) struct Around<'a> {
    /// The wires in question, as they shall be.
    pub(super) plan: &'a Desired,
    /// As they were, if they were others: their interfaces may have to go.
    pub(super) before: &'a [Wire],
    /// Ends that have lingered long enough.
    pub(super) due: &'a [Due],
    /// Whether `plan` is the whole plan.
    pub(super) everything: bool,
    /// Whether to look what stands in the way of ends that are not there, before they are made.
    pub(super) thorough: bool,
    /// The wires of `plan` and `before`.
    pub(super) about: BTreeSet<&'a WireId>,
}

impl<'a> Around<'a> {
    /// These wires, and no others.
    pub(super) fn wires(plan: &'a Desired, before: &'a [Wire]) -> Self {
        let were = before.iter().map(|wire| &wire.id);
        Self {
            about: plan.wires.keys().chain(were).collect(),
            plan,
            before,
            due: &[],
            everything: false,
            thorough: false,
        }
    }

    fn is_about(&self, id: &WireId) -> bool {
        self.everything || self.about.contains(id)
    }
}

/// What a round has before it.
struct Sight<'a> {
    around: &'a Around<'a>,
    before: &'a BTreeMap<IfName, Before>,
    observed: &'a Observed,
    now: Instant,
}

impl Sight<'_> {
    /// The same for [`crate::linger`].
    fn round<'a>(&'a self, scope: &'a NodeScope, wires: &'a [Laid<'a>]) -> Round<'a> {
        Round {
            now: self.now,
            scope,
            wires,
            before: self.before,
            observed: self.observed,
        }
    }
}

fn lay_out<'a>(scope: &NodeScope, plan: &'a Desired) -> Vec<Laid<'a>> {
    plan.wires.values().map(|wire| Laid::new(scope, wire)).collect()
}

/// What is made of a wire that cannot be made as planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// All of its branches; what is made beside them is not there, and nobody needs it now.
    Without(Beside),
    /// Its client's end, which leads nowhere: it stood before, and shall not change for the client.
    Parked,
    /// Nothing.
    Gone,
}

/// What a wire has beside its branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Backup,
    BackupAndDraining,
}

/// Why a wire cannot be made as planned, and what is made instead.
struct Trouble {
    form: Form,
    /// Numbers of the ends whose workload is gone.
    gone: BTreeSet<usize>,
    /// Why it does not forward; `None`: it does.
    failure: Option<WireFailure>,
}

impl Trouble {
    const fn new(form: Form, failure: Option<WireFailure>) -> Self {
        Self {
            form,
            gone: BTreeSet::new(),
            failure,
        }
    }
}

impl Beside {
    /// What the end with this number belongs to, if it is no branch's.
    fn of(laid: &Laid<'_>, end: usize) -> Option<Self> {
        let has = |circuits: std::ops::Range<usize>| {
            let chains = laid.layout.chains.get(circuits).unwrap_or_default();
            end == 0 || chains.iter().any(|chain| chain.contains(&end))
        };
        let branches = laid.wire.branches.len();
        let in_use = branches + laid.wire.draining.len();
        match (has(0..branches), has(branches..in_use)) {
            (true, _) => None,
            (false, true) => Some(Self::BackupAndDraining),
            (false, false) => Some(Self::Backup),
        }
    }

    fn left_out(self, wire: &Wire) -> Wire {
        let mut wire = Wire {
            backup: None,
            ..wire.clone()
        };
        if self == Self::BackupAndDraining {
            wire.draining.clear();
        }
        wire
    }
}

type Troubles = BTreeMap<WireId, Trouble>;

impl<D: Datapath> Reconciler<D> {
    /// Makes the wires in question; those that fail are made in a lesser form in a further round.
    pub(super) fn reconcile(&mut self, around: &Around<'_>, now: Instant) -> Result<Outcome, ReconcileError> {
        let plan = around.plan;
        let mut outcome = self.nothing_done();
        let mut troubles = self.claim(around);
        let mut before = ends_before(self.datapath.scope(), around);
        let mut last = Applied::default();
        for _ in 0..MAX_ROUNDS {
            let target = shaped(plan, &troubles);
            let observed = self.look(&target, around)?;
            if observed.generation > plan.generation {
                let (offered, applied) = (plan.generation, observed.generation);
                return Err(ReconcileError::OlderGeneration { offered, applied });
            }
            let sight = Sight {
                around,
                before: &before,
                observed: &observed,
                now,
            };
            let mut target = target;
            // At most: without the backup, without what drains, parked.
            for _ in 0..MAX_ROUNDS {
                let again = self.note_obstacles(&target, &sight, &mut troubles);
                target = shaped(plan, &troubles);
                if !again {
                    break;
                }
            }
            add_troubled(self.datapath.scope(), plan, &troubles, &mut before);
            let sight = Sight {
                around,
                before: &before,
                observed: &observed,
                now,
            };
            last = self.carry_out(&target, &sight, &troubles);
            if let Some(error) = last.flip_error {
                return Err(ReconcileError::Flip {
                    generation: plan.generation,
                    error,
                });
            }
            outcome.operations += last.done;
            if !note_failures(self.datapath.scope(), &target, &observed, &last, &mut troubles) {
                break;
            }
        }
        outcome.postponed = leftovers(&last);
        self.generation = plan.generation;
        outcome.generation = plan.generation;
        self.remember(around, &last.places, &troubles, &mut outcome);
        outcome.bereft = bereft(&troubles);
        outcome.failures = troubles
            .into_values()
            .filter_map(|trouble| trouble.failure)
            .collect();
        Ok(outcome)
    }

    /// Notes what stands in the way of wires. What nobody wants any more does not: it makes way. Whether something was
    /// left out of a wire, of which the rest may have an obstacle, too.
    fn note_obstacles(&self, target: &Desired, sight: &Sight<'_>, troubles: &mut Troubles) -> bool {
        let scope = self.datapath.scope();
        let wires = lay_out(scope, target);
        let unwanted = self.lingering.unwanted(&sight.round(scope, &wires));
        let mut found = Vec::new();
        for laid in &wires {
            let gives_way = |end: &End, obstacle: &Obstacle| {
                matches!(obstacle, Obstacle::NameTaken { .. }) && unwanted.hold(scope, end)
            };
            if let Some((end, obstacle)) = laid.obstacle(scope, sight.observed, gives_way) {
                let form = match Beside::of(laid, end) {
                    Some(beside) => Form::Without(beside),
                    None if end > 0 && stands(laid, sight.observed) => Form::Parked,
                    None => Form::Gone,
                };
                found.push((laid.wire, form, end, obstacle));
            }
        }
        let mut again = false;
        for (wire, form, end, obstacle) in found {
            let beside = matches!(form, Form::Without(_));
            again |= beside;
            let failure = (!beside).then(|| refusal(wire, Some(end), &obstacle));
            let trouble = troubles
                .entry(wire.id.clone())
                .or_insert_with(|| Trouble::new(form, None));
            trouble.form = form;
            trouble.gone.extend(is_gone(obstacle.kind()).then_some(end));
            trouble.failure = trouble.failure.take().or(failure);
        }
        again
    }

    fn carry_out(&mut self, target: &Desired, sight: &Sight<'_>, troubles: &Troubles) -> Applied {
        let scope = self.datapath.scope().clone();
        let wires = lay_out(&scope, target);
        let leaving = self.lingering.sort(
            &sight.round(&scope, &wires),
            |id| troubles.get(id).is_some_and(|trouble| trouble.failure.is_some()),
            |id| sight.around.is_about(id),
        );
        let steps = diff(&scope, target.generation, &wires, sight.observed, &leaving);
        apply(
            &mut self.datapath,
            &mut self.supplies,
            sight.observed,
            target.generation,
            &steps,
        )
    }

    /// Looks at everything, or at the interfaces that the wires in question have or had.
    fn look(&mut self, target: &Desired, around: &Around<'_>) -> Result<Observed, ReconcileError> {
        let node = self.datapath.scope().clone();
        let wanted = lay_out(&node, target);
        let others = self.lingering.in_the_way(&node, &wanted);
        let lingering = self.lingering.of(|id| around.is_about(id) || others.contains(id));
        let (mut looks, mut ruled) = (BTreeMap::new(), BTreeSet::new());
        let mut indexes = Vec::new();
        let due = around.due.iter().map(|due| (&due.host, &due.was.wire, due.index));
        let lingering = lingering.iter().map(|(host, wire, index)| (host, wire, *index));
        for (host, wire, index) in lingering.chain(due) {
            looks.insert(host.clone(), look(wire, host, Want::Nothing));
            indexes.push(index);
        }
        let in_question = around.before.iter().chain(around.plan.wires.values());
        for wire in in_question {
            let laid = Laid::new(&node, wire);
            for (facing, host) in laid.ends() {
                if !self.is_claimed(facing, &wire.id) {
                    ruled.extend(has_policies(facing).then(|| host.clone()));
                    looks.insert(host.clone(), look(&wire.id, host, Want::Nothing));
                }
            }
            let live = self.live.get(&wire.id);
            let places = live.into_iter().flat_map(|live| live.places.iter().flatten());
            indexes.extend(places.map(|place| place.index));
        }
        for laid in &wanted {
            let wire = laid.wire;
            for (facing, host) in laid.ends() {
                let want = match facing.end {
                    End::Veth(end) => Want::Veth(end),
                    End::Interface(_) => Want::Existing,
                };
                if !self.is_claimed(facing, &wire.id) {
                    let look = Look {
                        policies: around.everything || around.thorough || ruled.contains(host),
                        ..look(&wire.id, host, want)
                    };
                    looks.insert(host.clone(), look);
                }
            }
        }
        let scope = Scope {
            everything: around.everything,
            thorough: around.thorough,
            looks: looks.into_values().collect(),
            indexes,
        };
        let observed = self.datapath.observe(&scope)?;
        if around.everything {
            self.learn_supplies(
                observed.positions().map(|(_, position)| position),
                &observed.splits,
            );
        }
        Ok(observed)
    }

    /// Whether an end is an existing interface that another wire has.
    fn is_claimed(&self, facing: &Facing<'_>, wire: &WireId) -> bool {
        match facing.end {
            End::Interface(end) => self.claims.get(&end.name).is_some_and(|by| by != wire),
            End::Veth(_) => false,
        }
    }

    /// Notes which wire has which existing interface; wires that name one that another wire has are refused.
    fn claim(&mut self, around: &Around<'_>) -> Troubles {
        let plan = around.plan;
        if around.everything {
            self.claims
                .retain(|name, by| plan.wires.get(by).is_some_and(|wire| names(wire, name)));
        }
        for wire in around.before {
            for name in existing(wire) {
                let kept = plan.wires.get(&wire.id).is_some_and(|now| names(now, name));
                if !kept && self.claims.get(name) == Some(&wire.id) {
                    self.claims.remove(name);
                }
            }
        }
        let mut refused = BTreeMap::new();
        for wire in plan.wires.values() {
            let busy = existing(wire).find_map(|name| {
                let by = self.claims.get(name).filter(|by| **by != wire.id)?;
                Some((name, by.clone()))
            });
            let Some((name, by)) = busy else {
                self.claim_all(wire);
                continue;
            };
            let obstacle = Obstacle::InterfaceBusy {
                name: name.clone(),
                by,
            };
            let stood = self.live.get(&wire.id).and_then(|live| *live.places.first()?);
            // The client's end is the first one, and the worst to miss; what is beside the branches the least.
            let form = match (self.beside(wire, name), stood) {
                (Some(beside), _) => Form::Without(beside),
                (None, Some(_)) if !is_client(wire, name) => Form::Parked,
                (None, _) => Form::Gone,
            };
            let mut failure = Some(refusal(wire, None, &obstacle));
            if let Form::Without(beside) = form {
                self.claim_all(&beside.left_out(wire));
                failure = None;
            }
            refused.insert(wire.id.clone(), Trouble::new(form, failure));
        }
        // Of a refused wire there is at most the client's end.
        self.claims.retain(|name, by| match refused.get(by) {
            None => true,
            Some(Trouble { form, .. }) => match form {
                Form::Without(_) => true,
                Form::Parked => plan.wires.get(by).is_some_and(|wire| is_client(wire, name)),
                Form::Gone => false,
            },
        });
        refused
    }

    /// Notes that a wire has the existing interfaces that it names.
    fn claim_all(&mut self, wire: &Wire) {
        let claims = existing(wire).map(|name| (name.clone(), wire.id.clone()));
        self.claims.extend(claims);
    }

    /// What an existing interface of a wire belongs to, if to no branch.
    fn beside(&self, wire: &Wire, name: &IfName) -> Option<Beside> {
        let laid = Laid::new(self.datapath.scope(), wire);
        let number = laid.hosts.iter().position(|host| host == name)?;
        Beside::of(&laid, number)
    }

    /// Remembers how the wires stand and notes which ones went down or came back.
    fn remember(
        &mut self,
        around: &Around<'_>,
        places: &BTreeMap<IfName, Place>,
        troubles: &Troubles,
        outcome: &mut Outcome,
    ) {
        let node = self.datapath.scope().clone();
        let wires = &around.plan.wires;
        let not_planned = |id: &&WireId| !wires.contains_key(*id);
        let mut gone: BTreeSet<WireId> = around
            .before
            .iter()
            .map(|wire| &wire.id)
            .filter(not_planned)
            .cloned()
            .collect();
        if around.everything {
            gone.extend(self.live.keys().filter(not_planned).cloned());
        }
        let mut watch = Vec::new();
        for id in gone {
            let watched = self.forget(&id).is_some_and(|live| !live.targets.is_empty());
            watch.extend(watched.then(|| WatchChange {
                wire: id,
                targets: Vec::new(),
                found: BTreeSet::new(),
            }));
        }
        for (id, wire) in wires {
            let trouble = troubles.get(id);
            let failure = trouble.and_then(|trouble| trouble.failure.clone());
            let before = self.forget(id);
            match (before.as_ref().map(|live| live.failure.is_none()), &failure) {
                (Some(true), Some(_)) => outcome.lost.push(id.clone()),
                (Some(false), None) => outcome.restored.push(id.clone()),
                _ => {}
            }
            let laid = Laid::new(&node, wire);
            let is_made = |number: usize| match trouble.map(|trouble| trouble.form) {
                None => true,
                Some(Form::Without(beside)) => number < Laid::new(&node, &beside.left_out(wire)).hosts.len(),
                Some(Form::Parked) => number == 0,
                Some(Form::Gone) => false,
            };
            let place = |(number, host): (usize, &IfName)| {
                let place = places.get(host).copied();
                place.filter(|_| is_made(number))
            };
            let places: Vec<Option<Place>> = laid.hosts.iter().enumerate().map(place).collect();
            self.by_index
                .extend(places.iter().flatten().map(|place| (place.index, id.clone())));
            let targets = targets(wire, &laid.layout.chains, &places, node.cookie());
            if before.map_or(!targets.is_empty(), |before| before.targets != targets) {
                watch.push(WatchChange {
                    wire: id.clone(),
                    targets: targets.clone(),
                    found: self.local.found.slots(&laid, &places),
                });
            }
            let live = Live {
                places,
                parked: wire.branches.is_empty(),
                failure,
                targets,
            };
            if let Some(standing) = live.standing() {
                self.standing[standing] += 1;
            }
            self.live.insert(id.clone(), live);
        }
        if !watch.is_empty() {
            self.datapath.watch(watch);
        }
    }

    fn forget(&mut self, id: &WireId) -> Option<Live> {
        let live = self.live.remove(id)?;
        if let Some(standing) = live.standing() {
            self.standing[standing] -= 1;
        }
        for place in live.places.iter().flatten() {
            if self.by_index.get(&place.index) == Some(id) {
                self.by_index.remove(&place.index);
            }
        }
        Some(live)
    }
}

fn look<'a>(wire: &'a WireId, host: &IfName, want: Want<'a>) -> Look<'a> {
    Look {
        wire,
        host: host.clone(),
        want,
        policies: false,
    }
}

fn has_policies(facing: &Facing<'_>) -> bool {
    matches!(facing.end, End::Veth(end) if !end.policies.is_empty())
}

/// The ends that wires had and may not want any more.
fn ends_before(scope: &NodeScope, around: &Around<'_>) -> BTreeMap<IfName, Before> {
    let due = around.due.iter().map(|due| (due.host.clone(), due.was.clone()));
    let mut ends: BTreeMap<_, _> = due.collect();
    for wire in around.before {
        ends.extend(Before::of(&Laid::new(scope, wire)));
    }
    ends
}

/// Wires in trouble may have made what is not wanted of them now.
fn add_troubled(
    scope: &NodeScope,
    plan: &Desired,
    troubles: &Troubles,
    before: &mut BTreeMap<IfName, Before>,
) {
    for wire in troubles.keys().filter_map(|id| plan.wires.get(id)) {
        for (host, end) in Before::of(&Laid::new(scope, wire)) {
            before.entry(host).or_insert(end);
        }
    }
}

/// The plan with wires that are in trouble in the form that is made of them.
fn shaped<'a>(plan: &'a Desired, troubles: &Troubles) -> Cow<'a, Desired> {
    if troubles.is_empty() {
        return Cow::Borrowed(plan);
    }
    let shape = |(id, wire): (&WireId, &Wire)| match troubles.get(id).map(|trouble| trouble.form) {
        None => Some((id.clone(), wire.clone())),
        Some(Form::Without(beside)) => Some((id.clone(), beside.left_out(wire))),
        Some(Form::Parked) => Some((id.clone(), wire.parked())),
        Some(Form::Gone) => None,
    };
    Cow::Owned(Desired {
        generation: plan.generation,
        wires: plan.wires.iter().filter_map(shape).collect(),
    })
}

/// Whether the client's end was in use at this look: then it stays, whatever becomes of the rest.
fn stands(laid: &Laid<'_>, observed: &Observed) -> bool {
    let client = laid.hosts.first().and_then(|host| observed.interfaces.get(host));
    client.is_some_and(|interface| interface.position.is_some())
}

/// Whether a workload is gone, and not only something in the way for a while.
const fn is_gone(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::NetnsGone | FailureKind::InterfaceGone)
}

/// The wires of which a workload is gone, and the ends there.
fn bereft(troubles: &Troubles) -> Vec<(WireId, BTreeSet<usize>)> {
    let gone = troubles.iter().filter(|(_, trouble)| !trouble.gone.is_empty());
    gone.map(|(id, trouble)| (id.clone(), trouble.gone.clone()))
        .collect()
}

/// Notes the wires that failed; whether there is another form to try.
fn note_failures(
    scope: &NodeScope,
    target: &Desired,
    observed: &Observed,
    applied: &Applied,
    troubles: &mut Troubles,
) -> bool {
    let mut any = false;
    for (id, error) in &applied.failed {
        let Some(wire) = target.wires.get(id) else {
            continue;
        };
        any = true;
        let laid = Laid::new(scope, wire);
        let stands = stands(&laid, observed);
        let at = applied.failed_at.get(id);
        let end = at.and_then(|at| laid.hosts.iter().position(|host| host == at));
        let form = match end.and_then(|end| Beside::of(&laid, end)) {
            Some(beside) => Form::Without(beside),
            None if stands => Form::Parked,
            None => Form::Gone,
        };
        let trouble = match troubles.entry(id.clone()) {
            Entry::Vacant(entry) => entry.insert(Trouble::new(form, None)),
            Entry::Occupied(entry) => {
                let trouble = entry.into_mut();
                trouble.form = match trouble.form {
                    Form::Without(_) => form,
                    Form::Parked | Form::Gone => Form::Gone,
                };
                trouble
            }
        };
        trouble.gone.extend(end.filter(|_| is_gone(error.kind)));
        if !matches!(form, Form::Without(_)) {
            trouble.failure.get_or_insert_with(|| failure(wire, end, error));
        }
    }
    any
}

/// The existing interfaces that a wire names.
fn existing(wire: &Wire) -> impl Iterator<Item = &IfName> {
    wire.ends().filter_map(|end| match end {
        End::Interface(end) => Some(&end.name),
        End::Veth(_) => None,
    })
}

/// Whether the client's end is this existing interface.
fn is_client(wire: &Wire, name: &IfName) -> bool {
    matches!(&wire.client, End::Interface(end) if end.name == *name)
}

fn names(wire: &Wire, name: &IfName) -> bool {
    existing(wire).any(|named| named == name)
}

/// What the last round could not do: what it should have made was tried in every form.
fn leftovers(applied: &Applied) -> Vec<Postponed> {
    let wires = applied.failed.iter().map(|(wire, error)| Postponed {
        wire: Some(wire.clone()),
        message: error.message.clone(),
    });
    let node = applied.node_errors.iter().map(|error| Postponed {
        wire: None,
        message: error.message.clone(),
    });
    wires.chain(node).collect()
}

/// What an obstacle at the end with this number says of a wire.
fn refusal(wire: &Wire, end: Option<usize>, obstacle: &Obstacle) -> WireFailure {
    WireFailure {
        wire: wire.id.clone(),
        kind: obstacle.kind(),
        message: obstacle.to_string(),
        field: obstacle.field(),
        workload: end.and_then(|end| workload(wire, end)),
    }
}

/// The same of an operation that was about that end.
fn failure(wire: &Wire, end: Option<usize>, error: &OpError) -> WireFailure {
    WireFailure {
        wire: wire.id.clone(),
        kind: error.kind,
        message: error.message.clone(),
        field: error.field.clone(),
        workload: end.and_then(|end| workload(wire, end)),
    }
}

fn workload(wire: &Wire, end: usize) -> Option<String> {
    wire.workload_at(end).map(|(name, _)| name.to_owned())
}
