//! Beginning a request whose turn it is.

use std::sync::Arc;
use std::time::Instant;

use provost_gpu_infer::{ChatModel, EmbedJob, EmbeddingModel, Generation, InferError, SpeechJob, SpeechModel};
use provost_gpu_vram::{Grant, Unfit, WeightsKey};
use tokio::sync::mpsc;

use super::{NotReady, Scheduler};
use crate::arenas::Seat;
use crate::catalogue::Entry;
use crate::chats::ActiveChat;
use crate::contain::contained;
use crate::embeds::ActiveEmbed;
use crate::error;
use crate::job::{Job, Work};
use crate::residency::Model;
use crate::speeches::ActiveSpeech;
use crate::turns::{Need, Prepared, Waiting};

/// A request joined with its model.
enum Ready {
    Chat(ChatModel, Box<Generation>),
    Embed(EmbeddingModel, EmbedJob),
    Speech(SpeechModel, Box<SpeechJob>),
}

impl Ready {
    fn need(&self) -> Need {
        match self {
            Self::Chat(model, generation) => {
                Need { budget: model.scratch_bytes(generation), cache: model.cache_bytes(generation) }
            }
            Self::Embed(model, job) => Need { budget: model.memory_bytes(job), cache: 0 },
            Self::Speech(model, job) => Need { budget: model.memory_bytes().saturating_add(job.bytes()), cache: 0 },
        }
    }

    /// What it uses over the weights, with its bytes.
    fn adapter(&self) -> Option<(WeightsKey, u64)> {
        match self {
            Self::Chat(model, _) => model.adapter().map(|adapter| (WeightsKey::new(adapter.digest()), adapter.bytes())),
            Self::Embed(..) | Self::Speech(..) => None,
        }
    }

    fn into_prepared(self) -> Prepared {
        match self {
            Self::Chat(_, generation) => Prepared::Generation(generation),
            Self::Embed(_, job) => Prepared::Embed(job),
            Self::Speech(_, job) => Prepared::Speech(job),
        }
    }
}

impl Scheduler {
    /// Begins a request; or it waits again, for what it turns out to need; or it is refused.
    pub(super) fn start(&mut self, mut grant: Grant) {
        let (ticket, key) = (grant.ticket(), grant.key());
        let Some(Waiting { job, entry, prepared, .. }) = self.turns.take(ticket) else {
            self.turns.finish(grant);
            return;
        };
        if job.work.is_cancelled() {
            self.turns.finish(grant);
            return;
        }
        if !self.is_current(&entry) {
            self.turns.finish(grant);
            self.ask_anew(job);
            return;
        }
        let ready = match self.ready(&entry, key, prepared) {
            Ok(ready) => ready,
            Err(cause) => {
                self.turns.finish(grant);
                job.work.refuse(error::of_infer(cause));
                return;
            }
        };
        // One that is in the books already costs the request nothing.
        let missing = ready.adapter().filter(|(adapter, _)| !self.turns.hold_adapter(&mut grant, *adapter));
        match self.turns.fit(grant, ready.need(), missing.map_or(0, |(_, bytes)| bytes)) {
            Ok((grant, actions)) => {
                actions.into_iter().for_each(|action| self.perform(action));
                self.begin((job, entry, key), ready, grant, missing);
            }
            Err(Unfit::Later) => {
                let prepared = ready.into_prepared();
                self.in_vain = true;
                self.turns.wait_again(ticket, Waiting { job, entry, key, prepared });
            }
            Err(Unfit::Never(why)) => self.reject(job, &entry, why),
        }
        if missing.is_some() {
            self.book_adapters();
        }
    }

    /// Whether the files of a model are still those that were asked for.
    pub(super) fn is_current(&self, entry: &Arc<Entry>) -> bool {
        self.catalogue.find(&entry.name).is_some_and(|current| Arc::ptr_eq(&current, entry))
    }

    /// Looks at a request once more whose model has changed while it waited.
    pub(super) fn ask_anew(&mut self, job: Job) {
        self.asked.push(NotReady { job, read: None });
        self.in_vain = true;
    }

