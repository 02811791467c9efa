//! `provost dev`: every role on this machine, on embedded storage.

mod children;
mod first_start;
mod governed;
pub mod lock;
mod probe;
mod relay;
mod three;
mod welcome;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use provost_gpu_serve::DeviceChoice;
use provost_types::{Kind, Name, PrincipalRef, Snapshot};

use crate::{
    cli::context::{DevFile, default_data_dir},
    failure::Failure,
    node::{
        Node, NodeConfig,
        doors::{AgentConfig, AgentTls},
    },
    tiles, witness,
};

/// Ports of the other listeners, counted from the HTTP port; with port 0 each takes a free one.
const ADMIN_OFFSET: u16 = 1;
const METRICS_OFFSET: u16 = 2;
/// The certificate of the local CA, in the data directory.
const CA: &str = "ca.pem";
/// Calls in flight get this long to finish after Ctrl-C or SIGTERM; the audit flush comes after.
const DRAIN_LIMIT: Duration = Duration::from_millis(3_500);

/// What `provost dev` is told.
#[derive(Args, Clone)]
pub struct DevArgs {
    /// Where everything is kept. Default: `$XDG_DATA_HOME/provost/dev`.
    #[arg(long, env = "PROVOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Keep everything in a temporary directory that is removed at the end.
    #[arg(long)]
    ephemeral: bool,
    /// Where agents connect; the admin API and the metrics take the two ports after it. Port 0
    /// takes free ports everywhere.
    #[arg(long, default_value = "127.0.0.1:8420", env = "PROVOST_HTTP")]
    http: SocketAddr,
    /// Files or directories of resources to apply at the start. Default: the quickstart.
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Serve `/mcp` without a token as this tenant's principal `anonymous`. Loopback only.
    #[arg(long, value_name = "TENANT")]
    anonymous: Option<String>,
    /// Voters of the control plane: one in this process, or three in processes of their own.
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    nodes: String,
    /// Calls at once; beyond it calls are refused, those of principals with low priority first. One node only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_calls: Option<u32>,
    /// What models compute on: `cpu`, `cuda` (the first CUDA device), `cuda:NUMBER`, or `auto`: `cuda` where it can be used, else
    /// `cpu`. Default: what `PROVOST_GPU_DEVICE` says, else `auto`.
    #[arg(long, value_parser = read_device)]
    device: Option<DeviceChoice>,
    /// Directory of models: each sub-directory or `.gguf` file in it is one. Default: `DATA/models`.
    #[arg(long, value_name = "DIR", env = "PROVOST_MODELS")]
    models: Option<PathBuf>,
}

fn read_device(text: &str) -> Result<DeviceChoice, String> {
    if text == "cuda" { "cuda:0".parse() } else { text.parse() }
}

/// Runs until Ctrl-C or SIGTERM.
pub async fn run(args: DevArgs) -> anyhow::Result<()> {
    let anonymous = anonymous_tenant(&args)?;
    let temporary = args.ephemeral.then(temporary_dir).transpose()?;
    let data_dir = match (&temporary, &args.data_dir) {
        (Some(dir), _) => dir.0.clone(),
        (None, Some(dir)) => dir.clone(),
        (None, None) => default_data_dir(),
    };
    let _lock = lock::DirLock::take(&data_dir)?;
    // Of a process that was killed: whoever waits for the file would take its addresses and its pid for ours.
    let _ = std::fs::remove_file(DevFile::path(&data_dir));

    let models_dir = match &args.models {
        Some(dir) => dir.clone(),
        None => made_dir(data_dir.join("models"))?,
    };
    let stop = stop_signal()?;
    let principal = anonymous.clone().map(first_start::anonymous).transpose()?;
    let start = Start { args: &args, data_dir: &data_dir, anonymous: anonymous.as_ref() };
    if args.nodes == "3" {
        if args.max_calls.is_some() {
            let hint = "leave it out, or start with --nodes 1; a server has it in its configuration";
            return Err(Failure::new("PV-DEV-NODES", "--max-calls is for one node", hint).into());
        }
        return run_three(start, principal, models_dir, stop).await;
    }
    if data_dir.join("cluster.json").exists() {
        let text = format!("{} holds a cluster of three", data_dir.display());
        return Err(Failure::new("PV-DEV-NODES", text, "start with --nodes 3, or choose another --data-dir").into());
    }
    let node = Node::start(NodeConfig {
        http: args.http,
        admin: beside(args.http, ADMIN_OFFSET)?,
        metrics: beside(args.http, METRICS_OFFSET)?,
        models_dir: Some(models_dir),
        device: args.device,
        anonymous: principal,
        data_dir: data_dir.clone(),
        node_name: "dev".to_owned(),
        cluster: "dev".to_owned(),
        witnesses: witness::ask::from_environment()?,
        tiles: tiles::from_environment()?,
        agents: AgentConfig { tls: Some(local_tls(&data_dir)), max_calls: args.max_calls, ..AgentConfig::default() },
    })
    .await?;
    let outcome = serve_until(stop, &node, &data_dir, start, |token| dev_file(&node, &data_dir, token)).await;
    let _ = std::fs::remove_file(DevFile::path(&data_dir));
    node.shutdown(DRAIN_LIMIT).await?;
    outcome
}

