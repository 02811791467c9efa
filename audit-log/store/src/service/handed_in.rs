//! What a batch from another node holds, beyond what the machine checks on every replica.
//!
//! Looked at once, before the batch is proposed: no replica decides by it, so that entries which are
//! logged stay applicable whatever is refused here later.

use provost_audit_core::{HOLD_EVENT, PRUNE_EVENT, RELEASE_EVENT, Record};
use provost_audit_verify::TENANT_CHECKPOINT;

use crate::{entry::Append, erase::ERASE_EVENT, rotation::KEY_EVENT};

/// What the log records of itself. Verifiers draw conclusions from these, so that whoever could write them
/// could make a sound log look tampered with, or a tampered one sound.
pub(super) const OWN_EVENTS: [&str; 6] =
    [TENANT_CHECKPOINT, KEY_EVENT, ERASE_EVENT, PRUNE_EVENT, HOLD_EVENT, RELEASE_EVENT];

/// What a batch holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HandedIn {
    /// The first event of the log's own among the records.
    pub own: Option<&'static str>,
    /// Why a record cannot be taken: readers could not read it. The machine asks for the canonical form
    /// alone, which says nothing of what kind a value is: `"attempt":"1"` is canonical, and no record.
    pub unreadable: Option<String>,
}

impl HandedIn {
    pub(super) fn of(append: &Append) -> Self {
        let mut found = Self::default();
        for (n, record) in append.records.iter().enumerate() {
            match Record::decode(&record.leaf) {
                Ok(record) if found.own.is_none() => {
                    found.own = OWN_EVENTS.into_iter().find(|own| record.event.as_deref() == Some(own));
                }
                Ok(_) => {}
                Err(why) => {
                    found.unreadable = Some(format!("record {n}: {why}"));
                    break;
                }
            }
        }
        found
    }
}
