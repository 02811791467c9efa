//! A new checkpoint key takes over from the old one, so that an auditor can follow it.
//!
//! Order: the new key is made beside the old one (`KEY_FILE.next`); the cluster's log records it
//! (event `audit.key`) and a checkpoint under the old key covers the record; every log's head is
//! signed by both keys, the switch; the group notes the new key (`cluster/keys`, `audit.pub`); the new
//! key file replaces the old one, and the old key is gone.
//! A crash anywhere leaves `KEY_FILE.next`, and the next leader does it again from the start: a second
//! record or a second switch harms nobody. After the group has noted the key, only the file is moved.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use provost_audit_core::{LogId, NoteSigner, VerifierKey};

use crate::{
    AuditLog,
    checkpointer::Checkpointer,
    entry::Command,
    error::AuditError,
    key::CheckpointKey,
    persist::sync_dir,
    tenant_heads::{event, record},
};

/// The event's name in the cluster's log.
const KEY_EVENT: &str = "audit.key";

/// Where the next key waits.
pub fn next_key_file(key_file: &Path) -> PathBuf {
    let mut path = key_file.as_os_str().to_owned();
    path.push(".next");
    PathBuf::from(path)
}

impl CheckpointKey {
    /// Makes the key that is to follow the one in `key_file`; one that waits already is kept. The
    /// leader of the audit group switches to it within moments, or at its next start.
    pub fn prepare_next(key_file: &Path) -> Result<Self, AuditError> {
        if !key_file.exists() {
            let why = "there is no key to follow".to_owned();
            return Err(AuditError::Key { path: key_file.to_owned(), why });
        }
        Self::open(&next_key_file(key_file))
    }

    /// Opens the key that signs now. `signs` is what the group has noted: after a crash before the
    /// file was moved, the next key is that one.
    pub(crate) fn open_current(key_file: &Path, signs: Option<[u8; 32]>) -> Result<Self, AuditError> {
        let key = Self::open(key_file)?;
        let Some(signs) = signs.filter(|signs| *signs != key.public_key()) else { return Ok(key) };
        let next = next_key_file(key_file);
        if next.exists() && Self::open(&next)?.public_key() == signs {
            return Self::take_over(key_file);
        }
        let why = "another key signs this log now; restore that one".to_owned();
        Err(AuditError::Key { path: key_file.to_owned(), why })
    }

    /// The next key's file replaces the current one.
    fn take_over(key_file: &Path) -> Result<Self, AuditError> {
        let dir = key_file.parent().unwrap_or(Path::new("."));
        fs::rename(next_key_file(key_file), key_file).and_then(|()| sync_dir(dir)).map_err(AuditError::io(key_file))?;
        Self::open(key_file)
    }
}

impl AuditLog {
    /// Switches to the next key if one waits; whether it did. Only the leader can.
    pub async fn rotate_if_asked(&self) -> Result<bool, AuditError> {
        let checkpointer = &self.inner.checkpointer;
        rotate_if_asked(checkpointer, &checkpointer.key_file).await
    }
}

pub(crate) async fn rotate_if_asked(checkpointer: &Checkpointer, key_file: &Path) -> Result<bool, AuditError> {
    // Whoever comes second finds that it is done.
    let _one = checkpointer.rotating.lock().await;
    let next = next_key_file(key_file);
    if !next.exists() || !checkpointer.group.is_leader() {
        return Ok(false);
    }
    // Opened only when it is there: opening makes a key.
    let next = Arc::new(CheckpointKey::open(&next)?);
    checkpointer.rotate(next).await?;
    CheckpointKey::take_over(key_file)?;
    Ok(true)
}

impl Checkpointer {
    /// Records the new key under the old one, then switches every log.
    async fn rotate(&self, next: Arc<CheckpointKey>) -> Result<(), AuditError> {
        let Some(sink) = self.tenants.sink() else { return Err(closed()) };
        let old = self.key.read().clone();
        let origin = LogId::CLUSTER.origin(&self.cluster);
        let vkey = |key: &CheckpointKey| VerifierKey { name: origin.clone(), public_key: key.public_key() }.to_text();
        let event = event(KEY_EVENT, vkey(&next), format!("follows {}", vkey(&old)));
        let receipt = record(&*sink, event).await?;
        let _turn = self.turn.lock().await;
        self.sign_with(Command::Seal, &[&old]).await?;
        self.sign_with(Command::SealAll, &[&old, &next]).await?;
        let rotated = Command::Rotated { record: receipt.index, public_key: next.public_key() };
        self.group.propose(rotated.encode()).await?;
        *self.key.write() = next;
        tracing::info!(record = receipt.index, "a new key signs the audit log's checkpoints");
        Ok(())
    }
}

fn closed() -> AuditError {
    AuditError::Unavailable("the audit log is not open for its own records".to_owned())
}
