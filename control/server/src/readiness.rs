//! Whether control can do its work, and why not.

use tokio::sync::watch;

/// Whether control can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It serves reads and takes changes.
    Ready,
    /// It does not; a sentence says why.
    NotReady(String),
}

/// The present [`Readiness`], shared between the engine that knows and those who ask.
#[derive(Debug)]
pub(crate) struct Condition(watch::Sender<Readiness>);

impl Condition {
    /// Not ready yet.
    pub(crate) fn starting() -> Self {
        Self(watch::Sender::new(Readiness::NotReady(
            "control is starting".to_owned(),
        )))
    }

    pub(crate) fn get(&self) -> Readiness {
        self.0.borrow().clone()
    }

    pub(crate) fn set(&self, readiness: Readiness) {
        self.0.send_if_modified(|present| {
            let changed = *present != readiness;
            *present = readiness;
            changed
        });
    }

    /// Hears of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Readiness> {
        self.0.subscribe()
    }
}
