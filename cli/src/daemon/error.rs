//! Why a daemon did not start, or stopped. Every sentence names the next step.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use dataplane_user::agent::AgentError;
use tieline_control::ControlError;

use crate::{client::AddressError, exit::Exit};

/// What ended a daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// Pins would have nowhere to live.
    #[error(
        "no BPF file system is mounted at {}: run `mount -t bpf bpf {0}`, or start with --mount-bpffs",
        path.display()
    )]
    NoBpffs {
        /// Where it was expected.
        path: PathBuf,
    },
    /// `--bpffs` names nothing.
    #[error("cannot use {} as BPF file system: {source}; create the folder or choose another with --bpffs", path.display())]
    BpffsPath {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// `--mount-bpffs` was refused.
    #[error("cannot mount a BPF file system at {}: {source}; run as root in the host's mount namespace", path.display())]
    Mount {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A folder that has to be there.
    #[error("cannot create {}: {source}; make it, or choose another with {flag}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The port of `--http`.
    #[error(
        "{address} is taken by another process: choose another with --http HOST:PORT, or switch it off with --http off"
    )]
    HttpTaken {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else about `--http`.
    #[error("cannot serve HTTP on {address}: {source}; choose another address with --http")]
    Http {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Rights that the kernel will ask for.
    #[error("this process lacks {}: run as root, or give it these capabilities (deploy/systemd shows how)", missing.join(", "))]
    Capabilities {
        /// By name.
        missing: Vec<&'static str>,
    },
    /// `--socket` of an agent.
    #[error(
        "the agent's local API identifies its callers by a unix socket: name one with --socket unix:///PATH"
    )]
    AgentSocket,
    /// `--control` names a host that control cannot listen on.
    #[error("control listens on an address, not on the name {host:?}: write --control http://127.0.0.1:PORT")]
    ListenName {
        /// Host and port.
        host: String,
    },
    /// A socket's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The agent did not start, or failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Control did not start, or failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The built-in settings.
    #[error("the built-in settings are broken: {0}; this is a defect of this build")]
    Defaults(String),
    /// A part went away without being told to.
    #[error(
        "{name} ended although nobody stopped it; wires go on forwarding: see the log above, and start again"
    )]
    Ended {
        /// `agent` or `control`.
        name: &'static str,
    },
    /// A part panicked.
    #[error("{name} crashed ({source}); wires go on forwarding: please report it with the log above")]
    Crashed {
        /// `agent` or `control`.
        name: &'static str,
        /// What the runtime said.
        source: tokio::task::JoinError,
    },
    /// A part did not stop when told to.
    #[error("{name} did not stop within {limit:?} and was left behind; wires go on forwarding")]
    Slow {
        /// `agent` or `control`.
        name: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// Signals, the runtime.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl DaemonError {
    /// The process's exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Capabilities { .. } => Exit::NotPermitted,
            Self::Address(_) | Self::AgentSocket | Self::ListenName { .. } => Exit::Usage,
            Self::Mount { source, .. } | Self::Folder { source, .. } | Self::BpffsPath { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Exit::NotPermitted
            }
            _ => Exit::Failed,
        }
    }
}
