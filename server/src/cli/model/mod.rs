//! `provost model`: models on the disks of nodes, and in their memory.

mod import;
mod order;
mod remove;
mod show;

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use provost_gpu_serve::ModelStore;
use provost_wire::{admin::Failure as Told, models::ModelsOfNode};

use super::context::{DevFile, default_data_dir};
use crate::{audit_caller::failure_of, failure::Failure};

#[derive(Subcommand)]
pub enum ModelCommand {
    /// Bring a model into the store of the node on this machine, and print the document that serves it.
    #[command(after_help = "Examples:\n  provost model import ./qwen3-8b --name qwen3 > qwen3.yaml\n  \
                            provost apply -f qwen3.yaml\n\nRun it on one GPU node, as the user that the node runs as: the others \
                            copy what is declared from it. A model that is there already is left as it is.")]
    Import(import::ImportArgs),
    /// List the models of all nodes; with --store, those in the store on this machine.
    #[command(after_help = "Examples:\n  provost model list\n  provost model list --store --data-dir /var/lib/provost")]
    List(show::ListArgs),
    /// Show how models stand on each node: their files, state, priority, and who uses and waits for them.
    #[command(after_help = "Examples:\n  provost model status\n  provost model status qwen3 --node gpu-1 --json")]
    Status(show::StatusArgs),
    /// Load a model, on the nodes that have it.
    #[command(after_help = "Example: provost model load qwen3 --node gpu-1")]
    Load(order::OrderArgs),
    /// Take a model out of memory. Whoever asks for it next has it loaded again.
    #[command(after_help = "Examples:\n  provost model unload qwen3\n  provost model unload qwen3 --drain\n\nRefused \
                            while the model is used, unless --drain, and while it is pinned.")]
    Unload(order::UnloadArgs),
    /// Load a model and let it stay in memory, until the node starts again or its resource says otherwise.
    #[command(after_help = "Example: provost model pin qwen3 --node gpu-1")]
    Pin(order::OrderArgs),
    /// Let a model go like others again.
    #[command(after_help = "Example: provost model unpin qwen3")]
    Unpin(order::OrderArgs),
    /// Remove a stored model from the disks of nodes. Refused while a Model names it or requests use it.
    #[command(after_help = "Examples:\n  provost model remove qwen3 --dry-run\n  \
                            provost model remove sha256:… --node gpu-1")]
    Remove(remove::RemoveArgs),
    /// Remove all stored models that no Model names and no request uses from the disks of nodes.
    #[command(after_help = "Examples:\n  provost model prune --dry-run\n  provost model prune --node gpu-1")]
    Prune(remove::PruneArgs),
}

pub async fn run(command: ModelCommand) -> anyhow::Result<ExitCode> {
    match command {
        ModelCommand::Import(args) => import::run(&args)?,
        ModelCommand::List(args) => show::list(&args).await?,
        ModelCommand::Status(args) => show::status(&args).await?,
        ModelCommand::Load(args) => order::give(&args, "load", false).await?,
        ModelCommand::Unload(args) => order::give(&args.order, "unload", args.drain).await?,
        ModelCommand::Pin(args) => order::give(&args, "pin", false).await?,
        ModelCommand::Unpin(args) => order::give(&args, "unpin", false).await?,
        ModelCommand::Remove(args) => remove::remove(&args).await?,
        ModelCommand::Prune(args) => remove::prune(&args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The store of the node on this machine that keeps its data there.
fn store_of(data_dir: Option<&PathBuf>) -> ModelStore {
    let data_dir = data_dir.cloned().unwrap_or_else(default_data_dir);
    // Of `provost dev --nodes 3` the process that serves calls keeps its data in a folder of its own.
    let is_of_three = DevFile::read(&data_dir).is_ok_and(|dev| !dev.nodes.is_empty());
    ModelStore::of_data_dir(&if is_of_three { data_dir.join("dev") } else { data_dir })
}

/// What a node says that it could not do.
pub fn problem_of(node: &ModelsOfNode) -> Failure {
    let Told { code, message, hint, .. } = failure_of(&node.problem, "PV-MODEL-NODE");
    Failure::new(&code, format!("node {}: {message}", node.node), hint)
}
