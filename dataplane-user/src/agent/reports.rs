//! What the worker has to say to a session, on its way there.

use tieline_proto::tieline::agent::v1 as proto;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

use super::worker::Fault;

/// How many reports may wait for a session: more than one for each wire of a large node.
pub(super) const MOST: usize = 65_536;

/// What the thread has to say to the session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    /// A generation is in the kernel.
    Ack(proto::Ack),
    /// A wire was lost or is back.
    Observation(proto::Observation),
    /// The session cannot go on.
    Fault(Fault),
}

/// Where the reports of one session go. The thread never waits for a session, which may be waiting for the thread: a
/// session that takes too little is given up, and the next one hears everything.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    queue: mpsc::Sender<Report>,
    overrun: CancellationToken,
}

impl Reports {
    /// A way for so many reports that wait; and what is cancelled when there are more.
    pub(super) fn new(most: usize) -> (Self, mpsc::Receiver<Report>, CancellationToken) {
        let (queue, receiver) = mpsc::channel(most);
        let overrun = CancellationToken::new();
        let reports = Self {
            queue,
            overrun: overrun.clone(),
        };
        (reports, receiver, overrun)
    }

    /// Whether these are the reports of the same session.
    pub(super) fn are(&self, other: &Self) -> bool {
        self.queue.same_channel(&other.queue)
    }

    /// Says something, if the session is still there.
    pub(super) fn tell(&self, report: Report) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(report) {
            self.overrun.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_takes_too_little_is_given_up() {
        let ack = || Report::Ack(proto::Ack::default());
        let (reports, mut receiver, overrun) = Reports::new(2);
        reports.tell(ack());
        reports.tell(ack());
        assert!(!overrun.is_cancelled());
        assert_eq!(receiver.try_recv().ok(), Some(ack()));
        reports.tell(ack());
        assert!(!overrun.is_cancelled());
        reports.tell(ack());
        assert!(overrun.is_cancelled());
    }

    #[test]
    fn a_session_that_is_gone_is_told_nothing() {
        let (reports, receiver, overrun) = Reports::new(1);
        drop(receiver);
        reports.tell(Report::Ack(proto::Ack::default()));
        assert!(!overrun.is_cancelled());
    }
}
