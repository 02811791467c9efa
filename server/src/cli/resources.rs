//! `apply`, `diff`, `get`, `describe`, `delete`, `history`, `rollback`, `explain`, `schema`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use provost_types::Kind;
use provost_wire::admin::{
    self, ApplyRequest, ApplyResponse, ChangeKind, DeleteRequest, DiffRequest, Document, ExplainRequest, GetRequest,
    HistoryRequest, ResourceChange, ResourceView, RollbackRequest, SchemaRequest,
};
use serde_json::{Value, json};

use super::{
    AdminArgs,
    admin::{connect, failed, tenant},
    documents, table,
};
use crate::failure::Failure;

#[derive(Args)]
pub struct ApplyArgs {
    /// Files or directories of YAML or JSON; `-` reads standard input.
    #[arg(short = 'f', long = "file", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Check everything and say what would change, without changing it.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history.
    #[arg(short = 'm', long, default_value = "")]
    message: String,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct DiffArgs {
    /// Files or directories of YAML or JSON; `-` reads standard input.
    #[arg(short = 'f', long = "file", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// How resources are printed.
#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Yaml,
    Json,
}

#[derive(Args)]
pub struct GetArgs {
    /// The kind, or `all`.
    kind: String,
    /// The name; all of the kind if not given.
    name: Option<String>,
    /// How to print.
    #[arg(short = 'o', long, value_enum, default_value = "table")]
    output: Output,
    /// The same as `-o json`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct DescribeArgs {
    /// The kind.
    kind: String,
    /// The name.
    name: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct DeleteArgs {
    /// The kind.
    kind: String,
    /// The name.
    name: String,
    /// Check and say what would change, without changing it.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history.
    #[arg(short = 'm', long, default_value = "")]
    message: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct HistoryArgs {
    /// Most revisions to list.
    #[arg(long, default_value = "50")]
    limit: u32,
    /// Only changes of this resource, `Kind/tenant/name`.
    #[arg(long, default_value = "")]
    resource: String,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct RollbackArgs {
    /// The revision whose state to restore.
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    to: u64,
    /// Check and say what would change, without changing it.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history.
    #[arg(short = 'm', long, default_value = "")]
    message: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct ExplainArgs {
    /// A kind, or a path such as `Plugin.source`.
    path: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct SchemaArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let documents = documents::read(files)?;
    Ok(documents.into_iter().map(|(path, text)| Document { path, text }).collect())
}

fn verb(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Created => "created",
        ChangeKind::Updated => "changed",
        ChangeKind::Deleted => "deleted",
        ChangeKind::Unchanged | ChangeKind::Unspecified => "unchanged",
    }
}

fn change_json(change: &ResourceChange) -> Value {
    let fields: Vec<Value> =
        change.fields.iter().map(|f| json!({ "field": f.field, "old": f.old, "new": f.new })).collect();
    json!({ "resource": change.resource, "change": verb(change.kind()), "fields": fields })
}

fn print_applied(response: &ApplyResponse, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let value = json!({
            "revision": response.revision,
            "dryRun": response.dry_run,
            "changes": response.changes.iter().map(change_json).collect::<Vec<_>>(),
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    for change in &response.changes {
        println!("{} {}", verb(change.kind()), change.resource);
    }
    let changed = response.changes.iter().filter(|c| c.kind() != ChangeKind::Unchanged).count();
    let done = if response.dry_run { "would change" } else { "changed" };
    println!("{changed} {done}; revision {}", response.revision);
    Ok(())
}

pub async fn apply(args: ApplyArgs) -> anyhow::Result<ExitCode> {
    let documents = read(&args.files)?;
    let (mut client, _) = connect(&args.admin).await?;
    let request = ApplyRequest { documents, dry_run: args.dry_run, message: args.message };
    let response = client.apply(request).await.map_err(failed)?.into_inner();
    print_applied(&response, args.json)?;
    Ok(ExitCode::SUCCESS)
}

pub async fn diff(args: DiffArgs) -> anyhow::Result<ExitCode> {
    let documents = read(&args.files)?;
    let (mut client, _) = connect(&args.admin).await?;
    let response = client.diff(DiffRequest { documents }).await.map_err(failed)?.into_inner();
    if response.text.is_empty() {
        println!("no difference from revision {}", response.revision);
    } else {
        print!("{}", response.text);
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(
    kind: &str,
    name: Option<&str>,
    args: &AdminArgs,
) -> anyhow::Result<(Vec<ResourceView>, super::admin::Client)> {
    let (mut client, context) = connect(args).await?;
    let kind = if kind == "all" { "" } else { kind };
    let request = GetRequest {
        kind: kind.to_owned(),
        name: name.unwrap_or_default().to_owned(),
        tenant: context.tenant.unwrap_or_default(),
    };
    let resources = client.get(request).await.map_err(failed)?.into_inner().resources;
    match name {
        Some(name) if resources.is_empty() => Err(Failure::new(
            "PV-CLI-NOT-FOUND",
            format!("there is no {kind} {name}"),
            format!("`provost get {kind}` lists what there is"),
        )
        .into()),
        _ => Ok((resources, client)),
    }
}

pub async fn get(args: GetArgs) -> anyhow::Result<ExitCode> {
    let (resources, _) = fetch(&args.kind, args.name.as_deref(), &args.admin).await?;
    let output = if args.json { Output::Json } else { args.output };
    match output {
        Output::Yaml => {
            let texts: Vec<&str> = resources.iter().map(|r| r.yaml.trim_end()).collect();
            println!("{}", texts.join("\n---\n"));
        }
        Output::Json => {
            let mut values =
                resources.iter().map(|r| serde_json::from_str(&r.json)).collect::<Result<Vec<Value>, _>>()?;
            let value = match (args.name.is_some(), values.len()) {
                (true, 1) => values.remove(0),
                _ => Value::Array(values),
            };
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        Output::Table => {
            let rows: Vec<Vec<String>> = resources
                .into_iter()
                .map(|r| vec![r.kind, r.tenant, r.name, r.modified.to_string(), r.summary])
                .collect();
            table::print(&["KIND", "TENANT", "NAME", "REVISION", "SUMMARY"], &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn describe(args: DescribeArgs) -> anyhow::Result<ExitCode> {
    let (resources, mut client) = fetch(&args.kind, Some(&args.name), &args.admin).await?;
    for view in resources {
        let key = if view.tenant.is_empty() {
            format!("{}/{}", view.kind, view.name)
        } else {
            format!("{}/{}/{}", view.kind, view.tenant, view.name)
        };
        println!("{key}\n  made at revision {}, last changed at {}", view.created, view.modified);
        println!("\n{}", view.yaml.trim_end());
        let request = HistoryRequest { limit: 10, resource: key };
        let history = client.history(request).await.map_err(failed)?.into_inner();
        println!("\nHistory");
        print_history(&history.entries);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn delete(args: DeleteArgs) -> anyhow::Result<ExitCode> {
    let (mut client, context) = connect(&args.admin).await?;
    // A kind that is not known is refused by the control plane, which says which there are.
    let tenant = match args.kind.parse::<Kind>() {
        Ok(kind) if !kind.is_tenanted() => String::new(),
        _ => tenant(&mut client, context.tenant.as_deref()).await?,
    };
    let request =
        DeleteRequest { kind: args.kind, tenant, name: args.name, message: args.message, dry_run: args.dry_run };
    let response = client.delete(request).await.map_err(failed)?.into_inner();
    print_applied(&response, false)?;
    Ok(ExitCode::SUCCESS)
}

fn print_history(entries: &[admin::HistoryEntry]) {
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|e| {
            let changes: Vec<String> = e.changes.iter().map(|c| format!("{} {}", verb(c.kind()), c.resource)).collect();
            let what = match changes.len() {
                0..=3 => changes.join(", "),
                n => format!("{}, … ({n} in all)", changes[..2].join(", ")),
            };
            vec![
                e.revision.to_string(),
                super::audit::time_text(e.time_ns),
                e.event.clone(),
                e.author.clone(),
                e.message.clone(),
                what,
            ]
        })
        .collect();
    table::print(&["REVISION", "TIME", "EVENT", "BY", "MESSAGE", "CHANGES"], &rows);
}

pub async fn history(args: HistoryArgs) -> anyhow::Result<ExitCode> {
    let (mut client, _) = connect(&args.admin).await?;
    let request = HistoryRequest { limit: args.limit, resource: args.resource };
    let response = client.history(request).await.map_err(failed)?.into_inner();
    if args.json {
        let values: Vec<Value> = response
            .entries
            .iter()
            .map(|e| {
                json!({
                    "revision": e.revision,
                    "event": e.event,
                    "time": super::audit::time_text(e.time_ns),
                    "author": e.author,
                    "message": e.message,
                    "changes": e.changes.iter().map(change_json).collect::<Vec<_>>(),
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
    } else {
        print_history(&response.entries);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn rollback(args: RollbackArgs) -> anyhow::Result<ExitCode> {
    let (mut client, _) = connect(&args.admin).await?;
    let request = RollbackRequest { to: args.to, message: args.message, dry_run: args.dry_run };
    let response = client.rollback(request).await.map_err(failed)?.into_inner();
    print_applied(&response, false)?;
    Ok(ExitCode::SUCCESS)
}

pub async fn explain(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let (mut client, _) = connect(&args.admin).await?;
    let response = client.explain(ExplainRequest { path: args.path }).await.map_err(failed)?.into_inner();
    println!("{}\n  {}\n", response.kind, response.doc.replace('\n', "\n  "));
    for field in response.fields {
        let required = if field.required { ", required" } else { "" };
        println!("{}  ({}{required})", field.path, field.r#type);
        if !field.doc.is_empty() {
            println!("    {}", field.doc.replace('\n', "\n    "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn schema(args: SchemaArgs) -> anyhow::Result<ExitCode> {
    let (mut client, _) = connect(&args.admin).await?;
    let response = client.schema(SchemaRequest {}).await.map_err(failed)?.into_inner();
    println!("{}", response.json.trim_end());
    Ok(ExitCode::SUCCESS)
}
