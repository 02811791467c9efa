//! `provost connections`: what users let plugins do in their names.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use provost_types::ConnectionSpec;
use provost_wire::{
    admin,
    governance::{RevokeConnectionsRequest, RevokedConnectionsResponse},
    governance_over,
};
use serde_json::{Value, json};

use super::{
    AdminArgs,
    admin::{connect, dial, failed},
    table,
};
use crate::failure::{Failure, Usage};

#[derive(Subcommand)]
pub enum ConnectionsCommand {
    /// List who let which plugin act in their name, with which scopes, since when. Tokens are never shown.
    #[command(after_help = "Examples:\n  provost connections list\n  \
                            provost connections list --tenant acme --plugin mail --json")]
    List(ListArgs),
    /// End connections: their tokens are forgotten, and who calls the plugin is asked again.
    #[command(after_help = "Examples:\n  provost connections revoke --principal ana --plugin mail\n  \
                            provost connections revoke --principal ana --reason 'laptop stolen'\n\nA node then \
                            asks the authorization server to take the tokens back, if it offers that; its log says what \
                            came of it.")]
    Revoke(RevokeArgs),
}

/// Which connections. `--tenant` is among the arguments of every command.
#[derive(Args)]
struct WhichArgs {
    /// Of this principal.
    #[arg(long)]
    principal: Option<String>,
    /// With this plugin.
    #[arg(long)]
    plugin: Option<String>,
}

#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    plain: ListArgs,
    /// Why; recorded.
    #[arg(long, default_value = "")]
    reason: String,
}

pub async fn run(command: ConnectionsCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConnectionsCommand::List(args) => list(&args).await?,
        ConnectionsCommand::Revoke(args) => revoke(&args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let (mut client, context) = connect(&args.admin).await?;
    let tenant = context.tenant.unwrap_or_default();
    let request = admin::GetRequest { kind: "Connection".to_owned(), name: String::new(), tenant };
    let found = client.get(request).await.map_err(failed)?.into_inner().resources;
    let mut connections = Vec::new();
    for view in &found {
        let mut document: Value = serde_json::from_str(&view.json)?;
        let spec: ConnectionSpec = serde_json::from_value(document["spec"].take())?;
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        if fits(&args.which.principal, spec.principal.as_str()) && fits(&args.which.plugin, spec.plugin.as_str()) {
            let tenant = document["metadata"]["tenant"].as_str().unwrap_or_default().to_owned();
            connections.push((tenant, spec));
        }
    }
    if args.json {
        let all: Vec<Value> = connections.iter().map(|(tenant, spec)| json_of(tenant, spec)).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "connections": all }))?);
        return Ok(());
    }
    if connections.is_empty() {
        println!("no plugin acts in anybody's name");
        return Ok(());
    }
    let row = |(tenant, spec): &(String, ConnectionSpec)| {
        let ConnectionSpec { principal, plugin, scope, since, .. } = spec;
        vec![tenant.clone(), principal.to_string(), plugin.to_string(), scope.clone(), since.clone()]
    };
    let rows: Vec<Vec<String>> = connections.iter().map(row).collect();
    table::print(&["TENANT", "PRINCIPAL", "PLUGIN", "SCOPE", "SINCE"], &rows);
    Ok(())
}

fn json_of(tenant: &str, spec: &ConnectionSpec) -> Value {
    json!({
        "tenant": tenant, "principal": spec.principal, "plugin": spec.plugin, "scope": spec.scope,
        "since": spec.since,
    })
}

async fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let WhichArgs { principal, plugin } = &args.plain.which;
    if principal.is_none() && plugin.is_none() {
        let hint = "give --principal, --plugin, or both";
        return Err(Usage(Failure::new("PV-CONNECT-WHICH", "which connections are meant is not clear", hint)).into());
    }
    let (channel, token, context) = dial(&args.plain.admin).await?;
    let text = |given: &Option<String>| given.clone().unwrap_or_default();
    let request = RevokeConnectionsRequest {
        tenant: text(&context.tenant),
        principal: text(principal),
        plugin: text(plugin),
        reason: args.reason.clone(),
    };
    let done = governance_over(channel, token).revoke_connections(request).await;
    let RevokedConnectionsResponse { revision, revoked } = done.map_err(failed)?.into_inner();
    if args.plain.json {
        let all: Vec<Value> = revoked
            .iter()
            .map(|r| json!({ "tenant": r.tenant, "principal": r.principal, "plugin": r.plugin }))
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "revision": revision, "revoked": all }))?);
        return Ok(());
    }
    for connection in &revoked {
        let (principal, plugin) = (&connection.principal, &connection.plugin);
        println!("revoked: {principal} with {plugin}; revision {revision}");
    }
    if revoked.is_empty() {
        println!("there is no such connection; nothing was changed");
    }
    Ok(())
}
