//! A PostgreSQL server of its own for a test, where the server's programs are installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Most time for the server to start, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running server on a Unix socket and no TCP port; it stops when this is dropped.
pub struct Server {
    process: Child,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL is fine: the data is thrown away with the folder.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The newest installed `…/postgresql/N/bin`.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|e| Some(e.ok()?.path().join("bin")))
        .filter(|p| p.join("initdb").exists() && p.join("postgres").exists())
        .collect();
    found.sort();
    found.pop()
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// PostgreSQL does not run as root: as root it is started as its own user.
fn command(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL", "--"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Server {
    /// Starts one, or says on standard error why it does not.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("skipped: no PostgreSQL server under /usr/lib/postgresql");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            let owner = Command::new("chown").arg("postgres").arg(folder.path()).status();
            if !owner.is_ok_and(|s| s.success()) {
                eprintln!("skipped: there is no user postgres");
                return None;
            }
        }
        let data = folder.path().join("data");
        let made = command(&programs.join("initdb"))
            .args(["--username=test", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let process = command(&programs.join("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(folder.path())
            .arg("-D")
            .arg(&data)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, folder };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.folder.path().join(".s.PGSQL.5432")).is_err() {
            assert!(started.elapsed() < START_LIMIT, "the server did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn url(&self) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://test@{socket}/postgres")
    }
}
