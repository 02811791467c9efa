//! The thread that owns the device: does what the arbiter says and advances requests in turns.
//!
//! A turn is one pass over each model that has answers under way, one over an embedding model, and a little of one recording.
//! A pass takes the next token of every running answer and pieces of the prompts of new ones; who
//! gets how much of it is [`FairShare`]'s. Requests join and leave between passes, so none waits for
//! the end of another. Whose turn it is to begin, and which models are in memory for that, decides
//! the arbiter ([`Turns`]); among those that matter alike it is again [`FairShare`]. The thread
//! never blocks on a caller: the channel of an answer has room for all of its events. Files and requests
//! are read by other threads ([`Preparing`]).

mod adapters;
mod ask;
mod begin;
mod device;
mod orders;
mod tell;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use provost_gpu_infer::ComputeDevice;
use provost_gpu_vram::{Action, Priority, Rejection, WeightsKey};
use provost_types::ChatEvent;

use crate::arenas::Arenas;
use crate::board::Board;
use crate::catalogue::{Catalogue, Entry};
use crate::chats::{ActiveChat, Chats};
use crate::embeds::{ActiveEmbed, Embeds};
use crate::error;
use crate::exclusive::Exclusivity;
use crate::fair::FairShare;
use crate::inbox::{Delivery, Inbox};
use crate::job::Job;
use crate::loader::Loaded;
use crate::measured::Measured;
use crate::orders::Orders;
use crate::preparing::Preparing;
use crate::residency::{Residency, Settled};
use crate::speeches::{ActiveSpeech, Speeches};
use crate::stats::{RefusedFor, Stats};
use crate::turns::{Prepared, Turns, Waiting};
use crate::usage::{DeviceGauge, UsageGauge};

/// How long an idle thread sleeps before it looks for cancelled requests.
const IDLE_PATIENCE: Duration = Duration::from_millis(250);
/// The same while an order is followed.
const ORDER_PATIENCE: Duration = Duration::from_millis(20);
/// Assumed speed of loading before it has been measured, in bytes a microsecond.
pub(crate) const ASSUMED_BYTES_PER_MICRO: u64 = 500;
/// So often the arbiter is asked in a turn.
const MOST_POLLS: usize = 64;

/// The state of the scheduler thread.
pub(crate) struct Scheduler {
    inbox: Arc<Inbox>,
    catalogue: Arc<Catalogue>,
    residency: Residency,
    preparing: Preparing,
    arenas: Arenas,
    turns: Turns,
    /// Requests whose model is being looked at, in order of arrival.
    asked: Vec<NotReady>,
    chats: Chats,
    embeds: Embeds,
    speeches: Speeches,
    fair: FairShare,
    exclusivity: Exclusivity,
    orders: Orders,
    priorities: BTreeMap<String, Priority>,
    /// Weights that were loaded once.
    seen: HashSet<WeightsKey>,
    measured: Measured,
    /// A request was read in this turn and could not begin, or is to be asked for anew.
    in_vain: bool,
    device: ComputeDevice,
    /// When it was last asked what it has.
    measured_at: Option<Instant>,
    device_now: Arc<DeviceGauge>,
    usage: Arc<UsageGauge>,
    stats: Arc<Stats>,
    board: Arc<Board>,
}

/// A request whose model is being looked at.
struct NotReady {
    job: Job,
    /// It was read, with its model as its files were then.
    read: Option<(Arc<Entry>, Prepared)>,
}

/// What the scheduler is made of.
pub(crate) struct Parts {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) residency: Residency,
    pub(crate) preparing: Preparing,
    pub(crate) turns: Turns,
    /// By name of the model; others are normal.
    pub(crate) priorities: BTreeMap<String, Priority>,
    pub(crate) device: ComputeDevice,
    pub(crate) device_now: Arc<DeviceGauge>,
    pub(crate) usage: Arc<UsageGauge>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) board: Arc<Board>,
}

