//! The service manager: readiness, stopping, watchdog. Silent when there is none.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells it everything in `state`; a manager that does not listen is worth a log line and no more.
pub(crate) fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager was not told {state:?}: {error}");
    }
}

/// How often the watchdog hears from us: twice as often as it asks for.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .filter(|limit| !limit.is_zero())
        .map(|limit| limit / 2)
}
