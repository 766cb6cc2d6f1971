//! The engine's loop: gather, apply, store, publish.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tieline_model::{NodeName, Timestamp};
use tieline_registry::{Granted, NodeGeneration, Registry, RegistryConfig};
use tieline_store::{Revision, Store};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::apply::{Applier, Debt};
use super::batch::Batch;
use super::monitors::Monitors;
use super::recover::restore;
use super::sessions::{Sessions, Start};
use super::waiters::{Waiters, answer};
use super::{Message, Setup};
use crate::error::ControlError;
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::outlet::End;
use crate::readiness::{Condition, Readiness};

/// Where the registry's records lie in the store.
pub(super) const PREFIX: &str = "registry/";
/// Most messages that share a transaction. Bounds how long the first of them waits for the others.
const MAX_BATCH: usize = 256;
/// Between two attempts to read the state after the store failed.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Longest sleep: the wall clock, by which leases are measured, may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(5);
/// How fresh the gauges are.
const GAUGES: Duration = Duration::from_secs(1);

/// The registry, or why there is none and when that was last looked into.
pub(super) enum State {
    Working(Box<Registry>),
    Lost { why: String, tried: Instant },
}

pub(super) struct Engine {
    pub(super) store: Arc<dyn Store>,
    pub(super) config: RegistryConfig,
    max_waiting: usize,
    metrics: Arc<Metrics>,
    pub(super) condition: Arc<Condition>,
    pub(super) state: State,
    pub(super) revision: Revision,
    pub(super) sessions: Sessions,
    pub(super) monitors: Monitors,
    pub(super) waiters: Waiters,
    /// Nodes that lost their session for being slow; the registry hears of it with the next batch.
    pub(super) dropped: Vec<NodeName>,
    /// When the gauges are due, if they no longer tell the truth.
    pub(super) gauges_due: Option<Instant>,
}

impl Engine {
    /// The engine with the state that the store has, less the leases that are over.
    pub(super) async fn open(setup: Setup) -> Result<Self, ControlError> {
        let (registry, revision) = restore(&*setup.store, &setup.registry).await?;
        let mut engine = Self {
            store: setup.store,
            config: setup.registry,
            max_waiting: setup.max_waiting,
            metrics: setup.metrics,
            condition: setup.condition,
            state: State::Working(Box::new(registry)),
            revision,
            sessions: Sessions::default(),
            monitors: Monitors::default(),
            waiters: Waiters::new(setup.patience),
            dropped: Vec::new(),
            gauges_due: Some(Instant::now()),
        };
        engine.turn(Vec::new()).await;
        if let State::Lost { why, .. } = &engine.state {
            return Err(ControlError::Restore {
                store: engine.store.describe(),
                detail: why.clone(),
            });
        }
        engine.condition.set(Readiness::Ready);
        Ok(engine)
    }

    /// Runs until it is told to stop, or all handles are gone.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut stopping = false;
        while !stopping {
            let wake = self.next_wake();
            let mut batch = Vec::new();
            tokio::select! {
                count = messages.recv_many(&mut batch, MAX_BATCH) => if count == 0 { break },
                () = tokio::time::sleep_until(wake) => {}
            }
            stopping = batch.iter().any(|message| matches!(message, Message::Stop));
            self.turn(batch).await;
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.condition
            .set(Readiness::NotReady("control is stopping".to_owned()));
        self.waiters.fail_all(&Failure::Stopping);
        self.sessions.end_all(End::ShuttingDown);
        self.monitors.end_all(End::ShuttingDown);
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let State::Working(registry) = &self.state else {
            return now + RETRY;
        };
        let lease = registry
            .next_timeout()
            .map_or(MAX_SLEEP, |at| until(at).min(MAX_SLEEP));
        let dropped = (!self.dropped.is_empty()).then_some(now);
        let others = [self.waiters.next_deadline(), self.gauges_due, dropped];
        others.into_iter().flatten().fold(now + lease, Instant::min)
    }

    /// One batch, from the queue to the answers.
    async fn turn(&mut self, messages: Vec<Message>) {
        self.recover().await;
        let State::Working(registry) = &mut self.state else {
            return self.refuse(messages);
        };
        let commands = messages.len();
        let mut applier = Applier {
            registry,
            sessions: &mut self.sessions,
            now: wall_clock(),
            waiting: self.waiters.len(),
            max_waiting: self.max_waiting,
            batch: Batch::default(),
            debts: Vec::with_capacity(commands),
            begun: BTreeSet::new(),
            may_have_settled: false,
            broken: None,
        };
        applier.expire();
        std::mem::take(&mut self.dropped)
            .into_iter()
            .for_each(|node| applier.dropped(&node));
        messages.into_iter().for_each(|message| applier.apply(message));
        applier.gather();
        let Applier {
            mut batch,
            debts,
            broken,
            ..
        } = applier;
        let outcome = match broken {
            Some(refusal) => Err(Failure::Refused(refusal)),
            None => self.commit(&mut batch, commands).await,
        };
        match outcome {
            Ok(()) => self.publish(batch, debts),
            Err(failure) => self.lose(&failure, debts).await,
        }
        self.waiters.give_up(Instant::now());
        self.update_gauges();
    }

