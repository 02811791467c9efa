//! `provost model load`, `unload`, `pin` and `unpin`.

use clap::Args;
use provost_wire::{
    models::{ModelOrderRequest, ModelsOfNode},
    models_over,
};

use super::{problem_of, show::print_json};
use crate::{
    cli::{
        AdminArgs,
        admin::{dial, failed},
    },
    failure::Failure,
};

#[derive(Args)]
pub struct OrderArgs {
    /// The model.
    #[arg(value_name = "NAME")]
    name: String,
    /// On this node. Default: on all that have it.
    #[arg(long)]
    node: Option<String>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
pub struct UnloadArgs {
    #[command(flatten)]
    pub(super) order: OrderArgs,
    /// Let those who use it come to their end; new requests wait until it was loaded again.
    #[arg(long)]
    pub(super) drain: bool,
}

pub async fn give(args: &OrderArgs, order: &str, drain: bool) -> anyhow::Result<()> {
    let (channel, token, _) = dial(&args.admin).await?;
    let asked = ModelOrderRequest {
        name: args.name.clone(),
        node: args.node.clone().unwrap_or_default(),
        order: order.to_owned(),
        drain,
    };
    let answer = models_over(channel, token).order(asked).await.map_err(failed)?;
    let mut nodes = answer.into_inner().nodes;
    if args.node.is_none() {
        leave_out_others(&mut nodes);
    }
    if args.json {
        print_json(&nodes)?;
    } else {
        for node in &nodes {
            for model in &node.models {
                let pinned = if model.pinned { ", pinned" } else { "" };
                println!("{} on {}: {}{pinned}", model.name, node.node, model.state);
            }
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

/// Nodes that do not have the model are not meant, unless none has it.
pub(super) fn leave_out_others(nodes: &mut Vec<ModelsOfNode>) {
    let has_not = |node: &ModelsOfNode| {
        ["PV-MODEL-NOT-FOUND", "PV-MODEL-MISSING"].iter().any(|code| node.problem.starts_with(code))
    };
    if nodes.iter().any(|node| !has_not(node)) {
        nodes.retain(|node| !has_not(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_do_not_have_a_model_count_only_where_none_has_it() {
        let node = |problem: &str| ModelsOfNode { problem: problem.to_owned(), ..ModelsOfNode::default() };
        let left = |problems: &[&str]| {
            let mut nodes: Vec<ModelsOfNode> = problems.iter().map(|problem| node(problem)).collect();
            leave_out_others(&mut nodes);
            nodes.into_iter().map(|node| node.problem).collect::<Vec<_>>()
        };
        let (unknown, missing) = ("PV-MODEL-NOT-FOUND: a; b", "PV-MODEL-MISSING: a; b");
        assert_eq!(left(&[unknown, "", missing]), [""]);
        assert_eq!(left(&[unknown, "PV-MODEL-IN-USE: a; b"]), ["PV-MODEL-IN-USE: a; b"]);
        assert_eq!(left(&[unknown, missing]), [unknown, missing]);
    }
}
