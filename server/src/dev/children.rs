//! The voters of `provost dev --nodes 3`: child processes that are started again when they end.
//!
//! A child's stdin is a pipe that nothing is written to: when this process ends, however it ends,
//! the pipe closes and the child stops by itself. What a child logs goes to `DIR/log`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

use crate::{config::CERTIFICATE_TTL_VARIABLE, roles::removed, threads};

/// Between the end of a child and its next start: long enough not to spin on a bad configuration.
const RESTART_DELAY: Duration = Duration::from_millis(700);
/// A child that was told to stop gets this long before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(4);

/// One voter to run.
#[derive(Clone, Debug)]
pub struct ChildSpec {
    /// For messages.
    pub name: String,
    /// Its configuration file.
    pub config: PathBuf,
    /// Gets the file `log`.
    pub dir: PathBuf,
}

impl ChildSpec {
    /// Whether the cluster let it go: a node that was removed refuses to start.
    fn was_removed(&self) -> bool {
        removed::is_noted(&self.dir.join("identity"))
    }
}

/// A supervised voter.
pub struct Supervised {
    pid: Arc<AtomicU32>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Supervised {
    /// Starts it; fails only if the first start fails. `changed` is called with each new process.
    pub fn start(spec: ChildSpec, changed: impl Fn() + Send + Sync + 'static) -> anyhow::Result<Self> {
        let first = spawn(&spec)?;
        let pid = Arc::new(AtomicU32::new(first.0.id().unwrap_or_default()));
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise(spec, first, pid.clone(), stop.clone(), changed));
        Ok(Self { pid, stop, task })
    }

    /// The process now; 0 between two.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Stops it in order, and by force if that takes too long.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

async fn supervise(
    spec: ChildSpec,
    (mut child, mut lifeline): (Child, Option<ChildStdin>),
    pid: Arc<AtomicU32>,
    stop: CancellationToken,
    changed: impl Fn() + Send + Sync,
) {
    loop {
        tokio::select! {
            status = child.wait() => {
                pid.store(0, Ordering::Relaxed);
                let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                let log = spec.dir.join("log");
                if spec.was_removed() {
                    tracing::warn!(node = spec.name, log = %log.display(), "a voter was removed from the cluster; it stays out");
                    return changed();
                }
                tracing::warn!(node = spec.name, %status, log = %log.display(), "a voter ended; it is started again");
            }
            () = stop.cancelled() => return end(child, lifeline).await,
        }
        (child, lifeline) = loop {
            tokio::select! {
                () = tokio::time::sleep(RESTART_DELAY) => {}
                () = stop.cancelled() => return,
            }
            match spawn(&spec) {
                Ok(child) => break child,
                Err(cause) => tracing::error!(node = spec.name, %cause, "a voter cannot be started"),
            }
        };
        pid.store(child.id().unwrap_or_default(), Ordering::Relaxed);
        changed();
    }
}

/// Closing stdin asks the child to stop.
async fn end(mut child: Child, lifeline: Option<ChildStdin>) {
    drop(lifeline);
    if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Starts it. Its stdin is taken out: waiting for a child would close it.
fn spawn(spec: &ChildSpec) -> anyhow::Result<(Child, Option<ChildStdin>)> {
    let program = std::env::current_exe().context("PV-DEV-CHILD: the path of this program is not known")?;
    let log = open_log(&spec.dir.join("log"))?;
    let mut command = Command::new(program);
    command.args(["server", "--until-stdin-closes", "--config"]).arg(&spec.config);
    // What this process was told by its environment is not meant for its voters, but for this.
    let meant = ["PROVOST_LOG", CERTIFICATE_TTL_VARIABLE, crate::witness::ask::WITNESSES_VARIABLE];
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("PROVOST_")) {
        if !meant.iter().any(|known| name == *known) {
            command.env_remove(name);
        }
    }
    command.envs(threads::environment_of(super::three::VOTERS as usize));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    let started = command.spawn();
    let mut child = started.with_context(|| format!("PV-DEV-CHILD: voter {} cannot be started", spec.name))?;
    let lifeline = child.stdin.take();
    Ok((child, lifeline))
}

fn open_log(path: &Path) -> anyhow::Result<std::fs::File> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("PV-DEV-IO: {} cannot be written", path.display()))
}
