//! What a front end is told by the node that composes it.

use std::sync::Arc;

use provost_data_pipeline::{Credential, Route};
use provost_mcp::RawJson;

use crate::{
    SealKeys,
    mcp::{QuicLimits, SocketLimits},
};

/// Settings of a [`Frontend`](crate::Frontend).
#[derive(Clone)]
pub struct FrontendConfig {
    /// Origins that browsers may call from: `scheme://host`, `scheme://host:port` or
    /// `scheme://host:*`. A request without `Origin` always passes. Default: loopback, any port.
    pub allowed_origins: Vec<String>,
    /// Names under which this node may be addressed: `host` (any port) or `host:port`; `*` takes
    /// any. Default: loopback. Add the public name when the node is reached under one.
    pub allowed_hosts: Vec<String>,
    /// The longest request body, in bytes.
    pub max_body_bytes: usize,
    /// Seal session ids and MRTR states; the same on every node of the cluster.
    pub seal_keys: Arc<SealKeys>,
    /// `https://mcp.example.com`, for the metadata of RFC 9728. `None`: taken from `Host`.
    pub public_url: Option<String>,
    /// Issuers of tokens that are accepted here (RFC 9728 `authorization_servers`).
    pub authorization_servers: Vec<String>,
    /// Whether results carry `_meta["io.provost/audit"]`.
    pub audit_receipts: bool,
    /// Bounds of MCP over WebSocket; a message is bounded by `max_body_bytes`.
    pub sockets: SocketLimits,
    /// Bounds of connections over QUIC; a message is bounded by `max_body_bytes`.
    pub quic: QuicLimits,
    /// What the node calls itself.
    pub server_name: String,
    /// Its version.
    pub server_version: String,
    /// The longest wait for calls in flight after a shutdown was asked for, in milliseconds.
    pub drain_ms: u64,
    /// How long connections are still accepted then, for those who do not know yet that the node goes,
    /// in milliseconds; a part of `drain_ms`.
    pub lame_duck_ms: u64,
}

impl FrontendConfig {
    /// The longest body by default: 4 MiB.
    pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
    /// The drain by default: 4 s.
    pub const DRAIN_MS: u64 = 4_000;

    /// Defaults for a node on loopback.
    pub fn new(seal_keys: Arc<SealKeys>) -> Self {
        let loopback = ["localhost", "127.0.0.1", "[::1]"];
        Self {
            allowed_origins: loopback
                .iter()
                .flat_map(|host| [format!("http://{host}:*"), format!("https://{host}:*")])
                .collect(),
            allowed_hosts: loopback.iter().map(ToString::to_string).collect(),
            max_body_bytes: Self::MAX_BODY_BYTES,
            seal_keys,
            public_url: None,
            authorization_servers: Vec::new(),
            audit_receipts: true,
            sockets: SocketLimits::DEFAULT,
            quic: QuicLimits::DEFAULT,
            server_name: "provost".to_owned(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            drain_ms: Self::DRAIN_MS,
            lame_duck_ms: 0,
        }
    }

    pub(crate) fn server_info(&self) -> RawJson {
        RawJson::from(serde_json::json!({
            "name": self.server_name,
            "version": self.server_version,
        }))
    }
}

/// The input schemas that are known now, for the check of `Mcp-Param-…` headers.
pub trait ToolSchemas: Send + Sync {
    /// The input schema of a tool as this caller sees it on this route; `None` if it is not known,
    /// in which case the headers are not checked here.
    fn input_schema(&self, credential: &Credential, route: &Route, tool: &str) -> Option<RawJson>;
}

/// Whether the node can serve, for `/readyz`; the text of the error is shown.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
