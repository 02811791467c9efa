//! The handle: opens everything, records, signs, closes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use provost_audit_core::{LogId, NoteSigner, VerifierKey};
use provost_audit_verify::KEY_FILE;
use provost_control_raft::{Group, GroupConfig};
use provost_types::{
    AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture, CallId, Impact, Phase, Revision, Subject, What,
    Who, Why,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    checkpointer::{self, Checkpointer},
    config::AuditLogConfig,
    error::AuditError,
    key::CheckpointKey,
    machine::{AuditMachine, SharedMachine, disk_checkpoint},
    recovery::orphan_outcomes,
    sequencer::{Answer, Message, QUEUE, Sequencer},
    tenant_heads::TenantHeads,
};

/// How long a start waits for the audit group to elect and to apply what it holds.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Raft's name for the audit group.
const GROUP: &str = "audit";

/// The audit log of this node; clones share it.
#[derive(Clone)]
pub struct AuditLog {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    queue: mpsc::Sender<Message>,
    pub checkpointer: Arc<Checkpointer>,
    config: AuditLogConfig,
    epoch: u64,
    /// What the control plane is known to hold, for people.
    pub held: Mutex<BTreeMap<LogId, u64>>,
}

/// Where one log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditStatus {
    /// The log's origin.
    pub origin: String,
    /// Records.
    pub size: u64,
    /// Records covered by the checkpoint held in consensus.
    pub signed_size: u64,
    /// Records covered by the latest checkpoint that witnesses cosigned.
    pub cosigned_size: u64,
    /// Records covered by the checkpoint that the control plane is known to hold.
    pub held_size: u64,
}

/// Opens the audit log: reads or makes the key, opens the group (a group of one when the
/// directory is new), brings the files up to it, checks them against the checkpoint held in
/// consensus, starts a new epoch, and ends the calls that were running when the process ended.
///
/// Must be called within a tokio runtime.
pub async fn open(config: AuditLogConfig) -> Result<AuditLog, AuditError> {
    let noted = AuditMachine::noted_key(&config.audit_dir)?;
    let key = CheckpointKey::open_current(&config.key_file, noted)?;
    let machine = AuditMachine::open(&config.audit_dir, &config.cluster, key.public_key())?;
    if noted.is_some() {
        // A crash may have left older keys beside some logs.
        for (path, text) in machine.key_files() {
            crate::persist::replace(&path, text.as_bytes()).map_err(AuditError::io(&path))?;
        }
    }
    write_public_key(&config, &key)?;
    let machine = SharedMachine(Arc::new(Mutex::new(machine)));
    let group_config = GroupConfig::new(config.node_id, config.cluster.clone(), GROUP);
    let group = Group::open(&config.raft_dir, group_config, machine.clone()).await?;
    group.initialize_single().await?;
    group.wait_ready(READY_TIMEOUT).await?;
    compare_with_consensus(&config, &machine)?;

    let (last_epoch, chains) = machine.0.lock().writer(&config.node_name);
    let epoch = last_epoch + 1;
    let writer = config.node_name.clone();
    let sequencer = Sequencer::new(group.clone(), config.cluster.clone(), writer, epoch, chains);
    let (queue, messages) = mpsc::channel(QUEUE);
    tokio::spawn(sequencer.run(messages));
    let checkpointer = Arc::new(Checkpointer {
        group,
        machine,
        key: parking_lot::RwLock::new(Arc::new(key)),
        key_file: config.key_file.clone(),
        cluster: config.cluster.clone(),
        turn: tokio::sync::Mutex::default(),
        rotating: tokio::sync::Mutex::default(),
        tenants: TenantHeads::new(config.cluster.clone()),
    });
    let every = config.checkpoint_interval;
    let log = AuditLog { inner: Arc::new(Inner { queue, checkpointer, config, epoch, held: Mutex::default() }) };
    log.begin_epoch().await?;
    log.note_tenants(Arc::new(QueueSink { queue: log.inner.queue.clone(), deadline: log.inner.config.deadline }));
    tokio::spawn(checkpointer::run(Arc::downgrade(&log.inner.checkpointer), every));
    Ok(log)
}

impl AuditLog {
    /// The directory that an auditor copies, and that [`crate::query`] reads.
    pub fn dir(&self) -> &Path {
        &self.inner.config.audit_dir
    }

    /// This start's epoch.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// The public key that signs a log's checkpoints.
    pub fn verifier_key(&self, log: &LogId) -> VerifierKey {
        self.inner.checkpointer.key.read().verifier_key(&log.origin(&self.inner.config.cluster))
    }

    /// Where each log stands.
    pub fn status(&self) -> Vec<AuditStatus> {
        let machine = self.inner.checkpointer.machine.0.lock();
        let held = self.inner.held.lock();
        let status = |head: crate::entry::Head| AuditStatus {
            origin: head.log.origin(&self.inner.config.cluster),
            size: head.size,
            signed_size: machine.checkpoint(&head.log).map_or(0, |signed| signed.head.size),
            cosigned_size: machine.cosigned_size(&head.log),
            held_size: held.get(&head.log).copied().unwrap_or_default(),
        };
        machine.heads().into_iter().map(status).collect()
    }

