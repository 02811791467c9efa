//! What the thread of the device says of models, for the reports of the node.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use provost_types::ModelState;

/// Between two looks at everything; a turn is much shorter.
const TOLD_EVERY: Duration = Duration::from_millis(50);

/// A model by name, as of the last look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ModelNow {
    pub(crate) state: ModelState,
    pub(crate) waiting: u64,
    pub(crate) running: u64,
    /// How long its weights took to load, if they were loaded.
    pub(crate) load: Option<Duration>,
    /// Tokens that an answer made in a second; 0: none has ended.
    pub(crate) tokens_per_s: f32,
}

impl Default for ModelNow {
    fn default() -> Self {
        Self { state: ModelState::OnDisk, waiting: 0, running: 0, load: None, tokens_per_s: 0.0 }
    }
}

/// Everything that only that thread knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Now {
    /// Models that were asked for; others are on disk.
    pub(crate) models: HashMap<String, ModelNow>,
    /// The mean time in which a request runs, in microseconds.
    pub(crate) service_micros: u64,
}

/// The thread writes, anyone may read.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<(Option<Instant>, Now)>);

impl Board {
    /// Takes what is made of the state of the thread, unless that was done just now.
    pub(crate) fn tell(&self, now: impl FnOnce() -> Now) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            *told = (Some(Instant::now()), now());
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}
