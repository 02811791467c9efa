//! The state that documents would make, for those who want to know what it would do.

use provost_control_state::Event;
use provost_types::{Revision, Snapshot};

use crate::{
    Caller, ChangeReport, ControlError, ControlNode, SourceFile, Unread, change::Wanted, documents, retry::Retry,
};

/// Two states: the present one, and the one that documents would make of it.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The present one.
    pub current: Snapshot,
    /// What an apply would make of it.
    pub candidate: Snapshot,
    /// What differs, as a dry run says it.
    pub report: ChangeReport,
}

impl ControlNode {
    /// Checks documents as [`ControlNode::apply`] does and gives the state that they would make. Sealed
    /// values are not in it.
    pub async fn preview(&self, caller: &Caller, files: &[SourceFile]) -> Result<Preview, ControlError> {
        let mut retry = Retry::new();
        loop {
            let report = self.apply(caller, files, "", true).await?;
            let state = self.inner.published.state.load_full();
            if state.revision() != report.revision {
                retry.again("nothing was compared").await?;
                continue;
            }
            let owned = files.to_vec();
            let read = tokio::task::spawn_blocking(move || documents::read(&owned)).await;
            let drafts = read.map_err(ControlError::internal)?.drafts;
            let unread = Unread::default();
            let wanted = Wanted { caller, event: Event::Apply, message: "", dry_run: true, files, unread };
            let mut transaction = wanted.transaction();
            transaction.puts = drafts;
            let candidate = state.preview(Revision(state.revision().0 + 1), &transaction);
            return Ok(Preview { current: state.snapshot(), candidate, report });
        }
    }

    /// The present state, confirmed by a quorum.
    pub async fn present(&self) -> Result<Snapshot, ControlError> {
        self.inner.group.read_barrier().await?;
        Ok(self.inner.published.state.load_full().snapshot())
    }
}
