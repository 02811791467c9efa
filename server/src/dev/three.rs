//! `provost dev --nodes 3`: three voters of the control plane as child processes, everything else in this
//! one, the audit log too: calls go on whatever happens to the voters.
//!
//! The parts are those of production: the first voter is made by what `provost cluster init` does,
//! the others and this process join with tokens, and all talk over mutual TLS. Only the ports are
//! chosen here, once, and kept in `DATA/cluster.json`.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use provost_data_serve::node::Node as DataNode;
use provost_gpu_serve::DeviceChoice;
use provost_types::{Name, PrincipalRef};
use provost_wire::{
    AdminConnection,
    admin::{Failure as AdminFailure, StatusRequest},
    connect_admin,
    tls::{Role, Roles},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    children::{ChildSpec, Supervised},
    probe::probe,
    relay,
};
use crate::{
    cli::context::DevNode,
    failure::Failure,
    roles::{self, Server, removed, run},
};

/// Voters.
pub(super) const VOTERS: u64 = 3;
/// The longest wait for the voters to elect a leader and for all three to vote.
const READY_LIMIT: Duration = Duration::from_secs(60);
const CLUSTER: &str = "dev";
/// Join tokens that come with a new cluster are good for so long.
const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

/// What stays the same from start to start: `DATA/cluster.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    admin_token: String,
    http: SocketAddr,
    admin: SocketAddr,
    metrics: SocketAddr,
    peer: SocketAddr,
    voters: Vec<VoterPlan>,
    /// Whether all joined once. Plans of earlier versions do not say.
    #[serde(default = "has_joined")]
    joined: bool,
}

