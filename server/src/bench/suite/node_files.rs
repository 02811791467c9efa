//! What a node finds when it starts: its configuration, its cluster, its token.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context;
use secrecy::SecretString;
use serde::Deserialize;

use super::program::ourselves;
use crate::failure::Failure;

/// Of a node that is all there is.
pub const EVERY_ROLE: &str = "control-plane,audit-log,data-plane";
/// Of a node that serves agents, and keeps nothing for others.
pub const SERVING: &str = "data-plane";
/// Listeners of a node.
pub const PORTS_EACH: usize = 4;

/// What `cluster init --json` prints.
#[derive(Deserialize)]
pub struct Made {
    /// The administrator's.
    pub admin_token: SecretString,
    /// One for each further node.
    pub join_tokens: BTreeMap<String, SecretString>,
}

/// The models of a node.
pub struct ModelsOf {
    /// Each folder in it is one.
    pub folder: PathBuf,
    /// What they, their caches and what requests compute with may take, MiB.
    pub memory_mib: u64,
}

/// Where a node listens.
#[derive(Clone, Copy)]
pub struct Ports {
    /// Other nodes.
    pub peer: u16,
    /// Administrators.
    pub admin: u16,
    /// Prometheus.
    pub metrics: u16,
    /// Agents.
    pub http: u16,
}

/// A node that is to be.
#[derive(Clone, Copy)]
pub struct Planned {
    /// Where it listens.
    pub ports: Ports,
    /// What it does: [`EVERY_ROLE`] or [`SERVING`].
    pub roles: &'static str,
}

impl Planned {
    /// Whether others take the state from it.
    fn keeps(&self) -> bool {
        self.roles == EVERY_ROLE
    }
}

impl Ports {
    /// [`PORTS_EACH`] numbers.
    pub fn of(numbers: &[u16]) -> Option<Self> {
        let &[peer, admin, metrics, http] = numbers else { return None };
        Some(Self { peer, admin, metrics, http })
    }
}

/// The CA of what a node serves agents with.
pub fn ca(node: &Path) -> PathBuf {
    node.join("agents-ca.pem")
}

/// Writes a file for its owner alone.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    crate::dev::write_private(path, text.as_bytes())
}

/// Makes the cluster in the first node's folder, with a token for each further node, which stands here with its roles.
pub async fn init(folder: &Path, joining: &[(String, &str)]) -> anyhow::Result<Made> {
    let mut command = ourselves()?;
    command.args(["cluster", "init", "--json", "--cluster", "bench", "--config"]);
    command.arg(folder.join("n0").join("provost.toml"));
    for (node, roles) in joining {
        command.args(["--join", &format!("{node}={roles}")]);
    }
    let output = command.output().await.context("PV-BENCH-START: this program cannot be started again")?;
    if !output.status.success() {
        let text = format!("no cluster can be made: {}", String::from_utf8_lossy(&output.stderr).trim());
        return Err(Failure::new("PV-BENCH-START", text, "is there room on the disk of --dir?").into());
    }
    serde_json::from_slice(&output.stdout).context("PV-BENCH-START: what `cluster init` printed")
}

fn quoted(path: &Path) -> toml::Value {
    toml::Value::String(path.display().to_string())
}

/// The configuration of node `at` of all.
pub fn config(
    cluster: &Path,
    node: &Path,
    at: usize,
    all: &[Planned],
    own: Planned,
    models: Option<&ModelsOf>,
) -> String {
    // The first makes the cluster: it joins nobody.
    let others = all.iter().enumerate().filter(|(other, planned)| at > 0 && *other != at && planned.keeps());
    let others: Vec<String> = others.map(|(_, planned)| format!("\"127.0.0.1:{}\"", planned.ports.peer)).collect();
    let roles: Vec<String> = own.roles.split(',').map(|role| format!("\"{role}\"")).collect();
    let join = match at {
        0 => String::new(),
        _ => format!("[join]\ntoken_file = {}\n", quoted(&node.join("token"))),
    };
    // A table of its own comes last: what follows its head is in it.
    let (folder, gpu) = models.map_or_else(Default::default, |models| {
        let gpu = format!("\n[gpu]\ndevice = \"cpu\"\nmemory_mib = {}\n", models.memory_mib);
        (format!("models = {}\n", quoted(&models.folder)), gpu)
    });
    format!(
        "node = \"n{at}\"\nroles = [{}]\ndata_dir = {}\ncontrol_plane = [{}]\n{folder}\n[listen]\npeer = \"127.0.0.1:{}\"\nadmin \
         = \"127.0.0.1:{}\"\nmetrics = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n\n[keys]\npath = {}\n\n\
         [data_plane.tls]\nlocal_ca = {}\n\n[timings]\npromote_after_ms = 500\n\n{join}{gpu}",
        roles.join(", "),
        quoted(&node.join("data")),
        others.join(", "),
        own.ports.peer,
        own.ports.admin,
        own.ports.metrics,
        own.ports.http,
        quoted(&cluster.join("secrets.key")),
        quoted(&ca(node)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_a_configuration_that_servers_take() {
        let ports = |n| Ports { peer: n, admin: n + 1, metrics: n + 2, http: n + 3 };
        let all = [ports(20_000), ports(20_010), ports(20_020)].map(|ports| Planned { ports, roles: EVERY_ROLE });
        let dir = tempfile::tempdir().unwrap();
        for (at, own) in all.iter().enumerate() {
            let node = dir.path().join(format!("n{at}"));
            std::fs::create_dir_all(&node).unwrap();
            let file = node.join("provost.toml");
            write(&file, &config(dir.path(), &node, at, &all, *own, None)).unwrap();
            let config = crate::roles::run::load(&file).unwrap();
            assert_eq!((config.peer.port(), config.http.port()), (own.ports.peer, own.ports.http));
            // Each knows itself; the first knows nobody else.
            assert_eq!(config.control_plane.len(), if at == 0 { 1 } else { all.len() });
            assert_eq!(config.join.is_some(), at > 0);
            assert_eq!(config.models, None);
            let models = ModelsOf { folder: dir.path().join("models"), memory_mib: 7 };
            write(&file, &self::config(dir.path(), &node, at, &all, *own, Some(&models))).unwrap();
            let config = crate::roles::run::load(&file).unwrap();
            assert_eq!((config.models, config.gpu.memory_mib), (Some(models.folder), 7));
        }
    }

    #[test]
    fn a_node_that_serves_takes_the_state_from_those_that_keep_it_and_from_no_other() {
        let ports = |n| Ports { peer: n, admin: n + 1, metrics: n + 2, http: n + 3 };
        let planned = |n, roles| Planned { ports: ports(n), roles };
        let all = [planned(20_000, EVERY_ROLE), planned(20_010, SERVING), planned(20_020, SERVING)];
        let dir = tempfile::tempdir().unwrap();
        for (at, own) in all.iter().enumerate().skip(1) {
            let node = dir.path().join(format!("n{at}"));
            std::fs::create_dir_all(&node).unwrap();
            let file = node.join("provost.toml");
            write(&file, &config(dir.path(), &node, at, &all, *own, None)).unwrap();
            let config = crate::roles::run::load(&file).unwrap();
            assert_eq!(
                (config.role_names().as_str(), config.control_plane),
                (SERVING, vec!["127.0.0.1:20000".to_owned()])
            );
        }
    }
}
