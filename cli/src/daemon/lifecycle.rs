//! From the first signal to the last: readiness, watchdog, ordered shutdown.
//!
//! Shutdown stops the agent first, so that control hears its last words, then control, then HTTP. Wires go on
//! forwarding: nothing in the kernel belongs to this process. A second signal ends the process at once.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    DaemonError, http, notify,
    parts::{Part, Running},
};
use crate::{exit::Exit, signals::Signals};

/// How long one part may take to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often readiness is looked at until it is there.
const READY_POLL: Duration = Duration::from_millis(20);
/// From here on the log says what readiness waits for.
const READY_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the parts, in the order of their start, until a signal comes or one of them ends.
pub(crate) async fn run(
    mut running: Vec<Running>,
    parts: Vec<Box<dyn Part>>,
    listener: Option<TcpListener>,
    mut signals: Signals,
) -> Result<Exit, DaemonError> {
    let parts = Arc::new(parts);
    let stop_http = CancellationToken::new();
    let http = listener.map(|listener| http::serve(listener, Arc::clone(&parts), stop_http.clone()));
    let feed = tokio::spawn(report(Arc::clone(&parts)));
    let early = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping; wires go on forwarding");
            None
        }
        ended = first_end(&mut running) => Some(ended),
    };
    feed.abort();
    notify::tell(&[NotifyState::Stopping]);
    let outcome = tokio::select! {
        outcome = stop_all(running) => outcome,
        name = signals.next() => {
            tracing::warn!(signal = name, "second signal: ending at once; wires go on forwarding");
            return Ok(Exit::Failed);
        }
    };
    stop_http.cancel();
    if let Some(http) = http {
        let _ = timeout(STOP_LIMIT, http).await;
    }
    early.map_or(outcome, Err)?;
    tracing::info!("stopped");
    Ok(Exit::Ok)
}

/// Readiness once, then the watchdog for ever.
async fn report(parts: http::Parts) {
    let mut waited = Duration::ZERO;
    while let Some((name, reason)) = first_unready(&parts) {
        if waited == READY_PATIENCE {
            tracing::warn!("{name} is not ready yet: {reason}");
        }
        sleep(READY_POLL).await;
        waited += READY_POLL;
    }
    tracing::info!("ready");
    notify::tell(&[NotifyState::Ready]);
    let Some(period) = notify::watchdog_interval() else {
        return;
    };
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        notify::tell(&[NotifyState::Watchdog]);
    }
}

fn first_unready(parts: &[Box<dyn Part>]) -> Option<(&'static str, String)> {
    parts
        .iter()
        .find_map(|part| part.readiness().err().map(|reason| (part.name(), reason)))
}

/// The error of the first part that ends although nobody asked it to; for ever if none does.
async fn first_end(running: &mut [Running]) -> DaemonError {
    let ends = running.iter_mut().map(|part| {
        let name = part.name;
        Box::pin(async move {
            match (&mut part.task).await {
                Ok(Err(error)) => error,
                Ok(Ok(())) => DaemonError::Ended { name },
                Err(source) => DaemonError::Crashed { name, source },
            }
        })
    });
    select_first(ends.collect()).await
}

/// Polls all of them; the first to end wins.
async fn select_first<F: Future<Output = DaemonError> + Unpin>(mut futures: Vec<F>) -> DaemonError {
    std::future::poll_fn(|context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(error) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready(error);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Last started, first stopped; each within its limit.
async fn stop_all(running: Vec<Running>) -> Result<(), DaemonError> {
    let mut outcome = Ok(());
    for part in running.into_iter().rev() {
        let Running { name, stop, task } = part;
        if task.is_finished() {
            continue;
        }
        stop.cancel();
        let ended = match timeout(STOP_LIMIT, task).await {
            Err(_) => Err(DaemonError::Slow {
                name,
                limit: STOP_LIMIT,
            }),
            Ok(Err(source)) => Err(DaemonError::Crashed { name, source }),
            Ok(Ok(result)) => result,
        };
        outcome = outcome.and(ended);
        tracing::info!(part = name, "stopped");
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn part(name: &'static str, log: Arc<Mutex<Vec<&'static str>>>) -> Running {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            stopped.cancelled().await;
            log.lock().unwrap().push(name);
            Ok(())
        });
        Running { name, stop, task }
    }

    #[tokio::test]
    async fn the_agent_stops_before_control() {
        let log = Arc::default();
        stop_all(vec![
            part("control", Arc::clone(&log)),
            part("agent", Arc::clone(&log)),
        ])
        .await
        .unwrap();
        assert_eq!(*log.lock().unwrap(), ["agent", "control"]);
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_named_and_the_others_are_stopped() {
        let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let mut running = vec![part("control", Arc::clone(&log)), part("agent", Arc::clone(&log))];
        running[1].stop.cancel();
        let error = first_end(&mut running).await;
        assert!(matches!(error, DaemonError::Ended { name: "agent" }), "{error}");
        stop_all(running).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["agent", "control"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_does_not_stop_is_given_up_and_named() {
        let task = tokio::spawn(std::future::pending());
        let running = vec![Running {
            name: "agent",
            stop: CancellationToken::new(),
            task,
        }];
        let error = stop_all(running).await.unwrap_err();
        assert!(
            matches!(error, DaemonError::Slow { name: "agent", .. }),
            "{error}"
        );
    }
}
