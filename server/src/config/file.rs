//! The configuration file as people write it.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::Role;

/// `provost.toml`. Every key is optional here; [`super::check`] says what is missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerFile {
    /// This node's name. Change it never: certificates carry it.
    pub node: Option<String>,
    /// What this process runs.
    pub roles: Vec<Role>,
    /// Where everything is kept.
    pub data_dir: Option<PathBuf>,
    /// Where other nodes reach this one, `HOST:PORT`. Default: the peer listener's address.
    pub advertise: Option<String>,
    /// Control-plane nodes, `HOST:PORT` of their peer listeners.
    pub control_plane: Vec<String>,
    /// Models: each sub-directory or `.gguf` file is one.
    pub models: Option<PathBuf>,
    /// The memory that they may take, and how much each matters.
    pub gpu: super::gpu::GpuFile,
    /// Listeners.
    pub listen: ListenFile,
    /// How agents are served.
    pub data_plane: super::data_plane::DataPlaneFile,
    /// How to join; needed once.
    pub join: JoinFile,
    /// Certificates of your own.
    pub tls: TlsFile,
    /// The key that wraps data keys.
    pub keys: KeysFile,
    /// Control plane: by which names agents may know which data-plane nodes, where the cluster's CA certifies
    /// them. Default: no node. Write the same in the files of all control-plane nodes.
    pub agent_names: Vec<AgentNamesFile>,
    /// Clocks; change them for slow disks or distant nodes.
    pub timings: TimingsFile,
    /// How many voters there must be.
    pub membership: MembershipFile,
    /// What the audit log does beside keeping records.
    pub audit: super::audit::AuditFile,
    /// Traces of calls.
    pub telemetry: super::telemetry::TelemetryFile,
    /// Lines of the log.
    pub log: super::telemetry::LogFile,
}

/// `[listen]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenFile {
    /// Agents. Default `0.0.0.0:8420`.
    pub http: Option<SocketAddr>,
    /// Admin gRPC. Default `127.0.0.1:8421`.
    pub admin: Option<SocketAddr>,
    /// Metrics. Default `127.0.0.1:8422`.
    pub metrics: Option<SocketAddr>,
    /// Other nodes. Default `0.0.0.0:8423`.
    pub peer: Option<SocketAddr>,
}

/// `[join]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JoinFile {
    /// A file with the token of `provost cluster join-token`.
    pub token_file: Option<PathBuf>,
}

/// `[tls]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFile {
    /// A folder with `cert.pem`, `key.pem` and `ca.pem`. Default: the cluster's own CA certifies the node.
    pub dir: Option<PathBuf>,
}

/// `[[agent_names]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentNamesFile {
    /// Names of nodes; `dp-*` takes all that begin with `dp-`.
    pub nodes: Vec<String>,
    /// DNS names and addresses that they may have; `*.example.com` takes those with one label more.
    pub names: Vec<String>,
}

/// `[keys]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysFile {
    /// `file` (default) or `vault`.
    pub provider: Option<String>,
    /// `file`: default `DATA/secrets.key`.
    pub path: Option<PathBuf>,
    /// `vault`: `https://vault:8200`.
    pub address: Option<String>,
    /// `vault`: the transit key's name.
    pub key: Option<String>,
    /// `vault`: where the transit engine is mounted. Default `transit`.
    pub mount: Option<String>,
    /// `vault`: the namespace, where Vault has them.
    pub namespace: Option<String>,
    /// `vault`: a file with the token. Default: the environment's `VAULT_TOKEN`.
    pub token_file: Option<PathBuf>,
    /// `vault`: a PEM file to trust.
    pub ca: Option<PathBuf>,
}

/// `[membership]`. The same on all control-plane nodes: whoever leads goes by its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MembershipFile {
    /// Voters that must remain after a removal. Default 1.
    pub min_voters: Option<usize>,
    /// A voter that has been dead for so long is removed. Default: never.
    pub remove_dead_after_seconds: Option<u64>,
}

/// `[timings]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimingsFile {
    /// Between two heartbeats. Default 150.
    pub heartbeat_ms: Option<u64>,
    /// A follower that hears nothing waits for `election_max_ms`, and then for a time between this
    /// and `election_max_ms`, before it asks for an election. Default 500.
    pub election_min_ms: Option<u64>,
    /// See `election_min_ms`. Default 1000: a leader whose connections ended is replaced a little later than that, one that
    /// only fell silent within two seconds.
    pub election_max_ms: Option<u64>,
    /// A learner that has kept up for so long becomes a voter. Default 10000.
    pub promote_after_ms: Option<u64>,
    /// Life of the certificates that this node signs. Default 86400 (24 h), at least 30, at most a year. Only control-plane
    /// nodes sign; write the same in all their files.
    pub certificate_ttl_seconds: Option<u64>,
    /// Data plane: how long grants hold while no control-plane node confirms them. Then calls are
    /// denied (`PV-NODE-STALE`). Shorter: a grant that was taken away lives shorter on a node that is
    /// cut off. Default 86400 (24 h); 0: for ever.
    pub grants_max_age_seconds: Option<u64>,
}
