//! What a batch from another node holds, beyond what the machine checks on every replica.
//!
//! Looked at once, before the batch is proposed: no replica decides by it, so that entries which are
//! logged stay applicable whatever is refused here later.

use provost_audit_core::{HOLD_EVENT, PRUNE_EVENT, RELEASE_EVENT, Record, RecordReader};
use provost_audit_verify::TENANT_CHECKPOINT;

use crate::{entry::Append, erase::ERASE_EVENT, rotation::KEY_EVENT};

/// What the log records of itself. Verifiers draw conclusions from these, so that whoever could write them
/// could make a sound log look tampered with, or a tampered one sound.
pub(super) const OWN_EVENTS: [&str; 6] =
    [TENANT_CHECKPOINT, KEY_EVENT, ERASE_EVENT, PRUNE_EVENT, HOLD_EVENT, RELEASE_EVENT];

/// Why a record cannot be taken that readers could not read. The machine asks for the canonical form alone,
/// which says nothing of what kind a value is: `\"attempt\":\"1\"` is canonical, and no record.
pub(super) fn unreadable(append: &Append) -> Option<String> {
    let mut records = append.records.iter().enumerate();
    records.find_map(|(n, record)| Record::decode(&record.leaf).err().map(|why| format!("record {n}: {why}")))
}

/// The first event of the log's own among the records. A record that cannot be read is none: the machine
/// refuses its batch. Names need no unescaping: canonical text spells a plain letter in one way.
pub(super) fn own_record(append: &Append) -> Option<&'static str> {
    let mut reader = RecordReader::default();
    append.records.iter().find_map(|record| {
        let event = reader.read(&record.leaf).ok()?.event?;
        OWN_EVENTS.into_iter().find(|own| own.as_bytes() == event)
    })
}
