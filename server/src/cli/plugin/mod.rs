//! `provost plugin`: packages of plugins, what plugins offer, which definitions are approved, and taking tools out of
//! use.

mod author;
mod diff;
mod package;
mod show;
mod wait;
mod wants;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use provost_types::{PluginSource, PluginSpec, ToolPinsSpec};
use provost_wire::{
    admin,
    governance::{GovernToolsRequest, GovernedResponse},
    governance_over, packages_over,
};
use serde_json::{Value, json};

use self::wait::{Change, Waited, look};
use super::{
    AdminArgs,
    admin::{connect, dial, failed, tenant},
    table,
};

/// What callers and the log are told of a quarantine for which nobody gave a reason.
const NO_REASON: &str = "no reason was given";

#[derive(Subcommand)]
pub enum PluginCommand {
    #[command(flatten)]
    Author(author::AuthorCommand),
    /// List the plugins and how many of their tools are approved, wait, or are quarantined.
    #[command(after_help = "Example: provost plugin list --json")]
    List(ListArgs),
    /// Show a plugin's tools: hash, since when, what is suspicious, and what changed.
    #[command(
        after_help = "Examples:\n  provost plugin status files\n  provost plugin status files --tool read --json"
    )]
    Status(StatusArgs),
    /// Approve the definitions that wait, and end quarantines.
    #[command(after_help = "Examples:\n  provost plugin approve files --tool read --reason 'reviewed, PR 12'\n  \
                            provost plugin approve files")]
    Approve(GovernArgs),
    /// Take a tool, or all tools of a plugin, out of use: hidden from lists, and refused.
    #[command(after_help = "Examples:\n  provost plugin quarantine files --tool delete --reason 'INC-9'\n  \
                            provost plugin quarantine files --reason 'vendor breach'\n\nWithout --reason callers \
                            are told that none was given. To stop prompts, resources \
                            and running calls too: provost kill-switch on --plugin NAME")]
    Quarantine(GovernArgs),
    #[command(flatten)]
    Package(package::PackageCommand),
}

#[derive(Args)]
pub struct ListArgs {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct StatusArgs {
    /// The plugin.
    name: String,
    /// Only this tool, by the plugin's own name.
    #[arg(long)]
    tool: Option<String>,
    #[command(flatten)]
    plain: ListArgs,
}

#[derive(Args)]
pub struct GovernArgs {
    /// The plugin.
    name: String,
    /// Only this tool, by the plugin's own name.
    #[arg(long)]
    tool: Option<String>,
    /// Why. It is recorded; of a quarantine callers are told.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    plain: ListArgs,
}

/// A plugin with its pins.
struct Found {
    tenant: String,
    name: String,
    /// The revision that changed it last.
    modified: u64,
    spec: PluginSpec,
    pins: ToolPinsSpec,
}

pub async fn run(command: PluginCommand) -> anyhow::Result<ExitCode> {
    match command {
        PluginCommand::Author(command) => return author::run(command).await,
        PluginCommand::List(args) => list(&args).await?,
        PluginCommand::Status(args) => status(&args).await?,
        PluginCommand::Approve(args) => govern(&args, true).await?,
        PluginCommand::Quarantine(args) => govern(&args, false).await?,
        PluginCommand::Package(command) => return package::run(command).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// The plugins of the tenant, or the one of that name.
async fn find(admin: &AdminArgs, name: &str) -> anyhow::Result<Vec<Found>> {
    let (mut client, context) = connect(admin).await?;
    let tenant = tenant(&mut client, context.tenant.as_deref()).await?;
    let get =
        |kind: &str, name: &str| admin::GetRequest { kind: kind.into(), name: name.into(), tenant: tenant.clone() };
    let plugins = client.get(get("Plugin", name)).await.map_err(failed)?.into_inner().resources;
    let pins = client.get(get("ToolPins", "")).await.map_err(failed)?.into_inner().resources;
    let spec = |view: &admin::ResourceView| -> anyhow::Result<Value> {
        Ok(serde_json::from_str::<Value>(&view.json)?["spec"].take())
    };
    plugins
        .iter()
        .map(|view| {
            let pinned = pins.iter().find(|pins| pins.name == view.name).map(&spec).transpose()?;
            Ok(Found {
                tenant: tenant.clone(),
                name: view.name.clone(),
                modified: view.modified,
                spec: serde_json::from_value(spec(view)?)?,
                pins: pinned.map(serde_json::from_value).transpose()?.unwrap_or_default(),
            })
        })
        .collect()
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let found = find(&args.admin, "").await?;
    if args.json {
        let all: Vec<Value> = found.iter().map(|plugin| show::json_of(plugin, None)).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "plugins": all }))?);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found.iter().map(show::row).collect();
    table::print(&["NAME", "DEFINITIONS", "TOOLS", "WAIT", "QUARANTINED", "WARNINGS"], &rows);
    Ok(())
}

async fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let tool = args.tool.as_deref();
    for plugin in find(&args.plain.admin, &args.name).await? {
        if let Some(tool) = tool {
            show::check_tool(&plugin, tool)?;
        }
        let nodes = on_nodes(&args.plain.admin, &plugin).await?;
        if args.plain.json {
            let mut told = show::json_of(&plugin, tool);
            told["nodes"] = nodes.as_ref().map_or(Value::Null, Waited::json);
            println!("{}", serde_json::to_string_pretty(&told)?);
        } else {
            show::print(&plugin, tool, nodes.as_ref());
        }
    }
    Ok(())
}

/// How far nodes are with a component; of other plugins they say nothing that a call would not.
async fn on_nodes(admin: &AdminArgs, plugin: &Found) -> anyhow::Result<Option<Waited>> {
    if !matches!(plugin.spec.source, PluginSource::Wasm(_)) {
        return Ok(None);
    }
    let (channel, token, _) = dial(admin).await?;
    let change = Change { tenant: &plugin.tenant, plugin: &plugin.name, revision: plugin.modified };
    look(&mut packages_over(channel, token), &change).await.map(Some)
}

async fn govern(args: &GovernArgs, approves: bool) -> anyhow::Result<()> {
    let (mut client, context) = connect(&args.plain.admin).await?;
    let tenant = tenant(&mut client, context.tenant.as_deref()).await?;
    let (channel, token, _) = dial(&args.plain.admin).await?;
    let mut governance = governance_over(channel, token);
    // Who has to act at once need not find words for it: callers are told that there were none.
    let unsaid = if approves { "" } else { NO_REASON };
    let reason = args.reason.clone().unwrap_or_else(|| unsaid.to_owned());
    let (plugin, tool) = (args.name.clone(), args.tool.clone().unwrap_or_default());
    let request = GovernToolsRequest { tenant, plugin, tool, reason };
    let done = if approves { governance.approve(request).await } else { governance.quarantine(request).await };
    let GovernedResponse { revision, tools } = done.map_err(failed)?.into_inner();
    if args.plain.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "revision": revision, "tools": tools }))?);
        return Ok(());
    }
    let verb = if approves { "approved" } else { "quarantined" };
    if tools.is_empty() {
        println!("nothing to do: no tool of {} waits or changes by it", args.name);
    }
    for tool in tools {
        println!("{verb}: {}; revision {revision}", if tool == "*" { "the plugin as a whole" } else { &tool });
    }
    Ok(())
}
