//! What a replica does with its key and its files before it takes part: which key is its own, and whether
//! the checkpoints on disk are those of the consensus.

use std::{collections::BTreeSet, path::PathBuf};

use provost_audit_core::{LogId, NoteSigner, VerifierKey};
use provost_audit_verify::KEY_FILE;

use super::AuditNodeConfig;
use crate::{
    error::AuditError,
    key::CheckpointKey,
    machine::{SharedMachine, disk_checkpoint},
};

/// The key of this replica. Once the group has noted keys it is the last of them: after a crash before
/// the file was moved, the one that waits beside. A replica with others may begin with an older one: it
/// signs nothing, and asks the others.
pub(super) fn current_key(
    config: &AuditNodeConfig,
    key: CheckpointKey,
    noted: Option<[u8; 32]>,
) -> Result<CheckpointKey, AuditError> {
    let Some(noted) = noted.filter(|noted| *noted != key.public_key()) else { return Ok(key) };
    match CheckpointKey::take_over(&config.key_file, noted)? {
        Some(next) => Ok(next),
        None if config.peers.is_some() => Ok(key),
        None => {
            let why = "another key signs this log now; restore that one".to_owned();
            Err(AuditError::Key { path: config.key_file.clone(), why })
        }
    }
}

/// The key at the top, under the cluster log's name, for people; each log has its own beside it.
pub(super) fn write_public_key(config: &AuditNodeConfig, public_key: [u8; 32]) -> Result<(), AuditError> {
    let path: PathBuf = config.audit_dir.join(KEY_FILE);
    let text = VerifierKey { name: LogId::CLUSTER.origin(&config.cluster), public_key }.to_text();
    let wanted = format!("{text}\n");
    match std::fs::read_to_string(&path) {
        Ok(found) if found == wanted => Ok(()),
        Ok(_) => {
            let why = "audit.pub belongs to another key".to_owned();
            Err(AuditError::Key { path: config.key_file.clone(), why })
        }
        Err(_) => crate::persist::replace(&path, wanted.as_bytes()).map_err(AuditError::io(&path)),
    }
}

/// The checkpoints on disk are copies of the consensus's: an older or absent copy is written
/// again; a newer or different one means that somebody rolled something back.
pub(super) fn compare_with_consensus(config: &AuditNodeConfig, machine: &SharedMachine) -> Result<(), AuditError> {
    let machine = machine.0.lock();
    let mut stale = BTreeSet::new();
    for head in machine.heads() {
        let log = head.log;
        let held = machine.checkpoint(&log).map(|signed| signed.head.clone());
        let on_disk = disk_checkpoint(&config.audit_dir, &log)?;
        let (held_size, disk_size) = (held.as_ref().map_or(0, |h| h.size), on_disk.as_ref().map_or(0, |c| c.size));
        let rolled_back = |why: String| AuditError::RolledBack { log: log.clone(), why };
        if disk_size > held_size {
            return Err(rolled_back(format!(
                "the checkpoint on disk covers {disk_size} records, the one in consensus {held_size}"
            )));
        }
        if held_size > head.size {
            return Err(rolled_back(format!("the consensus signed {held_size} records, the files hold {}", head.size)));
        }
        let differs = held
            .as_ref()
            .zip(on_disk.as_ref())
            .is_some_and(|(held, disk)| held.size == disk.size && (held.root != disk.root || held.chain != disk.chain));
        if differs {
            return Err(rolled_back(format!("both cover {held_size} records, with other roots")));
        }
        if disk_size < held_size {
            stale.insert(log.clone());
        }
    }
    machine.republish(&stale).map_err(|e| AuditError::Unavailable(e.to_string()))
}
