//! The only place where a `tonic::Status` is made.
//!
//! The message is the failure's sentence. If it is about a field (`field "value": rule`) the three parts are also in the
//! metadata `tieline-field`, `tieline-value` and `tieline-rule`, percent-encoded like gRPC's own message.

use std::fmt::Write as _;

use tieline_registry::Code as Hint;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::failure::Failure;
use crate::outlet::End;

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        let metadata = details(&message);
        Self::with_metadata(code(&failure), message, metadata)
    }
}

/// A code as metrics spell it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

fn code(failure: &Failure) -> Code {
    match failure {
        Failure::Invalid(_) | Failure::NoHello { .. } => Code::InvalidArgument,
        Failure::Refused(refusal) => hinted(refusal.code()),
        Failure::NodeSilent { .. } => Code::DeadlineExceeded,
        Failure::Busy { .. } | Failure::TooLarge { .. } | Failure::Ended(End::TooSlow) => {
            Code::ResourceExhausted
        }
        Failure::Ended(End::Replaced) => Code::Aborted,
        Failure::Store(_)
        | Failure::NoState(_)
        | Failure::Stopping
        | Failure::Ended(End::ShuttingDown | End::Lost) => Code::Unavailable,
        Failure::WhichNode { .. } => Code::FailedPrecondition,
        Failure::Mismatch { .. } => Code::Internal,
    }
}

fn hinted(hint: Hint) -> Code {
    match hint {
        Hint::InvalidArgument => Code::InvalidArgument,
        Hint::NotFound => Code::NotFound,
        Hint::AlreadyExists => Code::AlreadyExists,
        Hint::PermissionDenied => Code::PermissionDenied,
        Hint::ResourceExhausted => Code::ResourceExhausted,
        Hint::FailedPrecondition => Code::FailedPrecondition,
        Hint::Unavailable => Code::Unavailable,
        Hint::Internal => Code::Internal,
    }
}

fn details(message: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let Some((field, value, rule)) = parts(message) else {
        return metadata;
    };
    for (key, text) in [
        ("tieline-field", field),
        ("tieline-value", value),
        ("tieline-rule", rule),
    ] {
        if let Ok(text) = MetadataValue::try_from(percent_encoded(text)) {
            metadata.insert(key, text);
        }
    }
    metadata
}

/// The parts of `field "value": rule`, which is the form of every message that is about a field.
fn parts(message: &str) -> Option<(&str, &str, &str)> {
    let (field, rest) = message.split_once(" \"")?;
    let (value, rule) = rest.split_once("\": ")?;
    let is_field = !field.is_empty() && !field.contains(char::is_whitespace);
    is_field.then_some((field, value, rule))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use tieline_model::Invalid;
    use tieline_store::StoreError;

    use super::*;

    #[test]
    fn a_failure_about_a_field_says_field_value_and_rule_to_people_and_programs() {
        let invalid = Invalid::new(
            "connection.labels[app]",
            "fünf: \"x\"",
            "letters only: choose others",
        );
        let status = Status::from(Failure::from(invalid));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().starts_with("connection.labels[app] \"fünf"),
            "{}",
            status.message()
        );
        let text = |key| status.metadata().get(key).unwrap().to_str().unwrap();
        assert_eq!(text("tieline-field"), "connection.labels[app]");
        assert!(text("tieline-value").starts_with("f%C3%BCnf"));
        assert_eq!(text("tieline-rule"), "letters only: choose others");
    }

    #[test]
    fn a_failure_about_no_field_has_a_code_and_a_sentence() {
        let store = StoreError::Closed {
            store: "memory".to_owned(),
        };
        let status = Status::from(Failure::Store(store));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.metadata().get("tieline-field").is_none());
        assert!(status.message().contains("nothing was changed"));
    }
}
