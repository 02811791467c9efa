//! A new checkpoint key takes over from the old one, so that an auditor can follow it.
//!
//! Order: the new key is made beside the leader's old one (`KEY_FILE.next`); the cluster's log records it
//! (event `audit.key`) and a checkpoint under the old key covers the record; one entry of the group takes
//! every log's head as signed by both keys and notes the new key (then `cluster/keys`, `audit.pub`); the
//! new key file replaces the old one, and the old key is gone. The other replicas see what is noted, get
//! that key from one that has it, and replace their files; a leader without it signs nothing until then.
//! A crash anywhere leaves `KEY_FILE.next`. Before the entry, that node does it again when it leads: a
//! second record harms nobody, and until the entry only the old key signs. After it, only the file is
//! moved.
//! Left out: a copy of the new key elsewhere before it takes over. If the leader's disk is lost between
//! the entry and the first replica's question (a second), nobody has the key that signs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use provost_audit_core::{LogId, NoteSigner, VerifierKey};

use crate::{
    checkpointer::Checkpointer,
    client::fetch_key,
    entry::{Command, MAX_HEADS, Reply, Rotated},
    error::AuditError,
    key::CheckpointKey,
    node::AuditNode,
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

    /// The next key's file replaces the current one, if it is the key with this public half: after a crash
    /// before the file was moved it is.
    pub(crate) fn take_over(key_file: &Path, noted: [u8; 32]) -> Result<Option<Self>, AuditError> {
        let next = next_key_file(key_file);
        // Opened only when it is there: opening makes a key.
        if !next.exists() || Self::open(&next)?.public_key() != noted {
            return Ok(None);
        }
        let dir = key_file.parent().unwrap_or(Path::new("."));
        fs::rename(next, key_file).and_then(|()| sync_dir(dir)).map_err(AuditError::io(key_file))?;
        Self::open(key_file).map(Some)
    }
}

impl AuditNode {
    /// Switches to the next key if one waits; whether it did. Only the leader can.
    pub async fn rotate_if_asked(&self) -> Result<bool, AuditError> {
        rotate_if_asked(self.checkpointer()).await
    }

    /// Whether this replica has the key that signs now.
    pub fn has_signing_key(&self) -> bool {
        let noted = self.checkpointer().machine.0.lock().noted();
        noted.is_none_or(|noted| self.checkpointer().key.read().public_key() == noted)
    }
}

pub(crate) async fn rotate_if_asked(checkpointer: &Checkpointer) -> Result<bool, AuditError> {
    // Whoever comes second finds that it is done.
    let _one = checkpointer.rotating.lock().await;
    let next = next_key_file(&checkpointer.key_file);
    if !next.exists() || !checkpointer.group.is_leader() {
        return Ok(false);
    }
    let next = CheckpointKey::open(&next)?;
    checkpointer.rotate(&next).await?;
    checkpointer.keep(CheckpointKey::take_over(&checkpointer.key_file, next.public_key())?);
    Ok(true)
}

impl Checkpointer {
    /// Records the new key under the old one, then switches every log.
    async fn rotate(&self, next: &CheckpointKey) -> Result<(), AuditError> {
        let Some(sink) = self.tenants.sink() else { return Err(closed()) };
        let old = self.key.read().clone();
        let (noted, logs) = {
            let machine = self.machine.0.lock();
            (machine.noted(), machine.heads().len())
        };
        if noted == Some(next.public_key()) {
            return Ok(());
        }
        if noted.is_some_and(|noted| noted != old.public_key()) {
            return Err(AuditError::Unavailable("this replica does not have the key that signs now".to_owned()));
        }
        if logs > MAX_HEADS {
            let why = format!("a key cannot take over for more than {MAX_HEADS} logs");
            return Err(AuditError::Unavailable(why));
        }
        let origin = LogId::CLUSTER.origin(&self.cluster);
        let vkey = |key: &CheckpointKey| VerifierKey { name: origin.clone(), public_key: key.public_key() }.to_text();
        let event = event(KEY_EVENT, vkey(next), format!("follows {}", vkey(&old)));
        let receipt = record(&*sink, event).await?;
        let _turn = self.turn.lock().await;
        self.sign_with(&old).await?;
        let notes = self.sealed_and_signed(Command::SealAll, &[&old, next]).await?;
        let (follows, public_key) = (old.public_key(), next.public_key());
        let rotated = Command::Rotated(Rotated { record: receipt.index, follows, public_key, notes });
        let noted = self.group.propose(rotated.encode()).await?;
        match Reply::decode(&noted.reply) {
            Ok(Reply::Taken(_)) => {}
            Ok(Reply::Invalid(why)) => return Err(AuditError::Unavailable(format!("no new key yet: {why}"))),
            _ => return Err(AuditError::Unavailable("the audit machine noted no new key".to_owned())),
        }
        tracing::info!(record = receipt.index, "a new key signs the audit log's checkpoints");
        Ok(())
    }

    fn keep(&self, key: Option<CheckpointKey>) {
        if let Some(key) = key {
            *self.key.write() = Arc::new(key);
        }
    }

    /// Gets the key that the group has noted, if this replica has another: from the file that waits here,
    /// else from another replica. The file is replaced by no other key than that one.
    pub(crate) async fn adopt_key(&self) -> Result<(), AuditError> {
        let _one = self.rotating.lock().await;
        // While the replica takes a snapshot, later.
        let noted = self.machine.0.try_lock().and_then(|machine| machine.noted());
        let own = self.key.read().public_key();
        let Some(noted) = noted.filter(|noted| *noted != own) else { return Ok(()) };
        if let Some(key) = CheckpointKey::take_over(&self.key_file, noted)? {
            self.keep(Some(key));
            return Ok(());
        }
        let Some(replicas) = &self.replicas else { return Ok(()) };
        for (name, channel) in replicas() {
            match fetch_key(channel).await {
                Ok(pkcs8) => {
                    if let Some(key) = CheckpointKey::replace(&self.key_file, &pkcs8, noted)? {
                        tracing::info!(from = name, "this replica has the new checkpoint key");
                        self.keep(Some(key));
                        return Ok(());
                    }
                }
                Err(status) => tracing::debug!(from = name, error = status.message(), "no new key yet"),
            }
        }
        tracing::warn!("this replica does not have the key that signs now, and asks the others again");
        Ok(())
    }
}

fn closed() -> AuditError {
    AuditError::Unavailable("the audit log is not open for its own records".to_owned())
}
