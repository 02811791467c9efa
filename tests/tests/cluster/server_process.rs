//! One `provost server` process and its files.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    harness::{self, binary},
    processes::SOON,
};

/// Lines of each process's log that a failed test shows.
const LOG_LINES: usize = 40;

/// A server with its files; the process is killed with the value.
pub struct Server {
    pub name: String,
    pub roles: Vec<String>,
    pub peer: SocketAddr,
    pub admin: SocketAddr,
    pub http: SocketAddr,
    pub metrics: SocketAddr,
    /// Holds `data`, `log`, `join-token` and the configuration.
    pub dir: PathBuf,
    pub child: Option<Child>,
}

impl Server {
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("provost.toml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn mcp(&self) -> String {
        format!("http://{}/mcp", self.http)
    }

    /// Starts the process; what it writes is added to its log.
    pub fn start(&mut self, environment: &[(&str, &str)]) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = provost();
        command.arg("server").arg("--config").arg(self.config()).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        harness::signal(self.pid(), signal);
    }

    /// Waits for the process to end by itself.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(began.elapsed() < limit, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM; how long it took and how it ended.
    pub fn terminate(&mut self) -> (Duration, ExitStatus) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = self.ended(SOON);
        (began.elapsed(), status)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- {} ---\n{}", self.name, tail.join("\n"));
        }
    }
}

/// The command, deaf to the environment of the test.
pub fn provost() -> Command {
    let mut command = Command::new(binary("provost"));
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("PROVOST_")) {
        command.env_remove(name);
    }
    command
}
