//! Opens this node's replica of the audit group, and keeps the group as the roster has it.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use provost_audit_store::{
    AuditError, AuditNode, AuditNodeConfig, AuditPeers, CheckpointKey, Dial, GrpcTransport, Peer, PeerService,
    Promotion, RaftRetention, SubjectPaths, Timings, adopt_keys, begin_keys, fetch_key, fetch_keys,
};
use provost_types::AuditSink;
use provost_wire::tls::{self, Expect, Identity, Role};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    Fatal,
    roster::{Roster, Rosters},
};
use crate::{
    config::ServerConfig,
    node::held,
    roles::{control::mark, identity},
    witness::ask,
};

/// Between two tries to get the key, and between two looks at the group's members.
const PAUSE: Duration = Duration::from_millis(300);
/// A replica says after so long that it waits.
const SAY_EVERY: Duration = Duration::from_secs(15);
/// Between two looks at whether a leader is known.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How often a checkpoint is signed while records come in.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// What a replica is opened with.
pub struct Opening {
    config: AuditNodeConfig,
    identity: Arc<Identity>,
    rosters: Rosters,
    /// Notes that this node has had a log.
    marker: PathBuf,
}

impl Opening {
    pub fn new(config: &ServerConfig, identity: &Arc<Identity>, rosters: Rosters) -> anyhow::Result<Self> {
        let node_id = identity::number(config, identity)?;
        let marker = config.data_dir.join("identity").join("audit-replica");
        let (dialling, known) = (identity.clone(), rosters.clone());
        let dialled: Dial = Arc::new(move |peer: &Peer| dial(&dialling, peer, &known.borrow()));
        let timings = Timings {
            heartbeat_ms: config.heartbeat_ms,
            election_min_ms: config.election_min_ms,
            election_max_ms: config.election_max_ms,
            quorum_loss_probe_ms: (config.election_max_ms * 2).max(1_000),
            ..Timings::default()
        };
        let (calling, known) = (identity.clone(), rosters.clone());
        let peers = AuditPeers {
            retention: retention(),
            replicas: Arc::new(move || others(&calling, &known.borrow(), node_id)),
            address: config.advertise.clone(),
            transport: Arc::new(GrpcTransport::new(node_id, dialled)),
            timings,
            promotion: Promotion { stable_ms: config.promote_after_ms, ..Promotion::default() },
            expect_existing: marker.exists(),
        };
        let config = AuditNodeConfig {
            audit_dir: config.data_dir.join("audit"),
            raft_dir: config.data_dir.join("audit-raft"),
            key_file: config.data_dir.join("keys").join("audit-checkpoint.key"),
            subject_keys: SubjectPaths::below(&config.data_dir),
            begins_keys: false,
            node_id,
            cluster: identity.name().cluster().to_string(),
            checkpoint_interval: CHECKPOINT_EVERY,
            peers: Some(peers),
        };
        Ok(Self { config, identity: identity.clone(), rosters, marker })
    }

    /// Whether this node has had a log before.
    pub fn has_run(&self) -> bool {
        self.marker.exists()
    }

    /// Opens it; a new one waits until it knows the others and has the key.
    pub async fn open(&self) -> anyhow::Result<AuditNode> {
        let key = if self.config.key_file.exists() {
            CheckpointKey::open(&self.config.key_file)?
        } else {
            self.obtain_key().await?
        };
        let node = AuditNode::open(self.config.clone(), key).await?;
        mark(&self.marker, self.config.node_id).context("PV-SERVER-DATA: the audit log's note")?;
        Ok(node)
    }

    /// The audit node of the lowest number begins the group. Numbers grow, and one who sees itself in
    /// the list sees everybody of a lower number: there is never a second one.
    fn is_first(&self, roster: &Roster) -> bool {
        roster.keepers.keys().next() == Some(&self.config.node_id)
    }

    async fn obtain_key(&self) -> anyhow::Result<CheckpointKey> {
        let mut rosters = self.rosters.clone();
        let mut said = tokio::time::Instant::now();
        loop {
            let roster = rosters.borrow_and_update().clone();
            if self.is_first(&roster) {
                if self.has_run() {
                    anyhow::bail!(
                        "PV-AUDIT-KEY: {} is gone; restore it: a new key makes a new identity that no auditor knows",
                        self.config.key_file.display()
                    );
                }
                begin_keys(self.config.subject_keys.clone())?;
                return Ok(CheckpointKey::open(&self.config.key_file)?);
            }
            let listed = roster.keepers.contains_key(&self.config.node_id);
            for keeper in roster.keepers.iter().filter(|(id, _)| listed && **id != self.config.node_id) {
                let Some(channel) = Roster::channel(&self.identity, keeper.1, tls::Role::AuditLog) else { continue };
                if let Err(status) = self.obtain_subject_keys(channel.clone()).await? {
                    tracing::debug!(from = keeper.1.name, error = status.message(), "no keys of bodies yet");
                    continue;
                }
                match fetch_key(channel).await {
                    Ok(key) => return Ok(CheckpointKey::install(&self.config.key_file, &key)?),
                    Err(status) => tracing::debug!(from = keeper.1.name, error = status.message(), "no key yet"),
                }
            }
            if said.elapsed() >= SAY_EVERY {
                said = tokio::time::Instant::now();
                let known = roster.keepers.len();
                tracing::info!(known, listed, "waits for another audit node to give the checkpoint key");
            }
            let _ = tokio::time::timeout(PAUSE, rosters.changed()).await;
        }
    }
}

