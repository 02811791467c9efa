//! The sequencer's state file, with and without a checksum that holds.

use provost_audit_core::Hash;
use provost_audit_store::AuditMachine;

/// A start on this state must be refused or succeed; it never panics.
pub fn state(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let framed = [b"PVSTATE\x03".as_slice(), &Hash::of(data).0, data].concat();
    for bytes in [data, &framed] {
        if std::fs::write(dir.path().join("state"), bytes).is_ok() {
            drop(AuditMachine::open(dir.path(), "provost", [7; 32]));
        }
    }
}
