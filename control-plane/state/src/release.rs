//! How far changes are released, where a node group takes them first.
//!
//! Purpose: the one fact that all control-plane nodes must agree on to push the same: the newest
//! revision that nodes outside the group may run. Everything between it and the present revision is
//! held: the group runs it, or nobody does once it was halted.
//! Invariants: what is released never goes back; a decision about a revision that is no longer the
//! newest changes nothing but for a release of what came before; a new change begins a new release.
//! What is held can be made from the history, so a release is never further back than the history
//! reaches: held changes that grow older than that are released by it.
//! Left out: judging (`provost-control-api`), time: how long a change was run well is the judge's.

use provost_types::{Kind, Revision, Spec};
use serde::{Deserialize, Serialize};

use crate::{HistoryEntry, KeyChange};

/// Reasons kept of one halt.
pub const MAX_HALT_REASONS: usize = 16;
/// Bytes kept of each.
pub const MAX_HALT_REASON_BYTES: usize = 512;

/// How far changes are released. Stored form: fields may be added with defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The newest revision that every node may run.
    pub released: Revision,
    /// The newest change is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halt>,
}

/// Why nobody runs what is held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// The revision that was found bad.
    pub revision: Revision,
    /// What spoke against it.
    pub reasons: Vec<String>,
    /// When, nanoseconds since the Unix epoch, by the proposer's clock.
    pub time_ns: u64,
}

/// A decision; stored form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ReleaseCommand {
    /// Every node may run this revision.
    Advance {
        /// Which.
        revision: Revision,
    },
    /// No node may run what is held. Counts only if it is about the newest revision.
    Halt {
        /// The newest revision, which was found bad.
        revision: Revision,
        /// What spoke against it.
        reasons: Vec<String>,
        /// Now.
        time_ns: u64,
    },
}

/// What a [`ReleaseCommand`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseReply {
    /// It holds.
    Done,
    /// It changed nothing: things had moved on.
    Stale,
}

impl Release {
    pub(crate) fn apply(&mut self, now: Revision, command: ReleaseCommand) -> ReleaseReply {
        match command {
            ReleaseCommand::Advance { revision } if revision > self.released && revision <= now => {
                self.released = revision;
                if revision == now {
                    self.halted = None;
                }
                ReleaseReply::Done
            }
            ReleaseCommand::Halt { revision, mut reasons, time_ns }
                if revision == now && revision > self.released && self.halted.is_none() =>
            {
                reasons.truncate(MAX_HALT_REASONS);
                for text in &mut reasons {
                    text.truncate(text.floor_char_boundary(MAX_HALT_REASON_BYTES));
                }
                self.halted = Some(Halt { revision, reasons, time_ns });
                ReleaseReply::Done
            }
            _ => ReleaseReply::Stale,
        }
    }

    /// After a change. `before` is the revision before it; `compacted` that of the oldest state that
    /// the history still leads back to. The change that makes the group is released with it. One that
    /// only takes access away is released at once, unless it stands on something that is held.
    pub(crate) fn after(release: Option<Self>, before: Revision, change: &HistoryEntry, compacted: Revision) -> Self {
        let Some(mut release) = release else { return Self { released: change.revision, halted: None } };
        if release.released >= before && change.changes.iter().all(takes_away) {
            release.released = change.revision;
        }
        release.released = release.released.max(compacted);
        match &mut release.halted {
            // What was halted stays so: this change is no new attempt, and runs everywhere already.
            Some(halt) if governs(change) => halt.revision = change.revision,
            _ => release.halted = None,
        }
        release
    }
}

/// Whether the change is of nothing but what takes effect at once.
fn governs(change: &HistoryEntry) -> bool {
    change.changes.iter().all(|change| change.key.kind.is_governance())
}

/// Whether the change can only end access: nobody may do more after it. Or it takes effect at once by its nature.
fn takes_away(change: &KeyChange) -> bool {
    if change.key.kind.is_governance() {
        return true;
    }
    match (&change.old, &change.new) {
        // Not a RoleBinding: a policy may forbid to those who have a role.
        (_, None) => matches!(change.key.kind, Kind::ApiKey | Kind::Principal),
        (Some(old), Some(new)) => match (&old.spec, &new.spec) {
            (Spec::Principal(was), Spec::Principal(is)) => {
                let mut disabled = was.clone();
                disabled.disabled = true;
                *is == disabled && old.metadata == new.metadata
            }
            _ => false,
        },
        (None, Some(_)) => false,
    }
}
