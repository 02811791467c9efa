//! What is shown of a training: a bar on a terminal, or lines for programs.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use provost_gpu_serve::{TuneStep, Tuned};
use serde_json::{Value, json};

/// The steps of a training as they come.
pub struct Progress {
    bar: ProgressBar,
    as_json: bool,
}

impl Progress {
    /// Of so many steps. A bar is drawn on a terminal only.
    pub fn new(steps: u64, as_json: bool) -> Self {
        let bar = if as_json { ProgressBar::hidden() } else { ProgressBar::new(steps) };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} step {pos} of {len}  {msg}  {eta} left") {
            bar.set_style(style);
        }
        Self { bar, as_json }
    }

    /// Shows a step.
    pub fn show(&self, step: &TuneStep) {
        self.bar.set_position(step.step);
        self.bar.set_message(format!("loss {:.4}  {:.0} tokens/s", step.loss, step.tokens_per_second));
        if self.as_json {
            println!("{}", json!(step));
        }
    }

    /// Shows what came of it.
    pub fn end(&self, tuned: &Tuned, out: &Path) {
        self.bar.finish_and_clear();
        if self.as_json {
            let mut result = json!(tuned);
            result["out"] = Value::from(out.display().to_string());
            println!("{result}");
        } else if tuned.is_complete {
            let Tuned { steps, resumed_from, examples, parameters, .. } = tuned;
            let before = if *resumed_from > 0 { format!(" ({resumed_from} of them before)") } else { String::new() };
            println!(
                "{}: {parameters} values trained in {steps} steps{before} on {examples} conversations",
                out.display()
            );
        }
    }
}
