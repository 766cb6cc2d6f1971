//! Why control does not start, or stops by itself.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tieline_store::{OpenError, StoreError};

/// Why control does not start, or had to stop. Each message is one sentence with the next step.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The configuration names no address.
    #[error("control has no address to listen on; name a unix socket or a TCP address")]
    NoAddress,
    /// Another registry domain that is named wrongly.
    #[error(transparent)]
    Peer(#[from] tieline_model::Invalid),
    /// A TCP address that others could reach.
    #[error(
        "control does not listen on {address}: peers are not authenticated yet, so only loopback addresses are \
         allowed; listen on 127.0.0.1 or [::1], or use the unix socket"
    )]
    NotLoopback {
        /// The address of the configuration.
        address: SocketAddr,
    },
    /// Somebody answers on the socket.
    #[error("another control is already listening on {}; stop it, or name another socket", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// The socket's path is taken by a file that is not a socket.
    #[error("{} exists and is not a socket; move it away, or name another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket could not be made.
    #[error("cannot listen on {}: {source}; check the directory and its permissions, or name another path", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The TCP port is taken.
    #[error("port {} of {} is taken by another process; stop it, or name another port", address.port(), address.ip())]
    PortTaken {
        /// The address of the configuration.
        address: SocketAddr,
    },
    /// The TCP address could not be used for another reason.
    #[error("cannot listen on {address}: {source}")]
    Tcp {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The store's file could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store could not be read.
    #[error("cannot read the state of control: {0}")]
    Store(#[from] StoreError),
    /// The store holds records that this release cannot read.
    #[error(
        "cannot restore the state of control from {store}: {detail}; install the release that wrote it, or restore a backup"
    )]
    Restore {
        /// The store.
        store: String,
        /// Which record, and what is wrong with it.
        detail: String,
    },
    /// What is known of other registry domains could not be read.
    #[error("cannot follow other registry domains: {0}")]
    Domains(String),
    /// The gRPC server gave up.
    #[error("the server on {address} stopped: {source}")]
    Serve {
        /// Where it listened.
        address: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A task of control ended although nobody asked it to.
    #[error(
        "control's {task} ended unexpectedly; this is a defect of control, restart it and report its log"
    )]
    TaskEnded {
        /// Which task.
        task: &'static str,
    },
    /// The compiled-in API description could not be served.
    #[error("the description of the API is damaged: {0}; this is a defect of this build")]
    Reflection(String),
}
