//! A cluster as operators run it: `provost server` processes from configuration files, on free
//! loopback ports, managed by the command line.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

pub use crate::server_process::{Server, provost};
use crate::{cluster::TURN, harness, ports::free_ports};

/// Patience with anything that a healthy cluster does by itself, on a busy machine.
pub const SOON: Duration = Duration::from_secs(90);
/// Lines of a node's log.
const LAST_WORDS: usize = 25;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Servers of one cluster.
pub struct Fleet {
    pub cluster: String,
    pub servers: BTreeMap<String, Server>,
    pub admin_token: String,
    /// Lines of `[timings]` and sections after it, in every configuration written from now on.
    pub more: String,
    /// Where nodes say that others reach them, if it is not where they listen.
    pub doors: BTreeMap<String, SocketAddr>,
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Fleet {
    pub fn new(cluster: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            cluster: cluster.to_owned(),
            servers: BTreeMap::new(),
            admin_token: String::new(),
            more: "promote_after_ms = 1000\n".to_owned(),
            doors: BTreeMap::new(),
            dir: tempfile::tempdir().unwrap(),
            _turn: turn,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The key file that all nodes share.
    pub fn secrets_key(&self) -> PathBuf {
        self.path("secrets.key")
    }

    /// Writes the configuration of a node; `roles` joined by `+`.
    pub fn add(&mut self, name: &str, roles: &str) {
        let [peer, admin, http, metrics] = free_ports();
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        let roles = roles.split('+').map(str::to_owned).collect();
        let server = Server { name: name.to_owned(), roles, peer, admin, http, metrics, dir, child: None };
        self.servers.insert(name.to_owned(), server);
        self.configure(name);
    }

    /// Writes it again, such as after a change of [`Fleet::more`].
    pub fn configure(&self, name: &str) {
        let server = &self.servers[name];
        let others = self.servers.values().filter(|s| s.has("control-plane") && s.name != name);
        let control_plane: Vec<String> = others.map(|s| s.peer.to_string()).collect();
        let mut text = format!(
            "node = {name:?}\nroles = {:?}\ndata_dir = {:?}\nadvertise = \"{}\"\ncontrol_plane = {control_plane:?}\n\
             [listen]\npeer = \"{}\"\nadmin = \"{}\"\nhttp = \"{}\"\nmetrics = \"{}\"\n\
             [keys]\nprovider = \"file\"\npath = {:?}\n",
            server.roles,
            server.data(),
            self.doors.get(name).unwrap_or(&server.peer),
            server.peer,
            server.admin,
            server.http,
            server.metrics,
            self.secrets_key(),
        );
        let token = server.dir.join("join-token");
        if token.exists() {
            text.push_str(&format!("[join]\ntoken_file = {token:?}\n"));
        }
        text.push_str(&format!("[timings]\n{}", self.more));
        fs::write(server.config(), text).unwrap();
    }

    pub fn give_token(&self, name: &str, token: &str) {
        fs::write(self.servers[name].dir.join("join-token"), format!("{}\n", token.trim())).unwrap();
        self.configure(name);
    }

    /// `provost cluster init` on the first node, with join tokens for all others.
    pub fn init(&mut self, first: &str) {
        let mut command = provost();
        command.args(["cluster", "init", "--json", "--cluster", &self.cluster, "--config"]);
        command.arg(self.servers[first].config());
        for other in self.servers.values().filter(|s| s.name != first) {
            command.arg("--join").arg(format!("{}={}", other.name, other.roles.join("+")));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "cluster init: {}", harness::text(&output));
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        self.admin_token = made["admin_token"].as_str().unwrap().to_owned();
        for (name, token) in made["join_tokens"].as_object().unwrap() {
            self.give_token(name, token.as_str().unwrap());
        }
    }

    /// Makes a token at `asked`, and starts the new node with it.
    pub fn join(&mut self, asked: &str, name: &str, roles: &str) {
        self.add(name, roles);
        let roles = roles.replace('+', ",");
        let made = self.ok_when_recorded(asked, &["cluster", "join-token", "--node", name, "--role", &roles]);
        self.give_token(name, made.lines().next().unwrap());
        self.start(name);
    }

    pub fn start(&mut self, name: &str) {
        self.get(name).start(&[]);
    }

    /// Whether `asked` knows a member of this name.
    pub fn knows(&self, asked: &str, name: &str) -> bool {
        let status = self.status(asked).unwrap_or_default();
        status["members"].as_array().is_some_and(|members| members.iter().any(|m| m["name"] == name))
    }

    pub fn get(&mut self, name: &str) -> &mut Server {
        self.servers.get_mut(name).unwrap()
    }

    /// Runs a command against the admin API of a node.
    pub fn cli(&self, node: &str, args: &[&str]) -> Output {
        let mut command = provost();
        command.args(args).env("PROVOST_ADMIN", self.servers[node].admin.to_string());
        command.env("PROVOST_ADMIN_TOKEN", &self.admin_token).stdin(Stdio::null()).output().unwrap()
    }

    /// What a command prints that must succeed.
    pub fn ok(&self, node: &str, args: &[&str]) -> String {
        let output = self.cli(node, args);
        assert!(output.status.success(), "{args:?} at {node}: {}", harness::text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, again while the audit log cannot record the change: on a busy machine its group has no quorum now and
    /// then, and such a refusal asks for another try.
    pub fn ok_when_recorded(&self, node: &str, args: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let output = self.cli(node, args);
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            let said = harness::text(&output);
            let passes = said.contains("PV-ADMIN-AUDIT") && began.elapsed() < SOON;
            assert!(passes, "{args:?} at {node}: {said}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What a command says that must fail with a code.
    pub fn refused(&self, node: &str, args: &[&str], code: &str) -> String {
        let output = self.cli(node, args);
        let said = harness::text(&output);
        assert!(!output.status.success() && said.contains(code), "{args:?} at {node}, not {code}: {said}");
        said
    }

    /// `cluster status --json`; `None` while the node does not answer.
    pub fn status(&self, node: &str) -> Option<Value> {
        let output = self.cli(node, &["cluster", "status", "--json"]);
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    /// Names of the nodes with a replica of this kind (`voter`, `learner`), as `node` knows them.
    pub fn replicas(&self, node: &str, membership: &str) -> Vec<String> {
        let status = self.status(node).unwrap_or_default();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let of = members.iter().filter(|m| m["membership"] == membership);
        let mut names: Vec<String> = of.map(|m| m["name"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    }

    /// The leader's name, as `node` knows it.
    pub fn leader(&self, node: &str) -> Option<String> {
        let status = self.status(node)?;
        let member = status["members"].as_array()?.iter().find(|m| m["id"] == status["leader_id"])?.clone();
        member["name"].as_str().map(str::to_owned)
    }

    pub fn id(&self, asked: &str, name: &str) -> u64 {
        let status = self.status(asked).unwrap();
        let members = status["members"].as_array().unwrap();
        members.iter().find(|m| m["name"] == name).unwrap()["id"].as_u64().unwrap()
    }

    /// Waits until every node named answers, confirmed by a quorum, with these voters, the same
    /// members, leader and term, and nobody behind. Gives the leader.
    pub fn agreed(&self, nodes: &[&str]) -> String {
        let mut last = Vec::new();
        let began = Instant::now();
        loop {
            last.clear();
            last.extend(nodes.iter().map(|n| self.status(n).map(|s| essence(&s))));
            let same = last.iter().all(|s| s.is_some() && *s == last[0]);
            let voters: Vec<String> = self.replicas(nodes[0], "voter");
            let mut expected: Vec<&str> = nodes.to_vec();
            expected.sort_unstable();
            if same
                && voters == expected
                && let Some(leader) = self.leader(nodes[0])
            {
                return leader;
            }
            assert!(began.elapsed() < SOON, "{nodes:?} do not agree (voters {voters:?}): {last:#?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until so many nodes vote on records, as the audit-log node `at` says in its metrics.
    pub fn until_audit_voters(&self, at: &str, count: usize) {
        let line = format!("provost_audit_voters {count}\n");
        self.until("the audit log has its voters", |f| scrape(f.servers[at].metrics).is_ok_and(|m| m.contains(&line)));
    }

    /// Waits for something; where it never comes, the nodes' last words are printed.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            if began.elapsed() > SOON {
                self.print_last_words();
                panic!("never: {what}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn print_last_words(&self) {
        for (name, server) in &self.servers {
            let log = server.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("{name}:\n{}", lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n"));
        }
    }
}

/// What a node says at its metrics address.
pub fn scrape(address: SocketAddr) -> std::io::Result<String> {
    page(address, "/metrics")
}

/// The whole answer, status first, to a request for one of the pages there.
pub fn page(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

/// What every node must tell alike.
fn essence(status: &Value) -> Value {
    let member = |m: &Value| {
        let fields = ["id", "name", "address", "membership", "role"];
        fields.map(|f| m[f].clone()).to_vec()
    };
    let members: Vec<Vec<Value>> = status["members"].as_array().into_iter().flatten().map(member).collect();
    serde_json::json!([status["cluster"], status["leader_id"], status["term"], status["confirmed"], members])
}

/// Removes every folder of this name below another.
pub fn wipe(dir: &Path, name: &str) {
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
        let path = entry.path();
        if path.is_dir() && entry.file_name() == name {
            fs::remove_dir_all(&path).unwrap();
        } else if path.is_dir() {
            wipe(&path, name);
        }
    }
}
