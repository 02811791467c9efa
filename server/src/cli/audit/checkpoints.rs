//! `provost audit checkpoints`: the copy in the control plane's consensus.

use std::process::ExitCode;

use clap::Args;
use provost_wire::admin::AuditCheckpointsRequest;
use serde_json::json;

use crate::cli::{
    AdminArgs,
    admin::{connect, failed},
};

#[derive(Args)]
pub struct CheckpointsArgs {
    /// One JSON object a log: log, size, note.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Prints them as files of checkpoints are: one blank line after each.
pub async fn run(args: CheckpointsArgs) -> anyhow::Result<ExitCode> {
    let (mut client, _) = connect(&args.admin).await?;
    let held = client.audit_checkpoints(AuditCheckpointsRequest {}).await.map_err(failed)?.into_inner();
    for note in held.notes {
        if args.json {
            // Origin and size are a checkpoint's first two lines.
            let mut lines = note.lines();
            let (log, size) = (lines.next(), lines.next().and_then(|size| size.parse::<u64>().ok()));
            println!("{}", json!({ "log": log, "size": size, "note": note }));
            continue;
        }
        println!("{note}");
    }
    Ok(ExitCode::SUCCESS)
}