fn has_joined() -> bool {
    true
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct VoterPlan {
    name: String,
    admin: SocketAddr,
    metrics: SocketAddr,
    peer: SocketAddr,
}

/// Models of this process.
pub struct Models {
    /// Where they are, for a cluster that is made now.
    pub dir: Option<PathBuf>,
    /// What they compute on, whatever configuration and environment say.
    pub device: Option<DeviceChoice>,
}

/// The running cluster.
pub struct Three {
    plan: Plan,
    data_dir: PathBuf,
    voters: Vec<Supervised>,
    server: Server,
    data: Arc<DataNode>,
    stop: CancellationToken,
}

impl Three {
    /// Starts it; the first time it is made. `changed` is called when a voter's process is another.
    pub async fn start(
        data_dir: &Path,
        http: SocketAddr,
        models: Models,
        anonymous: Option<PrincipalRef>,
        changed: impl Fn() + Clone + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        crate::node::keys::make_private_dir(&data_dir.join("keys"))?;
        let plan = match Plan::read(data_dir)? {
            Some(plan) if !plan.is_stillborn(data_dir) => plan,
            unfinished => {
                refuse_single(data_dir)?;
                clear_cut_off(data_dir, unfinished.is_some())?;
                Plan::make(data_dir, http, models.dir.as_deref()).await?
            }
        };
        if http.port() != 0 && http != plan.http {
            let kept = Plan::path(data_dir);
            tracing::warn!(http = %plan.http, kept = %kept.display(), "--http is not used: this cluster has its addresses");
        }
        let stop = CancellationToken::new();
        let mut voters = Vec::new();
        for voter in &plan.voters {
            let dir = data_dir.join(&voter.name);
            let spec = ChildSpec { name: voter.name.clone(), config: dir.join("provost.toml"), dir };
            voters.push(Supervised::start(spec, changed.clone())?);
        }
        let relay = TcpListener::bind(plan.admin).await.map_err(|cause| taken(plan.admin, &cause))?;
        let admins = plan.voters.iter().map(|v| v.admin).collect();
        tokio::spawn(relay::serve(relay, admins, probe(&plan.admin_token), stop.clone()));
        let mut config = run::load(&data_dir.join("dev").join("provost.toml"))?;
        config.gpu.device = models.device.unwrap_or(config.gpu.device);
        let server = Server::start(&config, anonymous).await?;
        let data = server.data().context("PV-DEV-NODES: this process has no data plane")?.node().clone();
        let mut three = Self { plan, data_dir: data_dir.to_owned(), voters, server, data, stop };
        three.wait_for_voters().await?;
        if !three.plan.joined {
            three.plan.joined = true;
            three.plan.write(data_dir)?;
        }
        Ok(three)
    }

    /// All three vote and the audit log takes records: from now on one may be lost.
    async fn wait_for_voters(&self) -> anyhow::Result<()> {
        let began = tokio::time::Instant::now();
        while began.elapsed() < READY_LIMIT {
            if let Ok(mut connection) = self.connect().await
                && let Ok(status) = connection.status(StatusRequest {}).await
                && status.get_ref().voters.len() == self.plan.voters_left(&self.data_dir)
                && self.server.audit().client().group().await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Failure::new(
            "PV-DEV-VOTERS",
            format!("the three voters were not ready after {READY_LIMIT:?}"),
            format!("see {}/node-1/log and its neighbours", self.data_dir.display()),
        )
        .into())
    }

    /// A connection to a voter that answers, as the administrator.
    pub async fn connect(&self) -> Result<AdminConnection, AdminFailure> {
        connect_admin(&self.plan.admin.to_string(), &self.plan.admin_token).await
    }

    /// The stages of calls here.
    pub fn data_node(&self) -> &Arc<DataNode> {
        &self.data
    }

    /// The administrator's token.
    pub fn admin_token(&self) -> &str {
        &self.plan.admin_token
    }

    /// The relay's address.
    pub fn admin(&self) -> SocketAddr {
        self.plan.admin
    }

    /// The process's own roles.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The data folder of the process's own roles.
    pub fn own_dir(&self) -> PathBuf {
        self.data_dir.join("dev")
    }

    /// Where the audit log lies.
    pub fn audit_dir(&self) -> PathBuf {
        self.own_dir().join("audit")
    }

    /// The CA of what agents are served with here. That of the nodes is another one.
    pub fn agent_ca(&self) -> PathBuf {
        agent_ca(&self.data_dir)
    }

    /// Stops agents' calls first, then the voters.
    pub async fn shutdown(self, drain: Duration) -> anyhow::Result<()> {
        let stopped = self.server.shutdown(drain).await;
        self.stop.cancel();
        let mut ends = tokio::task::JoinSet::new();
        self.voters.into_iter().for_each(|voter| drop(ends.spawn(voter.shutdown())));
        ends.join_all().await;
        stopped
    }

    /// The voters as `dev.json` names them, for those who want to kill one.
    pub fn nodes(&self) -> Vec<DevNode> {
        let each = self.plan.voters.iter().zip(&self.voters);
        // Numbers are given in the order of joining, which is not that of the names.
        let id = |name: &str| {
            let text = std::fs::read_to_string(self.data_dir.join(name).join("identity").join("replica"));
            text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or_default()
        };
        each.map(|(plan, running)| DevNode {
            id: id(&plan.name),
            name: plan.name.clone(),
            pid: running.pid(),
            admin: plan.admin.to_string(),
            peer: plan.peer.to_string(),
            data_dir: self.data_dir.join(&plan.name),
        })
        .collect()
    }
}

impl Plan {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("cluster.json")
    }

    fn read(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = Self::path(data_dir);
        match std::fs::read(&path) {
            Ok(bytes) => {
                Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("PV-DEV-PLAN: {}", path.display()))?))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("PV-DEV-IO: {}", path.display())),
        }
    }

    /// How many voters were not removed since the cluster was made.
    fn voters_left(&self, data_dir: &Path) -> usize {
        let stays = |voter: &&VoterPlan| !removed::is_noted(&data_dir.join(&voter.name).join("identity"));
        self.voters.iter().filter(stays).count()
    }

    /// Chooses ports, makes the cluster and the configuration of every node.
    async fn make(data_dir: &Path, http: SocketAddr, models: Option<&Path>) -> anyhow::Result<Self> {
        let mut ports = Ports::after(http)?;
        let voters = (1..=VOTERS)
            .map(|id| {
                let name = format!("node-{id}");
                Ok(VoterPlan { name, peer: ports.next()?, admin: ports.next()?, metrics: ports.next()? })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut plan = Self {
            admin_token: String::new(),
            http: ports.http,
            admin: ports.admin,
            metrics: ports.metrics,
            peer: ports.next()?,
            voters,
            joined: false,
        };
        let keys = data_dir.join("secrets.key");
        let join = |name: &str| data_dir.join(name).join("join-token");
        for (voter, id) in plan.voters.iter().zip(1..) {
            let token = (id > 1).then(|| join(&voter.name));
            write_config(&data_dir.join(&voter.name), &voter_config(&plan, voter, data_dir, &keys, token.as_deref()))?;
        }
        write_config(&data_dir.join("dev"), &own_config(&plan, data_dir, &keys, &join("dev"), models))?;

        let first = run::load(&data_dir.join("node-1").join("provost.toml"))?;
        let mut joining: BTreeMap<Name, Roles> = BTreeMap::new();
        for voter in &plan.voters[1..] {
            joining.insert(Name::new(&voter.name)?, Role::ControlPlane.into());
        }
        joining.insert(Name::new("dev")?, Roles::new([Role::DataPlane, Role::GpuNode, Role::AuditLog])?);
        let made = roles::init::init(&first, &Name::new(CLUSTER)?, joining).await?;
        for (name, token) in &made.join_tokens {
            super::write_private(&join(name.as_str()), token.expose_secret().as_bytes())?;
        }
        plan.admin_token = made.admin_token.expose_secret().to_owned();
        super::write_private(&data_dir.join("ca.pem"), made.ca.as_bytes())?;
        // Last: without it the next start makes a new cluster in place of this one.
        plan.write(data_dir)?;
        Ok(plan)
    }

    fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        super::write_private(&Self::path(data_dir), &serde_json::to_vec_pretty(self)?)
    }

    /// Whether it can never be ready: not all joined, and by now their tokens have ended. Nobody has written to it.
    fn is_stillborn(&self, data_dir: &Path) -> bool {
        let written = std::fs::metadata(Self::path(data_dir)).and_then(|file| file.modified());
        !self.joined && written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= JOIN_TOKEN_LIFE))
    }
}

