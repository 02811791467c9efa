//! A new checkpoint key takes over from the old one, so that an auditor can follow it.
//!
//! Order: the new key is made beside the leader's old one (`KEY_FILE.next`); a majority of the replicas keep
//! it too (`KEY_FILE.offered`, see [`crate::key_offer`]); the cluster's log records it (event `audit.key`) and a
//! checkpoint under the old key covers the record; one entry of the group takes every log's head as signed
//! by both keys and notes the new key (then `cluster/keys`, `audit.pub`); on each replica the new key file
//! replaces the old one, and the old key is gone. A replica that was away asks the others for the key
//! that is noted; a leader without it signs nothing until then.
//! A crash anywhere leaves `KEY_FILE.next`. Before the entry, that node does it again when it leads: a
//! second record harms nobody, and until the entry only the old key signs. After it, only the file is
//! moved; the leader's disk may be lost then, the others have the key.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use provost_audit_core::{LogId, NoteSigner, VerifierKey};

use crate::{
    checkpointer::Checkpointer,
    client::fetch_key,
    entry::{Command, MAX_HEADS, Reply, Rotated},
    error::AuditError,
    key::CheckpointKey,
    key_offer::offered_key_file,
    node::AuditNode,
    persist::sync_dir,
    tenant_heads::{event, record},
};

/// The event's name in the cluster's log.
pub(crate) const KEY_EVENT: &str = "audit.key";

/// How long a look at the group's key waits for the machine.
const LOOK_LIMIT: Duration = Duration::from_millis(100);

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

    /// A key that waits, made here or offered by another replica, replaces the current one if it is the key
    /// with this public half.
    pub(crate) fn take_over(key_file: &Path, noted: [u8; 32]) -> Result<Option<Self>, AuditError> {
        for waits in [next_key_file(key_file), offered_key_file(key_file)] {
            // Opened only when it is there: opening makes a key.
            if !waits.exists() || Self::open(&waits)?.public_key() != noted {
                continue;
            }
            let dir = key_file.parent().unwrap_or(Path::new("."));
            fs::rename(waits, key_file).and_then(|()| sync_dir(dir)).map_err(AuditError::io(key_file))?;
            return Self::open(key_file).map(Some);
        }
        Ok(None)
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
        self.offer(next).await?;
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

    /// Takes over the key that the group has noted, if it waits here; whether it is known which one that
    /// is. The caller changes keys alone.
    pub(crate) fn take_over_noted(&self) -> Result<bool, AuditError> {
        let known = self.noted_elsewhere();
        if let Some(Some(noted)) = known {
            self.keep(CheckpointKey::take_over(&self.key_file, noted)?);
        }
        Ok(known.is_some())
    }

    /// The key that the group has noted, if this replica has another. `None`: nobody knows while the replica
    /// takes a snapshot. Whatever else holds the machine lets go of it within moments.
    fn noted_elsewhere(&self) -> Option<Option<[u8; 32]>> {
        let noted = self.machine.0.try_lock_for(LOOK_LIMIT)?.noted();
        Some(noted.filter(|noted| *noted != self.key.read().public_key()))
    }

    /// Gets the key that the group has noted, if this replica has another: from the file that waits here,
    /// else from another replica. The file is replaced by no other key than that one.
    pub(crate) async fn adopt_key(&self) -> Result<(), AuditError> {
        let _one = self.rotating.lock().await;
        self.take_over_noted()?;
        let Some(Some(noted)) = self.noted_elsewhere() else { return Ok(()) };
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
