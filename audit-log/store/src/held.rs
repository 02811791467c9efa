//! The log against the checkpoints that the control plane holds.
//!
//! The audit group's own storage can be rolled back as a whole; the copy in the control plane's
//! consensus cannot be, together with it, by the same mistake.

use provost_audit_core::{Hash, LogId};
use provost_audit_verify::{LeafHashes, LogLayout, first_kept};

use crate::{error::AuditError, node::AuditNode};

/// A checkpoint that is held elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCheckpoint {
    /// The log's origin.
    pub log: String,
    /// Records.
    pub size: u64,
    /// RFC 6962 root.
    pub root: Hash,
}

impl AuditNode {
    /// Compares what this node has with what is held. Meant for the leader and for a group of one: a
    /// replica that lags is behind without being rolled back. Blocking: reads leaf hashes.
    pub fn compare_with_held(&self, held: &[HeldCheckpoint]) -> Result<(), AuditError> {
        let heads = self.checkpointer().machine.0.lock().heads();
        for held in held {
            let Some(log) = LogId::from_origin(&held.log) else { continue };
            let rolled_back = |why: String| AuditError::RolledBack { log: log.clone(), why };
            let size = heads.iter().find(|head| head.log == log).map_or(0, |head| head.size);
            if size < held.size {
                return Err(rolled_back(format!(
                    "the control plane holds a checkpoint of {} records, and {size} are here",
                    held.size
                )));
            }
            let layout = LogLayout::new(self.dir().join(log.folder()));
            let root = match LeafHashes::open(layout.clone()).and_then(|hashes| hashes.root(0..held.size)) {
                Ok(root) => root,
                // It ends among records that were pruned, perhaps just now: the log goes on beyond it, and what
                // stays of them was compared with the signed tree.
                Err(_) if first_kept(&layout).is_ok_and(|kept| held.size < kept) => continue,
                Err(e) => return Err(AuditError::Differs { log: log.clone(), why: e.to_string() }),
            };
            if root != held.root {
                return Err(rolled_back(format!(
                    "the control plane holds root {} for {} records, and they have {root} here",
                    held.root, held.size
                )));
            }
        }
        Ok(())
    }
}