/// TLS by a CA of this machine.
fn local_tls(data_dir: &Path) -> AgentTls {
    AgentTls::LocalCa { certificate: data_dir.join(CA), keys: data_dir.join("keys") }
}

/// What both kinds of start need to know.
#[derive(Clone, Copy)]
struct Start<'a> {
    args: &'a DevArgs,
    data_dir: &'a Path,
    anonymous: Option<&'a Name>,
}

async fn run_three(
    start: Start<'_>,
    principal: Option<PrincipalRef>,
    models_dir: PathBuf,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let restarted = Arc::new(tokio::sync::Notify::new());
    let notify = restarted.clone();
    let changed = move || notify.notify_one();
    tokio::pin!(stop);
    let models = three::Models { dir: Some(models_dir), device: start.args.device };
    let starting = three::Three::start(start.data_dir, start.args.http, models, principal, changed);
    let three = tokio::select! {
        three = starting => three?,
        () = &mut stop => return Ok(()),
    };
    let path = DevFile::path(start.data_dir);
    // The token is known once the resources are there.
    let token = std::cell::RefCell::new(String::new());
    let rewriting = async {
        loop {
            restarted.notified().await;
            let file = three_file(&three, &token.borrow());
            if let Err(cause) =
                serde_json::to_vec_pretty(&file).map_err(Into::into).and_then(|b| write_private(&path, &b))
            {
                tracing::warn!(%cause, "dev.json does not name the new process");
            }
        }
    };
    let plugins_dir = three.own_dir();
    let serving = serve_until(stop, &three, &plugins_dir, start, |given| {
        given.clone_into(&mut token.borrow_mut());
        three_file(&three, given)
    });
    let outcome = tokio::select! {
        outcome = serving => outcome,
        () = rewriting => Ok(()),
    };
    let _ = std::fs::remove_file(&path);
    three.shutdown(DRAIN_LIMIT).await?;
    outcome
}

/// `plugins_dir`: where relative paths of plugins begin.
async fn serve_until<G: governed::Governed>(
    stop: impl Future<Output = ()>,
    node: &G,
    plugins_dir: &Path,
    start: Start<'_>,
    describe: impl FnOnce(&str) -> DevFile,
) -> anyhow::Result<()> {
    let Start { args, data_dir, anonymous } = start;
    first_start::apply_config(node, &args.config, plugins_dir).await?;
    if let Some(tenant) = anonymous {
        first_start::grant_anonymous(node, tenant).await?;
    }
    let snapshot = node.snapshot();
    let token = first_start::caller_token(node, &snapshot, data_dir).await?;
    let file = describe(token.as_ref().map_or("", |t| &t.token));
    write_private(&DevFile::path(data_dir), &serde_json::to_vec_pretty(&file)?)?;
    welcome::print(&file, token.as_ref(), &snapshot, anonymous, data_dir);
    stop.await;
    Ok(())
}

/// The place where people put models, there from the start so that they find it.
fn made_dir(dir: PathBuf) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(&dir).with_context(|| format!("PV-DEV-IO: {} cannot be made", dir.display()))?;
    Ok(dir)
}

fn anonymous_tenant(args: &DevArgs) -> anyhow::Result<Option<Name>> {
    let Some(tenant) = &args.anonymous else { return Ok(None) };
    if !args.http.ip().is_loopback() {
        return Err(Failure::new(
            "PV-DEV-ANONYMOUS",
            format!("--anonymous serves calls without a token, and {} is not loopback", args.http),
            "give --http an address of 127.0.0.1, or leave --anonymous out",
        )
        .into());
    }
    Ok(Some(Name::new(tenant).context("PV-DEV-ANONYMOUS: the tenant of --anonymous")?))
}

