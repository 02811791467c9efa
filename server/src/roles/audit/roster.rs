//! Which nodes keep the audit log, which serve calls and which run models.
//!
//! A control-plane node knows it from its own state; another node asks one, and notes the last
//! answer on its disk: it finds them again while no control plane answers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use provost_control_api::{
    ControlNode,
    identity::{Registry, standing},
};
use provost_control_state::Cluster;
use provost_wire::{
    audit::{
        RosterMember, RosterRequest, RosterResponse, audit_roster_client::AuditRosterClient,
        audit_roster_server::AuditRoster,
    },
    tls::{self, Expect, Identity, Role},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tonic::{Request, Response, Status, transport::Channel};

/// The most replicas; further audit nodes wait until one of them goes.
const MAX_REPLICAS: usize = 5;
/// The most data-plane nodes that know each other, and GPU nodes that they know.
const MAX_SIBLINGS: usize = 256;
/// Between two questions to the control plane.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The same while nothing is known.
const ASK_SOON: Duration = Duration::from_millis(300);
/// One control-plane node gets so long to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// A node with the role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    /// Its name.
    pub name: String,
    /// The last part of its certificate's name.
    pub certified_id: String,
    /// Where others reach it.
    pub address: String,
}

/// The nodes with a role, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Those of the lowest numbers, as many as may be.
    pub keepers: BTreeMap<u64, Keeper>,
    /// The last number that was given to a node; a greater one is news.
    pub last_node_id: u64,
}

pub type Rosters = watch::Receiver<Roster>;

impl Roster {
    /// The members with the role that others can reach.
    pub fn of(cluster: &Cluster, role: Role) -> Self {
        let most = if role == Role::AuditLog { MAX_REPLICAS } else { MAX_SIBLINGS };
        let by_operator = cluster.name().is_some() && cluster.signing().is_none();
        let with_role = cluster.members().iter().filter(|(_, m)| m.has(role.as_str()));
        let reached = with_role.filter(|(_, m)| !m.address.is_empty()).take(most);
        let keeper = |(&id, m): (&u64, &provost_control_state::Member)| {
            let has_number = m.has(Role::ControlPlane.as_str()) && !by_operator;
            let certified_id = if has_number { id.to_string() } else { m.name.to_string() };
            (id, Keeper { name: m.name.to_string(), certified_id, address: m.address.clone() })
        };
        Self { keepers: reached.map(keeper).collect(), last_node_id: cluster.last_node_id() }
    }

    /// Number and address of each, as the group wants them.
    pub fn addresses(&self) -> BTreeMap<u64, String> {
        self.keepers.iter().map(|(id, keeper)| (*id, keeper.address.clone())).collect()
    }

    /// Reaches a keeper, and nobody else.
    pub fn channel(identity: &Arc<Identity>, keeper: &Keeper, role: Role) -> Option<Channel> {
        let expect = Expect::role(role).id(&keeper.certified_id);
        tls::channel(identity.clone(), &keeper.address, expect).ok()
    }

    fn to_wire(&self, role: Role) -> RosterResponse {
        let member = |(id, keeper): (&u64, &Keeper)| RosterMember {
            node_id: *id,
            name: keeper.name.clone(),
            certified_id: keeper.certified_id.clone(),
            address: keeper.address.clone(),
        };
        RosterResponse {
            members: self.keepers.iter().map(member).collect(),
            last_node_id: self.last_node_id,
            role: role.to_string(),
        }
    }

    fn from_wire(answer: RosterResponse) -> Self {
        let keeper = |member: RosterMember| {
            let RosterMember { node_id, name, certified_id, address } = member;
            (node_id, Keeper { name, certified_id, address })
        };
        Self { keepers: answer.members.into_iter().map(keeper).collect(), last_node_id: answer.last_node_id }
    }

    fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

/// Follows this process's own control-plane state.
pub async fn follow_here(node: ControlNode, role: Role, rosters: watch::Sender<Roster>) {
    let mut changes = node.snapshots();
    let mut cluster = Registry::cluster(&node);
    loop {
        let roster = Roster::of(&cluster, role);
        rosters.send_if_modified(|known| {
            let differs = *known != roster;
            *known = roster;
            differs
        });
        let mut next = cluster.clone();
        // Most changes are none of the cluster.
        while Arc::ptr_eq(&next, &cluster) {
            if changes.changed().await.is_err() {
                return;
            }
            next = Registry::cluster(&node);
        }
        cluster = next;
    }
}

/// Asks control-plane nodes, one after the other; begins with what was noted at `path`.
pub async fn follow_elsewhere(
    identity: Arc<Identity>,
    addresses: Vec<String>,
    path: PathBuf,
    role: Role,
    rosters: watch::Sender<Roster>,
) {
    if let Some(noted) = Roster::load(&path) {
        rosters.send_replace(noted);
    }
    let channel = |address: &String| tls::channel(identity.clone(), address, Expect::role(Role::ControlPlane)).ok();
    let nodes: Vec<Channel> = addresses.iter().filter_map(channel).collect();
    let mut at = 0_usize;
    while let Some(node) = nodes.get(at % nodes.len().max(1)) {
        let mut client = AuditRosterClient::new(node.clone());
        match tokio::time::timeout(ANSWER_LIMIT, client.members(RosterRequest { role: role.to_string() })).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                if answer.role != role.as_str() && role != Role::AuditLog {
                    // One of the release before: it knows of the audit log only.
                    at = at.wrapping_add(1);
                    tokio::time::sleep(ASK_EVERY).await;
                    continue;
                }
                let roster = Roster::from_wire(answer);
                // One that is behind may have been asked: numbers only grow.
                if roster.last_node_id >= rosters.borrow().last_node_id && *rosters.borrow() != roster {
                    note(&path, &roster);
                    rosters.send_replace(roster);
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, %role, "the nodes are not known from this control-plane node");
                at = at.wrapping_add(1);
            }
            Err(_) => at = at.wrapping_add(1),
        }
        let known = !rosters.borrow().keepers.is_empty();
        tokio::time::sleep(if known { ASK_EVERY } else { ASK_SOON }).await;
    }
}

/// A roster that is lost is asked for again.
fn note(path: &Path, roster: &Roster) {
    let write = || {
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(roster)?)?;
        std::fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        tracing::warn!(%error, path = %path.display(), "the nodes are not noted");
    }
}

/// Tells other nodes who keeps the audit log, who serves calls and who runs models; on control-plane nodes.
pub struct RosterService(pub ControlNode);

#[tonic::async_trait]
impl AuditRoster for RosterService {
    async fn members(&self, request: Request<RosterRequest>) -> Result<Response<RosterResponse>, Status> {
        let cluster = Registry::cluster(&self.0);
        let caller = tls::certified_of(&request)
            .ok_or_else(|| Status::unauthenticated("PV-TLS-NO-CERTIFICATE: only nodes of the cluster may ask"))?;
        standing(&cluster, caller).map_err(|e| Status::permission_denied(format!("{}: {e}", e.code())))?;
        let role = match request.get_ref().role.as_str() {
            "" | "audit-log" => Role::AuditLog,
            "data-plane" => Role::DataPlane,
            "gpu-node" => Role::GpuNode,
            other => return Err(Status::invalid_argument(format!("PV-ADMIN-REQUEST: no roster of `{other}`"))),
        };
        Ok(Response::new(Roster::of(&cluster, role).to_wire(role)))
    }
}
