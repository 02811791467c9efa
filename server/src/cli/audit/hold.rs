//! `provost audit hold`: legal holds.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use provost_wire::{
    BearerToken,
    admin::{
        AuditHold, HoldAddRequest, HoldListRequest, HoldRemoveRequest, audit_retention_client::AuditRetentionClient,
    },
};
use serde_json::json;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use super::place::{log_id, now_ns, parse_moment, time_text};
use crate::cli::{
    AdminArgs,
    admin::{dial, failed},
    table,
};

#[derive(Subcommand)]
pub enum HoldCommand {
    /// Hold records: they are neither pruned nor erased until the hold is removed.
    #[command(
        after_help = "Example: provost audit hold add case-7 --tenant acme --principal ana --reason 'case 7 of 2026'"
    )]
    Add(AddArgs),
    /// Remove a hold.
    #[command(after_help = "Example: provost audit hold remove case-7 --tenant acme --reason 'case 7 is closed'")]
    Remove(RemoveArgs),
    /// List the holds there are.
    #[command(after_help = "Example: provost audit hold list --json")]
    List(ListArgs),
}

#[derive(Args)]
pub struct AddArgs {
    /// Names the hold within its log. Default: one is made up.
    name: Option<String>,
    /// Only this principal's: its name, or its pseudonym as records show it. Pruning keeps all records of those times all the same.
    #[arg(long)]
    principal: Option<String>,
    /// Only records from this time on: RFC 3339, or how long ago.
    #[arg(long, value_parser = parse_moment)]
    since: Option<u64>,
    /// Only records before this time, likewise.
    #[arg(long, value_parser = parse_moment)]
    until: Option<u64>,
    /// Why: the log says it.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct RemoveArgs {
    /// The hold.
    name: String,
    /// Why: the log says it.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct ListArgs {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The client of the service, and the tenant that flags or context name.
pub async fn client(
    args: &AdminArgs,
) -> anyhow::Result<(AuditRetentionClient<InterceptedService<Channel, BearerToken>>, Option<String>)> {
    let (channel, token, context) = dial(args).await?;
    Ok((AuditRetentionClient::with_interceptor(channel, token), context.tenant))
}

/// The tenant on the wire: empty for the cluster's own log.
pub fn tenant_of(named: Option<&str>) -> anyhow::Result<String> {
    let Some(name) = named else {
        let text = "whose records are meant is not clear";
        let hint = "give --tenant NAME, or --tenant cluster for the cluster's own log";
        return Err(crate::failure::Failure::new("PV-CLI-TENANT", text, hint).into());
    };
    Ok(log_id(name)?.tenant().to_owned())
}

pub async fn run(command: HoldCommand) -> anyhow::Result<ExitCode> {
    match command {
        HoldCommand::Add(args) => {
            let (mut client, context) = client(&args.admin).await?;
            let name = args.name.unwrap_or_else(|| format!("hold-{}", now_ns() / 1_000_000_000));
            let request = HoldAddRequest {
                id: name.clone(),
                tenant: tenant_of(context.as_deref())?,
                principal: args.principal.unwrap_or_default(),
                since_ns: args.since.unwrap_or_default(),
                until_ns: args.until.unwrap_or_default(),
                reason: args.reason,
            };
            let principal = request.principal.clone();
            let added = client.hold_add(request).await.map_err(failed)?.into_inner();
            println!("held: {name}");
            if added.unknown {
                eprintln!("nothing is sealed for `{principal}` there yet: see that the name is right");
            }
        }
        HoldCommand::Remove(args) => {
            let (mut client, context) = client(&args.admin).await?;
            let tenant = tenant_of(context.as_deref())?;
            let request = HoldRemoveRequest { tenant, id: args.name.clone(), reason: args.reason };
            client.hold_remove(request).await.map_err(failed)?;
            println!("no longer held: {}", args.name);
        }
        HoldCommand::List(args) => {
            let (mut client, _) = client(&args.admin).await?;
            let holds = client.hold_list(HoldListRequest {}).await.map_err(failed)?.into_inner().holds;
            if args.json {
                println!("{}", serde_json::to_string_pretty(&holds.iter().map(value).collect::<Vec<_>>())?);
            } else {
                let rows: Vec<Vec<String>> = holds.iter().map(row).collect();
                table::print(&["LOG", "HOLD", "PRINCIPAL", "SINCE", "UNTIL", "BY", "PLACED", "REASON"], &rows);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn log_of(hold: &AuditHold) -> &str {
    if hold.tenant.is_empty() { "cluster" } else { &hold.tenant }
}

fn bound(time_ns: u64) -> String {
    if time_ns == 0 || time_ns == u64::MAX { String::new() } else { time_text(time_ns) }
}

fn row(hold: &AuditHold) -> Vec<String> {
    vec![
        log_of(hold).to_owned(),
        hold.id.clone(),
        hold.principal.clone(),
        bound(hold.since_ns),
        bound(hold.until_ns),
        hold.by.clone(),
        time_text(hold.time_ns),
        hold.reason.clone(),
    ]
}

fn value(hold: &AuditHold) -> serde_json::Value {
    json!({
        "log": log_of(hold), "hold": hold.id, "principal": hold.principal, "since": bound(hold.since_ns),
        "until": bound(hold.until_ns), "by": hold.by, "placed": time_text(hold.time_ns), "reason": hold.reason,
    })
}
