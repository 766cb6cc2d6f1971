//! The only place where a `tonic::Status` is made.
//!
//! The message is the failure's sentence; what it says about a field is in the metadata as well
//! ([`tieline_proto::Violation`]).

use tieline_registry::Code as Hint;
use tonic::{Code, Status};

use crate::failure::Failure;
use crate::outlet::End;

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        tieline_proto::status(code(&failure), failure.to_string())
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
        Failure::UnknownDomain { .. } => Code::NotFound,
        Failure::DomainAway { .. } => Code::Unavailable,
        Failure::DomainRefuses { code, .. } => *code,
        Failure::NotAPeer { .. } => Code::PermissionDenied,
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

#[cfg(test)]
mod tests {
    use tieline_model::Invalid;
    use tieline_proto::Violation;
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
        let violation = Violation::of_status(&status).unwrap();
        assert_eq!(violation.field, "connection.labels[app]");
        assert!(violation.value.starts_with("fünf"));
        assert_eq!(violation.rule, "letters only: choose others");
    }

    #[test]
    fn a_failure_about_no_field_has_a_code_and_a_sentence() {
        let store = StoreError::Closed {
            store: "memory".to_owned(),
        };
        let status = Status::from(Failure::Store(store));
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(Violation::of_status(&status), None);
        assert!(status.message().contains("nothing was changed"));
    }
}
