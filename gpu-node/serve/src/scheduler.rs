//! The thread that owns the device: admits requests and advances them in turns.
//!
//! A turn advances every answer by one token (the prompts of new ones by one chunk, one prompt a
//! turn) and one embedding job by one batch. So no request waits for the end of another, and
//! answers of one model are computed as one batch. The thread never blocks on a caller: the
//! channel of an answer has room for all of its events.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use provost_gpu_infer::{ChatModel, EmbedJob, EmbeddingModel, Finish, Generation, InferError, Step};
use provost_gpu_vram::{Lease, Refusal, WeightsKey};
use provost_types::{ChatEvent, EmbedResponse, InferenceError};
use tokio::sync::{mpsc, oneshot};

use crate::catalogue::Catalogue;
use crate::error;
use crate::inbox::{Delivery, Inbox};
use crate::job::{Job, Work};
use crate::residency::{Model, Readiness, Residency, Resident};
use crate::usage::UsageGauge;

/// A request that could not begin within this time is told to try again.
const ADMISSION_DEADLINE: Duration = Duration::from_secs(60);
/// A request that has waited this long for memory holds back later ones, so that a stream of
/// small requests cannot starve a large one.
const FAIRNESS_PATIENCE: Duration = Duration::from_secs(15);
/// How long an idle thread sleeps before it looks for cancelled or overdue requests.
const IDLE_PATIENCE: Duration = Duration::from_millis(250);
/// Embedding jobs under way at the same time.
const ACTIVE_EMBEDS: usize = 16;

/// The state of the scheduler thread.
pub(crate) struct Scheduler {
    inbox: Arc<Inbox>,
    catalogue: Arc<Catalogue>,
    residency: Residency,
    waiting: VecDeque<Job>,
    chats: VecDeque<ActiveChat>,
    embeds: VecDeque<ActiveEmbed>,
    active_chats: usize,
    usage: Arc<UsageGauge>,
}

struct ActiveChat {
    key: WeightsKey,
    model: ChatModel,
    generation: Generation,
    events: mpsc::Sender<Result<ChatEvent, InferenceError>>,
    leases: [Lease; 2],
    ended: bool,
}

struct ActiveEmbed {
    model: EmbeddingModel,
    job: EmbedJob,
    reply: oneshot::Sender<Result<EmbedResponse, InferenceError>>,
    leases: [Lease; 2],
}

/// What became of a request that was considered.
enum Considered {
    /// It began, or was answered, or nobody waits for it.
    Gone,
    /// Not yet.
    Waits(Job),
    /// Not yet, for lack of memory.
    WaitsForMemory(Job),
}

impl Scheduler {
    pub(crate) fn new(
        inbox: Arc<Inbox>,
        catalogue: Arc<Catalogue>,
        residency: Residency,
        active_chats: usize,
        usage: Arc<UsageGauge>,
    ) -> Self {
        Self {
            inbox,
            catalogue,
            residency,
            waiting: VecDeque::new(),
            chats: VecDeque::new(),
            embeds: VecDeque::new(),
            active_chats,
            usage,
        }
    }

    /// Works until told to stop.
    pub(crate) fn run(mut self, pool: &rayon::ThreadPool) {
        loop {
            let patience = match self.chats.is_empty() && self.embeds.is_empty() {
                true => IDLE_PATIENCE,
                false => Duration::ZERO,
            };
            let Delivery { jobs, loaded, stopping } = self.inbox.take(patience);
            self.waiting.extend(jobs);
            if stopping {
                self.refuse_all();
                return;
            }
            if let Some(loaded) = loaded {
                self.residency.take_in(loaded);
            }
            self.admit();
            self.usage.set(self.residency.usage());
            pool.install(|| {
                self.advance_embed();
                self.advance_chats();
            });
            self.usage.set(self.residency.usage());
        }
    }

    fn refuse_all(&mut self) {
        for job in self.waiting.drain(..) {
            job.work.refuse(error::stopping());
        }
        for chat in self.chats.drain(..) {
            drop(chat.events.try_send(Err(error::stopping())));
        }
        for embed in self.embeds.drain(..) {
            drop(embed.reply.send(Err(error::stopping())));
        }
    }

    /// Begins what can begin, first come first served.
    fn admit(&mut self) {
        let mut held_back = false;
        for job in std::mem::take(&mut self.waiting) {
            if held_back && !job.work.is_cancelled() {
                self.waiting.push_back(job);
                continue;
            }
            match self.consider(job) {
                Considered::Gone => {}
                Considered::Waits(job) => self.waiting.push_back(job),
                Considered::WaitsForMemory(job) => {
                    held_back = job.arrived.elapsed() > FAIRNESS_PATIENCE;
                    self.waiting.push_back(job);
                }
            }
        }
    }

