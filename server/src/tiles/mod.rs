//! The audit logs over HTTP, read-only: C2SP tlog-tiles, proof files, and the files as they lie.
//!
//! Purpose: a monitor or an auditor follows a log without a copy of its folder, or makes one.
//! Invariants: nothing without a token that is listed for that log; a log that a token is not for
//! looks as if it were not there; tiles and proofs have only what a checkpoint covers.
//! Left out: `Content-Encoding`; who reads what is not in the audit log, because a monitor asks for
//! thousands of tiles.

pub mod files;
pub mod readers;
pub mod serve;

use std::{net::SocketAddr, path::PathBuf};

/// Where the logs are served, and to whom.
#[derive(Clone, Debug)]
pub struct TilesConfig {
    /// Plain HTTP on loopback, else TLS with the node's certificate.
    pub listen: SocketAddr,
    /// The list of readers; without it nobody reads.
    pub readers: Option<PathBuf>,
}

/// The variable that names the listener.
pub const LISTEN_VARIABLE: &str = "PROVOST_AUDIT_LISTEN";
/// The variable that names the list of readers.
pub const READERS_VARIABLE: &str = "PROVOST_AUDIT_READERS";

/// What the environment says; `None` by default.
pub fn from_environment() -> anyhow::Result<Option<TilesConfig>> {
    let Ok(text) = std::env::var(LISTEN_VARIABLE) else { return Ok(None) };
    let listen = text.parse().map_err(|_| {
        let text = format!("{LISTEN_VARIABLE}=`{text}` is not an address");
        crate::failure::Failure::new("PV-CONFIG-INVALID", text, "write IP:PORT")
    })?;
    Ok(Some(TilesConfig { listen, readers: std::env::var_os(READERS_VARIABLE).map(PathBuf::from) }))
}
