//! Programs that the suite starts, and the folder that they keep their data in. All of it is gone afterwards.
//!
//! A program's stdin is a pipe that nothing is written to: ours end when it closes, which the system sees to however
//! this process ends. Others are killed when the suite ends, and would outlive it if it were killed itself.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    process::{Child, ChildStdin, Command},
    time::Instant,
};

use crate::failure::Failure;

/// Longer than any start takes on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at whether something has started.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A program that was told to end gets this long: a node drains its calls and flushes its log.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How much of a log an error shows.
const SHOWN_BYTES: usize = 600;

/// A folder that is removed when this is dropped.
pub struct Scratch {
    path: PathBuf,
    keeps: bool,
}

impl Scratch {
    /// A new folder in another; with `keeps` it stays.
    pub fn new(parent: &Path, keeps: bool) -> anyhow::Result<Self> {
        let name = format!("provost-bench-{}-{:08x}", std::process::id(), rand::random::<u32>());
        std::fs::create_dir_all(parent).with_context(|| unwritable(parent))?;
        let parent = parent.canonicalize().with_context(|| unwritable(parent))?;
        let path = parent.join(name);
        crate::node::keys::make_private_dir(&path).with_context(|| unwritable(&path))?;
        Ok(Self { path, keeps })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new folder in it, for its owner alone.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        crate::node::keys::make_private_dir(&path).with_context(|| unwritable(&path))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keeps {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn unwritable(path: &Path) -> String {
    format!("PV-BENCH-FILE: {} cannot be written", path.display())
}

/// A running program.
pub struct Program {
    name: String,
    child: Child,
    lifeline: Option<ChildStdin>,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it says on stderr goes to `log`, and on stdout to `stdout`, or there too.
    pub fn start(name: &str, mut command: Command, log: &Path, stdout: Option<File>) -> anyhow::Result<Self> {
        let open = || File::options().create(true).append(true).open(log).with_context(|| unwritable(log));
        let stdout = match stdout {
            Some(file) => file,
            None => open()?,
        };
        command.stdin(Stdio::piped()).stdout(stdout).stderr(open()?).kill_on_drop(true);
        let mut child = command.spawn().map_err(|cause| {
            let text = format!("{name} cannot be started: {cause}");
            Failure::new("PV-BENCH-START", text, "may this user run it, and is there memory for it?")
        })?;
        let lifeline = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, lifeline, log: log.to_owned() })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Looks until `ready` gives something; an error once the program has ended or the time is over.
    pub async fn until<T>(&mut self, what: &str, mut ready: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = ready().await {
                return Ok(found);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("ended with {status} before {what}")));
            }
            if began.elapsed() > START_LIMIT {
                return Err(self.failed(&format!("did not get to this within {START_LIMIT:?}: {what}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn failed(&self, what: &str) -> anyhow::Error {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let end = text.get(text.len().saturating_sub(SHOWN_BYTES)..).unwrap_or_default();
        let said = String::from_utf8_lossy(end);
        let text = format!("{} {what}; it said last:\n{}", self.name, said.trim());
        let hint = "run the suite again with --keep to have its log and its data";
        Failure::new("PV-BENCH-START", text, hint).into()
    }

    /// Ends it: in order if it listens, by force if that takes too long.
    pub async fn stop(mut self) {
        drop(self.lifeline.take());
        if tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// Ends one that does not listen to its stdin.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}

/// This program again.
pub fn ourselves() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("PV-BENCH-START: the path of this program is not known")?;
    Ok(command(&program))
}

/// A program. What this process was told by its environment, tokens of peers among it, is not meant for it.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    let meant = ["PROVOST_LOG", "PROVOST_HUGE_PAGES", crate::threads::THREADS];
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PROVOST_")) {
        if !meant.iter().any(|known| name == *known) {
            command.env_remove(name);
        }
    }
    command
}

/// Ports of the loopback network that nobody uses now. Each is different.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut held = Vec::with_capacity(count);
    let mut ports = Vec::with_capacity(count);
    for _ in 0..count {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("PV-BENCH-START: there is no free port")?;
        ports.push(listener.local_addr().context("PV-BENCH-START: there is no free port")?.port());
        held.push(listener);
    }
    drop(held);
    Ok(ports)
}

/// A program of this name on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_program(file))
}

/// Whether a file may be run.
pub fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_goes_unless_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        for keeps in [false, true] {
            let scratch = Scratch::new(dir.path(), keeps).unwrap();
            let path = scratch.folder("node").unwrap();
            assert!(path.starts_with(scratch.path()));
            drop(scratch);
            assert_eq!(path.exists(), keeps);
        }
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(8).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }

    #[tokio::test]
    async fn a_program_that_ends_too_early_is_an_error_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no luck >&2; exit 3"]);
        let mut program = Program::start("sh", command, &dir.path().join("log"), None).unwrap();
        let error = program.until("it is ready", async || None::<()>).await.unwrap_err().to_string();
        assert!(error.starts_with("PV-BENCH-START") && error.contains("no luck"), "{error}");
        program.stop().await;
    }

    #[tokio::test]
    async fn a_program_that_reads_its_stdin_ends_when_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let program = Program::start("cat", Command::new("cat"), &dir.path().join("log"), None).unwrap();
        let began = Instant::now();
        program.stop().await;
        assert!(began.elapsed() < STOP_LIMIT, "it was killed");
    }
}
