//! The command `provost server`.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use tokio::io::AsyncReadExt;

use super::{Server, manager::ServiceManager, removed};
use crate::{
    config::{self, ServerConfig, ServerFile},
    dev::stop_signal,
    failure::Failure,
    node::{doors::Leaving, keys::make_private_dir},
};

/// Permission bits of a file for those who are neither its user nor in its group.
const OTHERS: u32 = 0o007;

/// What `provost server` is told.
#[derive(Args, Clone)]
pub struct ServerArgs {
    /// The configuration (TOML).
    #[arg(long, value_name = "FILE", env = "PROVOST_CONFIG")]
    config: PathBuf,
    /// Certificates of your own: a folder with cert.pem, key.pem and ca.pem (instead of `tls.dir`).
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Print the configuration as it will be used, with defaults and environment, and end.
    #[arg(long)]
    print_config: bool,
    /// End when stdin closes: for a parent that wants its children gone with it.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

impl ServerArgs {
    /// The configuration file.
    pub fn config(&self) -> &std::path::Path {
        &self.config
    }
}

/// Reads and checks a configuration file.
pub fn load(path: &std::path::Path) -> anyhow::Result<ServerConfig> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("PV-CONFIG-READ: {} cannot be read", path.display()))?;
    let file: ServerFile = toml::from_str(&text).map_err(|cause| {
        let text = format!("{}: {}", path.display(), cause.to_string().trim_end());
        Failure::new("PV-CONFIG-SYNTAX", text, "`provost server --help` names a documented example")
    })?;
    config::check(file).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|p| format!("\n  {} {}", p.key, p.message)).collect();
        let text = format!("{} cannot be used:{}", path.display(), lines.concat());
        Failure::new("PV-CONFIG-INVALID", text, "change these keys and start again").into()
    })
}

/// Runs until Ctrl-C or SIGTERM.
pub async fn run(args: ServerArgs) -> anyhow::Result<()> {
    let mut config = load(&args.config)?;
    config.tls_dir = args.tls_dir.or(config.tls_dir);
    if args.print_config {
        println!("{}", toml::to_string_pretty(&config)?);
        return Ok(());
    }
    make_private_dir(&config.data_dir)
        .with_context(|| format!("PV-SERVER-DATA: {} cannot be made", config.data_dir.display()))?;
    let _lock = crate::dev::lock::DirLock::take(&config.data_dir)?;
    warn_of_readers(&config.data_dir);
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let manager = ServiceManager::of_this_process();
    let server = tokio::select! {
        started = Server::start(&config, None) => started?,
        () = parent_ended(args.until_stdin_closes) => return Ok(()),
        // A node that waits for others to join by, or for a majority, may wait for minutes. It serves nobody yet, so that to
        // leave it where it is loses no more than a crash does: nothing.
        () = &mut stop => {
            tracing::info!(node = config.node, "told to stop before it was ready");
            if let Some(manager) = &manager {
                manager.stopping();
            }
            return Ok(());
        }
    };
    tracing::info!(node = config.node, roles = config.role_names(), peer = %config.advertise, "ready");
    if let Some(manager) = &manager {
        manager.ready();
    }
    // Not before: the first sign of life would have systemd count, and a long start be ended by `WatchdogSec=` in place of
    // `TimeoutStartSec=`. To the end of the process: it is watched while it finishes too.
    let _alive = manager.as_ref().and_then(ServiceManager::keep_alive);
    let removed = server.removed();
    let fatal = server.audit().fatal();
    let failed = tokio::select! {
        () = &mut stop => None,
        () = parent_ended(args.until_stdin_closes) => None,
        () = removed.cancelled() => None,
        cause = fatal.raised() => Some(cause),
    };
    if let Some(manager) = &manager {
        manager.stopping();
    }
    let leaving = config.agents.leaving.unwrap_or(Leaving::DEFAULT);
    // Who stops it once more does not want to wait for the calls that run.
    let again = stop_signal()?;
    let ended = tokio::select! {
        ended = server.shutdown(leaving.drain) => ended,
        () = again => Err(told_twice().into()),
    };
    // Why it ended says more than how.
    if let Some(cause) = failed {
        return Err(cause);
    }
    if removed.is_cancelled() { Err(removed::failure(&config.data_dir.join("identity")).into()) } else { ended }
}

/// Whoever reads the files reads the records: a folder that was there already may be open to everybody.
fn warn_of_readers(dir: &Path) {
    let is_open = std::fs::metadata(dir).is_ok_and(|found| found.permissions().mode() & OTHERS != 0);
    if is_open {
        tracing::warn!(data_dir = %dir.display(), "every user of this machine can look into the data folder: `chmod o=` it");
    }
}

/// What ends a process that was told to stop while it stopped.
fn told_twice() -> Failure {
    let text = "told to stop a second time: the process ends at once";
    let hint = "nothing that was acknowledged is lost; the audit log says `unknown` of calls that were cut off";
    Failure::new("PV-SERVER-CUT", text, hint)
}

/// Resolves when the parent closes our stdin, however it ends.
async fn parent_ended(watch: bool) {
    if !watch {
        return std::future::pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    while matches!(stdin.read(&mut buffer).await, Ok(read) if read > 0) {}
}
