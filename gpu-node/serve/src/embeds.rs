//! The embedding jobs that are under way.

use std::collections::{HashSet, VecDeque};

use provost_gpu_infer::{EMBED_BATCH_TOKENS, EmbedJob, EmbedPart, EmbeddingModel};
use provost_gpu_vram::{Grant, WeightsKey};
use provost_types::{EmbedResponse, InferenceError};
use tokio::sync::oneshot;

use crate::contain::contained;
use crate::error;
use crate::fair::FairShare;

/// One job under way.
pub(crate) struct ActiveEmbed {
    pub(crate) tenant: String,
    pub(crate) key: WeightsKey,
    pub(crate) model: EmbeddingModel,
    pub(crate) job: EmbedJob,
    pub(crate) reply: oneshot::Sender<Result<EmbedResponse, InferenceError>>,
    pub(crate) grant: Grant,
    /// Texts of it in the step that is under way.
    pub(crate) granted: usize,
    pub(crate) outcome: Option<Result<EmbedResponse, InferenceError>>,
}

/// All jobs under way; the front's model is next.
#[derive(Default)]
pub(crate) struct Embeds(VecDeque<ActiveEmbed>);

impl Embeds {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, embed: ActiveEmbed) {
        self.0.push_back(embed);
    }

    pub(crate) fn tenants(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|embed| embed.tenant.as_str())
    }

    /// The weights of each.
    pub(crate) fn keys(&self) -> impl Iterator<Item = WeightsKey> {
        self.0.iter().map(|embed| embed.key)
    }

    /// Takes all of them out, to be told that the node stops.
    pub(crate) fn stop(&mut self) {
        for embed in self.0.drain(..) {
            drop(embed.reply.send(Err(error::stopping())));
        }
    }

    /// Jobs that are over, or that nobody waits for.
    pub(crate) fn take_ended(&mut self) -> Vec<ActiveEmbed> {
        let all = std::mem::take(&mut self.0);
        let is_over = |embed: &ActiveEmbed| embed.outcome.is_some() || embed.reply.is_closed();
        let (ended, active): (Vec<_>, Vec<_>) = all.into_iter().partition(is_over);
        self.0 = active.into();
        ended
    }

    /// One pass over the model of the job in front, with texts of all jobs for that model.
    pub(crate) fn advance(&mut self, fair: &mut FairShare) {
        let Some((key, model)) = self.0.front().map(|embed| (embed.key, embed.model.clone())) else {
            return;
        };
        let mut batch: Vec<&mut ActiveEmbed> = self.0.iter_mut().filter(|embed| embed.key == key).collect();
        grant(&mut batch, fair);
        batch.retain(|embed| embed.granted > 0);
        let mut parts: Vec<EmbedPart<'_>> =
            batch.iter_mut().map(|embed| EmbedPart { texts: embed.granted, job: &mut embed.job }).collect();
        match contained(|| model.step(&mut parts)) {
            Ok(outcomes) => {
                for (embed, outcome) in batch.into_iter().zip(outcomes) {
                    embed.outcome = outcome.map_err(error::of_infer).transpose();
                }
            }
            Err(cause) => {
                for embed in batch {
                    embed.outcome = Some(Err(error::of_infer(cause.clone())));
                }
            }
        }
        self.0.rotate_left(usize::from(self.0.len() > 1));
    }
}

/// Fills the budget of a step, tenant by tenant, a text at a time; who used least begins.
fn grant(batch: &mut [&mut ActiveEmbed], fair: &mut FairShare) {
    batch.iter_mut().for_each(|embed| embed.granted = 0);
    batch.sort_by_cached_key(|embed| fair.rank(&embed.tenant, 0));
    let mut tokens = 0;
    loop {
        let mut served = HashSet::new();
        for embed in batch.iter_mut() {
            if served.contains(&embed.tenant) {
                continue;
            }
            let Some(length) = embed.job.length_of(embed.granted) else { continue };
            if tokens > 0 && tokens + length > EMBED_BATCH_TOKENS {
                return;
            }
            tokens += length;
            embed.granted += 1;
            fair.charge(&embed.tenant, length as u64);
            served.insert(embed.tenant.clone());
        }
        if served.is_empty() {
            return;
        }
    }
}
