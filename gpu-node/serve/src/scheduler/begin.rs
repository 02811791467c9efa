//! Beginning a request whose turn it is.

use std::sync::Arc;

use provost_gpu_infer::{ChatModel, EmbedJob, EmbeddingModel, Generation, InferError};
use provost_gpu_vram::{Grant, Unfit, WeightsKey};
use tokio::sync::mpsc;

use super::Scheduler;
use crate::arenas::Seat;
use crate::catalogue::Entry;
use crate::chats::ActiveChat;
use crate::contain::contained;
use crate::embeds::ActiveEmbed;
use crate::error;
use crate::job::{Job, Work};
use crate::residency::Model;
use crate::turns::{Need, Prepared, Waiting};

/// A request that was read, with its model.
enum Ready {
    Chat(ChatModel, Box<Generation>),
    Embed(EmbeddingModel, EmbedJob),
}

impl Ready {
    fn need(&self) -> Need {
        match self {
            Self::Chat(model, generation) => {
                Need { budget: model.scratch_bytes(generation), cache: model.cache_bytes(generation) }
            }
            Self::Embed(model, job) => Need { budget: model.memory_bytes(job), cache: 0 },
        }
    }

    fn into_prepared(self) -> Prepared {
        match self {
            Self::Chat(_, generation) => Prepared::Chat(generation),
            Self::Embed(_, job) => Prepared::Embed(job),
        }
    }
}

impl Scheduler {
    /// Begins a request; or it waits again, for what it turns out to need; or it is refused.
    pub(super) fn start(&mut self, grant: Grant) {
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
        let ready = match self.ready(&job, &entry, key, prepared) {
            Ok(ready) => ready,
            Err(cause) => {
                self.turns.finish(grant);
                job.work.refuse(error::of_infer(cause));
                return;
            }
        };
        match self.turns.fit(grant, ready.need()) {
            Ok((grant, actions)) => {
                actions.into_iter().for_each(|action| self.perform(action));
                self.begin(Waiting { job, entry, key, prepared: None }, ready, grant);
            }
            Err(Unfit::Later) => {
                let prepared = Some(ready.into_prepared());
                self.in_vain = true;
                self.turns.wait_again(ticket, Waiting { job, entry, key, prepared });
            }
            Err(Unfit::Never(why)) => self.reject(job, &entry, why),
        }
    }

    /// Whether the files of a model are still those that were asked for.
    pub(super) fn is_current(&self, entry: &Arc<Entry>) -> bool {
        self.catalogue.find(&entry.name).is_some_and(|current| Arc::ptr_eq(&current, entry))
    }

    /// Looks at a request once more whose model has changed while it waited.
    pub(super) fn ask_anew(&mut self, job: Job) {
        self.asked.push(job);
        self.in_vain = true;
    }

    /// Reads and checks a request, unless that was done before.
    fn ready(
        &self,
        job: &Job,
        entry: &Arc<Entry>,
        key: WeightsKey,
        prepared: Option<Prepared>,
    ) -> Result<Ready, InferError> {
        match (&job.work, self.residency.model(entry, key)?, prepared) {
            (Work::Chat { .. }, Model::Chat(model), Some(Prepared::Chat(generation))) => {
                Ok(Ready::Chat(model, generation))
            }
            (Work::Chat { request, .. }, Model::Chat(model), _) => {
                let generation = contained(|| model.start(request))?;
                let declared = self.catalogue.declared(&entry.name).map_or(0, |spec| spec.context_tokens);
                let generation = if declared > 0 { generation.within(declared.into())? } else { generation };
                Ok(Ready::Chat(model, Box::new(generation)))
            }
            (Work::Embed { .. }, Model::Embedding(model), Some(Prepared::Embed(job))) => Ok(Ready::Embed(model, job)),
            (Work::Embed { request, .. }, Model::Embedding(model), _) => {
                let job = contained(|| model.start(&request.inputs))?;
                Ok(Ready::Embed(model, job))
            }
            // The kind was checked against the same catalogue entry; this keeps the match total.
            (_, _, _) => Err(InferError::Failed("the model changed its kind".to_owned())),
        }
    }

    /// Begins a request that has its memory, an answer once it has its blocks.
    fn begin(&mut self, waiting: Waiting, ready: Ready, grant: Grant) {
        let key = waiting.key;
        match ready {
            Ready::Chat(model, mut generation) => match self.arenas.seat(key, &mut generation) {
                Seat::Taken => self.begin_chat(waiting.job, key, model, *generation, grant),
                Seat::Full => {
                    let prepared = Some(Prepared::Chat(generation));
                    self.in_vain = true;
                    self.turns.put_back(grant, Waiting { prepared, ..waiting });
                }
                Seat::Missing => {
                    self.turns.finish(grant);
                    let cause = InferError::Failed("the KV cache cannot be allocated".to_owned());
                    waiting.job.work.refuse(error::of_infer(cause));
                }
            },
            Ready::Embed(model, embed) => self.begin_embed(waiting.job, key, model, embed, grant),
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
}

/// Largest capacity that the channel accepts.
fn mpsc_limit() -> usize {
    tokio::sync::Semaphore::MAX_PERMITS
}
