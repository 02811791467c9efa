//! `provost finetune`: an adapter for a chat model, trained on this machine. No node is asked.

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
use indicatif::{ProgressBar, ProgressStyle};
use provost_gpu_serve::{ModelSource, TuneError, TuneSettings, TuneStep, Tuned, fine_tune};
use serde_json::json;

use crate::{
    dev,
    failure::{Failure, Usage},
};

#[derive(Args)]
pub struct FinetuneArgs {
    /// The base: a folder with `config.json` and `model.safetensors`.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Conversations, one a line, as JSON.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the adapter goes, and the checkpoint until then.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
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
    let is_told = Arc::new(AtomicBool::new(false));
    let (stop, told) = (dev::stop_signal()?, Arc::clone(&is_told));
    tokio::spawn(async move {
        stop.await;
        told.store(true, Ordering::Relaxed);
    });
    let (out, as_json) = (args.out.clone(), args.json);
    let tuned = tokio::task::spawn_blocking(move || train(&args, &is_told)).await??;
    report(&tuned, &out, as_json);
    if tuned.is_complete {
        return Ok(ExitCode::SUCCESS);
    }
    let text = format!("the training was stopped after step {}", tuned.steps);
    Err(Failure::new("PV-TUNE-STOPPED", text, "run the same command again to go on from there").into())
}

fn train(args: &FinetuneArgs, is_told: &AtomicBool) -> anyhow::Result<Tuned> {
    let name = args.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let base = ModelSource::open(&name, &args.model)?;
    // Drawn on a terminal only.
    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(args.steps) };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} step {pos} of {len}  {msg}  {eta} left") {
        bar.set_style(style);
    }
    let mut watch = |step: &TuneStep| {
        bar.set_position(step.step);
        bar.set_message(format!("loss {:.4}  {:.0} tokens/s", step.loss, step.tokens_per_second));
        if args.json {
            let TuneStep { step, steps, loss, tokens, tokens_per_second } = step;
            let line = json!({ "step": step, "steps": steps, "loss": loss, "tokens": tokens,
                "tokens_per_second": tokens_per_second });
            println!("{line}");
        }
        if is_told.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let tuned = fine_tune(&base, &args.data, &args.out, &args.settings(), &mut watch);
    bar.finish_and_clear();
    tuned.map_err(|cause| match cause {
        TuneError::Settings(text) => {
            Usage(Failure::new("PV-TUNE-SETTINGS", text, "see `provost finetune --help`")).into()
        }
        other => other.into(),
    })
}

fn report(tuned: &Tuned, out: &Path, as_json: bool) {
    let Tuned { steps, resumed_from, examples, parameters, is_complete } = tuned;
    if as_json {
        let line = json!({ "steps": steps, "resumed_from": resumed_from, "examples": examples, "parameters": parameters,
            "is_complete": is_complete, "out": out.display().to_string() });
        println!("{line}");
    } else if *is_complete {
        let from = if *resumed_from > 0 { format!(" ({resumed_from} of them before)") } else { String::new() };
        println!("{}: {parameters} values trained in {steps} steps{from} on {examples} conversations", out.display());
    }
}
