//! Connections to the sockets of a node.

use std::path::Path;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, runtime::Runtime, task::JoinSet};
use tonic::transport::{Channel, Endpoint};

use crate::stop;

/// Drives the channels of one client: they live as long as it does.
pub(super) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Connects to `socket`.
pub(super) async fn connect(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    // The URI only fills the HTTP/2 authority; the connector ignores it.
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("connect to {}", socket.display()))
}

/// Runs `work` on every item with at most `in_flight` at a time. The first failure ends it.
pub(super) async fn in_parallel<I: Send + 'static, T: Send + 'static, F>(
    items: impl IntoIterator<Item = I>,
    in_flight: usize,
    work: impl Fn(I) -> F,
) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (mut items, mut running, mut done) = (items.into_iter(), JoinSet::new(), Vec::new());
    for item in items.by_ref().take(in_flight) {
        running.spawn(work(item));
    }
    while let Some(outcome) = running.join_next().await {
        stop::check()?;
        done.push(outcome??);
        if let Some(item) = items.next() {
            running.spawn(work(item));
        }
    }
    Ok(done)
}
