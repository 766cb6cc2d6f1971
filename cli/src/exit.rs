//! Exit codes: part of the interface, listed in `tieline help` and `docs/guide/cli.md`.

use std::process::ExitCode;

/// What a command's process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// Something failed that none of the other codes names.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
    /// The agent or control could not be reached, or did not answer in time.
    Unreachable = 3,
    /// A rule refused the input; the message says which field, value and rule.
    Refused = 4,
    /// What was asked for does not exist.
    NotFound = 5,
    /// The caller may not do this.
    NotPermitted = 6,
}

impl Exit {
    /// Every code with its meaning, for help and documentation.
    pub(crate) const ALL: &[(Self, &str)] = &[
        (Self::Ok, "done"),
        (Self::Failed, "failed"),
        (Self::Usage, "command line not understood"),
        (Self::Unreachable, "agent or control not reachable"),
        (
            Self::Refused,
            "refused by a rule: field, value and rule are in the message",
        ),
        (Self::NotFound, "not found"),
        (Self::NotPermitted, "not permitted"),
    ];

    /// Its name, for programs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Failed => "FAILED",
            Self::Usage => "USAGE",
            Self::Unreachable => "UNREACHABLE",
            Self::Refused => "REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::NotPermitted => "NOT_PERMITTED",
        }
    }

    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The code for a gRPC status.
pub(crate) fn of_status(code: tonic::Code) -> Exit {
    use tonic::Code;
    match code {
        Code::Ok => Exit::Ok,
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted => Exit::Refused,
        Code::NotFound => Exit::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => Exit::NotPermitted,
        Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_list_agree() {
        for (position, (exit, _)) in Exit::ALL.iter().enumerate() {
            assert_eq!(usize::from(exit.code()), position);
        }
    }

    #[test]
    fn a_status_maps_to_the_documented_code() {
        use tonic::Code;
        for (code, exit) in [
            (Code::InvalidArgument, 4),
            (Code::FailedPrecondition, 4),
            (Code::AlreadyExists, 4),
            (Code::ResourceExhausted, 4),
            (Code::NotFound, 5),
            (Code::PermissionDenied, 6),
            (Code::Unauthenticated, 6),
            (Code::Unavailable, 3),
            (Code::DeadlineExceeded, 3),
            (Code::Internal, 1),
            (Code::Unimplemented, 1),
        ] {
            assert_eq!(of_status(code).code(), exit, "{code:?}");
        }
    }
}
