//! `provost finetune list`, `status` and `cancel`: tasks of all nodes, by the admin API.

use clap::{Args, Subcommand};
use provost_wire::{
    models::{ModelsOfNode, Tuning, TuningsRequest},
    models_over,
};
use serde_json::{Value, json};

use crate::{
    cli::{
        AdminArgs,
        admin::{dial, failed},
        model::problem_of,
        table,
    },
    failure::Failure,
};

#[derive(Subcommand)]
pub enum TaskCommand {
    /// List the tasks of all nodes, and how far they are.
    #[command(after_help = "Example: provost finetune list")]
    List(ListArgs),
    /// Show how far a task is, and what came of it.
    #[command(after_help = "Example: provost finetune status support")]
    Status(TaskArgs),
    /// End a task that has not ended. What it has learned stays on the node's disk.
    #[command(after_help = "Example: provost finetune cancel support --node gpu-1")]
    Cancel(TaskArgs),
}

#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    of: OfArgs,
}

#[derive(Args)]
pub struct TaskArgs {
    /// The task.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    of: OfArgs,
}

#[derive(Args)]
struct OfArgs {
    /// On this node. Default: on all.
    #[arg(long)]
    node: Option<String>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn run(command: &TaskCommand) -> anyhow::Result<()> {
    match command {
        TaskCommand::List(args) => list(&args.of).await,
        TaskCommand::Status(args) => status(&args.name, &args.of).await,
        TaskCommand::Cancel(args) => cancel(&args.name, &args.of).await,
    }
}

async fn list(args: &OfArgs) -> anyhow::Result<()> {
    let nodes = ask(args, "").await?;
    if args.json {
        return print_json(&nodes);
    }
    print_rows(&nodes);
    tell_problems(&nodes);
    Ok(())
}

async fn status(name: &str, args: &OfArgs) -> anyhow::Result<()> {
    let nodes = ask(args, name).await?;
    // A node that did not answer may have it.
    if nodes.iter().all(|node| node.tunings.is_empty() && node.problem.is_empty()) {
        let hint = "`provost finetune list` lists those of all nodes";
        return Err(Failure::new("PV-TUNE-NOT-FOUND", format!("no node has a task `{name}`"), hint).into());
    }
    if args.json {
        return print_json(&nodes);
    }
    print_rows(&nodes);
    for node in &nodes {
        for task in &node.tunings {
            if !task.reason.is_empty() {
                println!("{} on {}: {}", task.name, node.node, task.reason);
            }
            if !task.adapter.is_empty() {
                println!("{} on {}: the adapter is in {}", task.name, node.node, task.adapter);
            }
        }
    }
    tell_problems(&nodes);
    Ok(())
}

async fn cancel(name: &str, args: &OfArgs) -> anyhow::Result<()> {
    let (channel, token, _) = dial(&args.admin).await?;
    let answer = models_over(channel, token).cancel_tuning(asked(args, name)).await.map_err(failed)?;
    let mut nodes = answer.into_inner().nodes;
    if args.node.is_none() {
        leave_out_others(&mut nodes);
    }
    if args.json {
        print_json(&nodes)?;
    } else {
        for node in nodes.iter().filter(|node| !node.tunings.is_empty()) {
            println!("{name} on {}: cancelled", node.node);
        }
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

/// Nodes that do not have the task, or find it ended in a folder that they share with another one, are not meant, unless
/// all are such.
fn leave_out_others(nodes: &mut Vec<ModelsOfNode>) {
    for code in ["PV-TUNE-NOT-FOUND", "PV-TUNE-ENDED"] {
        if nodes.iter().any(|node| !node.problem.starts_with(code)) {
            nodes.retain(|node| !node.problem.starts_with(code));
        }
    }
}

fn asked(args: &OfArgs, name: &str) -> TuningsRequest {
    TuningsRequest { name: name.to_owned(), node: args.node.clone().unwrap_or_default() }
}

async fn ask(args: &OfArgs, name: &str) -> anyhow::Result<Vec<ModelsOfNode>> {
    let (channel, token, _) = dial(&args.admin).await?;
    let answer = models_over(channel, token).tunings(asked(args, name)).await.map_err(failed)?;
    Ok(answer.into_inner().nodes)
}

fn print_rows(nodes: &[ModelsOfNode]) {
    let of_node = |node: &ModelsOfNode| node.tunings.iter().map(|task| row(&node.node, task)).collect::<Vec<_>>();
    let mut rows: Vec<Vec<String>> = nodes.iter().flat_map(of_node).collect();
    rows.sort();
    if rows.is_empty() {
        println!("no node has a task");
    } else {
        table::print(&["TASK", "NODE", "MODEL", "STATE", "STEP", "LOSS"], &rows);
    }
}

fn row(node: &str, task: &Tuning) -> Vec<String> {
    let loss = task.loss.map(|loss| format!("{loss:.4}")).unwrap_or_default();
    let step = format!("{} of {}", task.step, task.steps);
    vec![task.name.clone(), node.to_owned(), task.model.clone(), task.state.clone(), step, loss]
}

fn tell_problems(nodes: &[ModelsOfNode]) {
    for node in nodes.iter().filter(|node| !node.problem.is_empty()) {
        eprintln!("{}", problem_of(node));
    }
}

fn print_json(nodes: &[ModelsOfNode]) -> anyhow::Result<()> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let of_task = |task: &Tuning| {
        json!({
            "name": task.name, "model": given(&task.model), "state": task.state, "step": task.step,
            "steps": task.steps, "loss": task.loss, "reason": given(&task.reason), "adapter": given(&task.adapter),
        })
    };
    let of_node = |node: &ModelsOfNode| {
        let tasks: Vec<Value> = node.tunings.iter().map(of_task).collect();
        json!({ "node": node.node, "problem": given(&node.problem), "tasks": tasks })
    };
    let all: Vec<Value> = nodes.iter().map(of_node).collect();
    println!("{}", serde_json::to_string_pretty(&json!({ "nodes": all }))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_cannot_cancel_count_only_where_none_can() {
        let left = |problems: &[&str]| {
            let node = |problem: &&str| ModelsOfNode { problem: (*problem).to_owned(), ..ModelsOfNode::default() };
            let mut nodes: Vec<ModelsOfNode> = problems.iter().map(node).collect();
            leave_out_others(&mut nodes);
            nodes.into_iter().map(|node| node.problem).collect::<Vec<_>>()
        };
        let (unknown, ended) = ("PV-TUNE-NOT-FOUND: a; b", "PV-TUNE-ENDED: a; b");
        assert_eq!(left(&[unknown, "", ended]), [""]);
        assert_eq!(left(&[unknown, ended]), [ended]);
        assert_eq!(left(&[unknown, unknown]), [unknown, unknown]);
        assert_eq!(left(&[ended, "PV-TUNE-FOLDER: a"]), ["PV-TUNE-FOLDER: a"]);
    }
}
