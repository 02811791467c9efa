//! Data-plane nodes of a cluster: `provost server` processes that join with tokens, can be killed,
//! frozen and started again; they record in the cluster's audit log.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    cluster::Cluster,
    harness::{START_LIMIT, binary, signal, text},
    ports::free_ports,
};

/// How long a node may take to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Lines of each node's log that a failed test shows.
const LOG_LINES: usize = 40;

/// One data-plane node.
pub struct DataNode {
    pub name: String,
    /// Where agents call it.
    pub mcp: String,
    dir: PathBuf,
    /// A replica of the audit log.
    audit: PathBuf,
    /// `None` while it is down.
    child: Mutex<Option<Child>>,
}

/// The nodes; all end with the value. Drop it before its cluster.
pub struct Fleet {
    pub nodes: Vec<DataNode>,
    _dir: tempfile::TempDir,
}

impl Fleet {
    /// Joins so many nodes and waits until each has a state and listens.
    pub async fn join(cluster: &Cluster, count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nodes = (1..=count).map(|i| DataNode::make(cluster, dir.path(), &format!("dp-{i}"))).collect();
        let fleet = Self { nodes, _dir: dir };
        for node in &fleet.nodes {
            node.start();
        }
        for node in &fleet.nodes {
            node.listens().await;
        }
        fleet
    }

    /// Stops all of them in order, so that their logs are whole on disk.
    pub async fn stop(&self) {
        for node in &self.nodes {
            node.signal(Signal::TERM);
        }
        for node in &self.nodes {
            node.ended().await;
        }
    }
}

impl DataNode {
    fn make(cluster: &Cluster, fleet: &Path, name: &str) -> Self {
        let dir = fleet.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let token = cluster.cli(&["cluster", "join-token", "--role", "data-plane", "--node", name]);
        assert!(token.status.success(), "no join token for {name}: {}", text(&token));
        std::fs::write(dir.join("join-token"), &token.stdout).unwrap();
        // The same for every start.
        let [http, peer, metrics] = free_ports();
        let voters: Vec<String> = cluster.place.peers().iter().map(|peer| format!("'{peer}'")).collect();
        let config = format!(
            "node = '{name}'\nroles = ['data-plane']\ndata_dir = '{data}'\ncontrol_plane = [{voters}]\n\
             [listen]\nhttp = '{http}'\npeer = '{peer}'\nmetrics = '{metrics}'\n\
             [keys]\npath = '{keys}'\n[join]\ntoken_file = '{token}'\n",
            data = dir.join("data").display(),
            voters = voters.join(", "),
            keys = cluster.place.secrets_key().display(),
            token = dir.join("join-token").display(),
        );
        std::fs::write(dir.join("provost.toml"), config).unwrap();
        let audit = PathBuf::from(cluster.dev.info["audit_dir"].as_str().unwrap());
        Self { name: name.to_owned(), mcp: format!("http://{http}/mcp"), dir, audit, child: Mutex::new(None) }
    }

    /// Starts the process; it must not run.
    pub fn start(&self) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = Command::new(binary("provost"));
        // What the test was told by its environment is not meant for the node.
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("PROVOST_")) {
            command.env_remove(name);
        }
        command.args(["server", "--config"]).arg(self.dir.join("provost.toml"));
        *child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Waits until something listens where agents call.
    pub async fn listens(&self) {
        let address = self.mcp.trim_start_matches("http://").trim_end_matches("/mcp");
        let began = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(began.elapsed() < START_LIMIT, "{} does not listen:\n{}", self.name, self.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills the process and waits until it is gone.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, which: Signal) {
        if let Some(child) = &*self.child.lock().unwrap() {
            signal(child.id(), which);
        }
    }

    async fn ended(&self) {
        let began = Instant::now();
        loop {
            match &mut *self.child.lock().unwrap() {
                None => return,
                Some(child) => {
                    if let Some(status) = child.try_wait().unwrap() {
                        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.log_tail());
                        break;
                    }
                }
            }
            assert!(began.elapsed() < STOP_LIMIT, "{} does not stop:\n{}", self.name, self.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.child.lock().unwrap().take();
    }

    /// Calls of a tenant that the node recorded, by their phase.
    pub fn records(&self, tenant: &str, phase: &str) -> u64 {
        let query = Command::new(binary("provost"))
            .args(["audit", "query", "--json", "--limit", "10000000", "--tenant", tenant, "--dir"])
            .arg(&self.audit)
            .stdin(Stdio::null())
            .output();
        let Output { status, stdout, stderr } = query.unwrap();
        assert!(status.success(), "{}: {}", self.audit.display(), String::from_utf8_lossy(&stderr));
        let text = String::from_utf8(stdout).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let own = records.filter(|r| r["record"]["writer_id"] == self.name.as_str());
        own.filter(|r| r["record"]["phase"] == phase && r["record"]["gen_ai.tool.name"] == "echo.echo").count() as u64
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for DataNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.name, self.log_tail());
        }
        if let Ok(child) = self.child.get_mut()
            && let Some(child) = child
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
