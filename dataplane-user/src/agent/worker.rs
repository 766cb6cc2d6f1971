//! The one thread that changes the kernel.
//!
//! Netlink and bpf(2) block, so they have a thread of their own; the asynchronous side gives it jobs through a
//! bounded channel, and its answers go to the session that asked. Deltas that queue up while it works become one
//! change ([`super::batch`]). Before the first snapshot has come, it touches nothing.

use std::{
    io,
    path::Path as FsPath,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dataplane_common::{Reason, abi::Generation};
use tieline_proto::tieline::agent::v1 as proto;
use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{self, error::TryRecvError},
        oneshot,
    },
    time::timeout,
};
use tracing::{debug, info, warn};

use super::{
    batch::{self, Batch},
    convert::{CheckedChange, CheckedPlan, InvalidWire},
    error::StartError,
    reports::{Report, Reports},
    resolvers::Resolvers,
    status::Status,
    telemetry::{FailureLabels, PassKind, PassLabels},
};
use crate::{
    datapath::{Datapath, ObserveError},
    desired::WireId,
    liveness::Notice,
    outcome::{News, Outcome},
    reconcile::{Patrol, ReconcileError, Reconciler, WireView},
};

/// How many jobs may wait. The session stops reading from control when they are as many.
const MAX_JOBS: usize = 1024;
/// How many wires are compared at a time: some milliseconds' work.
const PART: usize = 64;
/// How long the next part of comparing everything waits for other jobs.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long after a change the next is expected.
const QUIET: Duration = Duration::from_secs(1);
/// How often is looked whether something has drained, while something drains.
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);

/// What the thread is asked to do.
pub(crate) enum Job {
    /// A session's first message: the whole plan.
    Snapshot { plan: CheckedPlan, reports: Reports },
    /// A change of it.
    Delta { delta: CheckedChange, reports: Reports },
    /// These interfaces are gone.
    InterfacesLost(Vec<u32>),
    /// Take away the ends that have lingered long enough.
    EndLingering,
    /// Take away the endpoints that have drained.
    EndDrains,
    /// What wires lead to has died or come back.
    Paths(Vec<Notice>),
    /// Compare everything, a part at a time, when there is nothing else to do.
    Repair,
    /// Do the next part of that.
    GoOn,
    /// Make packets cheaper where there are many, if there is nothing else to do.
    Promote,
    /// Let somebody look.
    Look(Look),
}

/// Takes what it needs and sends it to whoever waits for it.
pub(crate) type Look = Box<dyn FnOnce(&dyn View) + Send>;

/// What may be looked at. Counters are read from the kernel at the moment of the call.
pub(crate) trait View {
    /// The wires of the plan; all, or those in `ids`.
    fn wires(&self, ids: Option<&[WireId]>) -> Result<Vec<WireView>, ObserveError>;
    /// Frames by reason.
    fn reasons(&self) -> Result<Vec<(Reason, u64)>, ObserveError>;
}

impl<D: Datapath> View for Reconciler<D> {
    fn wires(&self, ids: Option<&[WireId]>) -> Result<Vec<WireView>, ObserveError> {
        Self::wires(self, ids)
    }

    fn reasons(&self) -> Result<Vec<(Reason, u64)>, ObserveError> {
        Self::reasons(self)
    }
}

