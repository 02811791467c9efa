//! What can go wrong with the audit log as a whole.

use std::{
    io,
    path::{Path, PathBuf},
};

use provost_audit_core::LogId;
use provost_control_raft::GroupError;

/// A failure of the audit log. Each carries a stable code: see [`AuditError::code`].
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file cannot be read or written.
    #[error("PV-AUDIT-IO: {path}: {source}; check space and permissions of the audit directory, then start again")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The stored state of the machine is absent or damaged.
    #[error(
        "PV-AUDIT-STATE: {path}: {why}; restore the audit directory from a backup taken with the Raft log, or move it aside and keep it as evidence"
    )]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The files of a log hold less than, or other than, what was made durable.
    #[error(
        "PV-AUDIT-DIFFERS: the log of {log} is not what was made durable: {why}; somebody or something changed the files: run `provost audit verify`, keep the directory as evidence and restore it from a backup"
    )]
    Differs {
        /// Which log.
        log: LogId,
        /// What differs.
        why: String,
    },
    /// The log and the checkpoint in consensus contradict each other.
    #[error(
        "PV-AUDIT-ROLLED-BACK: the log of {log} and the checkpoint held in consensus contradict each other: {why}; storage was rolled back or replaced: restore the directory that holds the newer checkpoint"
    )]
    RolledBack {
        /// Which log.
        log: LogId,
        /// What contradicts.
        why: String,
    },
    /// The checkpoint key cannot be used.
    #[error("PV-AUDIT-KEY: {path}: {why}; restore the key file: a new key makes a new identity that no auditor knows")]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The audit Raft group failed.
    #[error("{code}: the audit group: {0}", code = group_code(.0))]
    Group(#[from] GroupError),
    /// The log does not accept records (any more).
    #[error("PV-AUDIT-UNAVAILABLE: {0}; restart this node, and look at the earlier errors in its log")]
    Unavailable(String),
}

impl AuditError {
    /// The stable code, with a page under `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            AuditError::Io { .. } => "PV-AUDIT-IO",
            AuditError::State { .. } => "PV-AUDIT-STATE",
            AuditError::Differs { .. } => "PV-AUDIT-DIFFERS",
            AuditError::RolledBack { .. } => "PV-AUDIT-ROLLED-BACK",
            AuditError::Key { .. } => "PV-AUDIT-KEY",
            AuditError::Group(error) => group_code(error),
            AuditError::Unavailable(_) => "PV-AUDIT-UNAVAILABLE",
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| AuditError::Io { path, source }
    }
}

/// A disk that must not be used has the same name in both groups.
fn group_code(error: &GroupError) -> &'static str {
    match error {
        GroupError::Wiped { .. } | GroupError::Identity { .. } => error.code(),
        _ => "PV-AUDIT-GROUP",
    }
}

impl From<AuditError> for io::Error {
    fn from(error: AuditError) -> Self {
        io::Error::other(error)
    }
}
