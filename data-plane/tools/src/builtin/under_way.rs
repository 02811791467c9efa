//! What a model does for a call, until the call has ended and the model's own counts are there.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use provost_data_pipeline::Usage;
use provost_mcp::RawJson;
use provost_types::ChatEvent;

/// What a call that breaks off has used, at most: nobody counted it, and it is not free.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    has_begun: AtomicBool,
    made: AtomicU64,
    /// Tokens that are read, if that is known otherwise than by the parameters.
    read: OnceLock<u64>,
}

impl UnderWay {
    /// A model computes from now on.
    pub(super) fn begins(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// The same with a recording, of which so many tokens are read and made at most.
    pub(super) fn hears_sound(&self, (read, made): (u64, u64)) {
        self.made.store(made, Ordering::Relaxed);
        self.read.get_or_init(|| read);
        self.begins();
    }

    /// It refused, and has computed nothing that is counted.
    pub(super) fn was_refused(&self) {
        self.has_begun.store(false, Ordering::Relaxed);
    }

    /// Takes in what came of an answer: each token told a byte of it at least, or nothing.
    pub(super) fn hears(&self, event: &ChatEvent) {
        let made = match event {
            ChatEvent::Silent => 1,
            ChatEvent::Delta(text) => text.len(),
            ChatEvent::Calls(deltas) => deltas.iter().map(|delta| delta.arguments.len()).sum(),
            ChatEvent::Tokens(_) | ChatEvent::End { .. } => 0,
        };
        self.made.fetch_add(made as u64, Ordering::Relaxed);
    }

    /// Upper bounds for a call with these parameters, of which each token that is read is a byte at least.
    pub(super) fn usage(&self, params: &RawJson) -> Usage {
        match self.has_begun.load(Ordering::Relaxed) {
            true => Usage {
                tokens_in: self.read.get().copied().unwrap_or(params.as_bytes().len() as u64),
                tokens_out: self.made.load(Ordering::Relaxed),
                ..Usage::default()
            },
            false => Usage::default(),
        }
    }
}
