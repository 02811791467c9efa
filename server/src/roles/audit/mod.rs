//! The audit log as one process sees it: a writer always, a replica where the role says so.
//!
//! Purpose: the writer is there before anything else, because a control-plane node needs it to
//! open; it finds the replicas once it is known who keeps the log. The replica of a node that has
//! run before is opened at the start, and what speaks against it ends the start; that of a new node
//! is opened in the background, because it needs others.
//! Invariants: a replica that lost its log does not come back under its number; the group is
//! begun once, by the audit node of the lowest number; the signing key comes from another replica
//! and is made only by that first one.

mod callers;
mod endpoints;
mod fatal;
mod keys;
mod relay;
mod replica;
pub mod roster;
pub(super) mod standing;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use provost_audit_store::{
    AuditClient, AuditNode, AuditService, AuditWriter, AuditWriterConfig, MAX_KEYS_BYTES, PeerService, Retention,
};
use provost_control_api::Departures;
use provost_types::{AuditSink, BoxFuture, SubjectKeys};
use provost_wire::{
    audit::audit_roster_server::AuditRosterServer,
    node::{audit_keys_server::AuditKeysServer, audit_relay_server::AuditRelayServer},
    tls::{self, Identity},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use super::{control::ControlRole, until};
use crate::{
    audit_admin::{self, AuditAccess},
    config::{Role, ServerConfig},
    node::held,
    simulate::MAX_STATES_BYTES,
};
pub use callers::Callers;
use callers::authorise;
use endpoints::{Followers, follow_endpoints};
pub use fatal::Fatal;
use keys::{AuditKeysService, GroupKeys};
use relay::{RelayService, Relays};
use replica::Outside;
use roster::{Roster, RosterService, Rosters};
use standing::{Asking, Standing};

/// A caller waits this long for its record to become durable.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a question that is handed on: both states of a comparison, and what is around them.
const MAX_QUESTION_BYTES: usize = MAX_STATES_BYTES + (1 << 20);
/// At the end, records that are on their way get so long.
const CLOSE_LIMIT: Duration = Duration::from_millis(1_500);

/// An erasure whose record is not in the log after so long was left by a process that ended.
const ERASURE_AGE: Duration = Duration::from_secs(15);
/// Between two looks for such erasures.
const ERASURES_EVERY: Duration = Duration::from_secs(5);

/// The audit log's part of a process.
pub struct AuditRole {
    client: AuditClient,
    writer: AuditWriter,
    /// The replica, once it is open.
    node: Arc<OnceLock<AuditNode>>,
    /// Where keys of bodies come from.
    keys: Arc<GroupKeys>,
    /// Audit nodes that administrators' questions are handed to.
    relays: Relays,
    rosters: (watch::Sender<Roster>, Rosters),
    /// Why the process must end.
    fatal: Fatal,
}

impl AuditRole {
    /// The writer, which knows no replica yet.
    pub fn start(config: &ServerConfig, identity: &Identity) -> Self {
        let client = AuditClient::default();
        let cluster = identity.name().cluster().to_string();
        let writer = AuditWriterConfig { cluster, writer: config.node.clone(), deadline: DEADLINE };
        let writer = AuditWriter::start(writer, Arc::new(client.clone()));
        let node: Arc<OnceLock<AuditNode>> = Arc::default();
        Self {
            keys: GroupKeys::new(node.clone(), client.clone()),
            client,
            writer,
            relays: Relays::default(),
            node,
            rosters: watch::channel(Roster::default()),
            fatal: Fatal::default(),
        }
    }

    /// Where this process records.
    pub fn sink(&self) -> Arc<dyn AuditSink> {
        Arc::new(self.writer.clone())
    }

    /// Where keys of bodies come from.
    pub fn keys(&self) -> Arc<dyn SubjectKeys> {
        self.keys.clone()
    }

    /// What administrators ask of the log, for the admin listener.
    pub fn admin_routes(&self) -> Routes {
        audit_admin::routes(self.access())
    }

    /// The log as the admin API reaches it.
    pub fn access(&self) -> AuditAccess {
        let (sink, node, judges) = (self.sink(), self.node.clone(), Arc::default());
        AuditAccess { sink, node, elsewhere: Arc::new(self.relays.clone()), judges }
    }

    /// The group as this process reaches it.
    pub fn client(&self) -> &AuditClient {
        &self.client
    }

    /// Takes replicas out of the group when their nodes are removed.
    pub fn departures(&self) -> Arc<dyn Departures> {
        Arc::new(Leaving(self.client.clone()))
    }

    /// What ends the process.
    pub fn fatal(&self) -> Fatal {
        self.fatal.clone()
    }

    /// The replica here, once it is open, for a scrape.
    pub fn replica(&self) -> impl Fn() -> Option<AuditNode> + Send + Sync + 'static {
        let node = self.node.clone();
        move || node.get().cloned()
    }

    /// Keeps and prunes records through the replica here, once it is open.
    pub fn retention(&self) -> impl Fn() -> Option<Retention> + Clone + Send + Sync + 'static {
        let (node, sink) = (self.node.clone(), self.sink());
        move || node.get().map(|node| node.retention(sink.clone()))
    }

    /// Finds the replicas from now on, and opens the one here.
    pub async fn open(
        &self,
        config: &ServerConfig,
        identity: &Arc<Identity>,
        control: Option<&ControlRole>,
        peers: &PeerService,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> anyhow::Result<()> {
        let (rosters, known) = (self.rosters.0.clone(), self.rosters.1.clone());
        match control {
            Some(control) => {
                until(roster::follow_here(control.node.clone(), tls::Role::AuditLog, rosters), tasks, stop)
            }
            None => {
                let noted = config.data_dir.join("audit-nodes.json");
                let (identity, nodes) = (identity.clone(), config.control_plane.clone());
                until(roster::follow_elsewhere(identity, nodes, noted, tls::Role::AuditLog, rosters), tasks, stop);
            }
        }
        let endpoints = follow_endpoints(self.followers(), self.node.clone(), identity.clone(), known.clone());
        until(endpoints, tasks, stop);
        if !config.has(Role::AuditLog) {
            return Ok(());
        }
        until(finish_erasures(self.node.clone(), self.writer.clone()), tasks, stop);
        let holder: Arc<dyn held::Holder> = match control {
            Some(control) => Arc::new(held::Local(control.node.clone())),
            None => Arc::new(held::Remote::new(identity, &config.control_plane)),
        };
        let outside = Outside { sink: self.sink(), holder, witnesses: config.audit.witness_addresses() };
        let opening = replica::Opening::new(config, identity, known)?;
        let (slot, peers, fatal) = (self.node.clone(), peers.clone(), self.fatal.clone());
        if opening.has_run() {
            let node = opening.open().await?;
            until(replica::run(opening, node, slot, peers, fatal, outside), tasks, stop);
        } else {
            let first = async move {
                match opening.open().await {
                    Ok(node) => replica::run(opening, node, slot, peers, fatal, outside).await,
                    Err(cause) => fatal.raise(&cause),
                }
            };
            until(first, tasks, stop);
        }
        Ok(())
    }

    /// The services for other nodes.
    pub fn routes(
        &self,
        config: &ServerConfig,
        identity: &Arc<Identity>,
        control: Option<&ControlRole>,
        mut routes: Routes,
    ) -> Routes {
        if let Some(control) = control {
            routes = routes.add_service(AuditRosterServer::new(RosterService(control.node.clone())));
        }
        if config.has(Role::AuditLog) {
            let callers = callers(config, identity, control);
            let keys = AuditKeysService { node: self.node.clone(), callers: callers.clone() };
            let relay = RelayService { access: self.access(), callers: callers.clone() };
            routes = routes
                .add_service(AuditService::server(self.node.clone(), Arc::new(callers)))
                .add_service(AuditKeysServer::new(keys).max_encoding_message_size(MAX_KEYS_BYTES))
                .add_service(AuditRelayServer::new(relay).max_decoding_message_size(MAX_QUESTION_BYTES));
        }
        routes
    }

    fn followers(&self) -> Followers {
        Followers { client: self.client.clone(), keys: self.keys.clone(), relays: self.relays.clone() }
    }

    /// Raft's messages of audit nodes, for a process without a control plane.
    pub fn own_peers(&self) -> PeerService {
        PeerService::new(authorise(self.rosters.1.clone()))
    }

    /// Records the end of this process, while the replicas still answer.
    pub async fn stop_writing(&self) {
        if let Some(node) = self.node.get().filter(|node| node.is_leader()) {
            // The next leader, or the next start, notes what is not noted now.
            match tokio::time::timeout(CLOSE_LIMIT, node.note_now()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the tenants' last checkpoints are not noted"),
                Err(_) => tracing::debug!("the tenants' last checkpoints are not noted within {CLOSE_LIMIT:?}"),
            }
        }
        if let Err(error) = self.writer.close(CLOSE_LIMIT).await {
            tracing::warn!(%error, "the end of this process is not in the audit log");
        }
    }

    /// Closes the replica here.
    pub async fn close(&self) -> anyhow::Result<()> {
        match self.node.get() {
            Some(node) => Ok(node.close().await?),
            None => Ok(()),
        }
    }
}

/// Says who is a member.
pub fn callers(config: &ServerConfig, identity: &Arc<Identity>, control: Option<&ControlRole>) -> Callers {
    Callers(Arc::new(match control {
        Some(control) => Standing::Here(Arc::new(control.node.clone())),
        None => Standing::Ask(Asking::new(identity, &config.control_plane)),
    }))
}

struct Leaving(AuditClient);

impl Departures for Leaving {
    fn leave(&self, node_id: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.0.leave(node_id))
    }
}

/// Writes what the record of an erasure lacks, while the replica here leads.
async fn finish_erasures(node: Arc<OnceLock<AuditNode>>, writer: AuditWriter) {
    loop {
        tokio::time::sleep(ERASURES_EVERY).await;
        let Some(node) = node.get().filter(|node| node.group().is_leader()) else { continue };
        if let Err(error) = node.finish_erasures(&writer, ERASURE_AGE).await {
            tracing::warn!(%error, "an erasure is not in the audit log yet");
        }
    }
}
