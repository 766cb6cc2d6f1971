//! What can go wrong, the sentence that says it, and the exit code.

mod report;

use std::{io, path::PathBuf};

use tieline_model::{Invalid, yaml::YamlError};

pub(crate) use report::report;

use self::report::Violation;
use crate::{
    client::{Address, AddressError, Server},
    daemon::DaemonError,
    exit::{self, Exit},
};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nobody listens there.
    #[error("cannot reach {server} at {address}: {}", os_reason(.source))]
    Unreachable {
        /// Who.
        server: Server,
        /// Where.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server said no.
    #[error("{}", .0.message())]
    Status(Box<tonic::Status>),
    /// The list that was asked for does not hold this name.
    #[error("there is no {kind} '{name}'")]
    NotFound {
        /// Kind of object.
        kind: &'static str,
        /// Name that was given.
        name: String,
    },
    /// A socket's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A file of the operator.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What a file of the operator holds.
    #[error("{}: {source}", path.display())]
    File {
        /// Which; `-` is standard input.
        path: PathBuf,
        /// Where in it, and what the rule is.
        source: Box<YamlError>,
    },
    /// An object of an answer breaks a rule of this release.
    #[error("the answer of control cannot be read: {0}; use the release of tieline that control runs")]
    Answer(Invalid),
    /// An object cannot be written as a file.
    #[error(transparent)]
    Render(YamlError),
    /// Standard output.
    #[error("cannot write the result: {0}")]
    Output(io::Error),
    /// JSON.
    #[error("cannot write the result as JSON: {0}")]
    Encode(serde_json::Error),
    /// YAML.
    #[error("cannot write the result as YAML: {0}")]
    EncodeYaml(serde_yaml_ng::Error),
    /// The stream of events ended without being told to.
    #[error("{server} ended the stream")]
    StreamEnded {
        /// Whose.
        server: Server,
    },
    /// A daemon did not start, or stopped.
    #[error(transparent)]
    Daemon(Box<DaemonError>),
    /// The demonstration did not go as it must.
    #[error("the demonstration failed: {0:#}")]
    Demo(anyhow::Error),
    /// The runtime.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        Self::Daemon(Box::new(error))
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Failure {
    /// The process's exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { source, .. } | Self::Read { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Exit::NotPermitted
            }
            Self::Unreachable { .. } | Self::StreamEnded { .. } => Exit::Unreachable,
            Self::Status(status) => exit::of_status(status.code()),
            Self::NotFound { .. } => Exit::NotFound,
            Self::Daemon(error) => error.exit(),
            Self::Address(_) => Exit::Usage,
            Self::File { .. } => Exit::Refused,
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            Self::Read { .. }
            | Self::Answer(_)
            | Self::Render(_)
            | Self::Output(_)
            | Self::Encode(_)
            | Self::EncodeYaml(_)
            | Self::Demo(_)
            | Self::Runtime(_) => Exit::Failed,
        }
    }

    /// Field, value and rule, if it is about a field.
    fn violation(&self) -> Option<Violation> {
        match self {
            Self::Status(status) => tieline_proto::Violation::of_status(status).map(Into::into),
            Self::File { source, .. } => match source.as_ref() {
                YamlError::Value { invalid, .. } => {
                    let Invalid { field, value, rule } = invalid.clone();
                    Some(Violation { field, value, rule })
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// What to do about it; empty if the sentence says so already.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Unreachable { source, address, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("use `sudo`, or ask for access to {address}")
            }
            Self::Unreachable { server, .. } => {
                let (alone, flag) = (server.start_command(), server.flag());
                format!(
                    "start it with `tieline up` or `{alone}`; if it listens elsewhere, name it with --run-dir or {flag}"
                )
            }
            Self::StreamEnded { .. } => "see its log, and call again".to_owned(),
            Self::NotFound { kind, .. } => format!("`tieline get {kind}s` lists what there is"),
            _ => String::new(),
        }
    }
}

/// `No such file or directory (os error 2)` without the number, which says nothing to anybody.
fn os_reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The failure and what to do about it, in one line for `status`.
pub(crate) fn sentence(failure: &Failure) -> String {
    let advice = failure.advice();
    if advice.is_empty() {
        failure.to_string()
    } else {
        format!("{failure}; {advice}")
    }
}
