//! What can go wrong, the sentence that says it, and the exit code.

use std::{io, path::PathBuf};

use serde::Serialize;
use tieline_model::{Invalid, yaml::YamlError};

use crate::{
    client::{Address, AddressError, Server},
    daemon::DaemonError,
    exit::{self, Exit},
    output::Format,
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
            Self::Status(status) => {
                Violation::of_status(status).or_else(|| Violation::of_message(status.message()))
            }
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

/// Which field of the input a rule refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Violation {
    field: String,
    value: String,
    rule: String,
}

impl Violation {
    /// From the metadata that Tieline's servers put beside the message, percent-encoded as gRPC's own message is.
    fn of_status(status: &tonic::Status) -> Option<Self> {
        let text = |key| {
            let encoded = status.metadata().get(key)?.as_bytes();
            Some(
                percent_encoding::percent_decode(encoded)
                    .decode_utf8_lossy()
                    .into_owned(),
            )
        };
        Some(Self {
            field: text("tieline-field")?,
            value: text("tieline-value")?,
            rule: text("tieline-rule")?,
        })
    }

    /// From the message, where the metadata was lost on the way: `field "value": rule`, or with the words of an
    /// agent, ``field `field`: value "value": rule``.
    fn of_message(message: &str) -> Option<Self> {
        let plain = message
            .strip_prefix("field `")
            .map(|rest| rest.replacen("`: value \"", " \"", 1));
        let message = plain.as_deref().unwrap_or(message);
        let (field, rest) = message.split_once(" \"")?;
        let (value, rule) = rest.split_once("\": ")?;
        let is_field = !field.is_empty() && !field.contains(char::is_whitespace);
        let owned = |text: &str| text.to_owned();
        is_field.then(|| Self {
            field: owned(field),
            value: owned(value),
            rule: owned(rule),
        })
    }
}

/// `No such file or directory (os error 2)` without the number, which says nothing to anybody.
fn os_reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// An error for programs.
#[derive(Serialize)]
struct Report<'a> {
    error: ReportBody<'a>,
}

#[derive(Serialize)]
struct ReportBody<'a> {
    exit: u8,
    code: &'a str,
    message: &'a str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    violation: Option<Violation>,
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: &'a str,
}

/// Prints the failure on standard error, as an object if results are objects.
pub(crate) fn report(failure: &Failure, format: Format) {
    #[expect(clippy::print_stderr, reason = "the one place where errors are printed")]
    {
        eprintln!("{}", render(failure, format));
    }
}

fn render(failure: &Failure, format: Format) -> String {
    let message = failure.to_string();
    let advice = failure.advice();
    let body = ReportBody {
        exit: failure.exit().code(),
        code: failure.exit().name(),
        message: &message,
        violation: failure.violation(),
        advice: &advice,
    };
    let encoded = match format {
        Format::Table => None,
        Format::Json => serde_json::to_string(&Report { error: body }).ok(),
        Format::Yaml => serde_yaml_ng::to_string(&Report { error: body })
            .ok()
            .map(|text| text.trim_end().to_owned()),
    };
    encoded.unwrap_or_else(|| {
        let advice = if advice.is_empty() {
            advice
        } else {
            format!("\n  {advice}")
        };
        format!("tieline: {message}{advice}")
    })
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

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;

    fn absent() -> Failure {
        Failure::Unreachable {
            server: Server::Agent,
            address: "unix:///run/tieline/agent.sock".parse().unwrap(),
            source: io::Error::from_raw_os_error(2),
        }
    }

    #[test]
    fn an_absent_server_is_one_sentence_and_the_command_that_starts_it() {
        assert_eq!(
            render(&absent(), Format::Table),
            "tieline: cannot reach the agent at unix:///run/tieline/agent.sock: no such file or directory\n  start it \
             with `tieline up` or `tieline agent`; if it listens elsewhere, name it with --run-dir or --socket"
        );
        assert_eq!(absent().exit(), Exit::Unreachable);
    }

    #[test]
    fn a_socket_that_one_may_not_open_is_a_matter_of_rights() {
        let Failure::Unreachable { server, address, .. } = absent() else {
            panic!()
        };
        let failure = Failure::Unreachable {
            server,
            address,
            source: io::Error::from_raw_os_error(13),
        };
        assert_eq!(failure.exit(), Exit::NotPermitted);
        assert!(failure.advice().contains("sudo"), "{}", failure.advice());
    }

    #[test]
    fn a_refusal_shows_field_value_and_rule_to_programs() {
        let mut status = Status::new(
            Code::InvalidArgument,
            "connection.labels[app] \"ä\": letters only",
        );
        let metadata = status.metadata_mut();
        metadata.insert("tieline-field", "connection.labels[app]".parse().unwrap());
        metadata.insert("tieline-value", "%C3%A4".parse().unwrap());
        metadata.insert("tieline-rule", "letters only".parse().unwrap());
        let failure = Failure::from(status);
        assert_eq!(failure.exit(), Exit::Refused);
        let shown: serde_json::Value = serde_json::from_str(&render(&failure, Format::Json)).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({"error": {
                "exit": 4,
                "code": "REFUSED",
                "message": "connection.labels[app] \"ä\": letters only",
                "field": "connection.labels[app]",
                "value": "ä",
                "rule": "letters only",
            }})
        );
    }

    #[test]
    fn a_refusal_that_passed_through_an_agent_keeps_its_parts() {
        for message in [
            "connection.labels \"a b\": no blanks: choose another",
            "field `connection.labels`: value \"a b\": no blanks: choose another",
        ] {
            let violation = Violation::of_message(message).unwrap();
            let parts = (
                violation.field.as_str(),
                violation.value.as_str(),
                violation.rule.as_str(),
            );
            assert_eq!(parts, ("connection.labels", "a b", "no blanks: choose another"));
        }
        assert_eq!(Violation::of_message("the node \"n1\": is away"), None);
    }

    #[test]
    fn a_refusal_about_no_field_has_none() {
        let failure = Failure::from(Status::new(Code::NotFound, "there is no service"));
        let shown: serde_json::Value = serde_json::from_str(&render(&failure, Format::Json)).unwrap();
        assert_eq!(shown["error"]["code"], "NOT_FOUND");
        assert!(shown["error"].get("field").is_none());
    }

    #[test]
    fn yaml_errors_are_objects_too() {
        assert!(render(&absent(), Format::Yaml).starts_with("error:\n  exit: 3\n  code: UNREACHABLE\n"));
    }
}
