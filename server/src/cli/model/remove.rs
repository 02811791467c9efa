//! `provost model remove` and `provost model prune`.

use clap::Args;
use provost_wire::{
    models::{ModelRemoveRequest, ModelsOfNode, StoredModel},
    models_over,
};
use serde_json::{Value, json};

use super::{order::leave_out_others, problem_of, show::mib};
use crate::{
    cli::{
        AdminArgs,
        admin::{dial, failed},
    },
    failure::Failure,
};

#[derive(Args)]
pub struct RemoveArgs {
    /// The model: its digest, or the name under which it was imported.
    #[arg(value_name = "DIGEST|NAME")]
    model: String,
    #[command(flatten)]
    from: FromArgs,
}

#[derive(Args)]
pub struct PruneArgs {
    #[command(flatten)]
    from: FromArgs,
}

#[derive(Args)]
struct FromArgs {
    /// From the store of this node. Default: of all.
    #[arg(long)]
    node: Option<String>,
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn remove(args: &RemoveArgs) -> anyhow::Result<()> {
    run(&args.model, &args.from).await
}

pub async fn prune(args: &PruneArgs) -> anyhow::Result<()> {
    run("", &args.from).await
}

async fn run(model: &str, args: &FromArgs) -> anyhow::Result<()> {
    let (channel, token, _) = dial(&args.admin).await?;
    let node = args.node.clone().unwrap_or_default();
    let asked = ModelRemoveRequest { model: model.to_owned(), node, dry_run: args.dry_run };
    let answer = models_over(channel, token).remove(asked).await.map_err(failed)?;
    let mut nodes = answer.into_inner().nodes;
    if args.node.is_none() && !model.is_empty() {
        leave_out_others(&mut nodes);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&json_of(&nodes))?);
    } else {
        lines(&nodes, args.dry_run).iter().for_each(|line| println!("{line}"));
    }
    let mut problems: Vec<Failure> = nodes.iter().filter(|node| !node.problem.is_empty()).map(problem_of).collect();
    match problems.pop() {
        None => Ok(()),
        Some(last) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            Err(last.into())
        }
    }
}

/// What went and what stays, and how much that was.
fn lines(nodes: &[ModelsOfNode], is_for_show: bool) -> Vec<String> {
    let gone = if is_for_show { "would be removed" } else { "removed" };
    let of_node = |node: &ModelsOfNode| -> Vec<String> {
        let line = |stored: &StoredModel| {
            let StoredModel { digest, name, bytes, used_by, in_use, removed } = stored;
            let came = match (removed, used_by.as_slice(), in_use) {
                (true, ..) => gone.to_owned(),
                (false, [], true) => "stays: requests use it".to_owned(),
                (false, [], false) => "is not there any more".to_owned(),
                (false, names, _) => format!("stays: used by {}", names.join(", ")),
            };
            format!("{digest} ({name}, {} MiB) on {}: {came}", mib(*bytes), node.node)
        };
        node.stored.iter().map(line).collect()
    };
    let mut lines: Vec<String> = nodes.iter().flat_map(of_node).collect();
    let (count, bytes) = sum(nodes);
    lines.push(format!("{gone}: {count} {}, {} MiB", if count == 1 { "model" } else { "models" }, mib(bytes)));
    lines
}

/// How many went, and how many bytes those were.
fn sum(nodes: &[ModelsOfNode]) -> (usize, u64) {
    let gone = nodes.iter().flat_map(|node| &node.stored).filter(|stored| stored.removed);
    gone.fold((0, 0), |(count, bytes), stored| (count + 1, stored.bytes.saturating_add(bytes)))
}

fn json_of(nodes: &[ModelsOfNode]) -> Value {
    let of_stored = |stored: &StoredModel| {
        json!({
            "digest": stored.digest, "name": stored.name, "bytes": stored.bytes, "usedBy": stored.used_by,
            "inUse": stored.in_use, "removed": stored.removed,
        })
    };
    let of_node = |node: &ModelsOfNode| {
        let problem = Some(&node.problem).filter(|problem| !problem.is_empty());
        let stored: Vec<Value> = node.stored.iter().map(of_stored).collect();
        json!({ "node": node.node, "problem": problem, "stored": stored })
    };
    let all: Vec<Value> = nodes.iter().map(of_node).collect();
    let (count, bytes) = sum(nodes);
    json!({ "nodes": all, "removed": count, "bytes": bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_and_what_stays_is_said_with_how_much() {
        let stored = |name: &str, used_by: &[&str], in_use: bool| StoredModel {
            digest: "sha256:1".to_owned(),
            name: name.to_owned(),
            bytes: 3 << 19,
            used_by: used_by.iter().map(|name| (*name).to_owned()).collect(),
            in_use,
            removed: used_by.is_empty() && !in_use,
        };
        let all = vec![stored("a", &[], false), stored("b", &["m", "n"], false), stored("c", &[], true)];
        let nodes = [ModelsOfNode { node: "one".to_owned(), stored: all, ..ModelsOfNode::default() }];
        let expect = |gone: &str| {
            [
                format!("sha256:1 (a, 1.5 MiB) on one: {gone}"),
                "sha256:1 (b, 1.5 MiB) on one: stays: used by m, n".to_owned(),
                "sha256:1 (c, 1.5 MiB) on one: stays: requests use it".to_owned(),
                format!("{gone}: 1 model, 1.5 MiB"),
            ]
        };
        assert_eq!(lines(&nodes, false), expect("removed"));
        assert_eq!(lines(&nodes, true), expect("would be removed"));
        let said = json_of(&nodes);
        assert_eq!((&said["removed"], &said["bytes"]), (&json!(1), &json!(3 << 19)));
    }
}