/// What `--nodes 1` keeps is not taken for something else.
fn refuse_single(data_dir: &Path) -> anyhow::Result<()> {
    if !data_dir.join("control").exists() {
        return Ok(());
    }
    let text = format!("{} holds a cluster of one voter", data_dir.display());
    Err(Failure::new("PV-DEV-NODES", text, "choose another --data-dir, or start with --nodes 1").into())
}

/// Takes away what a start left that ended before the cluster was whole. Without a plan nothing of it has run: a voter
/// has its log from its first start on, and where there is one, it is the plan that was lost.
fn clear_cut_off(data_dir: &Path, is_planned: bool) -> anyhow::Result<()> {
    let voters = (1..=VOTERS).map(|id| data_dir.join(format!("node-{id}")));
    let made: Vec<PathBuf> = voters.chain([data_dir.join("dev")]).filter(|dir| dir.exists()).collect();
    if !is_planned && made.iter().any(|dir| dir.join("log").exists()) {
        return Err(Failure::new(
            "PV-DEV-PLAN",
            format!("{} is gone, and its voters have run", Plan::path(data_dir).display()),
            "put the file back, or choose another --data-dir",
        )
        .into());
    }
    for dir in made {
        std::fs::remove_dir_all(&dir).with_context(|| format!("PV-DEV-IO: {} cannot be removed", dir.display()))?;
    }
    Ok(())
}

/// Where the listeners are. With port 0 each is a free port; else they follow the HTTP port.
struct Ports {
    http: SocketAddr,
    admin: SocketAddr,
    metrics: SocketAddr,
    /// The last that was given; `None`: any.
    last: Option<u16>,
    /// Held until all are chosen, so that none is chosen twice.
    held: Vec<StdListener>,
}

impl Ports {
    fn after(http: SocketAddr) -> anyhow::Result<Self> {
        let last = (http.port() != 0).then_some(http.port());
        let mut ports = Self { http, admin: http, metrics: http, last, held: Vec::new() };
        if last.is_none() {
            ports.http = ports.next()?;
        }
        (ports.admin, ports.metrics) = (ports.next()?, ports.next()?);
        ports.http.set_ip(http.ip());
        Ok(ports)
    }

    fn next(&mut self) -> anyhow::Result<SocketAddr> {
        let port = match self.last {
            None => 0,
            Some(last) => last.checked_add(1).context("PV-DEV-PORT: the HTTP port leaves no room for the others")?,
        };
        let listener =
            StdListener::bind(("127.0.0.1", port)).map_err(|cause| taken(([127, 0, 0, 1], port).into(), &cause))?;
        let address = listener.local_addr()?;
        self.last = self.last.map(|_| address.port());
        self.held.push(listener);
        Ok(address)
    }
}

fn taken(address: SocketAddr, cause: &std::io::Error) -> anyhow::Error {
    let text = format!("cannot listen on {address}: {cause}");
    Failure::new("PV-NODE-LISTEN", text, "is another server running there? choose another port with --http").into()
}

fn write_config(dir: &Path, text: &str) -> anyhow::Result<()> {
    crate::node::keys::make_private_dir(dir)?;
    super::write_private(&dir.join("provost.toml"), text.as_bytes())
}

fn agent_ca(data_dir: &Path) -> PathBuf {
    data_dir.join("dev").join("ca.pem")
}

fn quoted(path: &Path) -> toml::Value {
    toml::Value::String(path.display().to_string())
}

/// Clocks for one machine: an election is over before people notice.
const TIMINGS: &str =
    "[timings]\nheartbeat_ms = 100\nelection_min_ms = 300\nelection_max_ms = 650\npromote_after_ms = 200\n";

