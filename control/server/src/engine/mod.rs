//! The engine: one task that owns the registry and the store.
//!
//! Whoever wants something sends a [`Message`] through a bounded queue. The engine takes what is there, applies all of it
//! to the registry at one moment, writes one transaction, and only then lets the world know: changes to nodes, events to
//! watchers, answers to callers. So nobody ever hears of something that a crash could undo, and the cost of making
//! things durable is shared by all who call at the same time.

mod apply;
mod batch;
mod monitors;
mod recover;
mod run;
mod sessions;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use tieline_model::{Connection, ConnectionId, ConnectionRequest, NodeName, Workload};
use tieline_registry::{Caller, Command, NodeHello, Registry, RegistryConfig, RegistryEvent, Reply};
use tieline_store::{Revision, Store};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use self::run::Engine;
use self::waiters::{CloseReply, WireReply};
use crate::error::ControlError;
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::outlet::{Inlet, Outlet, outlet};
use crate::readiness::Condition;

pub(crate) use self::monitors::Topic;
pub(crate) use self::sessions::{Down, SessionId};

/// Messages that may wait for the engine before those who send more wait themselves.
const QUEUE: usize = 1024;

/// A question about the present state, answered with a failure if there is none.
type Look = Box<dyn FnOnce(Result<(&Registry, Revision), Failure>) + Send>;

/// What the engine is asked.
enum Message {
    /// A command whose reply is the answer.
    Execute {
        command: Command,
        reply: oneshot::Sender<Result<Reply, Failure>>,
    },
    /// A Request, answered when the wire stands.
    Request {
        caller: Workload,
        request: Box<ConnectionRequest>,
        reply: WireReply,
    },
    /// A Close, answered when the wire is gone.
    Close {
        caller: Caller,
        id: ConnectionId,
        reply: CloseReply,
    },
    /// The beginning of a node's session.
    Begin {
        hello: NodeHello,
        outlet: Outlet<Down>,
        reply: oneshot::Sender<Result<SessionId, Failure>>,
    },
    /// What a session says; nothing is answered, and an old session is not heard.
    Report {
        node: NodeName,
        session: SessionId,
        command: Command,
    },
    /// The end of a session.
    Leave { node: NodeName, session: SessionId },
    /// A new watcher, which gets what there is, and what happens from there on through `outlet`.
    Watch {
        topic: Topic,
        outlet: Outlet<RegistryEvent>,
        reply: oneshot::Sender<Result<Vec<RegistryEvent>, Failure>>,
    },
    /// A look at the state.
    Look(Look),
    /// Finish what came before this, end all streams, and end.
    Stop,
}

/// What the engine is set up with.
pub(crate) struct Setup {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: RegistryConfig,
    /// How long a Request waits for its node.
    pub(crate) patience: Duration,
    /// How many calls may wait for nodes at once.
    pub(crate) max_waiting: usize,
    pub(crate) metrics: Arc<Metrics>,
    /// Tells the rest of control whether the state can be written and read.
    pub(crate) condition: Arc<Condition>,
}

/// The way to the engine. When all of these are gone, the engine ends.
#[derive(Clone, Debug)]
pub(crate) struct EngineHandle {
    messages: mpsc::Sender<Message>,
}

/// Reads the state from the store, ends the leases that ran out meanwhile, and starts the engine.
pub(crate) async fn start(setup: Setup) -> Result<(EngineHandle, JoinHandle<()>), ControlError> {
    let (messages, receiver) = mpsc::channel(QUEUE);
    let engine = Engine::open(setup).await?;
    Ok((EngineHandle { messages }, tokio::spawn(engine.run(receiver))))
}

impl EngineHandle {
    /// Carries out a command that is answered as soon as it is stored.
    pub(crate) async fn execute(&self, command: Command) -> Result<Reply, Failure> {
        self.ask(|reply| Message::Execute { command, reply }).await?
    }

    /// Requests a connection and waits for its wire.
    pub(crate) async fn request(
        &self,
        caller: Workload,
        request: ConnectionRequest,
    ) -> Result<Arc<Connection>, Failure> {
        let request = Box::new(request);
        self.ask(|reply| Message::Request {
            caller,
            request,
            reply,
        })
        .await?
    }

    /// Closes a connection and waits until its wire is gone, if its node is there.
    pub(crate) async fn close(&self, caller: Caller, id: ConnectionId) -> Result<(), Failure> {
        self.ask(|reply| Message::Close { caller, id, reply }).await?
    }

    /// Begins a node's session: the stream begins with a snapshot.
    pub(crate) async fn begin_session(&self, hello: NodeHello) -> Result<(SessionId, Inlet<Down>), Failure> {
        let (outlet, inlet) = outlet(sessions::SESSION_QUEUE);
        let id = self
            .ask(|reply| Message::Begin { hello, outlet, reply })
            .await??;
        Ok((id, inlet))
    }

    /// Passes on what a session says.
    pub(crate) async fn report(
        &self,
        node: NodeName,
        session: SessionId,
        command: Command,
    ) -> Result<(), Failure> {
        self.send(Message::Report {
            node,
            session,
            command,
        })
        .await
    }

    /// Ends a session, if it is still the node's.
    pub(crate) async fn leave(&self, node: NodeName, session: SessionId) -> Result<(), Failure> {
        self.send(Message::Leave { node, session }).await
    }

    /// What there is of `topic`, and the stream of what happens to it later.
    pub(crate) async fn watch(
        &self,
        topic: Topic,
    ) -> Result<(Vec<RegistryEvent>, Inlet<RegistryEvent>), Failure> {
        let (outlet, inlet) = outlet(monitors::MONITOR_QUEUE);
        let present = self
            .ask(|reply| Message::Watch { topic, outlet, reply })
            .await??;
        Ok((present, inlet))
    }

    /// Looks at the state as it is stored. `look` holds up everything else: no IO, no long work.
    pub(crate) async fn look<T, F>(&self, look: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Registry, Revision) -> T + Send + 'static,
    {
        self.ask(|reply| {
            Message::Look(Box::new(move |state| {
                waiters::answer(reply, state.map(|(registry, revision)| look(registry, revision)));
            }))
        })
        .await?
    }

    /// Lets the engine finish what it was asked before, end all streams, and end.
    pub(crate) async fn stop(&self) {
        // An engine that has ended already is what is wanted.
        drop(self.send(Message::Stop).await);
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.send(message(reply)).await?;
        answer.await.map_err(|_| Failure::Stopping)
    }

    async fn send(&self, message: Message) -> Result<(), Failure> {
        self.messages.send(message).await.map_err(|_| Failure::Stopping)
    }
}
