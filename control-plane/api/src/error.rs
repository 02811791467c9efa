//! What an administrative request can fail with, and its one mapping to gRPC.

use provost_control_raft::GroupError;
use provost_wire::admin::{Failure, Problem};
use tonic::{Code, Status};

/// Whose turn it is to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller did not prove who it is.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// What was sent is wrong.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// The state forbids it.
    Refused,
    /// A retry may succeed.
    Unavailable,
    /// A fault of this node.
    Internal,
}

/// A failed administrative request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{failure}")]
pub struct ControlError {
    /// What kind.
    pub kind: ErrorKind,
    /// Code, cause, what to do, and every problem of the documents.
    pub failure: Failure,
    /// Whether what was proposed is certainly in no log.
    not_logged: bool,
}

impl ControlError {
    pub(crate) fn new(kind: ErrorKind, code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, failure: Failure::new(code, message, hint), not_logged: false }
    }

    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        let hint = "see the node's log";
        Self::new(ErrorKind::Internal, "PV-CTL-INTERNAL", cause.to_string(), hint)
    }

    /// Documents or a transaction with problems.
    pub(crate) fn problems(problems: Vec<Problem>) -> Self {
        let count = problems.len();
        let message = match count {
            1 => "1 problem; nothing was changed".to_owned(),
            _ => format!("{count} problems; nothing was changed"),
        };
        let mut error = Self::new(ErrorKind::Invalid, "PV-CTL-INVALID", message, "");
        error.failure.problems = problems;
        error
    }

    /// The stable code.
    pub fn code(&self) -> &str {
        &self.failure.code
    }

    /// Whether what was proposed is certainly in no log, and never will be.
    pub(crate) fn is_not_logged(&self) -> bool {
        self.not_logged
    }
}

impl From<GroupError> for ControlError {
    fn from(error: GroupError) -> Self {
        let kind = match &error {
            GroupError::NotLeader { .. }
            | GroupError::OutcomeUnknown
            | GroupError::NoQuorum(_)
            | GroupError::Timeout { .. }
            | GroupError::Busy(_)
            | GroupError::Stopped => ErrorKind::Unavailable,
            GroupError::Membership(_) => ErrorKind::Refused,
            GroupError::TooLarge { .. } => ErrorKind::Invalid,
            _ => ErrorKind::Internal,
        };
        // The others say in their sentence what to do.
        let hint = match &error {
            GroupError::NoQuorum(_) => {
                "nothing was changed; `provost cluster status` shows who does not answer: start control-plane nodes until \
                 more than half of the voters run and reach each other, then try again"
            }
            GroupError::Timeout { .. } => "read what is there before you try again",
            GroupError::Stopped => "ask another control-plane node",
            _ => "",
        };
        Self { not_logged: error.not_logged(), ..Self::new(kind, error.code(), error.to_string(), hint) }
    }
}

impl From<ControlError> for Status {
    fn from(error: ControlError) -> Self {
        let code = match error.kind {
            ErrorKind::Unauthenticated => Code::Unauthenticated,
            ErrorKind::Forbidden => Code::PermissionDenied,
            ErrorKind::Invalid => Code::InvalidArgument,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Refused => Code::FailedPrecondition,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Internal => Code::Internal,
        };
        error.failure.into_status(code)
    }
}
