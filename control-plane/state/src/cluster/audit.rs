//! The newest checkpoints of the audit logs, as their leader proposed them.
//!
//! The audit group has its own storage; a copy here, in another group's consensus, shows when that
//! storage was rolled back. Invariant: for one log the size never shrinks and one size never has two
//! roots; signatures are the business of whoever reads the notes.

use serde::{Deserialize, Serialize};

use super::{Cluster, ClusterReply, is_hash, reject};
use crate::Rejected;

/// Logs that are remembered.
pub const MAX_AUDIT_LOGS: usize = 4_096;
/// Checkpoints of one command.
pub const MAX_AUDIT_CHECKPOINTS: usize = 256;
/// Bytes of a log's origin.
const MAX_ORIGIN_BYTES: usize = 512;
/// Bytes of a checkpoint.
const MAX_NOTE_BYTES: usize = 16 << 10;

/// A checkpoint of one audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCheckpoint {
    /// The log: its origin, `+`, the id of the first key that signed it.
    pub log: String,
    /// Records.
    pub size: u64,
    /// The tree's root, 64 hexadecimal digits.
    pub root: String,
    /// The signed note that says so.
    pub note: String,
}

impl Cluster {
    /// The newest checkpoint of each audit log, by origin.
    pub fn audit_checkpoints(&self) -> impl Iterator<Item = &AuditCheckpoint> {
        self.audit_checkpoints.values()
    }

    /// All of them, or none if one contradicts what is held.
    pub(super) fn audit_checkpoints_taken(
        &mut self,
        checkpoints: Vec<AuditCheckpoint>,
    ) -> Result<ClusterReply, Rejected> {
        let form = |text: &str| reject("PV-AUDIT-CHECKPOINT", text, "this is a fault of the audit node that sent it");
        if checkpoints.len() > MAX_AUDIT_CHECKPOINTS {
            return Err(form("too many checkpoints at once"));
        }
        for checkpoint in &checkpoints {
            let AuditCheckpoint { log, size, root, note } = checkpoint;
            let long = log.len() > MAX_ORIGIN_BYTES || note.len() > MAX_NOTE_BYTES;
            if log.is_empty() || long || !is_hash(root) {
                return Err(form("a checkpoint has not the form of one"));
            }
            let Some(held) = self.audit_checkpoints.get(log) else { continue };
            if *size < held.size || (*size == held.size && *root != held.root) {
                let text = format!(
                    "the audit log {log} is held here at {} records with root {}, and not at {size} with root {root}",
                    held.size, held.root
                );
                let hint = "the audit log's storage was rolled back or replaced: restore the newer one";
                return Err(reject("PV-AUDIT-ROLLED-BACK", text, hint));
            }
        }
        let new = checkpoints.iter().filter(|c| !self.audit_checkpoints.contains_key(&c.log)).count();
        if self.audit_checkpoints.len() + new > MAX_AUDIT_LOGS {
            return Err(form("more audit logs than can be remembered"));
        }
        self.audit_checkpoints.extend(checkpoints.into_iter().map(|c| (c.log.clone(), c)));
        Ok(ClusterReply::Done)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::Revision;

    use super::*;
    use crate::ClusterCommand;

    fn checkpoint(log: &str, size: u64, root: char) -> AuditCheckpoint {
        AuditCheckpoint { log: log.to_owned(), size, root: root.to_string().repeat(64), note: format!("{log} {size}") }
    }

    #[test]
    fn a_log_only_grows() {
        let mut cluster = Cluster::default();
        let mut take = |checkpoints: Vec<AuditCheckpoint>| {
            let command = ClusterCommand::AuditCheckpoints { checkpoints };
            let applied = cluster.apply(Revision(1), command);
            (applied.map_err(|r| r.problems[0].code.to_string()).err(), cluster.audit_checkpoints().cloned().collect())
        };
        let rolled_back = Some("PV-AUDIT-ROLLED-BACK".to_owned());
        let (first, grown) = (checkpoint("p/a", 5, 'a'), checkpoint("p/a", 9, 'b'));
        assert_eq!(take(vec![first.clone()]), (None, vec![first.clone()]), "also in a cluster that is not initialised");
        assert_eq!(take(vec![first.clone()]), (None, vec![first.clone()]), "the same again");
        assert_eq!(take(vec![checkpoint("p/a", 5, 'c')]), (rolled_back.clone(), vec![first.clone()]));
        let other = checkpoint("p/b", 1, 'd');
        assert_eq!(
            take(vec![other.clone(), checkpoint("p/a", 4, 'a')]),
            (rolled_back.clone(), vec![first]),
            "all or none"
        );
        assert_eq!(take(vec![other.clone(), grown.clone()]), (None, vec![grown.clone(), other.clone()]));
        assert_eq!(take(vec![checkpoint("p/a", 8, 'b')]), (rolled_back, vec![grown.clone(), other.clone()]));
        let malformed = Some("PV-AUDIT-CHECKPOINT".to_owned());
        for bad in [
            checkpoint("", 1, 'a'),
            checkpoint("p/c", 1, 'G'),
            checkpoint(&"x".repeat(MAX_ORIGIN_BYTES + 1), 1, 'a'),
            AuditCheckpoint { note: "x".repeat(MAX_NOTE_BYTES + 1), ..checkpoint("p/c", 1, 'a') },
        ] {
            assert_eq!(take(vec![bad]).0, malformed);
        }
        let many = (0..=MAX_AUDIT_CHECKPOINTS).map(|n| checkpoint(&format!("p/{n}"), 1, 'a')).collect();
        assert_eq!(take(many).0, malformed);
    }
}
