//! `provost audit show`.

use std::process::ExitCode;

use clap::Args;
use provost_audit_store::show;
use serde_json::json;

use super::{
    body::{Names, ReadArgs},
    place::{Place, log_id, only_tenant},
    render::record_json,
};

#[derive(Args)]
pub struct ShowArgs {
    /// The record's index in its log.
    pub(super) index: u64,
    /// The tenant whose log it is; `cluster` is the cluster's own. Default: the only tenant.
    #[arg(long)]
    pub(super) tenant: Option<String>,
    /// Also open the call's arguments or answer: asks the node, which holds the key and records
    /// that they were read.
    #[arg(long)]
    pub(super) body: bool,
    /// Print as JSON, as it does without this too.
    #[arg(long = "json")]
    _json: bool,
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    pub(super) admin: ReadArgs,
}

pub fn run(args: &ShowArgs, names: &Names) -> anyhow::Result<ExitCode> {
    let dir = args.place.resolve()?;
    let log = match &args.tenant {
        Some(tenant) => log_id(tenant)?,
        None => only_tenant(&dir)?,
    };
    let shown = show(&dir, &log, args.index)?;
    let mut value = record_json(&shown.found, names)?;
    value["inclusion"] = json!({
        "checkpoint": shown.checkpoint,
        "path": shown.proof.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    println!("{}", serde_json::to_string_pretty(&value)?);
    Ok(ExitCode::SUCCESS)
}