    fn consider(&mut self, mut job: Job) -> Considered {
        if job.work.is_cancelled() {
            return Considered::Gone;
        }
        // Nothing was given back since it last failed to get memory: it would fail again.
        if job.blocked_at == Some(self.residency.epoch()) && job.arrived.elapsed() <= ADMISSION_DEADLINE {
            return Considered::WaitsForMemory(job);
        }
        if job.arrived.elapsed() > ADMISSION_DEADLINE {
            job.work.refuse(error::waited_too_long());
            return Considered::Gone;
        }
        let Some(entry) = self.catalogue.find(job.work.model()) else {
            let refusal = error::not_found(job.work.model());
            job.work.refuse(refusal);
            return Considered::Gone;
        };
        if let Ok(source) = &entry.source
            && source.info().kind != job.work.kind()
        {
            job.work.refuse(error::wrong_kind(&entry.name, source.info().kind));
            return Considered::Gone;
        }
        let full = match &job.work {
            Work::Chat { .. } => self.chats.len() >= self.active_chats,
            Work::Embed { .. } => self.embeds.len() >= ACTIVE_EMBEDS,
        };
        if full {
            return Considered::Waits(job);
        }
        match self.residency.request(&entry) {
            Readiness::Ready(resident) => self.begin(job, resident),
            Readiness::Pending => Considered::Waits(job),
            Readiness::NoRoom => {
                job.blocked_at = Some(self.residency.epoch());
                Considered::WaitsForMemory(job)
            }
            Readiness::TooLarge(refusal) => {
                job.work.refuse(error::too_large(&entry.name, &refusal));
                Considered::Gone
            }
            Readiness::Failed(cause) => {
                job.work.refuse(error::of_infer(cause));
                Considered::Gone
            }
        }
    }

    fn begin(&mut self, mut job: Job, resident: Resident) -> Considered {
        let Resident { key, model, lease } = resident;
        match (&job.work, model) {
            (Work::Chat { request, .. }, Model::Chat(model)) => {
                let started = contained(|| model.start(request));
                match self.fund(started, lease, |g| model.memory_bytes(g)) {
                    Funded::Yes(generation, leases) => self.begin_chat(job, key, model, generation, leases),
                    Funded::Later => {
                        job.blocked_at = Some(self.residency.epoch());
                        return Considered::WaitsForMemory(job);
                    }
                    Funded::Never(Unfunded::Invalid(cause)) => {
                        job.work.refuse(error::of_infer(cause));
                    }
                    Funded::Never(Unfunded::TooLarge(refusal)) => {
                        let refusal = error::too_large(job.work.model(), &refusal);
                        job.work.refuse(refusal);
                    }
                }
            }
            (Work::Embed { request, .. }, Model::Embedding(model)) => {
                let started = contained(|| model.start(&request.inputs));
                match self.fund(started, lease, |e| model.memory_bytes(e)) {
                    Funded::Yes(embed, leases) => self.begin_embed(job, model, embed, leases),
                    Funded::Later => {
                        job.blocked_at = Some(self.residency.epoch());
                        return Considered::WaitsForMemory(job);
                    }
                    Funded::Never(Unfunded::Invalid(cause)) => {
                        job.work.refuse(error::of_infer(cause));
                    }
                    Funded::Never(Unfunded::TooLarge(refusal)) => {
                        let refusal = error::too_large(job.work.model(), &refusal);
                        job.work.refuse(refusal);
                    }
                }
            }
            // The kind was checked against the same catalogue entry; this keeps the match total.
            (_, _) => {
                self.residency.release(lease);
                job.work.refuse(error::failed("the model changed its kind"));
            }
        }
        Considered::Gone
    }

    /// Books the bytes of a request that has been checked.
    fn fund<T>(&mut self, started: Result<T, InferError>, weights: Lease, bytes: impl FnOnce(&T) -> u64) -> Funded<T> {
        let started = match started {
            Ok(started) => started,
            Err(cause) => {
                self.residency.release_unused(weights);
                return Funded::Never(Unfunded::Invalid(cause));
            }
        };
        match self.residency.reserve(bytes(&started)) {
            Ok(budget) => Funded::Yes(started, [weights, budget]),
            Err(refusal) => {
                self.residency.release_unused(weights);
                // With nothing running or loading, nothing will be given back: no use in waiting.
                let others = !self.chats.is_empty() || !self.embeds.is_empty();
                let may_pass = others || self.residency.is_loading();
                match refusal.is_temporary() && may_pass {
                    true => Funded::Later,
                    false => Funded::Never(Unfunded::TooLarge(refusal)),
                }
            }
        }
    }

