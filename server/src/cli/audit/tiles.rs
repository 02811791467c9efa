//! `provost audit tiles`: the static C2SP layout of one log or of all.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use provost_audit_core::LogId;
use provost_audit_verify::{LogLayout, LogTiles, list_logs};
use serde_json::json;

use super::place::{Place, log_id};

#[derive(Args)]
pub struct TilesArgs {
    /// Where to write: one folder a log, laid out as in the audit directory.
    out: PathBuf,
    /// Only this tenant's log; `cluster` is the cluster's own.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    place: Place,
    /// One JSON object a log: log, dir, records.
    #[arg(long)]
    json: bool,
}

/// Writes them.
pub fn run(args: &TilesArgs) -> anyhow::Result<ExitCode> {
    let dir = args.place.resolve()?;
    let logs: Vec<LogId> = match &args.tenant {
        Some(tenant) => vec![log_id(tenant)?],
        None => list_logs(&dir).with_context(|| format!("PV-AUDIT-IO: {}", dir.display()))?,
    };
    for log in logs {
        let tiles = LogTiles::open(LogLayout::new(dir.join(log.folder()))).context("PV-AUDIT-TILES")?;
        let out = args.out.join(log.folder());
        let records = tiles.export(&out).context("PV-AUDIT-TILES")?;
        let origin = &tiles.checkpoint().origin;
        if args.json {
            println!("{}", json!({ "log": origin, "dir": out, "records": records }));
        } else {
            println!("{origin}: {records} records in {}", out.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
