//! The thread that asks.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use tracing::{debug, warn};

use super::{
    state::{Ask, Notice, Sense, Timing, Watch},
    target::WatchChange,
};

/// What the thread needs of the machine.
pub(crate) trait Senses: Send + 'static {
    /// What is seen at a position.
    fn sense(&mut self, slot: u32) -> io::Result<Sense>;
    /// Whatever answered at a position was another one's.
    fn forget(&mut self, slot: u32) -> io::Result<()>;
    /// Sends a frame out of an interface.
    fn send(&mut self, index: u32, frame: &[u8]) -> io::Result<()>;
    /// `CLOCK_MONOTONIC` in nanoseconds.
    fn now(&self) -> u64;
}

/// What the thread has done, for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Probes that were sent.
    pub probes: AtomicU64,
    /// Paths that have died.
    pub deaths: AtomicU64,
    /// Paths that have come back.
    pub recoveries: AtomicU64,
    /// Paths that are watched.
    pub paths: AtomicU64,
    /// Microseconds from one look at a path to the next.
    pub interval_us: AtomicU64,
}

/// The running thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Prober {
    changes: Option<mpsc::Sender<Vec<WatchChange>>>,
    thread: Option<JoinHandle<()>>,
    stats: Arc<Stats>,
}

impl Prober {
    /// Starts it. `tell` is called on the thread, with what has died, come back or
    /// answered for the first time at one time.
    pub(crate) fn spawn(
        senses: impl Senses,
        timing: Timing,
        tell: impl FnMut(Vec<Notice>) + Send + 'static,
    ) -> io::Result<Self> {
        let (changes, receiver) = mpsc::channel();
        let stats = Arc::new(Stats::default());
        let shared = Arc::clone(&stats);
        let run = move || {
            Run {
                senses,
                watch: Watch::new(timing),
                tell,
                stats: shared,
            }
            .run(&receiver);
        };
        let thread = std::thread::Builder::new()
            .name("tl-prober".to_owned())
            .spawn(run)?;
        Ok(Self {
            changes: Some(changes),
            thread: Some(thread),
            stats,
        })
    }

    /// Watches wires otherwise.
    pub fn change(&self, changes: Vec<WatchChange>) {
        if let Some(sender) = &self.changes {
            // The thread ends with this only, or in a panic, which was logged.
            let _ = sender.send(changes);
        }
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.changes.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Run<S, T> {
    senses: S,
    watch: Watch,
    tell: T,
    stats: Arc<Stats>,
}

impl<S: Senses, T: FnMut(Vec<Notice>)> Run<S, T> {
    fn run(mut self, changes: &mpsc::Receiver<Vec<WatchChange>>) {
        loop {
            let received = match self.watch.next() {
                Some(next) => {
                    let wait = Duration::from_nanos(next.saturating_sub(self.senses.now()));
                    changes.recv_timeout(wait)
                }
                None => changes.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match received {
                Ok(changes) => self.change(changes),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn change(&mut self, changes: Vec<WatchChange>) {
        let now = self.senses.now();
        for mut change in changes {
            change.found.retain(|slot| self.has_answered(*slot));
            let slots = change.targets.iter().map(|(_, target)| target.slot);
            let is_new = |slot: &u32| !change.found.contains(slot) && !self.watch.has(&change.wire, *slot);
            for slot in slots.filter(is_new) {
                if let Err(error) = self.senses.forget(slot) {
                    warn!(%error, slot, "an agent that starts may take what this one watches for alive");
                }
            }
            self.watch.change(change, now);
        }
        let paths = u64::try_from(self.watch.len()).unwrap_or(u64::MAX);
        let interval = u64::try_from(self.watch.interval().as_micros()).unwrap_or(u64::MAX);
        self.stats.paths.store(paths, Ordering::Relaxed);
        self.stats.interval_us.store(interval, Ordering::Relaxed);
    }

    fn has_answered(&mut self, slot: u32) -> bool {
        self.senses.sense(slot).is_ok_and(|sense| sense.reply_ns > 0)
    }

    fn look(&mut self) {
        let mut notices = Vec::new();
        for due in self.watch.due(self.senses.now()) {
            let sense = match self.senses.sense(due.slot) {
                Ok(sense) => sense,
                Err(error) => {
                    warn!(%error, slot = due.slot, "cannot read when a probe was answered");
                    Sense::default()
                }
            };
            let (ask, notice) = self.watch.look(&due.path, sense, self.senses.now());
            notices.extend(notice);
            if let Ask::Send { index, frame } = ask {
                self.stats.probes.fetch_add(1, Ordering::Relaxed);
                // An interface that is gone answers nothing, and that is what is found out.
                if let Err(error) = self.senses.send(index, &frame) {
                    debug!(%error, index, "a probe could not be sent");
                }
            }
        }
        if notices.is_empty() {
            return;
        }
        let count = |which: fn(&Notice) -> bool| {
            let these = notices.iter().filter(|notice| which(notice)).count();
            u64::try_from(these).unwrap_or(u64::MAX)
        };
        let (deaths, recoveries) = (
            count(|notice| !notice.alive),
            count(|notice| notice.alive && !notice.first),
        );
        self.stats.deaths.fetch_add(deaths, Ordering::Relaxed);
        self.stats.recoveries.fetch_add(recoveries, Ordering::Relaxed);
        (self.tell)(notices);
    }
}
