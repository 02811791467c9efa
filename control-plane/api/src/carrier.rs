//! Carries the records of changes from the outbox to the audit log.
//!
//! Every node runs it and only the leader carries. It hands over what waits, in the order of
//! revisions, and says through the group how far the audit log has come; then every replica forgets
//! that much. One that ends in between, or loses its leadership, is followed by one that records the
//! same changes once more under the same ids.
//! When the audit log takes nothing, changes are refused: at the leader at once, at any node when the
//! oldest change has waited for longer than [`PATIENCE`]. What was acknowledged before is in the
//! outbox and is recorded as soon as the audit log is back.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use provost_control_raft::Role;
use provost_control_state::StoredCommand;
use provost_types::Revision;
use tokio::time::{Instant, sleep};

use crate::{ControlError, ControlNode, ErrorKind, machine::Reply, record};

/// The code of a change that is refused because it could not be recorded.
pub(crate) const UNRECORDABLE: &str = "PV-ADMIN-AUDIT";
/// What to do about it.
pub(crate) const UNRECORDABLE_HINT: &str = "changes are refused until they can be recorded: bring the audit log back; a cluster \
                                            that never had one: `provost cluster add NAME --role audit-log`";
/// Between two notes of how far the outbox reached.
const MARK_EVERY: Duration = Duration::from_millis(250);
/// How long a change may wait for its record before others are refused.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Records handed over at once.
const MAX_AT_ONCE: usize = 1_024;
/// When many changes come, their records are handed over together, so often.
const GATHER: Duration = Duration::from_millis(25);
/// After a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Between two commands that say how far the audit log has come.
const SAY_EVERY: Duration = Duration::from_millis(250);

/// How carrying stands on this node.
#[derive(Default)]
pub(crate) struct Carrying {
    standing: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    /// The newest change at moments when the outbox held it, oldest first; only those of which the outbox
    /// still holds something that was there then.
    marks: VecDeque<(Revision, Instant)>,
    /// Why the audit log does not take records; known to the leader.
    failing: Option<String>,
}

