//! What the agent's parts tell one another and the operator: one writer per value, any number of readers.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dataplane_common::abi::Generation;
use tokio::sync::watch;

use super::{telemetry::Metrics, tenants::Tenants};
use crate::{datapath::Description, liveness::Stats, reconcile::WireCounts};

/// The session with control, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// Control has sent the node's plan and is listening.
    Up,
    /// It has not, or does not any more.
    Away {
        /// A sentence without full stop.
        reason: String,
    },
}

/// Shared by every part of one agent. The values are independent of one another, so relaxed order is enough.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) node: String,
    pub(crate) metrics: Metrics,
    /// Whose leases the node keeps.
    pub(crate) tenants: Tenants,
    session: watch::Sender<SessionState>,
    planned: AtomicU64,
    applied: AtomicU64,
    has_plan: AtomicBool,
    serving: AtomicBool,
    wires: [AtomicUsize; 3],
    full_pass_micros: AtomicU64,
    datapath: OnceLock<Description>,
    probes: OnceLock<Arc<Stats>>,
}

impl Status {
    pub(crate) fn new(node: &str) -> Self {
        let reason = "no session has been opened yet".to_owned();
        Self {
            node: node.to_owned(),
            metrics: Metrics::default(),
            tenants: Tenants::default(),
            session: watch::Sender::new(SessionState::Away { reason }),
            planned: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            has_plan: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            wires: [const { AtomicUsize::new(0) }; 3],
            full_pass_micros: AtomicU64::new(0),
            datapath: OnceLock::new(),
            probes: OnceLock::new(),
        }
    }

    /// What the prober counts, if there is one.
    pub(crate) fn probe_stats(&self) -> Option<&Stats> {
        self.probes.get().map(Arc::as_ref)
    }

    pub(crate) fn set_probe_stats(&self, stats: Arc<Stats>) {
        // There is one prober.
        let _ = self.probes.set(stats);
    }

    pub(crate) fn session(&self) -> SessionState {
        self.session.borrow().clone()
    }

    /// Follows the session's state.
    pub(crate) fn watch_session(&self) -> watch::Receiver<SessionState> {
        self.session.subscribe()
    }

    pub(crate) fn set_session(&self, state: SessionState) {
        self.session.send_replace(state);
    }

    /// The generation of the latest plan.
    pub(crate) fn planned(&self) -> Generation {
        self.planned.load(Ordering::Relaxed)
    }

    pub(crate) fn set_planned(&self, generation: Generation) {
        self.planned.store(generation, Ordering::Relaxed);
    }

    /// The generation in the kernel.
    pub(crate) fn applied(&self) -> Generation {
        self.applied.load(Ordering::Relaxed)
    }

    pub(crate) fn set_applied(&self, generation: Generation) {
        self.applied.store(generation, Ordering::Relaxed);
    }

    /// Whether a whole plan has been applied since the agent started.
    pub(crate) fn has_plan(&self) -> bool {
        self.has_plan.load(Ordering::Relaxed)
    }

    pub(crate) fn set_has_plan(&self) {
        self.has_plan.store(true, Ordering::Relaxed);
    }

    /// Whether the local API accepts calls.
    pub(crate) fn serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    pub(crate) fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Relaxed);
    }

    /// How the wires of the plan stand.
    pub(crate) fn wire_counts(&self) -> WireCounts {
        let [forwarding, parked, failed] = self.wires.each_ref().map(|count| count.load(Ordering::Relaxed));
        WireCounts {
            forwarding,
            parked,
            failed,
        }
    }

    pub(crate) fn set_wire_counts(&self, counts: WireCounts) {
        let counts = [counts.forwarding, counts.parked, counts.failed];
        for (shared, count) in self.wires.iter().zip(counts) {
            shared.store(count, Ordering::Relaxed);
        }
    }

    /// How long the last comparison of the whole plan with the kernel took.
    pub(crate) fn full_pass(&self) -> Duration {
        Duration::from_micros(self.full_pass_micros.load(Ordering::Relaxed))
    }

    pub(crate) fn set_full_pass(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.full_pass_micros.store(micros, Ordering::Relaxed);
    }

    /// What the datapath is, once it has started.
    pub(crate) fn datapath(&self) -> Option<&Description> {
        self.datapath.get()
    }

    /// Only the first call counts: an agent has one datapath.
    pub(crate) fn set_datapath(&self, description: Description) {
        self.datapath.get_or_init(|| description);
    }
}