fn beside(http: SocketAddr, offset: u16) -> anyhow::Result<SocketAddr> {
    let port = match http.port() {
        0 => 0,
        port => port.checked_add(offset).ok_or_else(|| {
            Failure::new(
                "PV-DEV-PORT",
                format!("port {port} leaves no room for the two ports after it"),
                "choose a lower port for --http",
            )
        })?,
    };
    Ok(SocketAddr::new(http.ip(), port))
}

fn dev_file(node: &Node, data_dir: &std::path::Path, token: &str) -> DevFile {
    let addresses = node.addresses();
    let base = format!("http://{}", addresses.http);
    DevFile {
        mcp: format!("{base}/mcp"),
        ws: Some(format!("ws://{}/mcp", addresses.http)),
        h3: Some(format!("https://{}/mcp", addresses.http)),
        quic: Some(addresses.http.to_string()),
        ca: Some(data_dir.join(CA)),
        openai: format!("{base}/v1"),
        admin: addresses.admin.to_string(),
        metrics: format!("http://{}/metrics", addresses.metrics),
        console: format!("{base}/"),
        token: token.to_owned(),
        admin_token: node.admin_token().to_owned(),
        audit_dir: data_dir.join("audit"),
        pid: std::process::id(),
        nodes: Vec::new(),
    }
}

fn three_file(three: &three::Three, token: &str) -> DevFile {
    let server = three.server();
    // A cluster that an earlier version made has no TLS for agents.
    let tls = server.http().filter(|_| three.agent_ca().exists());
    let base = format!("http://{}", server.http().map(|a| a.to_string()).unwrap_or_default());
    DevFile {
        mcp: format!("{base}/mcp"),
        ws: server.http().map(|http| format!("ws://{http}/mcp")),
        h3: tls.map(|http| format!("https://{http}/mcp")),
        quic: tls.map(|http| http.to_string()),
        ca: tls.map(|_| three.agent_ca()),
        openai: format!("{base}/v1"),
        admin: three.admin().to_string(),
        metrics: format!("http://{}/metrics", server.metrics()),
        console: format!("{base}/"),
        token: token.to_owned(),
        admin_token: three.admin_token().to_owned(),
        audit_dir: three.audit_dir(),
        pid: std::process::id(),
        nodes: three.nodes(),
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &std::path::Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(|| format!("PV-DEV-IO: {} cannot be written", temporary.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    Ok(())
}

/// A future that ends at SIGINT or SIGTERM; the handlers stand from now on.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
    })
}

/// A directory that is removed when dropped.
struct TemporaryDir(PathBuf);

fn temporary_dir() -> anyhow::Result<TemporaryDir> {
    let path = std::env::temp_dir().join(format!("provost-dev-{}-{:08x}", std::process::id(), rand::random::<u32>()));
    crate::node::keys::make_private_dir(&path)?;
    Ok(TemporaryDir(path))
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The first principal of the snapshot that has a role and is not disabled: whom the first token
/// is made for.
pub fn first_caller(snapshot: &Snapshot) -> Option<(Name, Name)> {
    let bound = snapshot.of_kind(Kind::RoleBinding).filter_map(|r| match &r.spec {
        provost_types::Spec::RoleBinding(b) => Some((r.metadata.tenant.clone()?, b.principals.clone())),
        _ => None,
    });
    bound
        .flat_map(|(tenant, names)| names.into_iter().map(move |n| (tenant.clone(), n)))
        .find(|(_, name)| name.as_str() != first_start::ANONYMOUS)
        .or_else(|| {
            snapshot
                .of_kind(Kind::Principal)
                .find(|r| r.metadata.name.as_str() != first_start::ANONYMOUS)
                .and_then(|r| Some((r.metadata.tenant.clone()?, r.metadata.name.clone())))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_as_in_the_configuration_or_is_the_first_of_its_kind() {
        let table = [
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
            ("auto", DeviceChoice::Auto),
        ];
        for (text, expect) in table {
            assert_eq!(read_device(text), Ok(expect), "{text}");
        }
        assert!(read_device("gpu").is_err());
    }
}
