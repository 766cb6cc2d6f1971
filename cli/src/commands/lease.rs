//! Keeping a lease alive in the foreground until Ctrl-C.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use tieline_proto::lease;
use tokio::time::timeout;

use crate::{error::Failure, signals::Signals};

/// The shortest wait between two refreshes, so that a lease that was cut short does not make a busy loop.
const MIN_WAIT: Duration = Duration::from_millis(200);

/// Who keeps what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// The node's agent, as long as the workload is there.
    Node,
    /// The caller, who asks again before this is over.
    Client(Duration),
}

impl Lease {
    /// What the user said, or what goes for those who stay; the node's otherwise.
    pub(crate) fn new(lifetime: Option<Duration>, staying: Option<Duration>) -> Self {
        lifetime.or(staying).map_or(Self::Node, Self::Client)
    }

    /// When it ends if it begins at `now`.
    pub(crate) fn end_after(self, now: SystemTime) -> Option<Timestamp> {
        match self {
            Self::Node => None,
            Self::Client(lifetime) => Some(Timestamp::from(now + lifetime)),
        }
    }

    /// The call that asks for it.
    pub(crate) fn call<T>(self, message: T) -> tonic::Request<T> {
        let keeper = match self {
            Self::Node => lease::NODE,
            Self::Client(_) => lease::CLIENT,
        };
        let mut request = tonic::Request::new(message);
        let header = tonic::metadata::MetadataValue::from_static(keeper);
        request.metadata_mut().insert(lease::HEADER, header);
        request
    }
}

/// When to refresh a lease: after a third of it, so that two attempts may fail.
pub(crate) fn refresh_after(now: SystemTime, end: Option<Timestamp>, lifetime: Duration) -> Duration {
    let end = end.and_then(|end| SystemTime::try_from(end).ok());
    let left = end.map_or(lifetime, |end| end.duration_since(now).unwrap_or_default());
    (left / 3).max(MIN_WAIT)
}

/// Waits for a refresh, or for the user's word that it is enough.
pub(crate) struct Keeper(Signals);

impl Keeper {
    /// Takes over the signals for the rest of the process. Made after the first answer: until then Ctrl-C ends the
    /// command as usual, and what it asked for ends with its lease.
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self(Signals::new().map_err(Failure::Runtime)?))
    }

    /// Whether to go on after `wait`; `false` when the user ended it.
    pub(crate) async fn wait(&mut self, wait: Duration) -> bool {
        timeout(wait, self.0.next()).await.is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_refreshed_after_a_third_of_what_was_granted() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let minutes = |n: u64| Duration::from_secs(60 * n);
        assert_eq!(
            refresh_after(now, Lease::Client(minutes(3)).end_after(now), minutes(30)),
            minutes(1)
        );
        assert_eq!(
            refresh_after(now, None, minutes(30)),
            minutes(10),
            "nothing granted: what was asked for"
        );
        assert_eq!(
            refresh_after(now, Some(Timestamp { seconds: 1, nanos: 0 }), minutes(30)),
            MIN_WAIT,
            "too late"
        );
    }
}
