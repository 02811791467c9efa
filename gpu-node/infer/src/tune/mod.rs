//! Fine-tuning: the training of a low-rank adapter for a base with dense weights.
//!
//! Purpose: [`fine_tune`] reads conversations, trains an adapter to answer as they do, and writes it as PEFT does, for
//! [`ModelSource::adapted`](crate::ModelSource::adapted) to read.
//! Invariants: a line that cannot be used ends the run before it begins, with its number and the reason; every variable of the
//! adapter is known to get a gradient before the first step; what a step does follows from the settings, the data and
//! the step's number, so that a run that was killed goes on from its checkpoint as if nothing had happened; a checkpoint
//! is whole or not there.
//! The fused operations that serving uses (`softmax_last_dim`, `rms_norm`, `rope`, quantised products) drop gradients without
//! an error; [`trainee`] uses none of them.
//! Left out: whose device it is meanwhile (`provost-gpu-serve`), quantised bases, several devices.

mod adamw;
mod checkpoint;
mod error;
mod examples;
mod folder;
mod frozen;
mod order;
mod run;
mod settings;
mod task;
mod trainee;
mod variables;

pub use error::{BadLine, DataProblem, TuneError};
pub use run::{TuneStep, Tuned, fine_tune};
pub use settings::TuneSettings;
pub use task::{TaskFolder, TaskState, TuneTask};
