//! One replica of the audit group: the Raft group, its machine, and who signs.
//!
//! Invariants: only the leader seals and signs; a replica's files are checked against the
//! checkpoint held in consensus before it signs anything; the group's replicas follow the list of
//! members that have the role.
//! Left out: writers ([`crate::AuditWriter`]), who may connect (the caller's transport and services).

mod config;
mod members;
mod start;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use provost_audit_core::{LogId, NoteSigner, VerifierKey};
use provost_control_raft::{Forwarding, Group, GroupConfig, GroupMetrics, NoPeers, Timings, Transport};
use provost_types::{AuditSink, SubjectKeys};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

pub use self::config::{AuditNodeConfig, AuditPeers};
use self::start::{compare_with_consensus, current_key, write_public_key};
use crate::{
    catch_up::PeerLeaves,
    checkpointer::{self, Checkpointer},
    erase::HoldCheck,
    error::AuditError,
    key::CheckpointKey,
    machine::{AuditMachine, SharedMachine},
    proposer::{Departed, LocalProposer},
    retention,
    subject_keys::LocalSubjectKeys,
    tenant_heads::TenantHeads,
};

/// Raft's name for the audit group.
pub const AUDIT_GROUP: &str = "audit";
/// Waits of a replica for a leader and for a commit. Shorter than a caller's deadline: repeating is
/// safe here, and another replica may know better.
const FORWARDING: Forwarding = Forwarding { leader_wait_ms: 1_500, commit_wait_ms: 2_500, gathers: false };
/// A busy log's next records come sooner and carry the word of a commit; an idle one's followers apply so much later.
const COMMIT_NOTICE_MS: u64 = 5;
/// So long a follower without which a quorum has the records may be behind, and so much later a commit comes where the faster
/// one ends: far below a caller's deadline, and some of a busy log's records.
const SPARE_WAIT_MS: u64 = 4;
/// A key of bodies that has to be made is waited for so long.
const KEY_DEADLINE: Duration = Duration::from_secs(4);
/// A look at the machine waits so long for it.
const STATUS_LIMIT: Duration = Duration::from_millis(100);
/// How long a clean end may wait for a last checkpoint.
const CLOSE_LIMIT: Duration = Duration::from_millis(1_500);

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

/// A running replica; clones share it.
#[derive(Clone)]
pub struct AuditNode {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: AuditNodeConfig,
    pub(crate) checkpointer: Arc<Checkpointer>,
    departed: Departed,
    /// Where keys of bodies come from.
    keys: Arc<LocalSubjectKeys>,
    /// Who may say that a subject's bodies must be kept.
    pub(crate) holds: RwLock<Vec<HoldCheck>>,
    /// One erasure at a time: each one first finishes what others left.
    pub(crate) erase_turn: tokio::sync::Mutex<()>,
    /// What the control plane is known to hold, for people.
    held: Mutex<BTreeMap<LogId, u64>>,
}

impl AuditNode {
    /// Opens the replica: cuts the files back to what was made durable and lets the Raft log bring
    /// the rest. It takes part at once; [`AuditNode::check_and_sign`] must follow.
    pub async fn open(config: AuditNodeConfig, key: CheckpointKey) -> Result<Self, AuditError> {
        let noted = AuditMachine::noted_key(&config.audit_dir)?;
        let key = current_key(&config, key, noted)?;
        let signs = noted.unwrap_or(key.public_key());
        let subject_keys = config.subject_keys.clone();
        let mut machine = AuditMachine::open_with_keys(&config.audit_dir, &config.cluster, signs, subject_keys)?;
        if noted.is_some() {
            // A crash may have left older keys beside some logs.
            for (path, text) in machine.key_files() {
                crate::persist::replace(&path, text.as_bytes()).map_err(AuditError::io(&path))?;
            }
        }
        write_public_key(&config, signs)?;
        if let Some(peers) = &config.peers {
            let replicas = peers.replicas.clone();
            machine = machine.with_source(Arc::new(PeerLeaves { replicas, runtime: Handle::current() }));
        }
        let machine = SharedMachine(Arc::new(Mutex::new(machine)));
        let mut group_config = GroupConfig::new(config.node_id, config.cluster.clone(), AUDIT_GROUP);
        let transport: Arc<dyn Transport> = match &config.peers {
            None => Arc::new(NoPeers),
            Some(peers) => {
                group_config.address = peers.address.clone();
                group_config.timings =
                    Timings { commit_notice_ms: COMMIT_NOTICE_MS, spare_wait_ms: SPARE_WAIT_MS, ..peers.timings };
                group_config.retention = peers.retention;
                group_config.forwarding = FORWARDING;
                group_config.membership.promotion = Some(peers.promotion);
                group_config.expect_existing = peers.expect_existing;
                peers.transport.clone()
            }
        };
        let group = Group::open_with(&config.raft_dir, group_config, machine.clone(), transport).await?;
        let keys = LocalSubjectKeys::new(machine.clone(), group.clone(), KEY_DEADLINE, config.begins_keys);
        let cluster = config.cluster.clone();
        let checkpointer = Arc::new(Checkpointer {
            group,
            machine,
            key: parking_lot::RwLock::new(Arc::new(key)),
            key_file: config.key_file.clone(),
            replicas: config.peers.as_ref().map(|peers| peers.replicas.clone()),
            tenants: TenantHeads::new(cluster.clone()),
            cluster,
            turn: tokio::sync::Mutex::default(),
            rotating: tokio::sync::Mutex::default(),
        });
        let (departed, held) = (Departed::default(), Mutex::default());
        let (keys, holds, erase_turn) = (Arc::new(keys), RwLock::default(), tokio::sync::Mutex::default());
        Ok(Self { inner: Arc::new(Inner { config, checkpointer, departed, held, keys, holds, erase_turn }) })
    }

