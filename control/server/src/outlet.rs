//! Bounded queues towards streams.
//!
//! The engine never waits for a reader. A queue that is full ends its stream with a typed reason, and the reader starts
//! again from a snapshot; so the memory of a stream is bounded by its queue.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_stream::Stream;

/// Why the engine ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The reader does not keep up.
    TooSlow,
    /// A newer session of the same node took over.
    Replaced,
    /// Control stops.
    ShuttingDown,
    /// The engine lost what the stream was about, for the store failed.
    Lost,
}

/// The engine's side.
#[derive(Debug)]
pub(crate) struct Outlet<T> {
    items: mpsc::Sender<T>,
    end: Arc<OnceLock<End>>,
}

/// The reader's side: the items that were queued, then the reason as an error if there is one.
#[derive(Debug)]
pub(crate) struct Inlet<T> {
    items: mpsc::Receiver<T>,
    end: Arc<OnceLock<End>>,
    told: bool,
}

/// A queue of at most `capacity` items.
pub(crate) fn outlet<T>(capacity: usize) -> (Outlet<T>, Inlet<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let end = Arc::new(OnceLock::new());
    (
        Outlet {
            items: sender,
            end: Arc::clone(&end),
        },
        Inlet {
            items: receiver,
            end,
            told: false,
        },
    )
}

impl<T> Outlet<T> {
    /// Queues an item. `false`: the stream is over, for its reader left or is too slow; drop the outlet.
    #[must_use]
    pub(crate) fn send(&self, item: T) -> bool {
        match self.items.try_send(item) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                let _ = self.end.set(End::TooSlow);
                false
            }
        }
    }

    /// Whether the reader left.
    pub(crate) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// Ends the stream for a reason.
    pub(crate) fn end(self, end: End) {
        // The first reason stands.
        let _ = self.end.set(end);
    }
}

impl<T> Stream for Inlet<T> {
    type Item = Result<T, End>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.items.poll_recv(cx) {
            Poll::Ready(Some(item)) => Poll::Ready(Some(Ok(item))),
            Poll::Ready(None) if self.told => Poll::Ready(None),
            Poll::Ready(None) => {
                self.told = true;
                Poll::Ready(self.end.get().copied().map(Err))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_ends_the_stream_after_what_was_queued() {
        let (outlet, mut inlet) = outlet(2);
        assert!(outlet.send(1) && outlet.send(2));
        assert!(!outlet.send(3));
        drop(outlet);
        let items: Vec<_> = [
            inlet.next().await,
            inlet.next().await,
            inlet.next().await,
            inlet.next().await,
        ]
        .into();
        assert_eq!(items, [Some(Ok(1)), Some(Ok(2)), Some(Err(End::TooSlow)), None]);
    }

    #[tokio::test]
    async fn the_reason_reaches_the_reader_and_a_reader_that_left_is_noticed() {
        let (first, mut reader) = outlet::<u8>(1);
        first.end(End::Replaced);
        assert_eq!(reader.next().await, Some(Err(End::Replaced)));
        let (second, reader) = outlet::<u8>(1);
        drop(reader);
        assert!(second.is_closed() && !second.send(1));
    }
}
