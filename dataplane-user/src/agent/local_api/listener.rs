//! The local API's socket: made for one agent, taken over from a dead one, closed to a second one.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tracing::warn;

use super::{
    super::error::{AgentError, CallError},
    peer::Peer,
};

/// Connections at the same time. Whoever comes later waits in the socket's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Every workload may call; what it may do follows from who it is.
const SOCKET_MODE: u32 = 0o666;
/// The pause after a failed accept: when descriptors have run out, trying at once only heats the machine.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`. A socket file that nobody listens on is what a dead agent has left, and is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, AgentError> {
        let failed = |source| AgentError::Listen {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(AgentError::NotASocket {
                    path: path.to_owned(),
                });
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => {
                    return Err(AgentError::SocketInUse {
                        path: path.to_owned(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                }
                Err(error) => return Err(failed(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let socket = UnixListener::bind(path).map_err(failed)?;
        let listener = Self {
            socket,
            path: path.to_owned(),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        Ok(listener)
    }

    /// Accepts until `shutdown`, then removes the file.
    pub(crate) async fn run(
        self,
        accepted: mpsc::Sender<io::Result<Connection>>,
        shutdown: CancellationToken,
    ) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accept = async {
            loop {
                // The semaphore is never closed.
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    return;
                };
                match self.socket.accept().await {
                    Ok((stream, _)) => {
                        let connection = Connection::new(stream, slot);
                        if accepted.send(Ok(connection)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        warn!(%error, "a connection to the local API could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = accept => {}
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "the socket file could not be removed");
        }
    }
}

/// A connection whose other end is known.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    peer: Caller,
    _slot: OwnedSemaphorePermit,
}

/// The process at the other end; each request carries it as an extension.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<Result<Peer, CallError>>);

impl Caller {
    /// The process, if the kernel could say which.
    pub(crate) fn peer(&self) -> Result<&Peer, CallError> {
        self.0.as_ref().as_ref().map_err(Clone::clone)
    }
}

impl Connection {
    fn new(stream: UnixStream, slot: OwnedSemaphorePermit) -> Self {
        let peer = Caller(Arc::new(Peer::of(&stream)));
        Self {
            stream,
            peer,
            _slot: slot,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
