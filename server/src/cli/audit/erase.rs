//! `provost audit erase`.

use std::process::ExitCode;

use clap::Args;
use provost_wire::admin::EraseRequest;
use serde_json::json;

use crate::cli::{
    AdminArgs,
    admin::{connect, connect_audit, failed, tenant},
};

#[derive(Args)]
pub struct EraseArgs {
    /// The principal whose bodies nobody shall read any more.
    #[arg(long, value_name = "PRINCIPAL")]
    subject: String,
    /// Only bodies of months before this one.
    #[arg(long, value_name = "YYYY-MM")]
    before: Option<String>,
    /// Why: the log says it afterwards.
    #[arg(long)]
    reason: String,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn run(args: &EraseArgs) -> anyhow::Result<ExitCode> {
    let (mut admin, context) = connect(&args.admin).await?;
    let tenant = tenant(&mut admin, context.tenant.as_deref()).await?;
    let request = EraseRequest {
        tenant,
        subject: args.subject.clone(),
        before: args.before.clone().unwrap_or_default(),
        reason: args.reason.clone(),
    };
    let mut audit = connect_audit(&args.admin).await?;
    let erased = audit.erase(request).await.map_err(failed)?.into_inner();
    if args.json {
        println!("{}", json!({ "subject": erased.pseudonym, "keys": erased.keys }));
    } else if erased.keys.is_empty() {
        println!("nothing to erase: no key of {} is held", args.subject);
    } else {
        println!("erased: {} keys of {} are destroyed ({})", erased.keys.len(), args.subject, erased.pseudonym);
    }
    Ok(ExitCode::SUCCESS)
}