    async fn commit(&mut self, batch: &mut Batch, commands: usize) -> Result<(), Failure> {
        if batch.writes_nothing() {
            return Ok(());
        }
        let begun = Instant::now();
        match self.store.commit(batch.take_txn(PREFIX)).await {
            Ok(revision) => {
                self.revision = revision;
                self.metrics.committed(commands, begun.elapsed(), revision.0);
                Ok(())
            }
            Err(error) => {
                self.metrics.commit_failed(commands);
                Err(Failure::Store(error))
            }
        }
    }

    /// Everything of the batch is stored: let the world know.
    fn publish(&mut self, batch: Batch, debts: Vec<Debt>) {
        if !batch.events.is_empty() || !batch.node_changes.is_empty() || !debts.is_empty() {
            self.gauges_due.get_or_insert_with(|| Instant::now() + GAUGES);
        }
        for (node, delta) in batch.node_changes {
            if !self.sessions.send(&node, delta) {
                tracing::warn!(%node, "the agent does not keep up with its plan and starts again from a snapshot");
                self.metrics.stream_ended("session_too_slow");
                self.dropped.push(node);
            }
        }
        for _ in 0..self.monitors.tell(&batch.events) {
            self.metrics.stream_ended("monitor_too_slow");
        }
        for debt in debts {
            self.pay(debt);
        }
        if let State::Working(registry) = &self.state {
            self.waiters.settle_closes(|plan| is_outstanding(registry, plan));
        }
    }

    fn pay(&mut self, debt: Debt) {
        let State::Working(registry) = &self.state else {
            return;
        };
        match debt {
            Debt::Execute(reply, result) => answer(reply, result),
            Debt::Request(reply, Ok(granted)) => match *granted {
                Granted {
                    connection,
                    settles: Some(plan),
                } => {
                    self.waiters.await_wire(connection.id, plan.node, reply);
                }
                Granted {
                    connection,
                    settles: None,
                } => answer(reply, Ok(Arc::new(connection))),
            },
            Debt::Request(reply, Err(failure)) => answer(reply, Err(failure)),
            Debt::Close(reply, Ok(plans)) => self.waiters.await_close(plans, reply),
            Debt::Close(reply, Err(failure)) => answer(reply, Err(failure)),
            Debt::Begin(node, outlet, reply, Ok(())) => {
                let start = Start {
                    plan: registry.node_snapshot(&node),
                    kept: registry.endpoints_kept_by(&node).cloned().collect(),
                    node_lease: self.config.node_lease,
                };
                let (generation, wires) = (start.plan.generation, start.plan.wires.len());
                tracing::info!(%node, generation, wires, "session begins");
                answer(reply, Ok(self.sessions.begin(node, start, outlet)));
            }
            Debt::Begin(_, _, reply, Err(failure)) => answer(reply, Err(failure)),
            Debt::Settled(settled) => self.waiters.settle(&settled),
            Debt::Watch(topic, outlet, reply) => {
                let present = topic.present(registry);
                self.monitors.add(topic, &present, outlet);
                answer(reply, Ok(present));
            }
            Debt::Look(look) => look(Ok((registry, self.revision))),
        }
    }

    fn refuse(&self, messages: Vec<Message>) {
        let State::Lost { why, .. } = &self.state else {
            return;
        };
        let failure = Failure::NoState(why.clone());
        messages.into_iter().for_each(|message| message.fail(&failure));
    }

    fn update_gauges(&mut self) {
        let State::Working(registry) = &self.state else {
            return;
        };
        if self.gauges_due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.gauges_due = None;
        let counts = registry.counts();
        self.metrics.objects("network_service", counts.services);
        self.metrics.objects("endpoint", counts.endpoints);
        self.metrics.objects("connection", counts.connections);
        for node in registry.nodes() {
            self.metrics
                .node(node.name.as_str(), node.generation, node.applied, node.connected);
        }
        self.metrics.monitors(self.monitors.len());
    }
}

/// Whether the node is there and has not carried out the plan.
fn is_outstanding(registry: &Registry, plan: &NodeGeneration) -> bool {
    let node = registry.nodes().find(|node| node.name == plan.node);
    node.is_some_and(|node| node.connected && node.applied < plan.generation)
}

/// The one place where control reads the wall clock.
pub(super) fn wall_clock() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

fn until(moment: Timestamp) -> Duration {
    Duration::from_millis(moment.as_millis().saturating_sub(wall_clock().as_millis()))
}
