//! From start to end: what is started in which order, what its end means, and who waits for whom.

use std::{
    fs::{self, File, TryLockError},
    future::{Future, Ready},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{
        mpsc::{self, WeakSender},
        oneshot,
    },
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    attested::Attested,
    config::Config,
    dial,
    error::{AgentError, StartError},
    local_api::{Api, Attestor, Listener},
    machine,
    session::Session,
    status::Status,
    telemetry::{AgentHandle, Jobs},
    worker::{self, Job},
};
use crate::{datapath::Datapath, kernel::Kernel, netns};

/// How long open calls may take to end at shutdown. Nothing is lost when they do not: control has the intent.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Full passes take at most one part in this many of the worker's time, however many wires there are.
const FULL_PASS_SHARE: u32 = 20;
/// How often the busiest ends are looked for; one that is found busy gets its link at once.
const PROMOTE_INTERVAL: Duration = Duration::from_secs(2);
/// Connections accepted and not yet served.
const MAX_ACCEPTED: usize = 16;

/// An agent that has not started.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    pub(super) status: Arc<Status>,
    jobs: Jobs,
}

impl Agent {
    /// An agent, and the handle to look into it. Nothing is touched yet.
    pub fn new(config: Config) -> Result<(Self, AgentHandle), AgentError> {
        config.validate()?;
        let status = Arc::new(Status::new(&config.node));
        let jobs = Jobs::default();
        let handle = AgentHandle::new(Arc::clone(&status), Arc::clone(&jobs));
        Ok((Self { config, status, jobs }, handle))
    }

    /// Runs on this machine's kernel, in the network namespace of the calling thread, until `shutdown` or until a
    /// part of the agent fails. Whatever is in the kernel stays there and goes on forwarding, in every case.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let config = self.config.loader();
        let status = Arc::clone(&self.status);
        let (events, reader) = oneshot::channel();
        let open = move |jobs: WeakSender<Job>| {
            let mut kernel = Kernel::open(&config)?;
            status.set_probe_stats(machine::watch_paths(&mut kernel, jobs.clone())?);
            if let Some(reader) = kernel.take_events() {
                // Nobody listens when events are off.
                let _ = events.send(reader);
            }
            Ok((kernel, machine::watch_links(jobs)?))
        };
        let follow = (self.config.event_sample > 0).then(|| machine::log_events(reader));
        self.run_parts(open, follow, shutdown).await
    }

    /// Runs on another datapath, which `make` returns; it is called on the thread that will own it.
    pub async fn run_on<D, F>(self, make: F, shutdown: CancellationToken) -> Result<(), AgentError>
    where
        D: Datapath + 'static,
        F: FnOnce() -> Result<D, StartError> + Send + 'static,
    {
        let none: Option<Ready<()>> = None;
        self.run_parts(|_| Ok((make()?, ())), none, shutdown).await
    }

    async fn run_parts<D, G, F>(
        self,
        make: F,
        extra: Option<impl Future<Output = ()> + Send + 'static>,
        shutdown: CancellationToken,
    ) -> Result<(), AgentError>
    where
        D: Datapath,
        F: FnOnce(WeakSender<Job>) -> Result<(D, G), StartError> + Send + 'static,
    {
        let _lock = lock_state_dir(&self.config)?;
        let channel = dial::channel(&self.config.control)?;
        let own = netns::current()
            .map_err(|error| AgentError::Datapath(error.into()))?
            .id;
        let listener = Listener::bind(&self.config.socket)?;
        let worker = worker::spawn(make, &self.config.resolver_dir, Arc::clone(&self.status))
            .map_err(AgentError::Thread)?;
        let worker::Running {
            jobs,
            started,
            mut ended,
            thread,
        } = worker;
        match started.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(AgentError::Datapath(error)),
            Err(_) => return Err(task_ended("worker", "it panicked at its start")),
        }
        self.jobs.get_or_init(|| jobs.downgrade());
        let tasks = CancellationToken::new();
        let mut set = self.start(channel, own, listener, &jobs, &tasks);
        if let Some(extra) = extra {
            let stopped = tasks.clone();
            spawn(&mut set, "event log", async move {
                tokio::select! { () = extra => {} () = stopped.cancelled() => {} }
            });
        }
        drop(jobs);
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = first_end(&mut set) => Err(ended),
            said = &mut ended => Err(task_ended("worker", if said.is_ok() { "it ended" } else { "it panicked" })),
        };
        info!("shutting down; wires keep forwarding");
        tasks.cancel();
        if tokio::time::timeout(DRAIN_TIMEOUT, async { while set.join_next().await.is_some() {} })
            .await
            .is_err()
        {
            warn!("some calls did not end in time and are cut off");
            set.shutdown().await;
        }
        // Every sender of jobs is gone with the tasks: the worker does what it has accepted, and ends.
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            warn!("the worker panicked; the next start repairs what it left");
        }
        result
    }

    fn start(
        self,
        channel: tonic::transport::Channel,
        own: crate::desired::NetnsId,
        listener: Listener,
        jobs: &mpsc::Sender<Job>,
        tasks: &CancellationToken,
    ) -> JoinSet<AgentError> {
        let mut set = JoinSet::new();
        let (accepted_tx, accepted) = mpsc::channel(MAX_ACCEPTED);
        let attested = Arc::new(Attested::new(
            &self.config.workloads,
            self.config.pod_metadata.as_deref(),
        ));
        let api = Api {
            channel: channel.clone(),
            address: self.config.control.to_string().into(),
            attestor: Attestor::new(&self.config.node, own, Arc::clone(&attested)),
            status: Arc::clone(&self.status),
            jobs: jobs.downgrade(),
            shutdown: tasks.clone(),
        };
        info!(socket = %self.config.socket.display(), control = %self.config.control, "agent ready");
        spawn(&mut set, "listener", listener.run(accepted_tx, tasks.clone()));
        spawn(&mut set, "label sources", attested.watch(tasks.clone()));
        set.spawn(async move {
            match api.serve(accepted).await {
                Ok(()) => task_ended("local API", "it ended"),
                Err(error) => error,
            }
        });
        let Some(datapath) = self.status.datapath().cloned() else {
            // Cannot be: the worker has said that it started.
            set.spawn(async { task_ended("session", "the datapath is not described") });
            return set;
        };
        let timer = repair(
            jobs.clone(),
            self.config.resync_interval,
            Arc::clone(&self.status),
            tasks.clone(),
        );
        spawn(&mut set, "repair timer", timer);
        spawn(&mut set, "promotion timer", promote(jobs.clone(), tasks.clone()));
        let session = Session {
            channel,
            datapath,
            jobs: jobs.clone(),
            status: self.status,
        };
        spawn(&mut set, "session", session.run(tasks.clone()));
        set
    }
}