impl Opening {
    /// Before the checkpoint key, whose file says that everything is here. Keys that an earlier try
    /// left are as good: entries that they do not know are still to come.
    async fn obtain_subject_keys(&self, from: Channel) -> anyhow::Result<Result<(), Status>> {
        let paths = self.config.subject_keys.clone();
        if paths.keys.exists() {
            return Ok(Ok(()));
        }
        match fetch_keys(from).await {
            Ok(keys) => Ok(Ok(adopt_keys(paths, &keys)?)),
            Err(status) => Ok(Err(status)),
        }
    }
}

/// Bytes of the entries of the audit group's log: minutes of records, for replicas that were away for a moment.
const MAX_AUDIT_LOG_BYTES: u64 = 1 << 30;

/// Entries are batches of records: a new replica of a long log takes a snapshot and the records. Builds
/// with debug assertions, and no others, keep fewer by `PROVOST_TEST_AUDIT_KEEP`, so that tests need
/// no long log.
fn retention() -> RaftRetention {
    #[cfg(debug_assertions)]
    if let Some(keep) = std::env::var("PROVOST_TEST_AUDIT_KEEP").ok().and_then(|text| text.parse().ok()) {
        return RaftRetention { snapshot_every_entries: keep, keep_entries: keep, max_bytes: MAX_AUDIT_LOG_BYTES };
    }
    RaftRetention { snapshot_every_entries: 20_000, keep_entries: 50_000, max_bytes: MAX_AUDIT_LOG_BYTES }
}

/// The services of the other replicas.
fn others(identity: &Arc<Identity>, roster: &Roster, own: u64) -> Vec<(String, Channel)> {
    let others = roster.keepers.iter().filter(|(id, _)| **id != own);
    others
        .filter_map(|(_, keeper)| Some((keeper.name.clone(), Roster::channel(identity, keeper, tls::Role::AuditLog)?)))
        .collect()
}

/// What vouches for the log from outside of the group, and the way in for what it records of itself.
pub struct Outside {
    pub sink: Arc<dyn AuditSink>,
    pub holder: Arc<dyn held::Holder>,
    pub witnesses: Vec<ask::WitnessAddress>,
}

/// Takes part in the group until the process ends.
pub async fn run(
    opening: Opening,
    node: AuditNode,
    slot: Arc<OnceLock<AuditNode>>,
    peers: PeerService,
    fatal: Fatal,
    outside: Outside,
) {
    peers.add(node.group());
    let _ = slot.set(node.clone());
    tokio::join!(vouch(&node, &fatal, outside), follow_members(&opening, &node));
}

/// Checks the files, then signs, and compares with and asks those outside, while this node leads. An
/// older copy of the log ends the process before it has signed anything.
async fn vouch(node: &AuditNode, fatal: &Fatal, outside: Outside) {
    loop {
        match node.check(READY_LIMIT).await {
            Ok(()) => break tracing::info!("the audit log's replica is up to date"),
            Err(AuditError::Group(error)) => tracing::warn!(%error, "the audit log has no leader yet"),
            Err(error) => return fatal.raise(&error.into()),
        }
    }
    match held::at_start(node, &*outside.holder).await {
        Ok(()) => {}
        Err(error @ (AuditError::RolledBack { .. } | AuditError::Differs { .. })) => return fatal.raise(&error.into()),
        Err(error) => tracing::warn!(%error, "the audit log is compared with the control plane's copy later"),
    }
    node.note_tenants(outside.sink);
    node.start_signing();
    tokio::join!(held::run(node.clone(), outside.holder), ask::run(node.clone(), outside.witnesses));
}

async fn follow_members(opening: &Opening, node: &AuditNode) {
    let mut rosters = opening.rosters.clone();
    loop {
        let roster = rosters.borrow_and_update().clone();
        if opening.is_first(&roster)
            && let Err(error) = node.initialize().await
        {
            tracing::warn!(%error, "the audit group is not begun yet");
        }
        // Whoever is not in the list itself does not decide about others.
        let is_so = match roster.keepers.contains_key(&opening.config.node_id) {
            true => node.follow(&roster.addresses()).await,
            false => Ok(true),
        };
        if let Err(error) = is_so {
            tracing::warn!(code = error.code(), %error, "the audit group does not follow the member list yet");
        }
        let _ = tokio::time::timeout(PAUSE, rosters.changed()).await;
    }
}

/// A channel to a peer's replica. An address that is none leads nowhere, and Raft tries again. A peer
/// that is not known yet is any audit node: messages carry the number of the one that they are for.
fn dial(identity: &Arc<Identity>, peer: &Peer, roster: &Roster) -> Channel {
    let any = Expect::role(Role::AuditLog);
    let expect = match roster.keepers.get(&peer.id) {
        Some(keeper) => any.id(&keeper.certified_id),
        None => any,
    };
    tls::channel(identity.clone(), &peer.address, expect).unwrap_or_else(|cause| {
        tracing::warn!(node = peer.id, address = %peer.address, %cause, "the peer's address cannot be used");
        Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
    })
}
