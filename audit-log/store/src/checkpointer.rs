//! Signs heads: seal, wait for the files, sign, and put the result into consensus.
//!
//! If the process dies after the seal, the next seal covers it; after the signature and before
//! the proposal, the signature was shown to nobody; after the proposal, the machine publishes it
//! when the entry is applied.

use std::{sync::Arc, time::Duration};

use provost_audit_core::{Checkpoint, NoteSigner, VerifierKey};
use provost_control_raft::Group;
use tokio::{sync::Mutex, time::MissedTickBehavior};

use crate::{
    catch_up::Replicas,
    entry::{Command, Reply},
    error::AuditError,
    key::CheckpointKey,
    machine::SharedMachine,
    persist::Progress,
    rotation::rotate_if_asked,
    tenant_heads::TenantHeads,
};

/// What signing needs.
pub(crate) struct Checkpointer {
    pub group: Group,
    pub machine: SharedMachine,
    /// Signs only while it is the one that the group has noted.
    pub key: parking_lot::RwLock<Arc<CheckpointKey>>,
    /// Where the key is kept, and its successor beside it.
    pub key_file: std::path::PathBuf,
    /// Where another replica's key is had.
    pub replicas: Option<Replicas>,
    pub cluster: String,
    /// One at a time: a second seal would replace the first one's heads.
    pub turn: Mutex<()>,
    /// One change of the key at a time.
    pub rotating: Mutex<()>,
    /// Notes the tenants' checkpoints in the cluster's log.
    pub tenants: TenantHeads,
}

impl Checkpointer {
    /// Signs every log that grew since its last checkpoint, and notes the tenants' new checkpoints in
    /// the cluster's log; gives the number of signed heads. The next call signs those records.
    pub(crate) async fn checkpoint(&self) -> Result<u32, AuditError> {
        let signed = self.sign().await?;
        self.tenants.note(&self.machine).await?;
        Ok(signed)
    }

    /// Signs every log that grew since its last checkpoint.
    pub(crate) async fn sign(&self) -> Result<u32, AuditError> {
        let _turn = self.turn.lock().await;
        if !self.machine.0.lock().is_dirty() {
            return Ok(0);
        }
        let key = self.key.read().clone();
        self.sign_with(&key).await
    }

    /// Seals and signs with this key. The caller has the turn.
    pub(crate) async fn sign_with(&self, key: &CheckpointKey) -> Result<u32, AuditError> {
        let notes = self.sealed_and_signed(Command::Seal, &[key]).await?;
        if notes.is_empty() {
            return Ok(0);
        }
        let signed = self.group.propose(Command::Signed(notes).encode()).await?;
        match Reply::decode(&signed.reply) {
            Ok(Reply::Taken(count)) => Ok(count),
            _ => Err(AuditError::Unavailable("the audit machine took no checkpoint".to_owned())),
        }
    }

    /// Seals by this command and gives the heads as notes that each of these keys signed. The first is
    /// the one that signs now, or there is an error. The caller has the turn.
    pub(crate) async fn sealed_and_signed(
        &self,
        seal: Command,
        keys: &[&CheckpointKey],
    ) -> Result<Vec<String>, AuditError> {
        let sealed = self.group.propose(seal.encode()).await?;
        let Ok(Reply::Sealed(heads)) = Reply::decode(&sealed.reply) else {
            return Err(AuditError::Unavailable("the audit machine did not seal".to_owned()));
        };
        if heads.is_empty() {
            return Ok(Vec::new());
        }
        let progress = self.machine.0.lock().progress();
        persisted(progress, sealed.index).await?;
        // The seal was applied here, and so was every change of keys before it.
        let noted = self.machine.0.lock().noted();
        if noted.is_some_and(|noted| keys.first().is_none_or(|key| key.public_key() != noted)) {
            return Err(AuditError::Unavailable("this replica does not have the key that signs now".to_owned()));
        }
        let time_ns = crate::own_events::now_ns();
        let sign = |head: crate::entry::Head| {
            let origin = head.log.origin(&self.cluster);
            let (size, root, chain) = (head.size, head.root, head.chain);
            let text = Checkpoint { origin: origin.clone(), size, root, chain, time_ns }.to_text();
            let lines: String = keys.iter().map(|key| VerifierKey::signature_line(&origin, &text, *key)).collect();
            format!("{text}\n{lines}")
        };
        Ok(heads.into_iter().map(sign).collect())
    }

    /// Publishes a checkpoint that witnesses have cosigned; whether it was newer than the last one.
    pub(crate) async fn cosigned(&self, note: String) -> Result<bool, AuditError> {
        let taken = self.group.propose(Command::Cosigned(note).encode()).await?;
        match Reply::decode(&taken.reply) {
            Ok(Reply::Taken(count)) => Ok(count > 0),
            _ => Err(AuditError::Unavailable("the audit machine took no cosigned checkpoint".to_owned())),
        }
    }

    /// Waits until everything applied so far, checkpoints included, is on disk.
    pub(crate) async fn flush(&self) -> Result<(), AuditError> {
        let (applied, progress) = {
            let mut machine = self.machine.0.lock();
            machine.persist().map_err(|e| AuditError::Unavailable(e.to_string()))?;
            (machine.last_applied(), machine.progress())
        };
        match applied {
            Some(applied) => persisted(progress, applied).await,
            None => Ok(()),
        }
    }
}

async fn persisted(mut progress: Progress, index: u64) -> Result<(), AuditError> {
    let done = |state: &Result<Option<u64>, String>| match state {
        Ok(done) => done.is_some_and(|done| done >= index),
        Err(_) => true,
    };
    let state = progress.wait_for(done).await;
    let state = state.map_err(|_| AuditError::Unavailable("the files are closed".to_owned()))?;
    match &*state {
        Ok(_) => Ok(()),
        Err(why) => Err(AuditError::Unavailable(why.clone())),
    }
}

/// Signs at an interval while this node leads, and gets the key that signs wherever it does not, until
/// the handle goes away.
pub(crate) async fn run(checkpointer: std::sync::Weak<Checkpointer>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(checkpointer) = checkpointer.upgrade() else { return };
        if let Err(e) = checkpointer.adopt_key().await {
            tracing::error!(code = e.code(), error = %e, "the key that signs now cannot be kept");
        }
        if let Err(e) = sign_if_leader(&checkpointer).await {
            tracing::warn!(error = %e, "no checkpoint was signed; the next tick tries again");
        }
    }
}

async fn sign_if_leader(checkpointer: &Arc<Checkpointer>) -> Result<(), AuditError> {
    if !checkpointer.group.is_leader() {
        return Ok(());
    }
    if let Err(e) = rotate_if_asked(checkpointer).await {
        tracing::warn!(error = %e, "the new checkpoint key did not take over; the old one signs, and the next tick tries again");
    }
    checkpointer.checkpoint().await.map(drop)
}
