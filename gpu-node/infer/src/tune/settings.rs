//! What a fine-tuning is told.

use serde::{Deserialize, Serialize};

use super::TuneError;
use crate::lora::{MAX_RANK, Target};

/// Most examples of one step.
const MAX_BATCH: usize = 4096;

/// What a fine-tuning is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TuneSettings {
    /// Width of the adapter. Raise it for more to learn; memory and time grow with it.
    pub rank: usize,
    /// What the adapter says is multiplied by this over the rank.
    pub alpha: f64,
    /// How far one step goes. Lower it when the loss jumps or is no number.
    pub learning_rate: f64,
    /// Steps in all; a run that goes on from a checkpoint counts those before.
    pub steps: u64,
    /// Examples of one step. Raise it for a calmer loss.
    pub batch: usize,
    /// Longest example, in tokens. Memory grows with its square.
    pub max_tokens: usize,
    /// Decides the first weights and the order of examples.
    pub seed: u64,
    /// A checkpoint is written after so many steps, and at the end.
    pub checkpoint_every: u64,
    /// Which layers get an adapter, by their names in PEFT: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`,
    /// `down_proj`.
    pub targets: Vec<String>,
}

impl Default for TuneSettings {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            learning_rate: 2e-4,
            steps: 200,
            batch: 4,
            max_tokens: 1024,
            seed: 0,
            checkpoint_every: 20,
            targets: Target::ALL.map(|target| target.name().to_owned()).into(),
        }
    }
}

impl TuneSettings {
    /// The layers that get an adapter, if all settings are in range.
    pub(super) fn check(&self) -> Result<Vec<Target>, TuneError> {
        let refuse = |name: &str, range: &str| Err(TuneError::Settings(format!("the {name} must be {range}")));
        if !(1..=MAX_RANK).contains(&self.rank) {
            return refuse("rank", &format!("1 to {MAX_RANK}"));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse("alpha", "more than 0");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return refuse("learning rate", "more than 0 and at most 1");
        }
        if self.steps == 0 || self.checkpoint_every == 0 {
            return refuse("number of steps, and that between checkpoints,", "at least 1");
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return refuse("batch", &format!("1 to {MAX_BATCH}"));
        }
        let mut targets = Vec::new();
        for name in &self.targets {
            match Target::of_name(name) {
                Some(target) => targets.push(target),
                None => {
                    let known = Target::names();
                    return Err(TuneError::Settings(format!("`{name}` is no target; targets are {known}")));
                }
            }
        }
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() { refuse("list of targets", "not empty") } else { Ok(targets) }
    }

    pub(super) fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// What must be the same where a run goes on: all but how long it runs, and how often that is written down.
    pub(super) fn identity(&self) -> String {
        let Self { rank, alpha, learning_rate, batch, max_tokens, seed, targets, steps: _, checkpoint_every: _ } = self;
        let mut targets = targets.clone();
        targets.sort_unstable();
        targets.dedup();
        format!("{rank} {alpha} {learning_rate} {batch} {max_tokens} {seed} {targets:?}")
    }
}