    /// Signs every log that grew, notes the tenants' checkpoints in the cluster's log and signs that
    /// too, and waits until the checkpoints are on disk.
    pub async fn checkpoint_now(&self) -> Result<(), AuditError> {
        self.inner.checkpointer.checkpoint().await?;
        self.inner.checkpointer.sign().await?;
        self.inner.checkpointer.flush().await
    }

    /// Stops cleanly: records `log.stop`, finishes what was handed in, signs, closes the group.
    /// Records handed in later are refused.
    pub async fn close(&self) -> Result<(), AuditError> {
        // While the cluster's log can still note the tenants' last checkpoints.
        self.inner.checkpointer.checkpoint().await?;
        let stop = self.event("log.stop", format!("epoch {}", self.inner.epoch));
        self.record(stop).await.map_err(|e| AuditError::Unavailable(e.0))?;
        let (done, closed) = oneshot::channel();
        if self.inner.queue.send(Message::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
        self.inner.checkpointer.sign().await?;
        self.inner.checkpointer.flush().await?;
        self.inner.checkpointer.group.shutdown().await?;
        Ok(())
    }

    /// The first record of an epoch fences earlier ones; then the orphans of earlier epochs end.
    async fn begin_epoch(&self) -> Result<(), AuditError> {
        let unavailable = |e: AuditUnavailable| AuditError::Unavailable(e.0);
        let start = self.event("log.start", format!("epoch {}", self.inner.epoch));
        self.record(start).await.map_err(unavailable)?;
        let Inner { checkpointer, config, epoch, .. } = &*self.inner;
        let orphans = checkpointer.machine.0.lock().orphans(&config.node_name, *epoch);
        let dir = config.audit_dir.clone();
        let outcomes = tokio::task::spawn_blocking(move || orphan_outcomes(&dir, orphans, now_ns()))
            .await
            .map_err(|e| AuditError::Unavailable(e.to_string()))??;
        for part in outcomes.chunks(RECOVERED_AT_ONCE) {
            let records = part.iter().map(|event| self.record(event.clone()));
            futures::future::try_join_all(records).await.map_err(unavailable)?;
        }
        if !outcomes.is_empty() {
            tracing::warn!(calls = outcomes.len(), "calls of an earlier start ended as unknown");
        }
        Ok(())
    }

    fn event(&self, name: &str, detail: String) -> AuditEvent {
        let node = self.inner.config.node_name.clone();
        let subject = Subject { event: name.to_owned(), objects: vec![node], detail };
        let who = Who { authenticated_by: "internal".to_owned(), ..Who::default() };
        AuditEvent {
            phase: Phase::Event,
            call_id: event_id(now_ns()),
            tenant: None,
            time_ns: now_ns(),
            who,
            what: What { subject: Some(subject), ..What::default() },
            why: Why::default(),
            decision: None,
            policies: Vec::new(),
            revision: Revision::default(),
            status: None,
            error: None,
            reason: None,
            body_sha256: None,
            impact: Impact::default(),
        }
    }
}

/// Outcomes of orphans that are in flight at once.
const RECOVERED_AT_ONCE: usize = 512;

/// The way into the log for what the log records of itself; it does not keep the log open.
struct QueueSink {
    queue: mpsc::Sender<Message>,
    deadline: Duration,
}

impl AuditSink for QueueSink {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        Box::pin(record(&self.queue, self.deadline, event))
    }
}

async fn submit(queue: &mpsc::Sender<Message>, event: AuditEvent) -> Answer {
    let closed = || AuditUnavailable("the audit log is closed".to_owned());
    let (reply, answer) = oneshot::channel();
    let message = Message::Record(Box::new(event), reply);
    queue.send(message).await.map_err(|_| closed())?;
    answer.await.map_err(|_| closed())?
}

async fn record(queue: &mpsc::Sender<Message>, deadline: Duration, event: AuditEvent) -> Answer {
    match tokio::time::timeout(deadline, submit(queue, event)).await {
        Ok(answer) => answer,
        Err(_) => Err(AuditUnavailable(format!("not durable within {} ms", deadline.as_millis()))),
    }
}

impl AuditSink for AuditLog {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        Box::pin(record(&self.inner.queue, self.inner.config.deadline, event))
    }
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A UUID version 7 (RFC 9562): 48 bits of milliseconds, then randomness.
fn event_id(now_ns: u64) -> CallId {
    let millis = u128::from(now_ns / 1_000_000) & 0xffff_ffff_ffff;
    let random: u128 = rand::random();
    let body = random & 0x0000_0000_0000_0fff_3fff_ffff_ffff_ffff;
    CallId((millis << 80) | (7 << 76) | (2 << 62) | body)
}

/// The key at the top, under the cluster log's name, for people; each log has its own beside it.
fn write_public_key(config: &AuditLogConfig, key: &CheckpointKey) -> Result<(), AuditError> {
    let path: PathBuf = config.audit_dir.join(KEY_FILE);
    let text = key.verifier_key(&LogId::CLUSTER.origin(&config.cluster)).to_text();
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
fn compare_with_consensus(config: &AuditLogConfig, machine: &SharedMachine) -> Result<(), AuditError> {
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