impl Carrying {
    fn with<T>(&self, look: impl FnOnce(&mut Standing) -> T) -> T {
        look(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the oldest and the newest change in the outbox.
    fn note_waiting(&self, waiting: Option<(Revision, Revision)>) {
        self.with(|standing| {
            let Some((oldest, newest)) = waiting else { return standing.marks.clear() };
            while standing.marks.front().is_some_and(|(mark, _)| *mark < oldest) {
                standing.marks.pop_front();
            }
            // Once one is older than patience, later ones say nothing more.
            let due = standing.marks.back().is_none_or(|(mark, at)| *mark < newest && at.elapsed() >= MARK_EVERY);
            if due && standing.marks.front().is_none_or(|(_, at)| at.elapsed() <= PATIENCE) {
                standing.marks.push_back((newest, Instant::now()));
            }
        });
    }

    fn note_failure(&self, failing: Option<String>) {
        self.with(|standing| standing.failing = failing);
    }

    /// Refuses a change while records of earlier ones do not get through.
    pub(crate) fn check(&self) -> Result<(), ControlError> {
        let why = self.with(|standing| match (&standing.failing, standing.marks.front()) {
            (Some(why), _) => Some(why.clone()),
            (None, Some((_, since))) if since.elapsed() > PATIENCE => {
                Some(format!("changes have waited for their records for {PATIENCE:?}"))
            }
            _ => None,
        });
        why.map_or(Ok(()), |why| Err(refusal(&why)))
    }
}

/// What a change is answered that could not be recorded.
pub(crate) fn refusal(why: &str) -> ControlError {
    let text = format!("{why}; nothing was changed");
    ControlError::new(ErrorKind::Unavailable, UNRECORDABLE, text, UNRECORDABLE_HINT)
}

/// Runs until it is aborted.
pub(crate) async fn carry(node: ControlNode) {
    let mut changes = node.snapshots();
    let mut carrier =
        Carrier { node, carried: Revision::default(), said: Revision::default(), said_at: Instant::now() };
    loop {
        changes.mark_unchanged();
        let pause = carrier.step().await;
        match pause {
            Some(pause) => sleep(pause).await,
            None => {
                let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
            }
        }
    }
}

struct Carrier {
    node: ControlNode,
    /// The newest change that the audit log took from this node.
    carried: Revision,
    /// The newest that the group was told of.
    said: Revision,
    said_at: Instant,
}

impl Carrier {
    /// One look; how long to pause before the next, or until something changes.
    async fn step(&mut self) -> Option<Duration> {
        let inner = self.node.inner.clone();
        let state = inner.published.state.load_full();
        let ends = state.outbox().front().zip(state.outbox().back());
        inner.carrying.note_waiting(ends.map(|(first, last)| (first.revision, last.revision)));
        if inner.group.metrics().role != Role::Leader {
            // Another may carry the same again from what the group was told.
            self.carried = Revision::default();
            inner.carrying.note_failure(None);
            // In a flood of changes it need not look at each of them.
            return (!state.outbox().is_empty()).then_some(GATHER);
        }
        let waiting = state.outbox().iter().filter(|u| u.revision > self.carried).take(MAX_AT_ONCE);
        let waiting: Vec<_> = waiting.cloned().collect();
        if waiting.is_empty() {
            // What failed before was recorded by another, or is said to be in the log after all.
            inner.carrying.note_failure(None);
            return self.say(&state).await;
        }
        let taken = join_all(waiting.iter().map(|u| inner.audit.record_if_awaited(record::of_change(u)))).await;
        for (unrecorded, taken) in waiting.iter().zip(taken) {
            if let Err(cause) = taken {
                tracing::error!(code = "PV-ADMIN-AUDIT", error = %cause, revision = %unrecorded.revision, "a change waits for its record");
                inner.carrying.note_failure(Some(cause.to_string()));
                return Some(RETRY_PAUSE);
            }
            self.carried = unrecorded.revision;
        }
        inner.carrying.note_failure(None);
        if self.said_at.elapsed() >= SAY_EVERY {
            self.say(&state).await;
        }
        (waiting.len() > 1).then_some(GATHER)
    }

    /// Tells the group how far the audit log has come, if it does not know.
    async fn say(&mut self, state: &provost_control_state::State) -> Option<Duration> {
        let oldest = state.outbox().front()?.revision;
        if oldest > self.carried || self.said >= self.carried && self.said_at.elapsed() < SAY_EVERY {
            return None;
        }
        let wait = SAY_EVERY.saturating_sub(self.said_at.elapsed());
        if !wait.is_zero() {
            return Some(wait.min(GATHER));
        }
        self.said_at = Instant::now();
        match self.node.propose_command(&StoredCommand::Carried1 { through: self.carried }).await {
            Ok(Reply::Carried) => self.said = self.carried,
            Ok(other) => tracing::error!(?other, "an unexpected answer to how far records were carried"),
            // Said again at the next look.
            Err(error) => tracing::debug!(code = error.code(), %error, "the group was not told of carried records"),
        }
        None
    }
}

impl ControlNode {
    /// Waits, within `limit`, until the audit log has the records of all changes that are applied here.
    pub async fn wait_recorded(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.inner.published.state.load().outbox().is_empty() {
                return;
            }
            sleep(GATHER).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_backlog_that_moves_on_too_slowly_refuses_changes() {
        let carrying = Carrying::default();
        let note = |first, last| carrying.note_waiting(Some((Revision(first), Revision(last))));
        // Each look finds another oldest change, which came six seconds before.
        for second in 0..6 {
            note(second.max(1), second + 10);
            assert!(carrying.check().is_ok(), "{second}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        note(9, 30);
        let refused = carrying.check().unwrap_err();
        assert_eq!((refused.code(), refused.kind), (UNRECORDABLE, ErrorKind::Unavailable));
        note(11, 31);
        assert!(carrying.check().is_ok(), "what waited since then has its record");
        carrying.note_waiting(None);
        tokio::time::advance(PATIENCE * 2).await;
        assert!(carrying.check().is_ok());
    }
}
