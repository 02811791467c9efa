//! `provost server` processes, each with a configuration, a folder and ports of its own.

use std::{
    fs::{File, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use provost_wire::{AdminConnection, admin as wire, connect_admin};
use serde_json::Value;

use crate::{
    harness::{binary, text},
    ports::free_ports,
};

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// The nodes of one cluster, in one folder; nothing runs yet.
pub struct Site {
    dir: tempfile::TempDir,
    /// The administrator's token, once the cluster is made.
    pub admin_token: String,
    /// Join tokens by node.
    tokens: Value,
}

/// One node's configuration.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub dir: PathBuf,
    pub config: PathBuf,
    pub admin: SocketAddr,
    pub peer: SocketAddr,
    /// Environment variables of its processes.
    pub env: Vec<(&'static str, String)>,
}

/// A running node; ends with the value.
pub struct Server {
    pub plan: Plan,
    child: Child,
}

impl Site {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), admin_token: String::new(), tokens: Value::Null }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the configuration of a node that finds the control plane at `control_plane`. `more` are
    /// lines of TOML before the first table.
    pub fn plan(&self, name: &str, roles: &[&str], control_plane: &[SocketAddr], tls: Option<&Path>) -> Plan {
        let dir = self.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let [http, admin, metrics, peer] = free_ports();
        let nodes: Vec<String> = control_plane.iter().map(SocketAddr::to_string).collect();
        let tls = tls.map(|dir| format!("[tls]\ndir = {dir:?}\n")).unwrap_or_default();
        let join = if control_plane.is_empty() {
            String::new()
        } else {
            format!("[join]\ntoken_file = {:?}\n", dir.join("token"))
        };
        let text = format!(
            "node = \"{name}\"\nroles = {roles:?}\ndata_dir = {:?}\ncontrol_plane = {nodes:?}\n\
             [listen]\nhttp = \"{http}\"\nadmin = \"{admin}\"\nmetrics = \"{metrics}\"\npeer = \"{peer}\"\n\
             [keys]\npath = {:?}\n{join}{tls}\
             [timings]\nheartbeat_ms = 100\nelection_min_ms = 500\nelection_max_ms = 1000\npromote_after_ms = 200\n",
            dir.join("data"),
            self.path().join("secrets.key"),
        );
        let config = dir.join("provost.toml");
        std::fs::write(&config, text).unwrap();
        Plan { name: name.to_owned(), dir, config, admin, peer, env: Vec::new() }
    }

    /// `provost cluster init` on the first node; `join` as the command takes it.
    pub fn init(&mut self, first: &Plan, cluster: &str, join: &[&str], flags: &[&str]) -> Output {
        let mut command = Command::new(binary("provost"));
        command.args(["cluster", "init", "--json", "--cluster", cluster, "--config"]).arg(&first.config);
        command.envs(first.env.iter().cloned());
        command.args(flags).args(join.iter().flat_map(|j| ["--join", j]));
        std::fs::create_dir_all(first.dir.join("data")).unwrap();
        let output = command.stdin(Stdio::null()).output().unwrap();
        if let Ok(made) = serde_json::from_slice::<Value>(&output.stdout) {
            self.admin_token = made["admin_token"].as_str().unwrap().to_owned();
            self.tokens = made["join_tokens"].clone();
        }
        output
    }

    /// Puts a join token where a node looks for it.
    pub fn give_token(&self, plan: &Plan, of: &str) {
        let path = plan.dir.join("token");
        std::fs::write(&path, self.tokens[of].as_str().expect("no such join token")).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    /// The admin API of a node, once it answers.
    pub async fn admin(&self, plan: &Plan) -> AdminConnection {
        let began = Instant::now();
        loop {
            if let Ok(mut admin) = connect_admin(&plan.admin.to_string(), &self.admin_token).await
                && admin.status(wire::StatusRequest {}).await.is_ok_and(|s| s.get_ref().leader_id > 0)
            {
                return admin;
            }
            assert!(began.elapsed() < LIMIT, "{} does not answer: {}", plan.name, plan.log());
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Plan {
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary("provost"));
        command.args(["server", "--config"]).arg(&self.config).envs(self.env.iter().cloned());
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    pub fn start(&self) -> Server {
        Server { plan: self.clone(), child: self.command().spawn().unwrap() }
    }

    /// Starts it and waits for it to refuse; what it said.
    pub fn refusal(&self) -> String {
        let mut child = self.command().spawn().unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(!status.success(), "{} ended well: {}", self.name, self.log());
                return self.log();
            }
            if began.elapsed() > LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{} does not refuse to start: {}", self.name, self.log());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.plan.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {} ---\n{}", self.plan.name, lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// Waits until a node takes configuration from one of these.
pub async fn until_subscribed(admins: &[&AdminConnection], node: &str) {
    let began = Instant::now();
    loop {
        for admin in admins {
            let status = (*admin).clone().cluster_status(wire::ClusterStatusRequest {}).await;
            if status.is_ok_and(|s| s.get_ref().subscribers.iter().any(|n| n.node == node)) {
                return;
            }
        }
        assert!(began.elapsed() < LIMIT, "{node} takes no configuration");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until a question about the cluster has the answer that is wanted.
pub async fn until(
    admin: &AdminConnection,
    what: &str,
    is_so: impl Fn(&wire::ClusterStatusResponse) -> bool,
) -> wire::ClusterStatusResponse {
    let began = Instant::now();
    let mut last = None;
    loop {
        let status = admin.clone().cluster_status(wire::ClusterStatusRequest {}).await;
        match status {
            Ok(status) if is_so(status.get_ref()) => return status.into_inner(),
            other => last = Some(other.map(tonic::Response::into_inner)).or(last),
        }
        assert!(began.elapsed() < LIMIT, "{what}: {last:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Applies a tenant of this name.
pub async fn write(admin: &AdminConnection, tenant: &str) -> Result<(), tonic::Status> {
    let text = format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{ name: {tenant} }}\nspec: {{}}\n");
    let documents = vec![wire::Document { path: "tenant.yaml".to_owned(), text }];
    let request = wire::ApplyRequest { documents, dry_run: false, message: String::new() };
    admin.clone().apply(request).await.map(drop)
}

pub fn good(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}
