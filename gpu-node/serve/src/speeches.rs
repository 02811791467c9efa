//! The recordings that are being written down.
//!
//! Nothing of two recordings is computed together: each pass takes a layer of one window, or a token of its text, of the
//! tenant that has used least.

use std::sync::Arc;

use provost_gpu_infer::{SpeechJob, SpeechModel};
use provost_gpu_vram::{Grant, WeightsKey};
use provost_types::{InferenceError, Transcript};
use tokio::sync::oneshot;

use crate::contain::contained;
use crate::error;
use crate::fair::FairShare;

/// One recording under way.
pub(crate) struct ActiveSpeech {
    pub(crate) tenant: Arc<str>,
    pub(crate) key: WeightsKey,
    pub(crate) model: SpeechModel,
    pub(crate) job: Box<SpeechJob>,
    pub(crate) reply: oneshot::Sender<Result<Transcript, InferenceError>>,
    pub(crate) grant: Grant,
    pub(crate) outcome: Option<Result<Transcript, InferenceError>>,
}

/// All recordings under way, in order of their turns.
#[derive(Default)]
pub(crate) struct Speeches(Vec<ActiveSpeech>);

impl Speeches {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, speech: ActiveSpeech) {
        self.0.push(speech);
    }

    pub(crate) fn tenants(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|speech| &*speech.tenant)
    }

    /// The weights of each.
    pub(crate) fn keys(&self) -> impl Iterator<Item = WeightsKey> {
        self.0.iter().map(|speech| speech.key)
    }

    /// Takes all of them out, to be told that the node stops.
    pub(crate) fn stop(&mut self) {
        for speech in self.0.drain(..) {
            drop(speech.reply.send(Err(error::stopping())));
        }
    }

    /// Recordings that are over, or that nobody waits for.
    pub(crate) fn take_ended(&mut self) -> Vec<ActiveSpeech> {
        let is_over = |speech: &mut ActiveSpeech| speech.outcome.is_some() || speech.reply.is_closed();
        self.0.extract_if(.., is_over).collect()
    }

    /// A little more of the recording whose turn it is; it goes behind the others of its tenant.
    pub(crate) fn advance(&mut self, fair: &mut FairShare) {
        let waiting = self.0.iter().enumerate().filter(|(_, speech)| speech.outcome.is_none());
        let Some((at, _)) = waiting.min_by_key(|(_, speech)| fair.rank(&speech.tenant, 0)) else { return };
        let mut speech = self.0.remove(at);
        let before = speech.job.computed();
        let (model, job) = (&speech.model, &mut speech.job);
        let stepped = contained(|| model.step(job));
        speech.outcome = stepped.map_err(error::of_infer).transpose();
        fair.charge(&speech.tenant, speech.job.computed() - before);
        self.0.push(speech);
    }
}
