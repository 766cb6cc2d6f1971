//! How a failure is shown: a sentence for people, an object for programs.

use serde::Serialize;

use super::Failure;
use crate::output::Format;

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

/// Which field of the input a rule refused, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Violation {
    pub(super) field: String,
    pub(super) value: String,
    pub(super) rule: String,
}

impl From<tieline_proto::Violation> for Violation {
    fn from(violation: tieline_proto::Violation) -> Self {
        let tieline_proto::Violation { field, value, rule } = violation;
        Self { field, value, rule }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tonic::{Code, Status};

    use super::*;
    use crate::{client::Server, exit::Exit};

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
        let message = "connection.labels[app] \"ä\": letters only".to_owned();
        let failure = Failure::from(tieline_proto::status(Code::InvalidArgument, message));
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
