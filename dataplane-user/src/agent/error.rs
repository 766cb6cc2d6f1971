//! What can go wrong in the agent's outer half, and the one place where it becomes a gRPC status.

use std::{io, path::PathBuf, time::Duration};

use dataplane_common::limits::MAX_WIRES;
use tonic::{Code, Status};

use super::attested::LabelsError;

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a host name.
    #[error(
        "node name {value:?} is not valid: use 1 to 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends"
    )]
    Node {
        /// The name.
        value: String,
    },
    /// No size for tables.
    #[error("{value} wires cannot be held: set max-wires between 1 and {MAX_WIRES}")]
    MaxWires {
        /// The number asked for.
        value: u32,
    },
    /// Too often.
    #[error("a full pass every {value:?} is too often: set a resync interval of at least 100 ms")]
    ResyncInterval {
        /// The interval asked for.
        value: Duration,
    },
    /// Not an address of control.
    #[error("control address {value:?} is not valid: use unix:///PATH or http://HOST:PORT")]
    ControlAddress {
        /// The address.
        value: String,
    },
}

/// Why the kernel half did not start.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// Why the agent did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder for state is not usable.
    #[error("cannot use the state folder {}: {source}; create it or choose another one", path.display())]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another agent holds the state folder.
    #[error("an agent is already running with the state folder {}: stop it, or give this one its own state folder, socket and pins", path.display())]
    AlreadyRunning {
        /// The folder.
        path: PathBuf,
    },
    /// Somebody answers on the socket.
    #[error("an agent is already running: something answers on {}; stop it or choose another socket", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// What lies at the socket's path is something else.
    #[error("{} exists and is not a socket: remove it or choose another socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}; its folder must exist and be writable", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel half did not start.
    #[error("the datapath did not start: {0}")]
    Datapath(#[source] StartError),
    /// A part of the agent ended although nobody asked it to.
    #[error("the task {task:?} ended unexpectedly ({reason}); wires keep forwarding: start the agent again")]
    TaskEnded {
        /// Which part.
        task: &'static str,
        /// What it said.
        reason: String,
    },
    /// The worker thread did not start.
    #[error("cannot start the worker thread: {0}")]
    Thread(#[source] io::Error),
    /// The address of control does not lead anywhere.
    #[error("cannot dial control at {address}: {source}")]
    Dial {
        /// The address.
        address: String,
        /// What the transport said.
        source: tonic::transport::Error,
    },
    /// The API's own description is damaged.
    #[error("the build is broken: the API descriptors do not decode ({0}); build again")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// Why a call at the local API is refused by the agent itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// A field holds what it must not.
    #[error("{field} \"{value}\": {rule}")]
    Invalid {
        field: &'static str,
        value: String,
        rule: &'static str,
    },
    /// A field names what is not there.
    #[error("{field} \"{value}\": {rule}")]
    NotFound {
        field: &'static str,
        value: String,
        rule: &'static str,
    },
    /// A field asks for what this caller may not have.
    #[error("{field} \"{value}\": {rule}")]
    Forbidden {
        field: &'static str,
        value: String,
        rule: &'static str,
    },
    /// The kernel does not say who calls.
    #[error(
        "the caller cannot be identified: {0}; call again from a process that stays alive until the answer"
    )]
    UnknownCaller(String),
    /// No session with control.
    #[error(
        "control is away ({reason}), and the agent cannot decide alone; existing wires keep forwarding; check that control runs at {address} and try again"
    )]
    ControlAway { address: String, reason: String },
    /// Control did not answer in time.
    #[error("control at {address} did not answer within {timeout:?}; look at its log and try again")]
    ControlSlow { address: String, timeout: Duration },
    /// The kernel did not let itself be read.
    #[error("{0}")]
    Kernel(String),
    /// The caller's labels cannot be proved.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// The agent is on its way out.
    #[error("the agent is shutting down; existing wires keep forwarding; try again when it is back")]
    ShuttingDown,
    /// Control has refused; what it said is passed on as it is.
    #[error("{message}")]
    Control { code: Code, message: String },
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        let code = match error {
            CallError::Invalid { .. } => Code::InvalidArgument,
            CallError::NotFound { .. } => Code::NotFound,
            CallError::Forbidden { .. } => Code::PermissionDenied,
            CallError::UnknownCaller(_) => Code::Unauthenticated,
            CallError::ControlAway { .. } | CallError::ShuttingDown => Code::Unavailable,
            CallError::ControlSlow { .. } => Code::DeadlineExceeded,
            CallError::Kernel(_) => Code::Internal,
            CallError::Labels(_) => Code::FailedPrecondition,
            CallError::Control { code, .. } => code,
        };
        tieline_proto::status(code, message)
    }
}
