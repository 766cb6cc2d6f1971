//! What the machine itself tells the agent: interfaces that go away, and sampled packets.

use std::{io, sync::Arc, time::Duration};

use dataplane_common::abi::Event;
use tokio::{
    sync::{mpsc::WeakSender, oneshot},
    time::MissedTickBehavior,
};
use tracing::info;

use super::worker::Job;
use crate::{
    LinkMonitor, LinkNotice,
    kernel::Kernel,
    liveness::{Stats, Timing},
    maps::EventReader,
};

/// How often the ring is looked at while sampling is on. It holds some 2,700 events; more are lost, not delayed.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How many events are logged before other tasks get their turn.
const EVENTS_PER_LOOK: usize = 4096;

/// Hands every interface that goes away to the worker, until the monitor is dropped.
pub(super) fn watch_links(jobs: WeakSender<Job>) -> io::Result<LinkMonitor> {
    LinkMonitor::spawn(move |notice| {
        let job = match notice {
            LinkNotice::Gone(indexes) => Job::InterfacesLost(indexes),
            LinkNotice::Overrun => Job::Repair,
        };
        // Without a worker there is nobody to tell; the next agent looks at everything.
        if let Some(jobs) = jobs.upgrade() {
            let _ = jobs.blocking_send(job);
        }
    })
}

/// Hands what has died or come back to the worker, as long as the kernel half lives.
pub(super) fn watch_paths(kernel: &mut Kernel, jobs: WeakSender<Job>) -> io::Result<Arc<Stats>> {
    kernel.watch_paths(Timing::default(), move |notices| {
        if let Some(jobs) = jobs.upgrade() {
            let _ = jobs.blocking_send(Job::Paths(notices));
        }
    })
}

/// Logs sampled packets. Ends only with the agent.
pub(super) async fn log_events(reader: oneshot::Receiver<EventReader>) {
    // The agent is not starting: it says so elsewhere.
    let Ok(mut reader) = reader.await else {
        return std::future::pending().await;
    };
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        std::iter::from_fn(|| reader.next_event())
            .take(EVENTS_PER_LOOK)
            .for_each(|event| log(&event));
    }
}

fn log(event: &Event) {
    let reason = event.reason().map_or("unknown", dataplane_common::Reason::as_str);
    info!(
        target: "tieline::packet",
        ifindex = event.ifindex,
        reason,
        length = event.frame_len,
        frame = ?event.frame(),
        "sampled",
    );
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