/// Why a session must begin anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// A delta does not follow on what this node has.
    #[error("control sent a change from generation {parent} to {generation}, but this node is at {ours}")]
    OutOfStep {
        parent: Generation,
        generation: Generation,
        ours: Generation,
    },
    /// A pass ended early.
    #[error("the plan could not be applied: {0}")]
    Pass(String),
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where jobs go. The thread ends when every sender is gone and the last job is done.
    pub(crate) jobs: mpsc::Sender<Job>,
    /// Says whether the kernel half has started.
    pub(crate) started: oneshot::Receiver<Result<(), StartError>>,
    /// Resolves when the thread has ended; with an error when it panicked.
    pub(crate) ended: oneshot::Receiver<()>,
    /// The thread itself.
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the thread and, on it, what `make` returns: the datapath, and something that lives as long as it. `make` is
/// given a way to hand in jobs by itself. To be called inside a runtime, whose clock it uses.
///
/// Namespaces' name servers are kept in `resolvers`.
pub(crate) fn spawn<D, G, F>(make: F, resolvers: &FsPath, status: Arc<Status>) -> io::Result<Running>
where
    D: Datapath,
    F: FnOnce(mpsc::WeakSender<Job>) -> Result<(D, G), StartError> + Send + 'static,
{
    let runtime = Handle::current();
    let (jobs, receiver) = mpsc::channel(MAX_JOBS);
    let weak = jobs.downgrade();
    let (started_tx, started) = oneshot::channel();
    let (ended_tx, ended) = oneshot::channel();
    let folder = resolvers.to_owned();
    let body = move || {
        let made = make(weak).and_then(|(datapath, guard)| Ok((start(datapath, &status)?, guard)));
        // Where nobody listens any more, nobody needs to know.
        match made {
            Ok((reconciler, _guard)) => {
                let _ = started_tx.send(Ok(()));
                Worker {
                    resolvers: Resolvers::new(&folder, reconciler.datapath().scope()),
                    reconciler,
                    jobs: receiver,
                    held: None,
                    lost: Vec::new(),
                    status,
                    at: None,
                    session: None,
                    changed: None,
                    looked_at_drains: Instant::now(),
                    round: None,
                }
                .run(&runtime);
            }
            Err(error) => {
                let _ = started_tx.send(Err(error));
            }
        }
        let _ = ended_tx.send(());
    };
    let thread = std::thread::Builder::new()
        .name("tl-worker".to_owned())
        .spawn(body)?;
    Ok(Running {
        jobs,
        started,
        ended,
        thread,
    })
}

fn start<D: Datapath>(datapath: D, status: &Status) -> Result<Reconciler<D>, StartError> {
    let mut reconciler = Reconciler::new(datapath);
    let found = reconciler.adopt()?;
    let description = reconciler.description();
    info!(
        generation = found.generation,
        positions = found.positions,
        interfaces = found.interfaces,
        attach = description.attach_backend,
        pins = description.pin_path,
        "datapath ready; what was found goes on forwarding",
    );
    status.set_datapath(description);
    status.set_applied(found.generation);
    Ok(reconciler)
}

struct Worker<D> {
    reconciler: Reconciler<D>,
    resolvers: Resolvers,
    jobs: mpsc::Receiver<Job>,
    /// A job taken from the channel that did not fit into the batch before it.
    held: Option<Job>,
    /// Interfaces of wires that went while a batch was gathered.
    lost: Vec<u32>,
    status: Arc<Status>,
    /// The generation that the next delta must change; `None` until a snapshot has been applied, and again after
    /// a pass that ended early.
    at: Option<Generation>,
    /// The session that gave the last snapshot.
    session: Option<Reports>,
    /// When the last change was carried out.
    changed: Option<Instant>,
    /// When was looked whether something has drained.
    looked_at_drains: Instant,
    round: Option<Round>,
}

/// A comparison of everything that is under way.
struct Round {
    patrol: Patrol,
    /// How long its parts took so far.
    took: Duration,
    /// When the last part was done.
    last: Instant,
}

