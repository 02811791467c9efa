//! What `provost dev` says when it is ready.

use std::path::Path;

use provost_types::{Kind, Name, Snapshot};

use super::first_start::CallerToken;
use crate::cli::context::{DevFile, default_data_dir};

/// Prints addresses, a token and three things to try.
pub fn print(
    file: &DevFile,
    token: Option<&CallerToken>,
    snapshot: &Snapshot,
    anonymous: Option<&Name>,
    data_dir: &Path,
) {
    let count = |kind| snapshot.of_kind(kind).count();
    println!("Provost is ready (revision {}).", snapshot.revision);
    println!("  MCP      {}", file.mcp);
    if let (Some(quic), Some(ca)) = (&file.quic, &file.ca) {
        println!("  QUIC     {quic} (UDP: HTTP/3 and mcp/1; https and wss on the TCP port; CA in {})", ca.display());
    }
    println!("  OpenAI   {}", file.openai);
    println!("  admin    {} (gRPC)", file.admin);
    println!("  metrics  {}", file.metrics);
    println!("  data     {}", data_dir.display());
    println!(
        "  holds    {} tenants, {} principals, {} plugins, {} policies",
        count(Kind::Tenant),
        count(Kind::Principal),
        count(Kind::Plugin),
        count(Kind::Policy)
    );
    if let Some(tenant) = anonymous {
        println!();
        println!("  WARNING: {} serves anyone on this machine without a token, as {tenant}/anonymous.", file.mcp);
    }
    let Some(token) = token else { return };
    println!();
    println!("Token of {}/{}: {}", token.tenant, token.principal, token.token);
    println!();
    println!("Try:");
    let prefix = if data_dir == default_data_dir() {
        String::new()
    } else {
        format!("PROVOST_DATA_DIR={} ", data_dir.display())
    };
    let has_sql = snapshot.of_kind(Kind::Plugin).any(|p| p.metadata.name.as_str() == "sql");
    if has_sql {
        println!("  {prefix}provost call sql.query --arg sql='SELECT count(*) AS n FROM orders'");
        println!("  {prefix}provost call sql.query --arg sql='DROP TABLE orders'      # denied, by a named policy");
    } else {
        println!("  {prefix}provost tools");
        println!("  {prefix}provost get Plugin");
    }
    println!("  {prefix}provost audit query --limit 4");
}
