//! `provost finetune`: an adapter for a chat model, trained by this process, or left to a node that looks for tasks in a folder;
//! and the tasks of all nodes.

mod follow;
mod progress;
mod tasks;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use progress::Progress;
use provost_gpu_serve::{ModelSource, TuneError, TuneSettings, TuneStep, fine_tune};

use crate::{
    dev,
    failure::{Failure, Usage},
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct FinetuneArgs {
    #[command(subcommand)]
    command: Option<Box<tasks::TaskCommand>>,
    /// The base: a folder with `config.json` and `model.safetensors`; with --tasks its name on the node.
    #[arg(long, value_name = "DIR|NAME", required = true)]
    model: Option<PathBuf>,
    /// Conversations, one a line, as JSON.
    #[arg(long, value_name = "FILE", required = true)]
    data: Option<PathBuf>,
    /// Where the adapter goes, and the checkpoint until then.
    #[arg(long, value_name = "DIR", required_unless_present = "tasks", conflicts_with = "tasks")]
    out: Option<PathBuf>,
    /// Leave it to the node that looks for tasks in this folder (`gpu.tuning_dir`), which has its device for it alone; and follow it.
    #[arg(long, value_name = "DIR", requires = "name")]
    tasks: Option<PathBuf>,
    /// The task's name; its folder has the adapter in the end. One that is there already is followed.
    #[arg(long, requires = "tasks")]
    name: Option<String>,
    /// Width of the adapter: a larger one learns more and costs more.
    #[arg(long, default_value_t = TuneSettings::default().rank)]
    rank: usize,
    /// What the adapter says is multiplied by this over the rank.
    #[arg(long, default_value_t = TuneSettings::default().alpha)]
    alpha: f64,
    /// How far one step goes.
    #[arg(long, value_name = "RATE", default_value_t = TuneSettings::default().learning_rate)]
    lr: f64,
    /// Steps in all.
    #[arg(long, default_value_t = TuneSettings::default().steps)]
    steps: u64,
    /// Conversations of one step.
    #[arg(long, default_value_t = TuneSettings::default().batch)]
    batch: usize,
    /// Longest conversation, in tokens.
    #[arg(long, default_value_t = TuneSettings::default().max_tokens)]
    max_tokens: usize,
    /// Decides the first weights and the order of conversations.
    #[arg(long, default_value_t = TuneSettings::default().seed)]
    seed: u64,
    /// Steps between checkpoints.
    #[arg(long, value_name = "STEPS", default_value_t = TuneSettings::default().checkpoint_every)]
    checkpoint_every: u64,
    /// Layers that get an adapter, by their names in PEFT.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", default_values_t = TuneSettings::default().targets)]
    targets: Vec<String>,
    /// Print each step and the result as JSON, one a line.
    #[arg(long)]
    json: bool,
}

impl FinetuneArgs {
    fn settings(&self) -> TuneSettings {
        TuneSettings {
            rank: self.rank,
            alpha: self.alpha,
            learning_rate: self.lr,
            steps: self.steps,
            batch: self.batch,
            max_tokens: self.max_tokens,
            seed: self.seed,
            checkpoint_every: self.checkpoint_every,
            targets: self.targets.clone(),
        }
    }
}

/// Trains until it is done, or until it is told to stop: then a checkpoint is written first.
pub async fn run(args: FinetuneArgs) -> anyhow::Result<ExitCode> {
    if let Some(command) = &args.command {
        return tasks::run(command).await.map(|()| ExitCode::SUCCESS);
    }
    let is_told = Arc::new(AtomicBool::new(false));
    let (stop, told) = (dev::stop_signal()?, Arc::clone(&is_told));
    tokio::spawn(async move {
        stop.await;
        told.store(true, Ordering::Relaxed);
    });
    tokio::task::spawn_blocking(move || {
        // The parser of the command line asks for these, and for one of the places.
        let (Some(model), Some(data)) = (&args.model, &args.data) else {
            return Err(incomplete("there is nothing to train", "write --model and --data"));
        };
        let from = (model.as_path(), data.as_path());
        match (&args.tasks, &args.name, &args.out) {
            (Some(tasks), Some(name), _) => follow::follow(&args, from, tasks, name, &is_told),
            (_, _, Some(out)) => train(&args, from, out, &is_told),
            _ => Err(incomplete("the result has no place", "write --out, or --tasks and --name")),
        }
    })
    .await?
}

fn incomplete(what: &str, hint: &str) -> anyhow::Error {
    Usage(Failure::new("PV-TUNE-SETTINGS", what, hint)).into()
}

fn train(
    args: &FinetuneArgs,
    (model, data): (&Path, &Path),
    out: &Path,
    is_told: &AtomicBool,
) -> anyhow::Result<ExitCode> {
    let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let base = ModelSource::open(&name, model)?;
    let progress = Progress::new(args.steps, args.json);
    let mut watch = |step: &TuneStep| {
        progress.show(step);
        if is_told.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let tuned = fine_tune(&base, data, out, &args.settings(), &mut watch);
    let tuned = tuned.map_err(explained)?;
    progress.end(&tuned, out);
    if tuned.is_complete {
        return Ok(ExitCode::SUCCESS);
    }
    let text = format!("the training was stopped after step {}", tuned.steps);
    Err(Failure::new("PV-TUNE-STOPPED", text, "run the same command again to go on from there").into())
}

/// Settings that make no sense are the command line's fault.
fn explained(cause: TuneError) -> anyhow::Error {
    match cause {
        TuneError::Settings(text) => {
            Usage(Failure::new("PV-TUNE-SETTINGS", text, "see `provost finetune --help`")).into()
        }
        other => other.into(),
    }
}
