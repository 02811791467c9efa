//! What changed when, by whom and why.

use std::sync::Arc;

use provost_types::{Resource, ResourceKey, Revision};
use serde::{Deserialize, Serialize};

use crate::Event;

/// Transactions kept; older ones can be neither listed nor rolled back to.
pub const MAX_HISTORY: usize = 1_000;

/// What a transaction did to one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was made.
    Created,
    /// It was replaced by something else.
    Updated,
    /// It was removed.
    Deleted,
    /// It was as asked already.
    Unchanged,
}

impl ChangeKind {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Created => "created",
            ChangeKind::Updated => "updated",
            ChangeKind::Deleted => "deleted",
            ChangeKind::Unchanged => "unchanged",
        }
    }
}

/// One resource before and after a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The resource.
    pub key: ResourceKey,
    /// Before; `None`: it did not exist.
    pub old: Option<Arc<Resource>>,
    /// After; `None`: it was removed.
    pub new: Option<Arc<Resource>>,
}

impl KeyChange {
    /// What was done.
    pub fn kind(&self) -> ChangeKind {
        match (&self.old, &self.new) {
            (None, Some(_)) => ChangeKind::Created,
            (Some(_), None) => ChangeKind::Deleted,
            _ => ChangeKind::Updated,
        }
    }
}

/// One transaction that changed something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its revision.
    pub revision: Revision,
    /// What kind of change.
    pub event: Event,
    /// When it was proposed, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Who.
    pub author: String,
    /// Why.
    pub message: String,
    /// What, in key order.
    pub changes: Vec<KeyChange>,
}