fn voter_config(plan: &Plan, voter: &VoterPlan, data_dir: &Path, keys: &Path, token: Option<&Path>) -> String {
    let dir = quoted(&data_dir.join(&voter.name));
    let others: Vec<String> =
        plan.voters.iter().filter(|v| v.name != voter.name).map(|v| format!("\"{}\"", v.peer)).collect();
    let join = token.map(|t| format!("[join]\ntoken_file = {}\n", quoted(t))).unwrap_or_default();
    format!(
        "node = \"{}\"\nroles = [\"control-plane\"]\ndata_dir = {dir}\ncontrol_plane = [{}]\n\n[listen]\npeer = \
         \"{}\"\nadmin = \"{}\"\nmetrics = \"{}\"\n\n[keys]\npath = {}\n\n{join}\n{TIMINGS}",
        voter.name,
        others.join(", "),
        voter.peer,
        voter.admin,
        voter.metrics,
        quoted(keys),
    )
}

fn own_config(plan: &Plan, data_dir: &Path, keys: &Path, token: &Path, models: Option<&Path>) -> String {
    let voters: Vec<String> = plan.voters.iter().map(|v| format!("\"{}\"", v.peer)).collect();
    let models = models.map(|m| format!("models = {}\n", quoted(m))).unwrap_or_default();
    format!(
        "node = \"dev\"\nroles = [\"audit-log\", \"data-plane\", \"gpu-node\"]\ndata_dir = {}\n{models}control_plane = \
         [{}]\n\n[listen]\nhttp = \"{}\"\npeer = \"{}\"\nmetrics = \"{}\"\n\n[keys]\npath = {}\n\n[join]\ntoken_file = \
         {}\n\n[data_plane.tls]\nlocal_ca = {}\n",
        quoted(&data_dir.join("dev")),
        voters.join(", "),
        plan.http,
        plan.peer,
        plan.metrics,
        quoted(keys),
        quoted(token),
        quoted(&agent_ca(data_dir)),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let any = SocketAddr::from(([127, 0, 0, 1], 1));
        let voter = |id| VoterPlan { name: format!("node-{id}"), admin: any, metrics: any, peer: any };
        let voters = (1..=VOTERS).map(voter).collect();
        let admin_token = String::new();
        Plan { admin_token, http: any, admin: any, metrics: any, peer: any, voters, joined: false }
    }

    #[test]
    fn a_start_that_was_cut_off_is_made_anew_and_a_lost_plan_removes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        clear_cut_off(dir.path(), false).unwrap();
        let made = ["node-1/identity", "node-2", "dev"].map(|name| dir.path().join(name));
        let make = || made.iter().for_each(|made| std::fs::create_dir_all(made).unwrap());
        let kept = dir.path().join("secrets.key");
        let left = || -> Vec<PathBuf> {
            let entries = std::fs::read_dir(dir.path()).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        make();
        std::fs::write(&kept, "k").unwrap();
        clear_cut_off(dir.path(), false).unwrap();
        assert_eq!(left(), std::slice::from_ref(&kept));

        make();
        std::fs::write(dir.path().join("node-1").join("log"), "").unwrap();
        let refused = clear_cut_off(dir.path(), false).unwrap_err().to_string();
        assert!(refused.starts_with("PV-DEV-PLAN"), "{refused}");
        assert!(made.iter().all(|made| made.exists()));
        clear_cut_off(dir.path(), true).unwrap();
        assert_eq!(left(), std::slice::from_ref(&kept));
    }

    #[test]
    fn a_cluster_whose_nodes_never_joined_is_stillborn_once_their_tokens_have_ended() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan();
        plan.write(dir.path()).unwrap();
        assert!(!Plan::read(dir.path()).unwrap().unwrap().is_stillborn(dir.path()), "they may still join");
        let file = std::fs::File::options().write(true).open(Plan::path(dir.path())).unwrap();
        file.set_modified(std::time::SystemTime::now() - JOIN_TOKEN_LIFE).unwrap();
        assert!(plan.is_stillborn(dir.path()));
        assert!(!Plan { joined: true, ..plan.clone() }.is_stillborn(dir.path()));
        // Earlier versions wrote no such word.
        let mut earlier = serde_json::to_value(&plan).unwrap();
        earlier.as_object_mut().unwrap().remove("joined");
        assert!(serde_json::from_value::<Plan>(earlier).unwrap().joined);
    }

    #[test]
    fn a_voter_that_was_removed_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan();
        assert_eq!(plan.voters_left(dir.path()), 3);
        let identity = dir.path().join("node-2").join("identity");
        std::fs::create_dir_all(&identity).unwrap();
        assert_eq!(plan.voters_left(dir.path()), 3);
        std::fs::write(identity.join("removed"), "").unwrap();
        assert_eq!(plan.voters_left(dir.path()), 2);
    }
}
