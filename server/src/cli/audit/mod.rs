//! `provost audit`: query, show, verify. All three read files, so they work on a copy as well as
//! on the directory of a running node.

mod checkpoints;
mod prove;
mod reader_token;
mod receipt;
mod rotate_key;
mod tiles;
mod verify;
mod witness;

pub use verify::is_asked_for as is_audit_verify;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use provost_audit_core::LogId;
use provost_audit_store::{Found, Query, query, show};
use provost_types::{CallStatus, Name};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{context::DevFile, secrets::parse_duration, table};
use crate::failure::Failure;

/// Width to which a table cuts what may be long.
const MAX_CELL_CHARS: usize = 48;

#[derive(Subcommand)]
pub enum AuditCommand {
    /// List records.
    #[command(after_help = "Example: provost audit query --tool sql.query --status denied --since 1h")]
    Query(QueryArgs),
    /// Print one record with its proof of inclusion.
    #[command(after_help = "Example: provost audit show 12 --tenant acme")]
    Show(ShowArgs),
    /// Verify a log offline. Exit codes: 0 proven, 1 tampered, 2 consistent but unanchored,
    /// 3 stale, 4 incomplete input, 5 usage.
    #[command(after_help = "Example: provost audit verify ./data/audit --against checkpoint.txt")]
    Verify(verify::VerifyArgs),
    /// Write logs as C2SP tlog-tiles: files that tools of others read.
    #[command(after_help = "Example: provost audit tiles ./tiles --tenant acme")]
    Tiles(tiles::TilesArgs),
    /// Print a proof file: that a record is in its log (C2SP tlog-proof), or that one signed size
    /// extends another.
    #[command(after_help = "Example: provost audit prove 12 --tenant acme > 12.tlog-proof")]
    Prove(prove::ProveArgs),
    /// Check a proof file offline.
    #[command(after_help = "Example: provost audit check-proof 12.tlog-proof --key VKEY --receipt receipt.json")]
    CheckProof(prove::CheckProofArgs),
    /// Print the newest checkpoints that the control plane holds: an anchor for `verify --against`.
    #[command(
        after_help = "Example: provost audit checkpoints > anchor && provost audit verify ./audit --against anchor"
    )]
    Checkpoints(checkpoints::CheckpointsArgs),
    /// Make a token for reading one log's tiles and proofs over HTTP.
    #[command(after_help = "Example: provost audit reader-token --log acme")]
    ReaderToken(reader_token::ReaderTokenArgs),
    /// Replace the key that signs checkpoints; run it where the leader of the audit group runs.
    #[command(after_help = "Example: provost audit rotate-key --data-dir /var/lib/provost")]
    RotateKey(rotate_key::RotateKeyArgs),
    /// Run a witness: what an auditor has to trust nobody's copy but its own.
    #[command(subcommand)]
    Witness(witness::WitnessCommand),
}

impl AuditCommand {
    /// Whether the command is a long-running server, which logs more.
    pub fn is_server(&self) -> bool {
        matches!(self, AuditCommand::Witness(witness::WitnessCommand::Serve(_)))
    }
}

#[derive(Args)]
struct Place {
    /// The audit directory. Default: that of the running `provost dev`.
    #[arg(long, env = "PROVOST_AUDIT_DIR")]
    dir: Option<PathBuf>,
    /// Where the running `provost dev` keeps its data.
    #[arg(long, env = "PROVOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn resolve(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.dir {
            if !dir.is_dir() {
                return Err(Failure::new(
                    "PV-CLI-AUDIT-DIR",
                    format!("{} is no directory, so it holds no audit log", dir.display()),
                    "name the audit directory of a node, or a copy of one",
                )
                .into());
            }
            return Ok(dir.clone());
        }
        let data_dir = self.data_dir.clone().unwrap_or_else(super::context::default_data_dir);
        let audit = data_dir.join("audit");
        // A stopped node's log can be read as well: only the directory must be there.
        if audit.is_dir() { Ok(audit) } else { Ok(DevFile::read(&data_dir)?.audit_dir) }
    }
}

#[derive(Args)]
pub struct QueryArgs {
    #[command(flatten)]
    place: Place,
    /// Only this tenant's log; `cluster` is the cluster's own.
    #[arg(long)]
    tenant: Option<String>,
    /// Only this principal's.
    #[arg(long)]
    principal: Option<String>,
    /// Only this tool, prompt, resource or model.
    #[arg(long)]
    tool: Option<String>,
    /// Only calls that ended so: ok, tool_error, rpc_error, timeout, cancelled, denied,
    /// input_required, unknown.
    #[arg(long, value_parser = parse_status)]
    status: Option<CallStatus>,
    /// Only events of this kind: apply, delete, rollback, secret.set, token.create, log.start, …
    #[arg(long)]
    event: Option<String>,
    /// From this time: RFC 3339, or how long ago (`15m`, `24h`).
    #[arg(long, value_parser = parse_moment)]
    since: Option<u64>,
    /// Up to this time, likewise.
    #[arg(long, value_parser = parse_moment)]
    until: Option<u64>,
    /// Only the newest so many.
    #[arg(long, default_value = "1000")]
    limit: usize,
    /// One JSON object a line: log, index, leaf_hash, record.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct ShowArgs {
    /// The record's index in its log.
    index: u64,
    /// The tenant whose log it is; `cluster` is the cluster's own. Default: the only tenant.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    place: Place,
}

