//! The part of a change that must not be cut off: record, propose, record the outcome.
//!
//! It runs beside its caller, in a cohort. A caller that disconnects meanwhile loses the answer, not
//! the outcome's record. If the process ends after the first record, the log has an attempt without
//! outcome, and the state says whether it took effect.

use provost_control_state::{Problem, StoredCommand, Transaction};
use provost_types::{AuditEvent, Revision};
use tokio::sync::oneshot;

use crate::{
    ControlError, ControlNode, ErrorKind,
    machine::Reply,
    reach::Turn,
    record::{Outcome, Record},
    versions,
};

/// How a proposal ended that was answered by a quorum.
pub(crate) enum Committed {
    /// It took effect.
    At(Revision),
    /// It was rejected as it was applied, and changed nothing.
    Not(Vec<Problem>),
}

impl ControlNode {
    /// Gives the turn back with the result. The outer error is a panic on the way.
    pub(crate) async fn commit(
        &self,
        turn: Turn,
        record: Record,
        transaction: Transaction,
    ) -> Result<(Turn, Result<Committed, ControlError>), ControlError> {
        let (node, (answer, answered)) = (self.clone(), oneshot::channel());
        let change = async move {
            let result = node.commit_recorded(record, transaction).await;
            // Without its caller the turn ends here.
            let _ = answer.send((turn, result));
        };
        if self.inner.cohorts.push(Box::pin(change)) {
            let node = self.clone();
            tokio::spawn(async move { node.inner.cohorts.run().await });
        }
        answered.await.map_err(ControlError::internal)
    }

    async fn commit_recorded(&self, record: Record, transaction: Transaction) -> Result<Committed, ControlError> {
        self.record_attempt(record.attempt()).await?;
        let result = self.propose(transaction).await;
        let outcome = match &result {
            Ok(Committed::At(revision)) => Outcome::Changed(*revision),
            Ok(Committed::Not(problems)) => Outcome::Refused(problems),
            Err(error) => Outcome::Failed(error),
        };
        let Err(e) = self.inner.audit.record(record.outcome(outcome)).await else { return result };
        tracing::error!(code = "PV-ADMIN-AUDIT", error = %e, "an outcome could not be recorded");
        match result {
            Ok(Committed::At(revision)) => {
                let text = format!(
                    "the change took effect at revision {revision}, but its outcome could not be recorded: {e}"
                );
                let hint = "`provost history` shows it";
                Err(ControlError::new(ErrorKind::Internal, "PV-ADMIN-AUDIT", text, hint))
            }
            other => other,
        }
    }

    async fn record_attempt(&self, event: AuditEvent) -> Result<(), ControlError> {
        let recorded = self.inner.audit.record(event).await;
        recorded.map(drop).map_err(|e| {
            let text = format!("{e}; nothing was changed");
            let hint = "administrative changes are refused until they can be recorded";
            ControlError::new(ErrorKind::Unavailable, "PV-ADMIN-AUDIT", text, hint)
        })
    }

    async fn propose(&self, transaction: Transaction) -> Result<Committed, ControlError> {
        match self.propose_command(&StoredCommand::V1(transaction)).await? {
            Reply::Applied { revision, .. } => Ok(Committed::At(revision)),
            Reply::Rejected { problems } => Ok(Committed::Not(problems)),
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
