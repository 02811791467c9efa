//! Three control-plane processes under one `provost dev`: finds them, hurts them, ends them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    admin::Admin,
    harness::{Dev, START_LIMIT, binary},
};

/// How long a healthy majority may need to agree on a leader, on a busy machine.
pub const HEAL_LIMIT: Duration = Duration::from_secs(60);
/// How long the parent may take to stop everything.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Lines of each node's log that a failed test shows.
const LOG_LINES: usize = 60;

/// Clusters of one process run one after the other, or they measure each other.
pub static TURN: Mutex<()> = Mutex::new(());

/// One control-plane process, as `dev.json` describes it.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: u64,
    pub pid: u32,
    pub admin: String,
    pub data_dir: PathBuf,
}

/// Where a cluster is described; enough for tasks that only talk to it.
#[derive(Clone, Debug)]
pub struct Place {
    pub data: PathBuf,
    pub mcp: String,
    pub token: String,
    pub admin_token: String,
}

impl Place {
    /// `dev.json` as it is now: addresses and pids change when a process is restarted.
    pub fn now(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.data.join("dev.json")).ok()?).ok()
    }

    /// The relay that reaches a live node.
    pub fn relay(&self) -> Option<String> {
        Some(self.now()?["admin"].as_str()?.to_owned())
    }

    /// Where the voters are reached by other nodes.
    pub fn peers(&self) -> Vec<String> {
        let now = self.now().unwrap_or_default();
        let peer = |node: &Value| Some(node["peer"].as_str()?.to_owned());
        now["nodes"].as_array().map(|nodes| nodes.iter().filter_map(peer).collect()).unwrap_or_default()
    }

    /// What wraps the keys of secrets: the same file for all nodes.
    pub fn secrets_key(&self) -> PathBuf {
        self.data.join("secrets.key")
    }

    pub fn members(&self) -> Vec<Member> {
        let now = self.now().unwrap_or_default();
        let member = |node: &Value| {
            Some(Member {
                id: node["id"].as_u64()?,
                pid: u32::try_from(node["pid"].as_u64()?).ok()?,
                admin: node["admin"].as_str()?.to_owned(),
                data_dir: PathBuf::from(node["data_dir"].as_str()?),
            })
        };
        now["nodes"].as_array().map(|nodes| nodes.iter().filter_map(member).collect()).unwrap_or_default()
    }
}

impl AsRef<Place> for Place {
    fn as_ref(&self) -> &Place {
        self
    }
}

impl AsRef<Place> for Cluster {
    fn as_ref(&self) -> &Place {
        &self.place
    }
}

/// A running cluster; ends with the value.
pub struct Cluster {
    pub place: Place,
    // Fields drop in this order: the process before its directory, the turn last.
    pub dev: Dev,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts three nodes and waits until they agree on a leader. `None`, with a printed line, if
    /// the binary cannot run three.
    pub async fn start() -> Option<Self> {
        Self::start_env(&[]).await
    }

    /// The same with variables in the environment of every process.
    pub async fn start_env(env: &[(&str, &str)]) -> Option<Self> {
        let cluster = Self::launch(env)?;
        cluster.agreed(START_LIMIT).await;
        Some(cluster)
    }

