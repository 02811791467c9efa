//! What `provost server` is told: defaults < file (TOML) < environment (`PROVOST_…`) < flags.
//!
//! Purpose: [`ServerFile`] is what people write, with every key optional; [`ServerConfig`] is what
//! the roles get, complete and checked. Unknown keys are errors.
//! Left out: resources (they are applied, not configured), secrets (they come from files that only
//! the server's user can read, never from this one).

pub mod audit;
mod check;
mod data_plane;
mod file;
pub mod gpu;
mod outside;
pub mod telemetry;

pub use check::{CERTIFICATE_TTL_VARIABLE, audit_of_environment, check};
pub use file::ServerFile;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use provost_control_api::identity::AgentNames;
use provost_data_serve::bodies::{Identities, Privacy, RedactionRule};
use provost_sealed::Keep;
use provost_wire::tls::{self, NameError, Roles};
use serde::Serialize;

use crate::node::doors::AgentConfig;

/// A part of Provost that this process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Holds the resources: a voter or learner of the control group.
    ControlPlane,
    /// Keeps the audit log.
    AuditLog,
    /// Serves calls.
    DataPlane,
    /// Runs models.
    GpuNode,
}

impl Role {
    /// As written in configuration and certificates.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::ControlPlane => "control-plane",
            Role::AuditLog => "audit-log",
            Role::DataPlane => "data-plane",
            Role::GpuNode => "gpu-node",
        }
    }
}

/// Where keys that wrap data keys are kept.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "provider")]
pub enum KeySource {
    /// A file that only the server's user can read.
    File {
        /// The file.
        path: PathBuf,
    },
    /// HashiCorp Vault's transit engine.
    Vault {
        /// `https://vault:8200`.
        address: String,
        /// The key's name.
        key: String,
        /// Where the transit engine is mounted.
        mount: String,
        /// The namespace, where Vault has them.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// A file with the token; `None`: the environment's `VAULT_TOKEN`.
        #[serde(skip_serializing_if = "Option::is_none")]
        token_file: Option<PathBuf>,
        /// A PEM file to trust instead of the system's authorities.
        ca: Option<PathBuf>,
    },
}

/// How a node without an identity gets one.
#[derive(Clone, Debug, Serialize)]
pub struct JoinConfig {
    /// A file with the token of `provost cluster join-token`.
    pub token_file: PathBuf,
}

/// Everything that a server needs to know, complete and checked.
#[derive(Clone, Debug, Serialize)]
pub struct ServerConfig {
    /// This node's name.
    pub node: String,
    /// What it runs.
    pub roles: Vec<Role>,
    /// Everything on disk.
    pub data_dir: PathBuf,
    /// Agents connect here (data plane).
    pub http: SocketAddr,
    /// Admin gRPC (control plane).
    pub admin: SocketAddr,
    /// Other nodes connect here.
    pub peer: SocketAddr,
    /// Prometheus metrics.
    pub metrics: SocketAddr,
    /// Where other nodes reach this one, `HOST:PORT`.
    pub advertise: String,
    /// Control-plane nodes to join or to take configuration from, `HOST:PORT`.
    pub control_plane: Vec<String>,
    /// How to join; needed once.
    pub join: Option<JoinConfig>,
    /// A folder with the operator's own `cert.pem`, `key.pem` and `ca.pem`; `None`: the cluster has a CA.
    pub tls_dir: Option<PathBuf>,
    /// The key that wraps data keys.
    pub keys: KeySource,
    /// Models.
    pub models: Option<PathBuf>,
    /// The memory that they may take, and how much each matters.
    pub gpu: gpu::GpuSettings,
    /// Raft's clocks, milliseconds: heartbeat, shortest and longest election timeout.
    pub heartbeat_ms: u64,
    /// Shortest silence before an election.
    pub election_min_ms: u64,
    /// Longest silence before an election.
    pub election_max_ms: u64,
    /// A learner that has kept up for so long becomes a voter.
    pub promote_after_ms: u64,
    /// Voters that must remain after a removal.
    pub min_voters: usize,
    /// A voter that has been dead for so long is removed; `None`: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_dead_after: Option<Duration>,
    /// Life of the certificates that this control plane signs.
    pub certificate_ttl: Duration,
    /// Names that it lets nodes have for agents.
    pub agent_names: AgentNames,
    /// How long grants hold while no control-plane node confirms them; `None`: for ever.
    pub grants_max_age: Option<Duration>,
    /// How agents are served (data plane).
    pub agents: AgentConfig,
    /// Private ranges that plugins may open for themselves (data plane).
    pub egress: Vec<provost_types::PrivateRange>,
    /// What the audit log does beside keeping records.
    pub audit: audit::AuditConfig,
    /// Traces of calls (data plane).
    pub telemetry: telemetry::TelemetryConfig,
    /// How lines of the log are written.
    pub log: telemetry::LogFormat,
}

/// What is kept of calls.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(into = "PrivacyFile")]
pub struct AuditSettings(pub Privacy);

/// The same as people write it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PrivacyFile {
    bodies: Option<String>,
    identities: Option<String>,
    redact: Vec<RedactionRule>,
}

impl From<AuditSettings> for PrivacyFile {
    fn from(AuditSettings(privacy): AuditSettings) -> Self {
        let bodies = match privacy.keep {
            Keep::Sealed => "sealed",
            Keep::Commitment => "commitments",
        };
        let identities = match privacy.identities {
            Identities::Names => "names",
            Identities::Pseudonyms => "pseudonyms",
        };
        let redact = privacy.redact.rules().to_vec();
        Self { bodies: Some(bodies.to_owned()), identities: Some(identities.to_owned()), redact }
    }
}

impl ServerConfig {
    /// Whether this process runs a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The roles for people: `audit-log, data-plane`.
    pub fn role_names(&self) -> String {
        self.roles.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The roles as certificates name them.
    pub fn certified_roles(&self) -> Result<Roles, NameError> {
        Roles::new(self.roles.iter().map(|r| r.as_str().parse()).collect::<Result<Vec<tls::Role>, _>>()?)
    }
}
