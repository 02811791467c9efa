//! `provost audit prune`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use provost_wire::admin::PruneRequest;
use serde_json::json;

use super::hold::{client, tenant_of};
use crate::cli::{AdminArgs, admin::failed, parse_duration};

#[derive(Args)]
pub struct PruneArgs {
    /// Whole segments (65,536 records) whose newest record is older than this go: `400d`.
    #[arg(long, value_parser = parse_duration)]
    keep: Duration,
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn run(args: PruneArgs) -> anyhow::Result<ExitCode> {
    let (mut client, context) = client(&args.admin).await?;
    let tenant = tenant_of(context.as_deref())?;
    let request = PruneRequest { tenant, keep_seconds: args.keep.as_secs(), dry_run: args.dry_run };
    let done = client.prune(request).await.map_err(failed)?.into_inner();
    if args.json {
        println!("{}", json!({ "from": done.from, "to": done.to, "record": done.record }));
        return Ok(ExitCode::SUCCESS);
    }
    match (done.from == done.to, done.record) {
        (true, _) => println!("nothing is old enough: records are kept from {} on", done.from),
        (false, Some(record)) => println!("pruned: records {} to {}; record {record} says so", done.from, done.to),
        (false, None) => println!("would be pruned: records {} to {}", done.from, done.to),
    }
    Ok(ExitCode::SUCCESS)
}
