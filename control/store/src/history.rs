//! The bounded history that watches read.
//!
//! A watch holds a place in the history, not a queue: however slow its reader, it costs no memory. One that falls
//! behind the oldest change that is kept is told so and ends. A change is appended after it is durable and before
//! its caller is answered.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use crate::error::WatchError;
use crate::store::Watch;
use crate::types::{Change, Event, Revision};

/// What an event costs beside its key and value, roughly.
const EVENT_OVERHEAD_BYTES: usize = 96;

/// The latest changes.
#[derive(Debug)]
pub(crate) struct History {
    kept: Mutex<Kept>,
    /// Told after every append. The number is the newest revision.
    newest: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Kept {
    changes: VecDeque<Change>,
    bytes: usize,
    limit_bytes: usize,
    /// A watch may begin after this revision or a later one.
    oldest: Revision,
    closed: bool,
}

impl History {
    /// A history that begins after `revision`.
    pub(crate) fn new(revision: Revision, limit_bytes: usize) -> Arc<Self> {
        let kept = Kept {
            changes: VecDeque::new(),
            bytes: 0,
            limit_bytes,
            oldest: revision,
            closed: false,
        };
        Arc::new(Self {
            kept: Mutex::new(kept),
            newest: watch::Sender::new(revision),
        })
    }

    /// Appends a change. Callers append in the order of revisions.
    pub(crate) fn append(&self, change: Change) {
        let revision = change.revision;
        let mut kept = self.kept();
        kept.bytes += cost(&change);
        kept.changes.push_back(change);
        while kept.bytes > kept.limit_bytes {
            let Some(dropped) = kept.changes.pop_front() else {
                break;
            };
            kept.bytes -= cost(&dropped);
            kept.oldest = dropped.revision;
        }
        drop(kept);
        self.newest.send_replace(revision);
    }

    /// Ends every watch once it has read what is kept.
    pub(crate) fn close(&self) {
        self.kept().closed = true;
        self.newest.send_modify(|_| ());
    }

    /// A watch of the changes below `prefix` later than `after`.
    pub(crate) fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        let oldest = self.kept().oldest;
        if after < oldest {
            return Err(WatchError::Compacted { after, oldest });
        }
        Ok(Box::pin(Reader {
            history: Arc::clone(self),
            prefix: prefix.to_owned(),
            after,
            appended: WatchStream::from_changes(self.newest.subscribe()),
            ended: false,
        }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code panics while it holds the lock, and the data would be whole if it did.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Step {
    Item(Result<Change, WatchError>),
    Wait,
    End,
}

struct Reader {
    history: Arc<History>,
    prefix: String,
    after: Revision,
    appended: WatchStream<Revision>,
    ended: bool,
}

impl Reader {
    fn step(&mut self) -> Step {
        let kept = self.history.kept();
        if self.after < kept.oldest {
            return Step::Item(Err(WatchError::Compacted {
                after: self.after,
                oldest: kept.oldest,
            }));
        }
        let first = kept
            .changes
            .partition_point(|change| change.revision <= self.after);
        for change in kept.changes.range(first..) {
            self.after = change.revision;
            let below = |event: &&Event| event.key().starts_with(&self.prefix);
            let events: Vec<Event> = change.events.iter().filter(below).cloned().collect();
            if !events.is_empty() {
                return Step::Item(Ok(Change {
                    revision: change.revision,
                    events,
                }));
            }
        }
        if kept.closed { Step::End } else { Step::Wait }
    }
}

impl Stream for Reader {
    type Item = Result<Change, WatchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            match self.step() {
                Step::Item(item) => {
                    self.ended = item.is_err();
                    return Poll::Ready(Some(item));
                }
                Step::End => self.ended = true,
                Step::Wait => self.ended = ready!(Pin::new(&mut self.appended).poll_next(cx)).is_none(),
            }
        }
        Poll::Ready(None)
    }
}

fn cost(change: &Change) -> usize {
    let event_cost = |event: &Event| match event {
        Event::Put { key, entry } => EVENT_OVERHEAD_BYTES + key.len() + entry.value.len(),
        Event::Deleted { key } => EVENT_OVERHEAD_BYTES + key.len(),
    };
    change.events.iter().map(event_cost).sum()
}