    fn launch(env: &[(&str, &str)]) -> Option<Self> {
        if !runs_three_nodes() {
            println!("cluster: SKIPPED, `provost dev --nodes` takes no 3 in this build");
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let dev = Dev::start_env(&dir.path().join("data"), None, &["--nodes", "3"], env);
        let place = Place {
            data: dev.data.clone(),
            mcp: dev.mcp().to_owned(),
            token: dev.token().to_owned(),
            admin_token: dev.info["admin_token"].as_str().unwrap().to_owned(),
        };
        let cluster = Self { place, dev, _dir: dir, _turn: turn };
        assert_eq!(cluster.place.members().len(), 3, "dev.json names other than three nodes: {}", cluster.dev.info);
        Some(cluster)
    }

    /// The leader by the word of most nodes that answer, once there is one.
    pub async fn leader(&self) -> Member {
        let admin = Admin::new(self.place.clone());
        let began = Instant::now();
        loop {
            let mut leaders = Vec::new();
            for member in self.place.members() {
                if let Ok(status) = admin.status(member.id).await
                    && status.role == "leader"
                {
                    leaders.push((status.term, member));
                }
            }
            // A paused leader may come back and not know yet that its term is over.
            if let Some((_, leader)) = leaders.into_iter().max_by_key(|(term, _)| *term) {
                return leader;
            }
            assert!(began.elapsed() < HEAL_LIMIT, "no node leads");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all three nodes name the same leader and three voters.
    pub async fn agreed(&self, limit: Duration) {
        let admin = Admin::new(self.place.clone());
        let began = Instant::now();
        loop {
            let mut answers = Vec::new();
            for member in self.place.members() {
                let status = admin.status(member.id).await;
                answers.push(status.map(|s| (s.leader_id, s.term, s.voters.len())));
            }
            let first = answers.first().and_then(|a| a.as_ref().ok()).copied();
            let agreed = answers.iter().all(|a| a.as_ref().ok() == first.as_ref());
            if answers.len() == 3 && agreed && first.is_some_and(|(leader, _, voters)| leader > 0 && voters == 3) {
                return;
            }
            assert!(began.elapsed() < limit, "the nodes do not agree: {answers:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs a `provost` command against the cluster.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.dev.cli(args)
    }

    pub fn kill(&self, member: &Member) {
        signal(member.pid, "KILL");
    }

    pub fn pause(&self, member: &Member) {
        signal(member.pid, "STOP");
    }

    pub fn resume(&self, member: &Member) {
        signal(member.pid, "CONT");
    }

    /// Stops the parent from noticing what happens to its children.
    pub fn pause_parent(&self) {
        signal(self.dev.child.id(), "STOP");
    }

    pub fn resume_parent(&self) {
        signal(self.dev.child.id(), "CONT");
    }

    /// What a node wrote, into its own files or through its parent.
    pub fn log(&self, member: &Member) -> String {
        Self::own_log(member) + &self.dev.stderr()
    }

    /// The log files in a node's data directory.
    fn own_log(member: &Member) -> String {
        let mut text = String::new();
        for file in files(&member.data_dir, 2) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // RocksDB's own LOG is of no interest, nor are its write-ahead logs: they are binary.
            if name.trim_end_matches(".log").bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            let in_log_dir = file.parent().is_some_and(|p| p.ends_with("log") || p.ends_with("logs"));
            if name == "log" || name == "stderr" || name.ends_with(".log") && name != "LOG" || in_log_dir {
                text.push_str(&String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default()));
            }
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in self.place.members() {
                let log = Self::own_log(&member);
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
                eprintln!("--- node {} ---\n{}", member.id, tail.join("\n"));
            }
        }
        let _ = try_signal(self.dev.child.id(), "CONT");
        let members = self.place.members();
        for member in &members {
            let _ = try_signal(member.pid, "CONT");
        }
        let _ = try_signal(self.dev.child.id(), "TERM");
        let began = Instant::now();
        while matches!(self.dev.child.try_wait(), Ok(None)) && began.elapsed() < STOP_LIMIT {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.dev.child.kill();
        let _ = self.dev.child.wait();
        // A parent that had to be killed leaves orphans; a pid that is somebody else's by now stays.
        for member in members {
            if std::fs::read_link(format!("/proc/{}/exe", member.pid)).is_ok_and(|exe| exe == binary("provost")) {
                let _ = try_signal(member.pid, "KILL");
            }
        }
    }
}

fn signal(pid: u32, name: &str) {
    assert!(try_signal(pid, name), "kill -{name} {pid} failed");
}

fn try_signal(pid: u32, name: &str) -> bool {
    let kill = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
    kill.is_ok_and(|status| status.success())
}

/// Files below a folder, at most `depth` folders down.
fn files(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true if depth > 0 => found.extend(files(&path, depth - 1)),
            true => {}
            false => found.push(path),
        }
    }
    found
}

/// Whether the help of `dev` names 3 among the values of `--nodes`.
fn runs_three_nodes() -> bool {
    let help = Command::new(binary("provost")).args(["dev", "--help"]).output().unwrap();
    names_three(&String::from_utf8_lossy(&help.stdout))
}

fn names_three(help: &str) -> bool {
    let after = help.split("--nodes").nth(1).unwrap_or_default();
    let own = after.split("\n      --").next().unwrap_or_default();
    own.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_says_whether_three_nodes_can_run() {
        let before = "Options:\n      --http <HTTP>\n          [default: 127.0.0.1:3]\n\n";
        let after = "\n\n      --device <DEVICE>\n          [possible values: 3]\n";
        let table = [
            ("      --nodes <NODES>\n          Voters\n\n          [default: 1] [possible values: 1]", false),
            ("      --nodes <NODES>\n          Voters\n\n          [default: 1] [possible values: 1, 3]", true),
            ("      --nodes <NODES>  Voters [default: 1]\n                       [possible values: 1,\n 3, 5]", true),
            ("      --other <NODES>  3", false),
        ];
        for (help, expect) in table {
            assert_eq!(names_three(&format!("{before}{help}{after}")), expect, "{help}");
        }
    }
}
