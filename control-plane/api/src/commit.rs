//! Proposes a change and says how it ended.
//!
//! The entry that makes a change also has its record carried to the audit log ([`crate::carrier`]),
//! so a caller that disconnects loses only the answer. What did not take effect is recorded here.

use provost_control_state::{Problem, StoredCommand, Transaction};
use provost_types::Revision;

use crate::{
    ControlError, ControlNode,
    carrier::UNRECORDABLE,
    change::CONFLICT,
    machine::Reply,
    record::{Outcome, Record},
    versions,
};

/// How a proposal ended that was answered by a quorum.
pub(crate) enum Committed {
    /// It took effect.
    At(Revision),
    /// It was rejected as it was applied, and changed nothing.
    Not(Vec<Problem>),
    /// It changed nothing, because too many changes wait to be recorded.
    Full(String),
}

impl ControlNode {
    /// Proposes a change. `record` is recorded if it is refused or fails; a conflict is neither, because
    /// the change is tried again.
    pub(crate) async fn commit(&self, record: &Record, transaction: Transaction) -> Result<Committed, ControlError> {
        let result = self.propose(transaction).await;
        let outcome = match &result {
            // What cannot be recorded now is not recorded as refused either.
            Ok(Committed::At(_) | Committed::Full(_)) => return result,
            Ok(Committed::Not(problems)) if problems.iter().any(|p| p.code == CONFLICT) => return result,
            Ok(Committed::Not(problems)) => Outcome::Refused(problems),
            Err(error) => Outcome::Failed(error),
        };
        if let Err(e) = self.inner.audit.record(record.outcome(outcome)).await {
            tracing::error!(code = "PV-ADMIN-AUDIT", error = %e, "a change that did not take effect could not be recorded");
        }
        result
    }

    async fn propose(&self, transaction: Transaction) -> Result<Committed, ControlError> {
        match self.propose_command(&StoredCommand::V1(transaction)).await? {
            Reply::Applied { revision } => Ok(Committed::At(revision)),
            Reply::Rejected { problems } => match problems.iter().find(|p| p.code == UNRECORDABLE) {
                Some(full) => Ok(Committed::Full(full.message.clone())),
                None => Ok(Committed::Not(problems)),
            },
            other => Err(ControlError::internal(format!("a transaction was answered by {other:?}"))),
        }
    }

    /// Proposes any command and returns what the machine replied.
    pub(crate) async fn propose_command(&self, command: &StoredCommand) -> Result<Reply, ControlError> {
        versions::gate(command.version(), self.inner.published.state.load().cluster())?;
        let command = command.encode().map_err(ControlError::internal)?;
        let proposed = self.inner.group.propose(command).await?;
        serde_json::from_slice(&proposed.reply).map_err(ControlError::internal)
    }
}
