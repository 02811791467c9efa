//! Signs heads: seal, wait for the files, sign, and put the result into consensus.
//!
//! If the process dies after the seal, the next seal covers it; after the signature and before
//! the proposal, the signature was shown to nobody; after the proposal, the machine publishes it
//! when the entry is applied.

use std::{sync::Arc, time::Duration};

use provost_audit_core::{Checkpoint, VerifierKey};
use provost_control_raft::Group;
use tokio::{sync::Mutex, time::MissedTickBehavior};

use crate::{
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
    pub key: parking_lot::RwLock<Arc<CheckpointKey>>,
    /// Where the key is kept, and its successor beside it.
    pub key_file: std::path::PathBuf,
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
        self.sign_with(Command::Seal, &[&key]).await
    }

    /// Seals by this command and signs with each of these keys. The caller has the turn.
    pub(crate) async fn sign_with(&self, seal: Command, keys: &[&CheckpointKey]) -> Result<u32, AuditError> {
        let sealed = self.group.propose(seal.encode()).await?;
        let Ok(Reply::Sealed(heads)) = Reply::decode(&sealed.reply) else {
            return Err(AuditError::Unavailable("the audit machine did not seal".to_owned()));
        };
        if heads.is_empty() {
            return Ok(0);
        }
        let progress = self.machine.0.lock().progress();
        persisted(progress, sealed.index).await?;
        let time_ns = crate::audit_log::now_ns();
        let sign = |head: crate::entry::Head| {
            let origin = head.log.origin(&self.cluster);
            let (size, root, chain) = (head.size, head.root, head.chain);
            let text = Checkpoint { origin: origin.clone(), size, root, chain, time_ns }.to_text();
            let lines: String = keys.iter().map(|key| VerifierKey::signature_line(&origin, &text, *key)).collect();
            format!("{text}\n{lines}")
        };
        let notes = heads.into_iter().map(sign).collect();
        let signed = self.group.propose(Command::Signed(notes).encode()).await?;
        match Reply::decode(&signed.reply) {
            Ok(Reply::Taken(count)) => Ok(count),
            _ => Err(AuditError::Unavailable("the audit machine took no checkpoint".to_owned())),
        }
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

/// Signs at an interval while this node leads, until the handle goes away.
pub(crate) async fn run(checkpointer: std::sync::Weak<Checkpointer>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(checkpointer) = checkpointer.upgrade() else { return };
        if let Err(e) = sign_if_leader(&checkpointer).await {
            tracing::warn!(error = %e, "no checkpoint was signed; the next tick tries again");
        }
    }
}

async fn sign_if_leader(checkpointer: &Arc<Checkpointer>) -> Result<(), AuditError> {
    if !checkpointer.group.is_leader() {
        return Ok(());
    }
    rotate_if_asked(checkpointer, &checkpointer.key_file).await?;
    checkpointer.checkpoint().await.map(drop)
}
