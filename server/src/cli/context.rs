//! Where a command finds its server: flags, environment, else the running `provost dev`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::AdminArgs;
use crate::failure::Failure;

/// `DATA/dev.json`: what a running `provost dev` tells other programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DevFile {
    /// MCP over Streamable HTTP.
    pub mcp: String,
    /// MCP over WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ws: Option<String>,
    /// MCP over HTTP/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub h3: Option<String>,
    /// MCP over QUIC, `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<String>,
    /// The CA that certifies `https://`, `wss://`, HTTP/3 and QUIC here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The OpenAI-compatible API.
    pub openai: String,
    /// The admin gRPC API, `HOST:PORT`.
    pub admin: String,
    /// Prometheus metrics.
    pub metrics: String,
    /// Where people look.
    pub console: String,
    /// A token for a principal of the configuration.
    pub token: String,
    /// The token for the admin API.
    pub admin_token: String,
    /// Where the audit log lies.
    pub audit_dir: PathBuf,
    /// The process.
    pub pid: u32,
    /// The voters of `--nodes 3`, each a process of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<DevNode>,
}

/// A voter of `provost dev --nodes 3`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DevNode {
    /// Its number in the group.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The process; 0 while it is being started again.
    pub pid: u32,
    /// Its own admin API.
    pub admin: String,
    /// Where its peers reach it.
    pub peer: String,
    /// Everything it keeps, with its log.
    pub data_dir: PathBuf,
}

impl DevFile {
    /// Its place under a data directory.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("dev.json")
    }

    /// Reads it.
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = Self::path(data_dir);
        let text = std::fs::read(&path).map_err(|cause| {
            Failure::new(
                "PV-CLI-NO-SERVER",
                format!("no running `provost dev` at {} ({cause})", path.display()),
                "start `provost dev`, or name the server by flags or PROVOST_URL / PROVOST_ADMIN",
            )
        })?;
        serde_json::from_slice(&text).map_err(|cause| {
            Failure::new(
                "PV-CLI-DEV-FILE",
                format!("{} cannot be read: {cause}", path.display()),
                "stop `provost dev`, delete the file and start it again",
            )
            .into()
        })
    }
}

/// Where `provost dev` keeps its data unless told otherwise: `$XDG_DATA_HOME/provost/dev`.
pub fn default_data_dir() -> PathBuf {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."));
    base.join("provost").join("dev")
}

/// The admin API to talk to.
pub struct AdminContext {
    /// `http://HOST:PORT`.
    pub endpoint: String,
    /// Bearer token.
    pub token: String,
    /// Tenant for resources that name none.
    pub tenant: Option<String>,
}

impl AdminArgs {
    /// Finds the admin API.
    pub fn resolve(&self) -> anyhow::Result<AdminContext> {
        let data_dir = self.data_dir.clone().unwrap_or_else(default_data_dir);
        let (admin, token) = match (&self.admin, &self.admin_token) {
            (Some(admin), Some(token)) => (admin.clone(), token.clone()),
            (Some(_), None) => {
                return Err(Failure::new(
                    "PV-CLI-NO-ADMIN-TOKEN",
                    "an admin address is given but no token",
                    "set PROVOST_ADMIN_TOKEN",
                )
                .into());
            }
            (None, token) => {
                let dev = DevFile::read(&data_dir)?;
                (dev.admin, token.clone().unwrap_or(dev.admin_token))
            }
        };
        let endpoint = if admin.contains("://") { admin } else { format!("http://{admin}") };
        Ok(AdminContext { endpoint, token, tenant: self.tenant.clone() })
    }
}