    /// Joins a request that was read with its model, unless that was done before.
    fn ready(&self, entry: &Arc<Entry>, key: WeightsKey, prepared: Prepared) -> Result<Ready, InferError> {
        match (self.residency.model(entry, key)?, prepared) {
            (Model::Chat(model), Prepared::Generation(generation)) => Ok(Ready::Chat(model, generation)),
            (Model::Chat(model), Prepared::Chat(preparation)) => {
                let generation = contained(|| model.begin(*preparation))?;
                let declared = self.catalogue.rules_of(&entry.name).map_or(0, |spec| spec.context_tokens);
                let generation = if declared > 0 { generation.within(declared.into())? } else { generation };
                Ok(Ready::Chat(model, Box::new(generation)))
            }
            (Model::Embedding(model), Prepared::Embed(job)) => {
                let job = contained(|| model.begin(job))?;
                Ok(Ready::Embed(model, job))
            }
            (Model::Speech(model), Prepared::Speech(job)) => {
                let job = contained(|| model.begin(*job))?;
                Ok(Ready::Speech(model, Box::new(job)))
            }
            // The kind was checked against the same catalogue entry; this keeps the match total.
            (_, _) => Err(InferError::Failed("the model changed its kind".to_owned())),
        }
    }

    /// Begins a request that has its memory, an answer once it has its blocks.
    /// `missing` is the adapter that it brings.
    fn begin(
        &mut self,
        (job, entry, key): (Job, Arc<Entry>, WeightsKey),
        ready: Ready,
        mut grant: Grant,
        missing: Option<(WeightsKey, u64)>,
    ) {
        match ready {
            Ready::Chat(model, mut generation) => match self.arenas.seat(key, &mut generation) {
                Seat::Taken => {
                    if let Some((adapter, bytes)) = missing {
                        // If the books refused, its bytes would stay in the budget of this request.
                        self.turns.attach(&mut grant, adapter, bytes);
                    }
                    self.begin_chat(job, key, model, *generation, grant);
                }
                Seat::Full => {
                    let prepared = Prepared::Generation(generation);
                    self.in_vain = true;
                    self.turns.put_back(grant, Waiting { job, entry, key, prepared });
                }
                Seat::Missing => {
                    self.turns.finish(grant);
                    let cause = InferError::Failed("the KV cache cannot be allocated".to_owned());
                    job.work.refuse(error::of_infer(cause));
                }
            },
            Ready::Embed(model, embed) => self.begin_embed(job, key, model, embed, grant),
            Ready::Speech(model, speech) => self.begin_speech(job, key, model, speech, grant),
        }
    }

    fn begin_chat(&mut self, job: Job, key: WeightsKey, model: ChatModel, generation: Generation, grant: Grant) {
        self.stats.began(job.arrived.elapsed());
        let tenant = job.work.tenant().to_owned();
        let Work::Chat { reply, .. } = job.work else {
            self.turns.finish(grant);
            return;
        };
        // For each token its text and its likelihood or its part of a call, or that it was made; the end, and a failure: sending never waits.
        let room = usize::try_from(generation.limit()).unwrap_or(usize::MAX).saturating_mul(2).saturating_add(2);
        let (events, received) = mpsc::channel(room.min(mpsc_limit()));
        // A caller that has left is noticed when the turn begins.
        drop(reply.send(Ok(received)));
        self.chats.push(ActiveChat {
            tenant,
            key,
            model,
            generation,
            events,
            grant,
            began: Instant::now(),
            granted: 0,
            ended: false,
            last: None,
        });
    }

    fn begin_embed(&mut self, job: Job, key: WeightsKey, model: EmbeddingModel, embed: EmbedJob, grant: Grant) {
        self.stats.began(job.arrived.elapsed());
        let tenant = job.work.tenant().to_owned();
        let Work::Embed { reply, .. } = job.work else {
            self.turns.finish(grant);
            return;
        };
        self.embeds.push(ActiveEmbed { tenant, key, model, job: embed, reply, grant, granted: 0, outcome: None });
    }

    fn begin_speech(&mut self, job: Job, key: WeightsKey, model: SpeechModel, speech: Box<SpeechJob>, grant: Grant) {
        self.stats.began(job.arrived.elapsed());
        let tenant = Arc::from(job.work.tenant());
        let Work::Speech { reply, .. } = job.work else {
            self.turns.finish(grant);
            return;
        };
        self.speeches.push(ActiveSpeech { tenant, key, model, job: speech, reply, grant, outcome: None });
    }
}

/// Largest capacity that the channel accepts.
fn mpsc_limit() -> usize {
    tokio::sync::Semaphore::MAX_PERMITS
}
