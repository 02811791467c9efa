//! Changes whose records have not reached the audit log yet.
//!
//! Purpose: a change and the duty to record it are one step. The entry that makes a change also puts
//! here what its record says; a carrier takes it to the audit log and then says how far it came. So
//! no change can be without a record, and none waits for the audit log.
//! Invariants: in the order of revisions; what is here stays until the audit log has it; there is a
//! bound, and a transaction that finds it reached is rejected.
//! Left out: carrying (`provost-control-api`). A carrier that ends between recording and saying so is
//! followed by one that records again: the same id, so that a reader sees one change.

use provost_types::{CallId, Name, ResourceKey, Revision};
use serde::{Deserialize, Serialize};

use crate::{ChangeKind, Event, PackageKey, Problem, State, Transaction};

/// Changes that may wait for the audit log.
pub const MAX_UNRECORDED: usize = 16_384;
/// Objects named in one record; the rest is counted.
pub const MAX_RECORDED_OBJECTS: usize = 1_000;

/// Who made a change and how that was known, for its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorship {
    /// The record's id.
    pub call_id: CallId,
    /// How the author proved who it is.
    pub authenticated_by: String,
    /// The author's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<String>,
    /// The tenant whose log has the record; `None`: the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
}

/// A change that took effect, as its record will say it. Stored form: fields may be added with
/// defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unrecorded {
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
    /// Who, in full.
    pub authorship: Authorship,
    /// The resources and packages that it changed; at most [`MAX_RECORDED_OBJECTS`], then how many more.
    pub objects: Vec<String>,
}

impl Unrecorded {
    /// What is to be recorded of a transaction that took effect, and of the packages that went with it; `None`: who
    /// proposed it records it.
    pub(crate) fn of(
        revision: Revision,
        transaction: &Transaction,
        report: &[(ResourceKey, ChangeKind)],
        dropped: &[PackageKey],
    ) -> Option<Self> {
        let authorship = transaction.authorship.clone()?;
        let changed = report.iter().filter(|(_, kind)| *kind != ChangeKind::Unchanged);
        let count = changed.clone().count() + dropped.len();
        let objects = changed.map(|(key, _)| key.to_string()).chain(dropped.iter().map(named));
        let mut objects: Vec<String> = objects.take(MAX_RECORDED_OBJECTS).collect();
        if count > MAX_RECORDED_OBJECTS {
            objects.push(format!("and {} more", count - MAX_RECORDED_OBJECTS));
        }
        let Transaction { event, time_ns, author, message, .. } = transaction;
        let (author, message) = (author.clone(), message.clone());
        Some(Self { revision, event: *event, time_ns: *time_ns, author, message, authorship, objects })
    }
}

/// A package as records name it.
pub(crate) fn named(package: &PackageKey) -> String {
    format!("Package/{package}")
}

impl State {
    /// Forgets what the audit log has: every change up to `through`. What is gone already stays gone.
    pub fn apply_carried(&mut self, through: Revision) {
        while self.outbox.front().is_some_and(|first| first.revision <= through) {
            self.outbox.pop_front();
        }
    }

    /// A full outbox takes no change that must be recorded.
    pub(crate) fn check_outbox(&self, transaction: &Transaction) -> Option<Problem> {
        if transaction.authorship.is_none() { None } else { self.check_outbox_room() }
    }

    /// Whether one more change can wait for its record.
    pub(crate) fn check_outbox_room(&self) -> Option<Problem> {
        if self.outbox.len() < MAX_UNRECORDED {
            return None;
        }
        let text = format!("{MAX_UNRECORDED} changes wait to be recorded in the audit log");
        let hint = "administrative changes are refused until they can be recorded";
        Some(Problem::of_transaction("PV-ADMIN-AUDIT", text).hint(hint))
    }
}
