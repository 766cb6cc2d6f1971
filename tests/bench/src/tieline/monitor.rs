//! What a client hears of its connections, and when.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use tieline_proto::connection::{
    Connection, MonitorScopeSelector, monitor_connection_client::MonitorConnectionClient,
};
use tokio::sync::oneshot;

use super::channel;

type Heard = Arc<Mutex<Vec<(Instant, Connection)>>>;

/// Listens in the background until it is dropped.
pub(crate) struct Monitor {
    heard: Heard,
    quit: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Begins to listen at an agent's socket, to everything.
    pub(crate) fn start(socket: &Path) -> Result<Self> {
        let (heard, socket) = (Heard::default(), socket.to_owned());
        let (quit, told_to_quit) = oneshot::channel();
        let (begun, beginning) = mpsc::channel();
        let shared = Arc::clone(&heard);
        let thread = thread::spawn(move || {
            let outcome = channel::runtime().and_then(|runtime| {
                runtime.block_on(async {
                    tokio::select! {
                        outcome = listen(&socket, &shared, &begun) => outcome,
                        _ = told_to_quit => Ok(()),
                    }
                })
            });
            let _ = begun.send(outcome);
        });
        let monitor = Self {
            heard,
            quit: Some(quit),
            thread: Some(thread),
        };
        beginning.recv().context("the monitor's thread is gone")??;
        Ok(monitor)
    }

    /// When the first word after `moment` came that says this of the connection `id`.
    pub(crate) fn heard_since(
        &self,
        moment: Instant,
        id: &str,
        so: impl Fn(&Connection) -> bool,
    ) -> Option<Instant> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut later = heard.iter().filter(|(at, _)| *at >= moment);
        let (at, _) = later.find(|(_, connection)| connection.id == id && so(connection))?;
        Some(*at)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.quit.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Writes down what comes; says when the first word did.
async fn listen(socket: &Path, heard: &Heard, begun: &mpsc::Sender<Result<()>>) -> Result<()> {
    let mut client = MonitorConnectionClient::new(channel::connect(socket).await?);
    let answer = client.monitor_connections(MonitorScopeSelector::default());
    let mut events = answer.await.context("monitor connections")?.into_inner();
    while let Some(event) = events.message().await.context("monitor connections")? {
        let now = Instant::now();
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend(
            event
                .connections
                .into_values()
                .map(|connection| (now, connection)),
        );
        drop(heard);
        let _ = begun.send(Ok(()));
    }
    bail!("the stream of events has ended")
}