pub async fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    let command = match command {
        AuditCommand::Witness(command) => return witness::run(command).await,
        AuditCommand::Checkpoints(args) => return checkpoints::run(args).await,
        other => other,
    };
    // Reading files blocks: it has a thread of its own.
    tokio::task::spawn_blocking(move || match command {
        AuditCommand::Query(args) => run_query(&args),
        AuditCommand::Show(args) => run_show(&args),
        AuditCommand::Verify(args) => Ok(verify::run(&args)),
        AuditCommand::Tiles(args) => tiles::run(&args),
        AuditCommand::Prove(args) => prove::run(&args),
        AuditCommand::CheckProof(args) => prove::run_check(&args),
        AuditCommand::ReaderToken(args) => reader_token::run(&args),
        AuditCommand::RotateKey(args) => rotate_key::run(&args),
        AuditCommand::Witness(_) | AuditCommand::Checkpoints(_) => Ok(ExitCode::SUCCESS),
    })
    .await?
}

fn parse_status(text: &str) -> Result<CallStatus, String> {
    serde_json::from_value(Value::from(text))
        .map_err(|_| "use ok, tool_error, rpc_error, timeout, cancelled, denied, input_required or unknown".to_owned())
}

/// A moment in nanoseconds since the Unix epoch.
fn parse_moment(text: &str) -> Result<u64, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return u64::try_from(time.unix_timestamp_nanos()).map_err(|_| "before 1970".to_owned());
    }
    let ago =
        parse_duration(text).map_err(|_| format!("`{text}` is neither RFC 3339 nor a duration such as 15m or 24h"))?;
    let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
    Ok(now_ns().saturating_sub(ago))
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A time for people, in UTC to the millisecond.
pub fn time_text(time_ns: u64) -> String {
    let milliseconds = i128::from(time_ns / 1_000_000);
    OffsetDateTime::from_unix_timestamp_nanos(milliseconds * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| time_ns.to_string())
}

fn log_id(tenant: &str) -> anyhow::Result<LogId> {
    if tenant == "cluster" {
        return Ok(LogId::CLUSTER);
    }
    let name = Name::new(tenant)
        .map_err(|cause| Failure::new("PV-CLI-TENANT", cause.to_string(), "name a tenant, or `cluster`"))?;
    Ok(LogId(Some(name)))
}

fn run_query(args: &QueryArgs) -> anyhow::Result<ExitCode> {
    let dir = args.place.resolve()?;
    let filter = Query {
        log: args.tenant.as_deref().map(log_id).transpose()?,
        principal: args.principal.clone(),
        tool: args.tool.clone(),
        status: args.status,
        since_ns: args.since,
        until_ns: args.until,
        limit: args.event.is_none().then_some(args.limit),
    };
    let mut found = Vec::new();
    for record in query(&dir, filter)? {
        let record = record?;
        if args.event.is_none() || record.record.event.as_deref() == args.event.as_deref() {
            found.push(record);
        }
    }
    let skip = found.len().saturating_sub(args.limit);
    let found = &found[skip..];
    if args.json {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        for record in found {
            writeln!(out, "{}", record_json(record)?)?;
        }
        out.flush()?;
    } else {
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        let headings = ["LOG", "INDEX", "TIME", "PRINCIPAL", "PHASE", "STATUS", "WHAT", "POLICIES", "WHY"];
        table::print(&headings, &rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn record_json(found: &Found) -> anyhow::Result<Value> {
    Ok(json!({
        "log": found.log.0.as_ref().map_or("cluster", Name::as_str),
        "index": found.index,
        "leaf_hash": found.leaf_hash.to_string(),
        "record": serde_json::from_str::<Value>(&found.leaf)?,
    }))
}

fn row(found: &Found) -> Vec<String> {
    let record = &found.record;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let name = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let what = match (record.called(), record.event.as_deref()) {
        (Some(called), _) => called.to_owned(),
        (None, Some(event)) => format!("{event} {}", record.event_objects.join(" ")),
        (None, None) => text(record.method.as_deref()),
    };
    vec![
        found.log.0.as_ref().map_or("cluster", Name::as_str).to_owned(),
        found.index.to_string(),
        time_text(record.time_ns),
        text(record.principal.as_deref()),
        name(json!(record.phase)),
        record.status.map(|s| name(json!(s))).unwrap_or_default(),
        cut(&what),
        cut(&record.policies.join(" ")),
        text(record.reason.as_deref()),
    ]
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_CELL_CHARS {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX_CELL_CHARS - 1).collect();
    short.push('…');
    short
}

fn run_show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let dir = args.place.resolve()?;
    let log = match &args.tenant {
        Some(tenant) => log_id(tenant)?,
        None => only_tenant(&dir)?,
    };
    let shown = show(&dir, &log, args.index)?;
    let mut value = record_json(&shown.found)?;
    value["inclusion"] = json!({
        "checkpoint": shown.checkpoint,
        "path": shown.proof.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    println!("{}", serde_json::to_string_pretty(&value)?);
    Ok(ExitCode::SUCCESS)
}

fn only_tenant(dir: &Path) -> anyhow::Result<LogId> {
    let mut tenants: Vec<LogId> =
        provost_audit_verify::list_logs(dir)?.into_iter().filter(|log| *log != LogId::CLUSTER).collect();
    match (tenants.pop(), tenants.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(Failure::new(
            "PV-CLI-TENANT",
            "which tenant's log is meant is not clear",
            "give --tenant NAME, or --tenant cluster",
        )
        .into()),
    }
}