impl Scheduler {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { inbox, catalogue, residency, preparing, turns, priorities, .. } = parts;
        let Parts { device, device_now, usage, stats, board, .. } = parts;
        let scheduler = Self {
            inbox,
            catalogue,
            residency,
            preparing,
            arenas: Arenas::default(),
            turns,
            asked: Vec::new(),
            chats: Chats::default(),
            embeds: Embeds::default(),
            speeches: Speeches::default(),
            fair: FairShare::default(),
            exclusivity: Exclusivity::default(),
            orders: Orders::default(),
            priorities,
            seen: HashSet::new(),
            measured: Measured::default(),
            in_vain: false,
            device,
            measured_at: None,
            device_now,
            usage,
            stats,
            board,
        };
        // Who asks before the first turn is told too what the device has.
        scheduler.note();
        scheduler
    }

    /// Works until told to stop.
    pub(crate) fn run(mut self, pool: &rayon::ThreadPool) {
        let mut has_news = false;
        loop {
            // What has just been given back may be what somebody waits for.
            let patience = match self.is_idle() && !has_news {
                true => {
                    let idle = if self.orders.is_busy() { ORDER_PATIENCE } else { IDLE_PATIENCE };
                    self.preparing.patience(self.turns.patience(idle))
                }
                false => Duration::ZERO,
            };
            let Delivery { jobs, loaded, prepared, words, orders, stopping } = self.inbox.take(patience);
            self.asked.extend(jobs.into_iter().map(|job| NotReady { job, read: None }));
            if stopping {
                self.refuse_all();
                return;
            }
            if let Some(loaded) = loaded {
                self.take_in(loaded);
            }
            prepared.into_iter().for_each(|done| self.take_in_prepared(done));
            words.into_iter().for_each(|word| self.exclusivity.hear(word, &mut self.turns));
            orders.into_iter().for_each(|order| self.hear(order));
            // First what was cancelled: its memory is for those who wait.
            self.retire();
            self.follow_orders();
            self.measure();
            self.admit();
            self.note();
            // Threads that are given work look for more for a while before they sleep: nothing wakes those of an idle node.
            if !self.is_idle() {
                pool.install(|| {
                    self.embeds.advance(&mut self.fair);
                    self.speeches.advance(&mut self.fair);
                    self.chats.advance(&mut self.fair);
                });
            }
            has_news = self.retire() || self.in_vain;
        }
    }

    /// Nothing is computed.
    fn is_idle(&self) -> bool {
        self.chats.is_empty() && self.embeds.is_empty() && self.speeches.is_empty()
    }

    /// The tenants of what is computed, once for each request.
    fn tenants(&self) -> impl Iterator<Item = &str> {
        self.chats.tenants().chain(self.embeds.tenants()).chain(self.speeches.tenants())
    }

    /// Gives back what ended requests held, then tells their callers: whoever hears of an end may
    /// look at the books. False: none has ended.
    fn retire(&mut self) -> bool {
        let chats = self.chats.take_ended();
        let (embeds, speeches) = (self.embeds.take_ended(), self.speeches.take_ended());
        let has_freed = !chats.is_empty() || !embeds.is_empty() || !speeches.is_empty();
        let mut ends: Vec<Box<dyn FnOnce()>> = Vec::with_capacity(chats.len() + embeds.len() + speeches.len());
        for chat in chats {
            let ActiveChat { key, began, generation, grant, events, last, .. } = chat;
            drop(generation);
            if let Some(Ok(ChatEvent::End { usage, .. })) = &last {
                self.measured.answered(key, usage.completion, began.elapsed());
            }
            self.turns.finish(grant);
            ends.extend(last.map(|last| Box::new(move || drop(events.try_send(last))) as Box<dyn FnOnce()>));
        }
        for embed in embeds {
            let ActiveEmbed { reply, grant, outcome, .. } = embed;
            self.turns.finish(grant);
            ends.extend(outcome.map(|outcome| Box::new(move || drop(reply.send(outcome))) as Box<dyn FnOnce()>));
        }
        for speech in speeches {
            let ActiveSpeech { reply, grant, outcome, job, .. } = speech;
            drop(job);
            self.turns.finish(grant);
            ends.extend(outcome.map(|outcome| Box::new(move || drop(reply.send(outcome))) as Box<dyn FnOnce()>));
        }
        let asked = self.asked.iter().map(|asked| asked.job.work.tenant());
        let waiting = self.turns.tenants().chain(asked).chain(self.preparing.tenants());
        let running = self.chats.tenants().chain(self.embeds.tenants()).chain(self.speeches.tenants());
        let present: HashSet<&str> = running.chain(waiting).collect();
        self.fair.keep(&present);
        self.note();
        ends.into_iter().for_each(|end| end());
        has_freed
    }

    fn note(&self) {
        self.usage.set(self.turns.usage(), self.arenas.usage());
        let waiting = self.turns.len() + self.asked.len() + self.preparing.len();
        self.stats.now(waiting, self.chats.len() + self.embeds.len() + self.speeches.len());
        self.tell();
    }

    fn refuse_all(&mut self) {
        let asked = self.asked.drain(..).map(|asked| asked.job);
        for job in asked.chain(self.preparing.take_all()).chain(self.turns.take_all()) {
            job.work.refuse(error::stopping());
        }
        self.chats.stop();
        self.embeds.stop();
        self.speeches.stop();
    }

    fn take_in(&mut self, loaded: Loaded) {
        match self.residency.take_in(loaded) {
            Some(Settled::Loaded { key, took }) => {
                self.stats.loaded(took, !self.seen.insert(key));
                self.measured.loaded(key, took);
                self.turns.loaded(key, took);
            }
            Some(Settled::Failed { key }) => self.turns.load_failed(key),
            Some(Settled::Exhausted { key, entry }) => self.load_once_more(key, entry),
            None => {}
        }
    }

    /// Hands those who came to the arbiter, once they were read, and does what it says, until it has nothing to say.
    /// Where it was in vain that one was to begin, answers go on first.
    fn admit(&mut self) {
        self.in_vain = false;
        self.turns.drop_cancelled();
        self.preparing.drop_cancelled();
        self.refuse_overdue();
        self.exclusivity.drop_cancelled(&mut self.turns);
        for asked in std::mem::take(&mut self.asked) {
            self.ask(asked);
        }
        self.preparing.begin();
        self.book_adapters();
        let mut begun: HashMap<String, usize> = HashMap::new();
        for tenant in self.tenants() {
            *begun.entry(tenant.to_owned()).or_default() += 1;
        }
        self.turns.rank(&mut self.fair, begun);
        for _ in 0..MOST_POLLS {
            let actions = self.turns.poll();
            if actions.is_empty() {
                return;
            }
            actions.into_iter().for_each(|action| self.perform(action));
            if self.in_vain {
                return;
            }
        }
    }

    /// Does something that the arbiter said.
    fn perform(&mut self, action: Action) {
        match action {
            Action::Evict { key } => self.evict(key),
            Action::Load { weights } => self.load(weights.key),
            Action::DropCache { key } => self.arenas.remove(key),
            Action::DropAdapter { adapter, .. } => {
                let turns = &self.turns;
                self.residency.drop_adapter(adapter, |entry| turns.is_waited_for(entry));
            }
            Action::MakeCache { key, bytes } => self.make_cache(key, bytes),
            Action::Start { grant } if self.orders.hears_of_start(grant.ticket()) => self.turns.finish(grant),
            Action::Start { grant } => self.start(grant),
            Action::Refuse { ticket, why } if self.orders.hears_of_refusal(ticket, why) => {}
            Action::Refuse { ticket, why } => {
                if let Some(Waiting { job, entry, .. }) = self.turns.take(ticket) {
                    match why {
                        Rejection::LoadFailed if !self.is_current(&entry) => self.ask_anew(job),
                        why => self.reject(job, &entry, why),
                    }
                }
            }
            Action::ExclusiveGranted { token } => self.exclusivity.granted(token, &self.inbox),
            Action::ExclusiveRefused { token } | Action::ExclusiveLapsed { token } => self.exclusivity.over(token),
        }
    }

    fn load(&mut self, key: WeightsKey) {
        // What has changed on disk would be read as what it is not any more.
        let entry = self
            .turns
            .entries_of(key)
            .chain(self.residency.entries_of(key))
            .find(|entry| self.is_current(entry))
            .cloned();
        match entry {
            Some(entry) => self.residency.load(key, entry),
            None => self.turns.load_failed(key),
        }
    }

    /// Answers a request that the arbiter does not let wait, or wait any longer.
    fn reject(&mut self, job: Job, entry: &Arc<Entry>, why: Rejection) {
        self.stats.refused(match why {
            Rejection::TooLarge { .. } => RefusedFor::TooLarge,
            Rejection::Overdue { .. } => RefusedFor::Overdue,
            Rejection::LoadFailed => RefusedFor::NotLoaded,
            Rejection::QueueFull { .. } => RefusedFor::NoPlace,
            Rejection::Exclusive { .. } => RefusedFor::Exclusive,
        });
        let cause = self.residency.failure(entry).filter(|_| why == Rejection::LoadFailed);
        let refusal = match cause {
            Some(cause) => error::of_infer(cause),
            None => error::of_rejection(&entry.name, &why),
        };
        job.work.refuse(refusal);
    }
}
