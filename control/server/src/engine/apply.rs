//! From messages to what the batch owes.

use std::collections::BTreeSet;

use tieline_model::{NodeName, Timestamp};
use tieline_registry::{Command, Granted, NodeGeneration, Refusal, Registry, RegistryEvent, Reply, Settled};
use tokio::sync::oneshot;

use super::batch::Batch;
use super::monitors::Topic;
use super::sessions::{Down, SessionId, Sessions};
use super::waiters::{CloseReply, WireReply, answer};
use super::{Look, Message};
use crate::failure::Failure;
use crate::outlet::Outlet;

/// How a watcher is answered.
pub(super) type WatchReply = oneshot::Sender<Result<Vec<RegistryEvent>, Failure>>;
/// How a session's beginning is answered.
pub(super) type BeginReply = oneshot::Sender<Result<SessionId, Failure>>;

/// What a batch owes to somebody once it is stored.
pub(super) enum Debt {
    Execute(oneshot::Sender<Result<Reply, Failure>>, Result<Reply, Failure>),
    Request(WireReply, Result<Box<Granted>, Failure>),
    Close(CloseReply, Result<Vec<NodeGeneration>, Failure>),
    Begin(NodeName, Outlet<Down>, BeginReply, Result<(), Failure>),
    Settled(Settled),
    Watch(Topic, Outlet<RegistryEvent>, WatchReply),
    Look(Look),
}

impl Debt {
    /// Pays with a failure, for nothing of the batch happened.
    pub(super) fn fail(self, failure: &Failure) {
        match self {
            Self::Execute(reply, _) => answer(reply, Err(failure.clone())),
            Self::Request(reply, _) => answer(reply, Err(failure.clone())),
            Self::Close(reply, _) => answer(reply, Err(failure.clone())),
            Self::Begin(_, _, reply, _) => answer(reply, Err(failure.clone())),
            Self::Watch(_, _, reply) => answer(reply, Err(failure.clone())),
            Self::Look(look) => look(Err(failure.clone())),
            // Who waits for it is told with all others who wait.
            Self::Settled(_) => {}
        }
    }
}

impl Message {
    /// Answers with a failure without having been applied.
    pub(super) fn fail(self, failure: &Failure) {
        match self {
            Self::Execute { reply, .. } => answer(reply, Err(failure.clone())),
            Self::Request { reply, .. } => answer(reply, Err(failure.clone())),
            Self::Close { reply, .. } => answer(reply, Err(failure.clone())),
            Self::Begin { reply, .. } => answer(reply, Err(failure.clone())),
            Self::Watch { reply, .. } => answer(reply, Err(failure.clone())),
            Self::Look(look) => look(Err(failure.clone())),
            Self::Report { .. } | Self::Leave { .. } | Self::Stop => {}
        }
    }
}

/// Applies messages to the registry at one moment.
pub(super) struct Applier<'a> {
    pub(super) registry: &'a mut Registry,
    pub(super) sessions: &'a mut Sessions,
    pub(super) now: Timestamp,
    /// How many calls wait for nodes, and how many may.
    pub(super) waiting: usize,
    pub(super) max_waiting: usize,
    pub(super) batch: Batch,
    /// In the order in which they arose: what an earlier command settled is not an answer to a later one.
    pub(super) debts: Vec<Debt>,
    /// Whether a command since the last gathering may have settled something.
    pub(super) may_have_settled: bool,
    /// The effects cannot be had: the batch is lost.
    pub(super) broken: Option<Refusal>,
    /// Nodes with a session that begins in this batch: the one before must not take them along when it leaves.
    pub(super) begun: BTreeSet<NodeName>,
}

impl Applier<'_> {
    /// Ends the leases that are over.
    pub(super) fn expire(&mut self) {
        if self.registry.next_timeout().is_some_and(|at| at <= self.now) {
            self.registry.handle_timeout(self.now);
            self.may_have_settled = true;
        }
    }

    /// A node whose session the engine ended.
    pub(super) fn dropped(&mut self, node: &NodeName) {
        self.tell(node, Command::NodeBye { node: node.clone() });
    }

    /// One message.
    pub(super) fn apply(&mut self, message: Message) {
        match message {
            Message::Execute { command, reply } => {
                let result = self.handle(command);
                self.debts.push(Debt::Execute(reply, result));
            }
            Message::Request {
                caller,
                request,
                reply,
            } => {
                if self.may_have_settled {
                    self.gather();
                }
                let result = self.handle_waiting(Command::Request { caller, request }, granted);
                self.may_have_settled = false;
                self.debts.push(Debt::Request(reply, result));
            }
            Message::Close { caller, id, reply } => {
                let result = self.handle_waiting(Command::Close { caller, id }, plans);
                self.debts.push(Debt::Close(reply, result));
            }
            Message::Begin { hello, outlet, reply } => {
                let node = hello.node.clone();
                let result = self.handle(Command::NodeHello(hello)).map(drop);
                if result.is_ok() {
                    self.begun.insert(node.clone());
                }
                self.debts.push(Debt::Begin(node, outlet, reply, result));
            }
            Message::Report {
                node,
                session,
                command,
            } => {
                if self.sessions.is_current(&node, session) && !self.begun.contains(&node) {
                    self.tell(&node, command);
                }
            }
            Message::Leave { node, session } => {
                if self.sessions.leave(&node, session) && !self.begun.contains(&node) {
                    tracing::info!(%node, "session ends");
                    self.tell(&node, Command::NodeBye { node: node.clone() });
                }
            }
            Message::Watch { topic, outlet, reply } => self.debts.push(Debt::Watch(topic, outlet, reply)),
            Message::Look(look) => self.debts.push(Debt::Look(look)),
            // The loop sees to it.
            Message::Stop => {}
        }
    }

    fn handle(&mut self, command: Command) -> Result<Reply, Failure> {
        self.may_have_settled = true;
        Ok(self.registry.handle(self.now, command)?)
    }

    /// For a command whose caller may have to wait for a node.
    fn handle_waiting<T>(
        &mut self,
        command: Command,
        read: impl FnOnce(Reply) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.waiting >= self.max_waiting {
            return Err(Failure::Busy {
                waiting: self.waiting,
            });
        }
        self.waiting += 1;
        self.handle(command).and_then(read)
    }

    /// A command that nobody waits for.
    fn tell(&mut self, node: &NodeName, command: Command) {
        if let Err(refusal) = self.handle(command) {
            tracing::warn!(%node, %refusal, "what the node reports is refused");
        }
    }

    /// Takes what happened from the registry. All that is taken at once is one change of a node's plan, so it is done only at
    /// the end, and before a Request that what was settled earlier must not answer.
    pub(super) fn gather(&mut self) {
        match self.registry.take_effects() {
            Ok(effects) => {
                let settled = self.batch.add(effects);
                self.debts.extend(settled.into_iter().map(Debt::Settled));
                self.may_have_settled = false;
            }
            Err(refusal) => self.broken = Some(refusal),
        }
    }
}

fn granted(reply: Reply) -> Result<Box<Granted>, Failure> {
    match reply {
        Reply::Connection(granted) => Ok(granted),
        other => Err(Failure::Mismatch {
            asked: "Request",
            got: format!("{other:?}"),
        }),
    }
}

fn plans(reply: Reply) -> Result<Vec<NodeGeneration>, Failure> {
    match reply {
        Reply::Done(plans) => Ok(plans),
        other => Err(Failure::Mismatch {
            asked: "Close",
            got: format!("{other:?}"),
        }),
    }
}