    fn begin_chat(&mut self, job: Job, key: WeightsKey, model: ChatModel, generation: Generation, leases: [Lease; 2]) {
        let Work::Chat { reply, .. } = job.work else {
            return;
        };
        // One event a token, the end, and a failure: sending never has to wait.
        let room = usize::try_from(generation.limit()).unwrap_or(usize::MAX).saturating_add(2);
        let (events, received) = mpsc::channel(room.min(mpsc_limit()));
        if reply.send(Ok(received)).is_err() {
            leases.into_iter().for_each(|lease| self.residency.release(lease));
            return;
        }
        self.chats.push_back(ActiveChat { key, model, generation, events, leases, ended: false });
    }

    fn begin_embed(&mut self, job: Job, model: EmbeddingModel, embed: EmbedJob, leases: [Lease; 2]) {
        let Work::Embed { reply, .. } = job.work else {
            return;
        };
        self.embeds.push_back(ActiveEmbed { model, job: embed, reply, leases });
    }

    /// One batch of the embedding job whose turn it is.
    fn advance_embed(&mut self) {
        let Some(mut active) = self.embeds.pop_front() else {
            return;
        };
        let outcome = match active.reply.is_closed() {
            true => None,
            false => match contained(|| active.model.step(&mut active.job)) {
                Ok(None) => {
                    self.embeds.push_back(active);
                    return;
                }
                Ok(Some(response)) => Some(Ok(response)),
                Err(cause) => Some(Err(error::of_infer(cause))),
            },
        };
        // The books first: whoever gets the answer may look at them.
        active.leases.into_iter().for_each(|lease| self.residency.release(lease));
        self.usage.set(self.residency.usage());
        if let Some(outcome) = outcome {
            drop(active.reply.send(outcome));
        }
    }

    /// One token for every answer, model by model.
    fn advance_chats(&mut self) {
        let mut keys: Vec<WeightsKey> = self.chats.iter().map(|chat| chat.key).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            self.advance_model(key);
        }
        for chat in std::mem::take(&mut self.chats) {
            if chat.ended {
                chat.leases.into_iter().for_each(|lease| self.residency.release(lease));
            } else {
                self.chats.push_back(chat);
            }
        }
        // Whoever was first is last next time: prompts are read in turns.
        self.chats.rotate_left(usize::from(self.chats.len() > 1));
    }

    fn advance_model(&mut self, key: WeightsKey) {
        let mut reading = 0;
        let mut batch: Vec<&mut ActiveChat> = Vec::new();
        for chat in self.chats.iter_mut().filter(|chat| chat.key == key) {
            if chat.events.is_closed() {
                chat.ended = true;
                continue;
            }
            if chat.generation.is_reading() {
                reading += 1;
                if reading > 1 {
                    continue;
                }
            }
            batch.push(chat);
        }
        let Some(model) = batch.first().map(|chat| chat.model.clone()) else {
            return;
        };
        let mut generations: Vec<&mut Generation> = batch.iter_mut().map(|chat| &mut chat.generation).collect();
        match contained(|| model.step(&mut generations)) {
            Ok(steps) => {
                for (chat, step) in batch.into_iter().zip(steps) {
                    chat.tell(step);
                }
            }
            Err(cause) => {
                for chat in batch {
                    chat.tell(Err(cause.clone()));
                }
            }
        }
    }
}

impl ActiveChat {
    /// Passes a step on. A caller that has left ends the answer.
    fn tell(&mut self, step: Result<Step, InferError>) {
        let Step { text, finish } = match step {
            Ok(step) => step,
            Err(cause) => {
                self.ended = true;
                drop(self.events.try_send(Err(error::of_infer(cause))));
                return;
            }
        };
        let mut heard = true;
        if !text.is_empty() {
            heard = self.events.try_send(Ok(ChatEvent::Delta(text))).is_ok();
        }
        if let Some(Finish { reason, usage }) = finish {
            drop(self.events.try_send(Ok(ChatEvent::End { reason, usage })));
            heard = false;
        }
        self.ended = !heard;
    }
}

/// Whether a request got its bytes.
enum Funded<T> {
    Yes(T, [Lease; 2]),
    Later,
    Never(Unfunded),
}

enum Unfunded {
    Invalid(InferError),
    TooLarge(Refusal),
}

/// A panic while computing fails the request, not the node. The tensors of a request belong to
/// it alone and weights are immutable, so nothing half-written survives.
fn contained<T>(work: impl FnOnce() -> Result<T, InferError>) -> Result<T, InferError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("a computation panicked");
        Err(InferError::Failed("the computation failed".to_owned()))
    })
}

/// Largest capacity that the channel accepts.
fn mpsc_limit() -> usize {
    tokio::sync::Semaphore::MAX_PERMITS
}
