//! `provost audit checkpoints`: the copy in the control plane's consensus.

use std::process::ExitCode;

use clap::Args;
use provost_wire::admin::AuditCheckpointsRequest;

use crate::cli::{
    AdminArgs,
    admin::{connect, failed},
};

#[derive(Args)]
pub struct CheckpointsArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// Prints them as files of checkpoints are: one blank line after each.
pub async fn run(args: CheckpointsArgs) -> anyhow::Result<ExitCode> {
    let (mut client, _) = connect(&args.admin).await?;
    let held = client.audit_checkpoints(AuditCheckpointsRequest {}).await.map_err(failed)?.into_inner();
    for note in held.notes {
        println!("{note}");
    }
    Ok(ExitCode::SUCCESS)
}