    /// Makes a pristine replica a group of one. Nothing happens if it belongs to a group already.
    /// Only for the cluster's first audit node: a second group would be a second log.
    pub async fn initialize(&self) -> Result<(), AuditError> {
        Ok(self.group().initialize_single().await?)
    }

    /// Waits for a leader and for everything acknowledged before, and checks the files against the
    /// checkpoints held in consensus.
    pub async fn check(&self, limit: Duration) -> Result<(), AuditError> {
        self.group().wait_ready(limit).await?;
        compare_with_consensus(&self.inner.config, &self.inner.checkpointer.machine)
    }

    /// Signs from now on while this node leads. Once, and after [`AuditNode::check`].
    pub fn start_signing(&self) {
        let every = self.inner.config.checkpoint_interval;
        tokio::spawn(checkpointer::run(Arc::downgrade(&self.inner.checkpointer), every));
        tokio::spawn(crate::indexer::run(Arc::downgrade(&self.inner), self.dir().to_owned()));
    }

    /// [`AuditNode::check`], then [`AuditNode::start_signing`].
    pub async fn check_and_sign(&self, limit: Duration) -> Result<(), AuditError> {
        self.check(limit).await?;
        self.start_signing();
        Ok(())
    }

    pub(crate) fn checkpointer(&self) -> &Checkpointer {
        &self.inner.checkpointer
    }

    pub(crate) fn held(&self) -> &Mutex<BTreeMap<LogId, u64>> {
        &self.inner.held
    }

    /// The Raft group, for the service that receives its peers' messages.
    pub fn group(&self) -> &Group {
        &self.inner.checkpointer.group
    }

    /// The group for writers in this process.
    pub fn proposer(&self) -> LocalProposer {
        let Checkpointer { group, machine, .. } = &*self.inner.checkpointer;
        let (dir, departed) = (self.inner.config.audit_dir.clone(), self.inner.departed.clone());
        LocalProposer { group: group.clone(), machine: machine.clone(), dir, departed }
    }

    /// Keeps and prunes records through this replica; what is done is recorded in `sink`.
    pub fn retention(&self, sink: Arc<dyn AuditSink>) -> retention::Retention {
        retention::Retention::new((self.inner.checkpointer.clone(), self.inner.keys.clone()), sink, self.dir())
    }

    /// The directory that an auditor copies, and that [`crate::query`] reads.
    pub fn dir(&self) -> &Path {
        &self.inner.config.audit_dir
    }

    /// The checkpoint key, for a new replica or one that has an older key.
    pub(crate) fn key(&self) -> Arc<CheckpointKey> {
        self.inner.checkpointer.key.read().clone()
    }

    /// Keys of bodies, for writers in this process.
    pub fn subject_keys(&self) -> Arc<dyn SubjectKeys> {
        self.inner.keys.clone()
    }

    /// The keys of bodies as bytes, for a node that joins the audit log: to be sent over mutual TLS
    /// and given to [`crate::adopt_keys`] there.
    pub fn export_keys(&self) -> Result<Zeroizing<Vec<u8>>, AuditError> {
        let mut machine = self.inner.checkpointer.machine.0.lock();
        if self.inner.config.begins_keys {
            machine.keys.begin().map_err(|e| AuditError::Unavailable(e.to_string()))?;
        }
        machine.keys.plain().map_err(|e| AuditError::Unavailable(e.to_string()))
    }

    /// The public key that signs a log's checkpoints.
    pub fn verifier_key(&self, log: &LogId) -> VerifierKey {
        let name = log.origin(&self.inner.config.cluster);
        let noted = self.inner.checkpointer.machine.0.lock().noted();
        VerifierKey { name, public_key: noted.unwrap_or_else(|| self.key().public_key()) }
    }

    /// How the group stands, as this replica sees it.
    pub fn metrics(&self) -> GroupMetrics {
        self.group().metrics()
    }

    /// Whether anything was ever recorded in this log, as far as this replica knows.
    pub fn has_log(&self, log: &LogId) -> bool {
        self.inner.checkpointer.machine.0.lock().has_log(log)
    }

    /// Where each log stands here; nothing while the replica takes a snapshot.
    pub fn status(&self) -> Vec<AuditStatus> {
        let Some(machine) = self.inner.checkpointer.machine.0.try_lock_for(STATUS_LIMIT) else { return Vec::new() };
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
    /// too, and waits until the checkpoints are on disk here.
    pub async fn checkpoint_now(&self) -> Result<(), AuditError> {
        self.inner.checkpointer.checkpoint().await?;
        self.sign_now().await
    }

    /// Signs every log that grew and notes the tenants' checkpoints in the cluster's log: before the
    /// writer that notes them closes.
    pub async fn note_now(&self) -> Result<(), AuditError> {
        self.inner.checkpointer.checkpoint().await.map(drop)
    }

    /// Signs every log that grew, and waits until the checkpoints are on disk here; needs no writer.
    pub async fn sign_now(&self) -> Result<(), AuditError> {
        self.inner.checkpointer.sign().await?;
        self.inner.checkpointer.flush().await
    }

    /// Stops cleanly: a leader signs what it can within a moment, then the replica closes.
    pub async fn close(&self) -> Result<(), AuditError> {
        if self.group().is_leader() {
            match tokio::time::timeout(CLOSE_LIMIT, self.sign_now()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "no last checkpoint: another replica signs"),
                Err(_) => tracing::warn!("no last checkpoint within {CLOSE_LIMIT:?}: another replica signs"),
            }
        }
        Ok(self.group().shutdown().await?)
    }
}