impl<D: Datapath> Worker<D> {
    fn run(mut self, runtime: &Handle) {
        while let Some(job) = self.next(runtime) {
            self.work(job);
            let lost = std::mem::take(&mut self.lost);
            self.interfaces_lost(&lost);
        }
        debug!("the worker has done its last job");
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Snapshot { plan, reports } => self.snapshot(plan, reports),
            Job::Delta { delta, reports } => self.delta(delta, &reports),
            Job::InterfacesLost(indexes) => self.interfaces_lost(&indexes),
            Job::EndLingering => self.end_lingering(),
            Job::EndDrains => self.end_drains(),
            Job::Paths(notices) => self.paths(&notices),
            Job::Repair => self.begin_patrol(),
            Job::GoOn => self.go_on(),
            Job::Promote => self.promote(),
            Job::Look(look) => look(&self.reconciler),
        }
    }

    /// The next job; `None` when there will be none. An end that has lingered long enough is one, and so is to look
    /// whether something has drained; and while everything is being compared, the next part of that is one when no
    /// other waits, or when it waited long enough itself.
    fn next(&mut self, runtime: &Handle) -> Option<Job> {
        if let Some(job) = self.held.take() {
            return Some(job);
        }
        let lingers = self.reconciler.lingers_until();
        let drains = self
            .reconciler
            .is_draining()
            .then(|| self.looked_at_drains + DRAIN_INTERVAL);
        let due = match (lingers, drains) {
            (None, None) => None,
            (Some(lingers), Some(drains)) if drains < lingers => Some((drains, Job::EndDrains)),
            (None, Some(drains)) => Some((drains, Job::EndDrains)),
            (Some(lingers), _) => Some((lingers, Job::EndLingering)),
        };
        let due = due.map(|(until, job)| (until.saturating_duration_since(Instant::now()), job));
        if let Some((Duration::ZERO, job)) = due {
            return Some(job);
        }
        if let Some(round) = &self.round {
            if round.last.elapsed() >= PATIENCE {
                return Some(Job::GoOn);
            }
            return match self.jobs.try_recv() {
                Ok(job) => Some(job),
                Err(TryRecvError::Empty) => Some(Job::GoOn),
                Err(TryRecvError::Disconnected) => None,
            };
        }
        let jobs = &mut self.jobs;
        let Some((wait, due)) = due else {
            return jobs.blocking_recv();
        };
        let next = runtime.block_on(async { timeout(wait, jobs.recv()).await });
        next.unwrap_or(Some(due))
    }

    fn end_drains(&mut self) {
        self.looked_at_drains = Instant::now();
        // A fault was logged; the next look finds the same.
        if let Ok(outcome) = self.pass(PassKind::Drain, |reconciler| {
            reconciler.end_drains(Instant::now())
        }) {
            self.tell_all(&outcome);
        }
    }

    fn end_lingering(&mut self) {
        // A fault was logged; the next full pass finds what is left.
        if let Ok(outcome) = self.pass(PassKind::Linger, |reconciler| {
            reconciler.end_lingering(Instant::now())
        }) {
            debug!(
                operations = outcome.operations,
                "ends that nobody wants any more are gone"
            );
        }
    }

    fn snapshot(&mut self, plan: CheckedPlan, reports: Reports) {
        let generation = plan.desired.generation;
        let wires = plan.desired.wires.len();
        self.resolvers.plan(&plan.desired);
        match self.pass(PassKind::Snapshot, |reconciler| {
            reconciler.snapshot(plan.desired, Instant::now())
        }) {
            Ok(outcome) => {
                let (operations, failed) = (outcome.operations, outcome.failures.len());
                info!(generation, wires, operations, failed, "plan applied");
                self.at = Some(generation);
                self.status.set_has_plan();
                reports.tell(Report::Ack(snapshot_ack(generation, &outcome, plan.invalid)));
                self.session = Some(reports);
                self.tell_news(&outcome.news);
            }
            Err(fault) => reports.tell(Report::Fault(fault)),
        }
    }

    fn delta(&mut self, delta: CheckedChange, reports: &Reports) {
        let (parent, generation) = (delta.parent, delta.change.generation);
        if self.at != Some(parent) || generation <= parent {
            let ours = self.at.unwrap_or_else(|| self.reconciler.generation());
            reports.tell(Report::Fault(Fault::OutOfStep {
                parent,
                generation,
                ours,
            }));
            return;
        }
        let (change, parts) = self.gather(Batch::new(delta), reports).into_change();
        let generation = change.generation;
        self.resolvers.change(&change);
        self.changed = Some(Instant::now());
        match self.pass(PassKind::Delta, |reconciler| {
            reconciler.change(change, Instant::now())
        }) {
            Ok(outcome) => {
                self.at = Some(generation);
                self.status
                    .metrics
                    .deltas
                    .inc_by(u64::try_from(parts.len()).unwrap_or(u64::MAX));
                debug!(
                    generation,
                    deltas = parts.len(),
                    operations = outcome.operations,
                    "change applied"
                );
                for ack in batch::acks(parts, &outcome) {
                    reports.tell(Report::Ack(ack));
                }
                self.tell_news(&outcome.news);
            }
            Err(fault) => reports.tell(Report::Fault(fault)),
        }
    }

    /// Adds the deltas that are waiting and follow on `batch`. Other jobs between them do not end it where they can be
    /// done out of turn: of every interface that the batch before took away, the kernel tells in such a job.
    fn gather(&mut self, mut batch: Batch, reports: &Reports) -> Batch {
        while let Ok(job) = self.jobs.try_recv() {
            match job {
                Job::Delta { delta, reports: from } if from.are(reports) && batch.takes(&delta) => {
                    batch.push(delta);
                }
                Job::InterfacesLost(indexes) => {
                    let known = |index: &u32| self.reconciler.has_interface(*index);
                    self.lost.extend(indexes.into_iter().filter(known));
                }
                Job::Look(look) => look(&self.reconciler),
                // It would find that there is something else to do.
                Job::Promote => {}
                other => {
                    self.held = Some(other);
                    break;
                }
            }
        }
        batch
    }

    fn interfaces_lost(&mut self, indexes: &[u32]) {
        // Most notices are about what this thread took away itself.
        if indexes.iter().any(|index| self.reconciler.has_interface(*index)) {
            // A wire that could not be looked at is looked at with all others.
            let _ = self.repair(|reconciler| reconciler.interfaces_lost(indexes, Instant::now()));
        }
    }

    /// Wires leave what has died, at once; control hears of it afterwards.
    fn paths(&mut self, notices: &[Notice]) {
        // A fault was logged; the next full pass repairs what is left.
        if let Ok(outcome) = self.pass(PassKind::Switch, |reconciler| {
            reconciler.paths_changed(notices, Instant::now())
        }) {
            self.tell_all(&outcome);
        }
    }

    fn begin_patrol(&mut self) {
        if self.round.is_some() || !self.status.has_plan() {
            return;
        }
        self.resolvers.look_again();
        self.round = Some(Round {
            patrol: self.reconciler.patrol(),
            took: Duration::ZERO,
            last: Instant::now(),
        });
    }

    fn go_on(&mut self) {
        let Some(mut round) = self.round.take() else {
            return;
        };
        let began = Instant::now();
        let patrol = &mut round.patrol;
        let done = self.repair(|reconciler| reconciler.go_on(patrol, PART, Instant::now()));
        round.last = Instant::now();
        round.took += began.elapsed();
        // After a fault only a whole plan can follow, which is compared whole.
        if done.is_err() || round.patrol.is_done() {
            self.status.set_full_pass(round.took);
        } else {
            self.round = Some(round);
        }
    }

    /// The kernel waits for each end that is promoted, so changes go first and are given time to come.
    fn promote(&mut self) {
        let quiet = self.changed.is_none_or(|at| at.elapsed() >= QUIET);
        if !quiet || !self.jobs.is_empty() || !self.status.has_plan() {
            return;
        }
        match self.reconciler.promote_busy() {
            Ok(0) => {}
            Ok(ends) => debug!(ends, "busy ends have tcx links of their own"),
            Err(error) => warn!(%error, "busy ends stay as they are"),
        }
    }

    /// A fault was logged, and the next delta asks for a new session.
    fn repair(
        &mut self,
        look: impl FnOnce(&mut Reconciler<D>) -> Result<Outcome, ReconcileError>,
    ) -> Result<(), Fault> {
        if !self.status.has_plan() {
            return Ok(());
        }
        let outcome = self.pass(PassKind::Repair, look)?;
        if outcome.operations > 0 {
            info!(
                operations = outcome.operations,
                "the kernel differed from the plan and was repaired"
            );
        }
        self.tell_all(&outcome);
        Ok(())
    }

    /// Tells control what became of wires without its doing.
    fn tell_all(&self, outcome: &Outcome) {
        self.tell_news(&outcome.news);
        for id in &outcome.lost {
            let failure = outcome.failures.iter().find(|failure| failure.wire == *id);
            let message = failure.map_or("not forwarding", |failure| failure.message.as_str());
            let workload = failure.and_then(|failure| failure.workload.as_deref());
            let workload = workload.unwrap_or_default();
            self.tell(id, workload, proto::ObservationKind::WireLost, message);
        }
        if !outcome.lost.is_empty() {
            self.status.tenants.suspect();
        }
        for id in &outcome.restored {
            self.tell(id, "", proto::ObservationKind::WireRestored, "forwarding again");
        }
    }

    /// Deaths first: control plans what a switched wire leads to from what it knows to be dead.
    fn tell_news(&self, news: &News) {
        let no_wire = WireId(String::new());
        for (endpoint, message) in &news.dead {
            self.tell(&no_wire, endpoint, proto::ObservationKind::EndpointDead, message);
        }
        for endpoint in &news.alive {
            self.tell(
                &no_wire,
                endpoint,
                proto::ObservationKind::EndpointAlive,
                "it answers",
            );
        }
        let switches = u64::try_from(news.switched.len()).unwrap_or(u64::MAX);
        self.status.metrics.switches.inc_by(switches);
        for (wire, endpoint) in news.switched.iter().chain(&news.still_switched) {
            let message = "the wire leads over its backup";
            self.tell(wire, endpoint, proto::ObservationKind::Switched, message);
        }
        for (wire, endpoint) in &news.unanswered {
            let message = format!("{endpoint}, or a function on the way to it, does not answer any more");
            self.tell(wire, endpoint, proto::ObservationKind::WireLost, &message);
        }
        for (wire, endpoint) in &news.drained {
            let message = "its last flow has ended";
            self.tell(wire, endpoint, proto::ObservationKind::Drained, message);
        }
    }

    /// Says what the node saw or decided by itself.
    fn tell(&self, id: &WireId, endpoint: &str, kind: proto::ObservationKind, message: &str) {
        info!(wire = %id, endpoint, ?kind, message, "the node saw or did something by itself");
        let Some(session) = &self.session else { return };
        let observation = proto::Observation {
            connection_id: id.0.clone(),
            kind: kind.into(),
            message: message.to_owned(),
            endpoint: endpoint.to_owned(),
        };
        session.tell(Report::Observation(observation));
    }

    /// One pass with its metrics. After an error nobody knows how far it came, so that only a snapshot can follow.
    fn pass(
        &mut self,
        kind: PassKind,
        work: impl FnOnce(&mut Reconciler<D>) -> Result<Outcome, ReconcileError>,
    ) -> Result<Outcome, Fault> {
        let metrics = &self.status.metrics;
        let labels = PassLabels { kind };
        let began = Instant::now();
        let result = work(&mut self.reconciler);
        metrics
            .passes
            .get_or_create(&labels)
            .observe(began.elapsed().as_secs_f64());
        self.status.set_planned(self.reconciler.planned_generation());
        self.status.set_applied(self.reconciler.generation());
        self.status.set_wire_counts(self.reconciler.wire_counts());
        let mut outcome = result.map_err(|error| {
            metrics.pass_errors.get_or_create(&labels).inc();
            warn!(%error, ?kind, "a pass ended early; wires that were there keep forwarding");
            self.at = None;
            Fault::Pass(error.to_string())
        })?;
        outcome.failures.extend(self.resolvers.settle());
        metrics
            .operations
            .inc_by(u64::try_from(outcome.operations).unwrap_or(u64::MAX));
        for failure in &outcome.failures {
            let kind = batch::kind_name(failure.kind);
            metrics.wire_failures.get_or_create(&FailureLabels { kind }).inc();
        }
        for rest in &outcome.postponed {
            warn!(wire = ?rest.wire, message = rest.message, "something could not be taken away; the next pass tries again");
        }
        Ok(outcome)
    }
}

fn snapshot_ack(generation: Generation, outcome: &Outcome, invalid: Vec<InvalidWire>) -> proto::Ack {
    let made = outcome.failures.iter().map(batch::failure_to_proto);
    proto::Ack {
        generation,
        failures: made
            .chain(invalid.into_iter().map(InvalidWire::into_proto))
            .collect(),
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
