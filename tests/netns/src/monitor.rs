//! A client's stream of connection events.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tieline_lab::within;
use tieline_proto::connection::{Connection, ConnectionEvent, ConnectionEventType};
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

use crate::api::runtime;

/// Collects the events of one `MonitorConnections` stream in the background until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    events: Vec<(Instant, ConnectionEvent)>,
    /// The stream ended: with this error, or in order.
    end: Option<Option<Status>>,
}

impl Monitor {
    pub(crate) fn new(mut stream: Streaming<ConnectionEvent>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let task = runtime().spawn(async move {
            let end = loop {
                match stream.message().await {
                    Ok(Some(event)) => lock(&shared).events.push((Instant::now(), event)),
                    Ok(None) => break None,
                    Err(status) => break Some(status),
                }
            };
            lock(&shared).end = Some(end);
        });
        Self { seen, task }
    }

    /// Every event so far.
    #[must_use]
    pub fn events(&self) -> Vec<ConnectionEvent> {
        lock(&self.seen)
            .events
            .iter()
            .map(|(_, event)| event.clone())
            .collect()
    }

    /// When the first event after `moment` came that says this of connection `id`, if one did.
    #[must_use]
    pub fn heard_since(
        &self,
        moment: Instant,
        id: &str,
        so: impl Fn(&Connection) -> bool,
    ) -> Option<Instant> {
        let seen = lock(&self.seen);
        let mut later = seen.events.iter().filter(|(at, _)| *at >= moment);
        let says = |event: &ConnectionEvent| event.connections.get(id).is_some_and(&so);
        Some(later.find(|(_, event)| says(event))?.0)
    }

    /// Whether the stream has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        lock(&self.seen).end.is_some()
    }

    /// What a client that only follows this stream believes to be there.
    #[must_use]
    pub fn believed(&self) -> BTreeMap<String, Connection> {
        let mut believed = BTreeMap::new();
        for event in self.events() {
            match event.r#type() {
                ConnectionEventType::InitialStateTransfer => {
                    believed = event.connections.into_iter().collect();
                }
                ConnectionEventType::Update => believed.extend(event.connections),
                ConnectionEventType::Delete => believed.retain(|id, _| !event.connections.contains_key(id)),
            }
        }
        believed
    }

    /// Waits until the client believes this to be so.
    pub fn wait_until(&self, what: &str, so: impl Fn(&BTreeMap<String, Connection>) -> bool) -> Result<()> {
        let mut believed = BTreeMap::new();
        let outcome = within(Duration::from_secs(10), what, || {
            believed = self.believed();
            let started = !lock(&self.seen).events.is_empty();
            Ok((started && so(&believed)).then_some(()))
        });
        outcome.with_context(|| {
            format!(
                "the monitor believes in {:?}",
                believed.keys().collect::<Vec<_>>()
            )
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
