//! Streams of answers.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::failure::Failure;
use crate::outlet::Inlet;

/// What a server-streaming RPC answers with.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// First `present`, then what comes out of `inlet`, each as a message, until the engine ends it with its reason.
pub(super) fn answers<E, T>(
    present: Vec<T>,
    inlet: Inlet<E>,
    message: impl Fn(E) -> Option<T> + Send + 'static,
) -> Answers<T>
where
    E: Send + 'static,
    T: Send + 'static,
{
    let later = inlet.filter_map(move |item| match item {
        Ok(event) => message(event).map(Ok),
        Err(end) => Some(Err(Status::from(Failure::Ended(end)))),
    });
    Box::pin(tokio_stream::iter(present.into_iter().map(Ok)).chain(later))
}

/// `present` and no more.
pub(super) fn present<T: Send + 'static>(present: Vec<T>) -> Answers<T> {
    Box::pin(tokio_stream::iter(present.into_iter().map(Ok)))
}