fn spawn(set: &mut JoinSet<AgentError>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    set.spawn(async move {
        task.await;
        task_ended(name, "it ended")
    });
}

fn task_ended(task: &'static str, reason: &str) -> AgentError {
    AgentError::TaskEnded {
        task,
        reason: reason.to_owned(),
    }
}

/// The first task that ends, which none should.
async fn first_end(set: &mut JoinSet<AgentError>) -> AgentError {
    match set.join_next().await {
        Some(Ok(error)) => error,
        Some(Err(error)) => task_ended("a task", &error.to_string()),
        None => task_ended("all tasks", "there is none"),
    }
}

/// Asks for a full pass from time to time, unless the worker has enough to do.
async fn repair(
    jobs: mpsc::Sender<Job>,
    interval: Duration,
    status: Arc<Status>,
    shutdown: CancellationToken,
) {
    loop {
        let pause = interval.max(status.full_pass().saturating_mul(FULL_PASS_SHARE));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        // A full queue means that passes are being made anyway.
        let _ = jobs.try_send(Job::Repair);
    }
}

/// Asks every now and then for cheaper packets where there are many.
async fn promote(jobs: mpsc::Sender<Job>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PROMOTE_INTERVAL) => {}
        }
        let _ = jobs.try_send(Job::Promote);
    }
}

/// Makes sure that no other agent uses the same state. The lock goes with the process, however it ends.
fn lock_state_dir(config: &Config) -> Result<File, AgentError> {
    let path = &config.state_dir;
    let unusable = |source| AgentError::StateDir {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(path).map_err(unusable)?;
    let folder = File::open(path).map_err(unusable)?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(AgentError::AlreadyRunning { path: path.clone() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
