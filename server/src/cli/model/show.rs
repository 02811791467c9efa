//! `provost model list` and `provost model status`.

use clap::Args;
use provost_gpu_serve::ModelStore;
use provost_wire::{
    models::{ModelOnNode, ModelStatusRequest, ModelsOfNode},
    models_over,
};
use serde_json::{Value, json};

use super::{problem_of, store_of};
use crate::{
    cli::{
        AdminArgs,
        admin::{dial, failed},
        table,
    },
    failure::Failure,
};

#[derive(Args)]
pub struct ListArgs {
    /// List what was imported on this machine instead.
    #[arg(long)]
    store: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct StatusArgs {
    /// Of this model. Default: of all.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// On this node. Default: on all.
    #[arg(long)]
    node: Option<String>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn list(args: &ListArgs) -> anyhow::Result<()> {
    if args.store {
        return list_store(&store_of(args.admin.data_dir.as_ref()), args.json);
    }
    let nodes = ask(&args.admin, ModelStatusRequest::default()).await?;
    if args.json {
        return print_json(&nodes);
    }
    let row = |node: &ModelsOfNode, model: &ModelOnNode| {
        vec![model.name.clone(), node.node.clone(), state_of(model), mib(model.bytes), files_of(model)]
    };
    print_rows(&nodes, &["MODEL", "NODE", "STATE", "MIB", "FILES"], row);
    Ok(())
}

pub async fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let text = |given: &Option<String>| given.clone().unwrap_or_default();
    let asked = ModelStatusRequest { name: text(&args.name), node: text(&args.node) };
    let nodes = ask(&args.admin, asked).await?;
    // A node that did not answer may have it.
    let found = nodes.iter().any(|node| !node.models.is_empty() || !node.problem.is_empty());
    if let Some(name) = args.name.as_ref().filter(|_| !found) {
        let hint = "`provost model status` lists all; apply a Model to declare one";
        return Err(Failure::new("PV-MODEL-NOT-FOUND", format!("no node has a model `{name}`"), hint).into());
    }
    if args.json {
        return print_json(&nodes);
    }
    let row = |node: &ModelsOfNode, model: &ModelOnNode| {
        let pinned = if model.pinned { ", pinned" } else { "" };
        vec![
            model.name.clone(),
            node.node.clone(),
            format!("{}{pinned}", state_of(model)),
            model.priority.clone(),
            format!("{} + {}", model.leases, model.waiting),
            mib(model.bytes),
            [model.format.as_str(), &model.dtype].join(" ").trim().to_owned(),
            files_of(model),
        ]
    };
    let headings = ["MODEL", "NODE", "STATE", "PRIORITY", "USE + WAIT", "MIB", "FORMAT", "FILES"];
    print_rows(&nodes, &headings, row);
    for node in &nodes {
        for model in &node.models {
            let (name, node) = (&model.name, &node.node);
            if !model.reason.is_empty() {
                println!("{name} on {node}: {}", model.reason);
            }
            if !model.copied_from.is_empty() {
                let (here, all) = (mib(model.copied_bytes), mib(model.copy_bytes));
                println!("{name} on {node}: {here} of {all} MiB are copied, from {}", model.copied_from);
            }
        }
    }
    Ok(())
}

async fn ask(args: &AdminArgs, asked: ModelStatusRequest) -> anyhow::Result<Vec<ModelsOfNode>> {
    let (channel, token, _) = dial(args).await?;
    let answer = models_over(channel, token).status(asked).await.map_err(failed)?;
    Ok(answer.into_inner().nodes)
}

fn list_store(store: &ModelStore, as_json: bool) -> anyhow::Result<()> {
    let all = store.list()?;
    if as_json {
        let all: Vec<Value> = all
            .iter()
            .map(|m| {
                json!({ "name": m.name, "digest": m.digest, "format": m.format, "dtype": m.dtype, "bytes": m.bytes() })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "models": all }))?);
        return Ok(());
    }
    if all.is_empty() {
        println!("nothing was imported into {}", store.root().display());
        return Ok(());
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|m| {
            let format = format!("{} {}", m.format.as_str(), m.dtype);
            vec![m.name.clone(), mib(m.bytes()), format, m.digest.to_string()]
        })
        .collect();
    table::print(&["IMPORTED AS", "MIB", "FORMAT", "DIGEST"], &rows);
    Ok(())
}

/// Prints a row for each model on each node, by the name of the model; nodes that did not answer are said on stderr.
fn print_rows(nodes: &[ModelsOfNode], headings: &[&str], row: impl Fn(&ModelsOfNode, &ModelOnNode) -> Vec<String>) {
    let mut rows: Vec<Vec<String>> =
        nodes.iter().flat_map(|node| node.models.iter().map(|model| row(node, model)).collect::<Vec<_>>()).collect();
    rows.sort();
    if rows.is_empty() {
        println!("no node has a model");
    } else {
        table::print(headings, &rows);
    }
    for node in nodes.iter().filter(|node| !node.problem.is_empty()) {
        eprintln!("{}", problem_of(node));
    }
}

/// Prints what nodes say.
pub(super) fn print_json(nodes: &[ModelsOfNode]) -> anyhow::Result<()> {
    let of_node = |node: &ModelsOfNode| {
        let problem = Some(&node.problem).filter(|problem| !problem.is_empty());
        let models: Vec<Value> = node.models.iter().map(json_of).collect();
        json!({ "node": node.node, "problem": problem, "models": models })
    };
    let all: Vec<Value> = nodes.iter().map(of_node).collect();
    println!("{}", serde_json::to_string_pretty(&json!({ "nodes": all }))?);
    Ok(())
}

fn json_of(model: &ModelOnNode) -> Value {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    json!({
        "name": model.name, "declared": model.declared, "digest": given(&model.digest),
        "format": given(&model.format), "dtype": given(&model.dtype), "architecture": given(&model.architecture),
        "bytes": model.bytes, "state": model.state, "reason": given(&model.reason), "pinned": model.pinned,
        "priority": model.priority, "leases": model.leases, "waiting": model.waiting,
        "copy": given(&model.copied_from).map(|from| {
            json!({ "from": from, "bytes": model.copied_bytes, "of": model.copy_bytes })
        }),
    })
}

/// The state, and how much of a copy is here.
fn state_of(model: &ModelOnNode) -> String {
    match model.copied_bytes.saturating_mul(100).checked_div(model.copy_bytes) {
        Some(percent) => format!("{} {percent}%", model.state),
        None => model.state.clone(),
    }
}

fn files_of(model: &ModelOnNode) -> String {
    match (model.digest.as_str(), model.declared) {
        ("", true) => "of its path".to_owned(),
        ("", false) => "of the node's folder".to_owned(),
        // As much as tells it from others.
        (digest, _) => digest.chars().take("sha256:".len() + 12).collect(),
    }
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / (1024.0 * 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_how_far_it_is() {
        let model = |state: &str, copied_bytes, copy_bytes| ModelOnNode {
            state: state.to_owned(),
            copied_bytes,
            copy_bytes,
            ..ModelOnNode::default()
        };
        assert_eq!(state_of(&model("copying", 999, 1000)), "copying 99%");
        assert_eq!(state_of(&model("ready", 0, 0)), "ready");
    }
}
