//! The thread that owns the device: admits requests and advances them in turns.
//!
//! A turn is one pass over each model that has answers under way, and one over an embedding model.
//! A pass takes the next token of every running answer and pieces of the prompts of new ones; who
//! gets how much of it is [`FairShare`]'s. Requests join and leave between passes, so none waits for
//! the end of another. The thread never blocks on a caller: the channel of an answer has room for
//! all of its events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use provost_gpu_infer::{ChatModel, EmbedJob, EmbeddingModel, Generation, InferError};
use provost_gpu_vram::{Lease, Refusal, WeightsKey};
use tokio::sync::mpsc;

use crate::arenas::{Arenas, NoPlace};
use crate::catalogue::{Catalogue, Entry};
use crate::chats::{ActiveChat, Chats};
use crate::contain::contained;
use crate::embeds::{ActiveEmbed, Embeds};
use crate::error;
use crate::fair::FairShare;
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
    arenas: Arenas,
    /// In order of arrival.
    waiting: Vec<Job>,
    chats: Chats,
    embeds: Embeds,
    fair: FairShare,
    active_chats: usize,
    usage: Arc<UsageGauge>,
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
        arenas: Arenas,
        active_chats: usize,
        usage: Arc<UsageGauge>,
    ) -> Self {
        Self {
            inbox,
            catalogue,
            residency,
            arenas,
            waiting: Vec::new(),
            chats: Chats::default(),
            embeds: Embeds::default(),
            fair: FairShare::default(),
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
            // First what was cancelled: its memory is for those who wait.
            self.retire();
            self.admit();
            self.note_usage();
            pool.install(|| {
                self.embeds.advance(&mut self.fair);
                self.chats.advance(&mut self.fair);
            });
            self.retire();
        }
    }

    /// Gives back what ended requests held, then tells their callers: whoever hears of an end may
    /// look at the books.
    fn retire(&mut self) {
        let chats = self.chats.take_ended();
        let embeds = self.embeds.take_ended();
        let mut ends: Vec<Box<dyn FnOnce()>> = Vec::with_capacity(chats.len() + embeds.len());
        for chat in chats {
            let ActiveChat { generation, leases, events, last, .. } = chat;
            drop(generation);
            leases.into_iter().for_each(|lease| self.residency.release(lease));
            ends.extend(last.map(|last| Box::new(move || drop(events.try_send(last))) as Box<dyn FnOnce()>));
        }
        for embed in embeds {
            let ActiveEmbed { reply, leases, outcome, .. } = embed;
            leases.into_iter().for_each(|lease| self.residency.release(lease));
            ends.extend(outcome.map(|outcome| Box::new(move || drop(reply.send(outcome))) as Box<dyn FnOnce()>));
        }
        let waiting = self.waiting.iter().map(|job| job.work.tenant());
        let present: HashSet<&str> = self.chats.tenants().chain(self.embeds.tenants()).chain(waiting).collect();
        self.fair.keep(&present);
        self.note_usage();
        ends.into_iter().for_each(|end| end());
    }

    fn note_usage(&self) {
        self.usage.set(self.residency.usage(), self.arenas.usage());
    }

    fn refuse_all(&mut self) {
        for job in self.waiting.drain(..) {
            job.work.refuse(error::stopping());
        }
        self.chats.stop();
        self.embeds.stop();
    }

    /// Begins what can begin: of the tenant that used least, and of one tenant first come first
    /// served. A schema is compiled with each try to begin, on this thread: where one request with a
    /// schema waits for memory, its tenant's later ones with a schema are not tried in this turn.
    fn admit(&mut self) {
        let mut held_back = false;
        let mut compiled_in_vain: HashSet<String> = HashSet::new();
        for job in self.in_order() {
            let is_in_vain = job.work.has_schema() && compiled_in_vain.contains(job.work.tenant());
            if (held_back || is_in_vain) && !job.work.is_cancelled() {
                self.waiting.push(job);
                continue;
            }
            match self.consider(job) {
                Considered::Gone => {}
                Considered::Waits(job) => self.waiting.push(job),
                Considered::WaitsForMemory(job) => {
                    held_back = is_overdue(&job);
                    if job.work.has_schema() {
                        compiled_in_vain.insert(job.work.tenant().to_owned());
                    }
                    self.waiting.push(job);
                }
            }
        }
        self.waiting.sort_by_key(|job| job.arrived);
    }

    /// Takes the waiting requests in the order in which they may begin.
    fn in_order(&mut self) -> Vec<Job> {
        let mut begun: HashMap<String, usize> = HashMap::new();
        for tenant in self.chats.tenants().chain(self.embeds.tenants()) {
            *begun.entry(tenant.to_owned()).or_default() += 1;
        }
        let mut ranked: Vec<((bool, u64), Job)> = Vec::with_capacity(self.waiting.len());
        for job in self.waiting.drain(..) {
            self.fair.enter(job.work.tenant());
            let ahead = begun.entry(job.work.tenant().to_owned()).or_default();
            let rank = self.fair.rank(job.work.tenant(), *ahead);
            *ahead += 1;
            ranked.push(((!is_overdue(&job), rank), job));
        }
        ranked.sort_by_key(|(rank, job)| (*rank, job.arrived));
        ranked.into_iter().map(|(_, job)| job).collect()
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
        match self.ready(&entry) {
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

    /// Asks for a model; what unused KV caches hold is given back before anyone waits for memory.
    fn ready(&mut self, entry: &Arc<Entry>) -> Readiness {
        loop {
            match self.residency.request(entry) {
                Readiness::NoRoom if self.arenas.drop_one(&mut self.residency) => {}
                answer => return answer,
            }
        }
    }

    fn begin(&mut self, job: Job, resident: Resident) -> Considered {
        let Resident { key, model, lease } = resident;
        let unbegun = match (&job.work, model) {
            (Work::Chat { request, .. }, Model::Chat(model)) => {
                let started = contained(|| model.start(request));
                match self.fund_chat(key, &model, started, lease) {
                    Ok((generation, leases)) => return self.begin_chat(job, key, model, generation, leases),
                    Err(unbegun) => unbegun,
                }
            }
            (Work::Embed { request, .. }, Model::Embedding(model)) => {
                let started = contained(|| model.start(&request.inputs));
                match self.fund(started, lease, |e| model.memory_bytes(e)) {
                    Ok((embed, leases)) => return self.begin_embed(job, key, model, embed, leases),
                    Err(unbegun) => unbegun,
                }
            }
            // The kind was checked against the same catalogue entry; this keeps the match total.
            (_, _) => {
                self.residency.release(lease);
                Unbegun::Never(InferError::Failed("the model changed its kind".to_owned()))
            }
        };
        self.put_off(job, unbegun)
    }

    /// What becomes of a request that could not begin.
    fn put_off(&mut self, mut job: Job, unbegun: Unbegun) -> Considered {
        // With nothing running or loading, nothing will be given back: no use in waiting.
        let may_pass = !self.chats.is_empty() || !self.embeds.is_empty() || self.residency.is_loading();
        match unbegun {
            Unbegun::Never(cause) => job.work.refuse(error::of_infer(cause)),
            Unbegun::Memory(refusal) if !(refusal.is_temporary() && may_pass) => {
                let refusal = error::too_large(job.work.model(), &refusal);
                job.work.refuse(refusal);
            }
            Unbegun::Memory(_) | Unbegun::Full => {
                job.blocked_at = Some(self.residency.epoch());
                return Considered::WaitsForMemory(job);
            }
        }
        Considered::Gone
    }

    /// Books the bytes of a request that has been checked.
    fn fund<T>(
        &mut self,
        started: Result<T, InferError>,
        weights: Lease,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<(T, [Lease; 2]), Unbegun> {
        let unbegun = match started {
            Ok(started) => match self.reserve(bytes(&started)) {
                Ok(budget) => return Ok((started, [weights, budget])),
                Err(refusal) => Unbegun::Memory(refusal),
            },
            Err(cause) => Unbegun::Never(cause),
        };
        self.residency.release_unused(weights);
        Err(unbegun)
    }

    /// Books the bytes of an answer and gives it its place in the KV cache of its model.
    fn fund_chat(
        &mut self,
        key: WeightsKey,
        model: &ChatModel,
        started: Result<Generation, InferError>,
        weights: Lease,
    ) -> Result<(Generation, [Lease; 2]), Unbegun> {
        let (mut generation, leases) = self.fund(started, weights, |g| model.scratch_bytes(g))?;
        let unbegun = match self.arenas.seat(&mut self.residency, key, model, &mut generation) {
            Ok(()) => return Ok((generation, leases)),
            Err(NoPlace::Full) => Unbegun::Full,
            Err(NoPlace::Memory(refusal)) => Unbegun::Memory(refusal),
            Err(NoPlace::Failed(cause)) => Unbegun::Never(cause),
        };
        leases.into_iter().for_each(|lease| self.residency.release_unused(lease));
        Err(unbegun)
    }

    fn reserve(&mut self, bytes: u64) -> Result<Lease, Refusal> {
        loop {
            match self.residency.reserve(bytes) {
                Err(refusal) if refusal.is_temporary() && self.arenas.drop_one(&mut self.residency) => {}
                answer => return answer,
            }
        }
    }

    fn begin_chat(
        &mut self,
        job: Job,
        key: WeightsKey,
        model: ChatModel,
        generation: Generation,
        leases: [Lease; 2],
    ) -> Considered {
        let tenant = job.work.tenant().to_owned();
        if let Work::Chat { reply, .. } = job.work {
            // For each token its text and its likelihood or its part of a call, the end, and a failure: sending never waits.
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
                leases,
                granted: 0,
                ended: false,
                last: None,
            });
        }
        Considered::Gone
    }

    fn begin_embed(
        &mut self,
        job: Job,
        key: WeightsKey,
        model: EmbeddingModel,
        embed: EmbedJob,
        leases: [Lease; 2],
    ) -> Considered {
        let tenant = job.work.tenant().to_owned();
        if let Work::Embed { reply, .. } = job.work {
            let active = ActiveEmbed { tenant, key, model, job: embed, reply, leases, granted: 0, outcome: None };
            self.embeds.push(active);
        }
        Considered::Gone
    }
}

/// Why a request that was ready could not begin.
enum Unbegun {
    /// It cannot be served.
    Never(InferError),
    /// Memory was refused.
    Memory(Refusal),
    /// Other answers of its model hold the blocks.
    Full,
}

fn is_overdue(job: &Job) -> bool {
    job.blocked_at.is_some() && job.arrived.elapsed() > FAIRNESS_PATIENCE
}

/// Largest capacity that the channel accepts.
fn mpsc_limit() -> usize {
    tokio::sync::Semaphore::MAX_PERMITS
}
