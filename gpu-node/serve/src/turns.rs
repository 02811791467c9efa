//! Those who wait for their turn, and the arbiter that says whose it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use provost_gpu_infer::{ChatPreparation, EmbedJob, Generation, SpeechJob};
use provost_gpu_vram::{
    Action, Arbiter, Drift, ExclusiveRequest, ExclusiveToken, Grant, Lane, Limits, Recovery, Rejection, Request,
    Standing, Ticket, Unfit, Usage, Weights, WeightsKey,
};
use provost_types::ModelKind;

use crate::catalogue::Entry;
use crate::fair::FairShare;
use crate::job::Job;
use crate::stats::micros;

/// A request that could not begin within this time is told to try again.
pub(crate) const ADMISSION_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request runs, until one has been measured. Microseconds.
const ASSUMED_SERVICE_MICROS: u64 = 1_000_000;
/// The mean of measured times moves by one part in this many with each.
const MEAN_PARTS: u64 = 8;
/// Weights whose needs are remembered; beyond, all are forgotten.
const MOST_NEEDS: usize = 1024;
/// Neither part of a guess is more than one part in this many of the device.
const PART_OF_A_GUESS: u64 = 16;

/// The arbiter with those who wait for it.
pub(crate) struct Turns {
    arbiter: Arbiter,
    /// Where the arbiter's clock begins.
    began: Instant,
    waiting: BTreeMap<Ticket, Waiting>,
    running: HashMap<Ticket, Instant>,
    needs: Needs,
    /// Bytes of adapters that were read for those who wait, and of those that stay; none is in use.
    aside: (u64, u64),
    service_micros: u64,
}

/// A request that waits.
pub(crate) struct Waiting {
    pub(crate) job: Job,
    /// Its model, as its files were when it was asked for.
    pub(crate) entry: Arc<Entry>,
    /// The weights of that model.
    pub(crate) key: WeightsKey,
    pub(crate) prepared: Prepared,
}

/// A request that was read and checked.
pub(crate) enum Prepared {
    Chat(Box<ChatPreparation>),
    Embed(EmbedJob),
    Speech(Box<SpeechJob>),
    /// It could not begin when it was its turn.
    Generation(Box<Generation>),
}

/// Bytes that a request needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// For itself.
    pub(crate) budget: u64,
    /// Of the KV cache of its model.
    pub(crate) cache: u64,
}

/// The least that a request for these weights has needed: the guess while they are not in memory. More would let one
/// large request make all later ones wait for its room, and others go for it; what is missing is asked for by
/// those who need it, once their weights are there.
#[derive(Default)]
struct Needs(HashMap<WeightsKey, Need>);

impl Needs {
    /// On a device of `capacity` bytes.
    fn guess(&self, key: WeightsKey, capacity: u64) -> Need {
        let most = capacity / PART_OF_A_GUESS;
        let Need { budget, cache } = self.0.get(&key).copied().unwrap_or_default();
        Need { budget: budget.min(most), cache: cache.min(most) }
    }

    fn learn(&mut self, key: WeightsKey, need: Need) {
        if self.0.len() >= MOST_NEEDS && !self.0.contains_key(&key) {
            self.0.clear();
        }
        let least = self.0.entry(key).or_insert(need);
        *least = Need { budget: least.budget.min(need.budget), cache: least.cache.min(need.cache) };
    }
}

impl Turns {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            arbiter: Arbiter::new(limits),
            began: Instant::now(),
            waiting: BTreeMap::new(),
            running: HashMap::new(),
            needs: Needs::default(),
            aside: (0, 0),
            service_micros: ASSUMED_SERVICE_MICROS,
        }
    }

    fn now(&self) -> u64 {
        micros(self.began.elapsed())
    }

    /// Lets a request wait for these weights; a rejected one is given back with the reason.
    pub(crate) fn submit(
        &mut self,
        job: Job,
        prepared: Prepared,
        entry: Arc<Entry>,
        weights: Weights,
    ) -> Option<(Job, Rejection)> {
        // What it needs is known by its weights, and for that they must be there.
        let guess = match self.arbiter.is_ready(weights.key) {
            true => Need::default(),
            false => self.needs.guess(weights.key, self.arbiter.usage().capacity),
        };
        let request = Request {
            weights,
            budget_bytes: guess.budget,
            cache_bytes: guess.cache,
            lane: match job.work.kind() {
                ModelKind::Chat | ModelKind::Speech => Lane::Long,
                ModelKind::Embedding => Lane::Short,
            },
            service_micros: self.service_micros,
            priority: weights.class,
            patience_micros: micros(ADMISSION_DEADLINE.saturating_sub(job.arrived.elapsed())),
        };
        match self.arbiter.submit(self.now(), request) {
            Ok(ticket) => {
                self.waiting.insert(ticket, Waiting { job, entry, key: weights.key, prepared });
                None
            }
            Err(why) => Some((job, why)),
        }
    }

    /// Lets weights be loaded for nobody in particular. Who is told to start has nothing to do and ends.
    pub(crate) fn submit_load(&mut self, weights: Weights) -> Result<Ticket, Rejection> {
        let request = Request {
            weights,
            budget_bytes: 0,
            cache_bytes: 0,
            lane: Lane::Short,
            service_micros: 0,
            priority: weights.class,
            patience_micros: micros(ADMISSION_DEADLINE),
        };
        self.arbiter.submit(self.now(), request)
    }

    /// Removes weights as soon as nobody uses them.
    pub(crate) fn unload(&mut self, key: WeightsKey) {
        self.arbiter.unload(self.now(), key);
    }

    /// Lets weights stay, or not.
    pub(crate) fn pin(&mut self, key: WeightsKey, stays: bool) {
        self.arbiter.pin(key, stays);
    }

    /// Where weights stand.
    pub(crate) fn standing(&self, key: WeightsKey) -> Standing {
        self.arbiter.standing(key)
    }

    /// How many wait for this model.
    pub(crate) fn waiting_for(&self, entry: &Arc<Entry>) -> usize {
        self.waiting.values().filter(|waiting| Arc::ptr_eq(&waiting.entry, entry)).count()
    }

    /// Ranks those who wait by what their tenants have used, and by how many
    /// requests these have `begun`; of one tenant first come first served.
    pub(crate) fn rank(&mut self, fair: &mut FairShare, mut begun: HashMap<String, usize>) {
        for (ticket, waiting) in &self.waiting {
            let tenant = waiting.job.work.tenant();
            fair.enter(tenant);
            let ahead = begun.entry(tenant.to_owned()).or_default();
            self.arbiter.rank(*ticket, fair.rank(tenant, *ahead));
            *ahead += 1;
        }
    }

    /// What to do now; what is started comes last, so that what goes is gone before.
    pub(crate) fn poll(&mut self) -> Vec<Action> {
        let mut actions = self.arbiter.poll(self.now());
        actions.sort_by_key(|action| matches!(action, Action::Start { .. }));
        actions
    }

    /// For how long nothing can be decided without an event; at most `most`.
    pub(crate) fn patience(&self, most: Duration) -> Duration {
        let wake = self.arbiter.next_wake().map(|wake| Duration::from_micros(wake.saturating_sub(self.now())));
        wake.map_or(most, |wake| wake.min(most))
    }

    /// Takes a request out that is started or refused.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Waiting> {
        self.waiting.remove(&ticket)
    }

    /// Tells what a started request needs, and the bytes of the adapter that it brings into the books. The actions are to be
    /// done first.
    pub(crate) fn fit(&mut self, grant: Grant, need: Need, adapter: u64) -> Result<(Grant, Vec<Action>), Unfit> {
        let (ticket, key) = (grant.ticket(), grant.key());
        let (waited_for, kept) = self.aside;
        // From now on they are in its budget.
        let from_kept = adapter.saturating_sub(waited_for);
        self.set_aside(waited_for.saturating_sub(adapter), kept.saturating_sub(from_kept));
        let fitted = self.arbiter.fit(self.now(), grant, need.budget.saturating_add(adapter), need.cache);
        if !matches!(fitted, Err(Unfit::Never(_))) {
            self.needs.learn(key, need);
        }
        if fitted.is_ok() {
            self.running.insert(ticket, Instant::now());
        }
        fitted
    }

    /// Says what adapters take that were read and that no request has in the books: those for which somebody waits, and those
    /// that stay.
    pub(crate) fn set_aside(&mut self, waited_for: u64, kept: u64) {
        self.aside = (waited_for, kept);
        self.arbiter.set_aside(self.now(), waited_for.saturating_add(kept));
    }

    /// Whether one more adapter may be read: there is room, or nobody waits for another one.
    pub(crate) fn has_room_for_adapter(&self, bytes: u64) -> bool {
        let (waited_for, _) = self.aside;
        waited_for == 0 || self.arbiter.free() >= bytes
    }

    /// Whether an adapter over these weights is in the books.
    pub(crate) fn has_adapter(&self, base: WeightsKey, adapter: WeightsKey) -> bool {
        self.arbiter.has_adapter(base, adapter)
    }

    /// Lets a started request use an adapter that is in the books. False: it has to [`attach`](Self::attach) it.
    pub(crate) fn hold_adapter(&mut self, grant: &mut Grant, adapter: WeightsKey) -> bool {
        self.arbiter.hold_adapter(self.now(), grant, adapter)
    }

    /// Books an adapter that a request needs out of what it was given.
    pub(crate) fn attach(&mut self, grant: &mut Grant, adapter: WeightsKey, bytes: u64) -> bool {
        self.arbiter.attach(self.now(), grant, adapter, bytes)
    }

    /// Lets a request wait again that the arbiter let wait again.
    pub(crate) fn wait_again(&mut self, ticket: Ticket, waiting: Waiting) {
        self.waiting.insert(ticket, waiting);
    }

    /// Lets a request wait again whose KV cache is full.
    pub(crate) fn put_back(&mut self, grant: Grant, waiting: Waiting) {
        let ticket = grant.ticket();
        self.running.remove(&ticket);
        self.arbiter.put_back(self.now(), grant);
        self.waiting.insert(ticket, waiting);
    }

    /// A request has ended, or does not begin after all.
    pub(crate) fn finish(&mut self, grant: Grant) {
        if let Some(since) = self.running.remove(&grant.ticket()) {
            let others = self.service_micros.saturating_mul(MEAN_PARTS - 1);
            self.service_micros = others.saturating_add(micros(since.elapsed())) / MEAN_PARTS;
        }
        self.arbiter.finish(self.now(), grant);
    }

    pub(crate) fn loaded(&mut self, key: WeightsKey, took: Duration) {
        self.arbiter.loaded(self.now(), key, micros(took));
    }

    pub(crate) fn load_failed(&mut self, key: WeightsKey) {
        self.arbiter.load_failed(self.now(), key);
    }

    /// What goes for an allocation that the device refused.
    pub(crate) fn out_of_memory(&mut self, key: WeightsKey) -> Recovery {
        self.arbiter.out_of_memory(self.now(), key)
    }

    /// An allocation that the device had refused went well.
    pub(crate) fn recovered(&mut self, key: WeightsKey) {
        self.arbiter.recovered(key);
    }

    /// Compares the books with what the device says is free of the capacity.
    pub(crate) fn measure(&mut self, free_bytes: u64) -> Drift {
        self.arbiter.measure(self.now(), free_bytes)
    }

    pub(crate) fn cache_failed(&mut self, key: WeightsKey) {
        self.arbiter.cache_failed(self.now(), key);
    }

    pub(crate) fn exclusive(&mut self, request: ExclusiveRequest) -> Result<ExclusiveToken, Rejection> {
        self.arbiter.exclusive(self.now(), request)
    }

    pub(crate) fn heartbeat(&mut self, token: ExclusiveToken) {
        self.arbiter.heartbeat(self.now(), token);
    }

    pub(crate) fn end_exclusive(&mut self, token: ExclusiveToken) {
        self.arbiter.end_exclusive(self.now(), token);
    }

    /// Forgets those for whose answer nobody waits any more.
    pub(crate) fn drop_cancelled(&mut self) {
        let arbiter = &mut self.arbiter;
        self.waiting.retain(|ticket, waiting| {
            let stays = !waiting.job.work.is_cancelled();
            if !stays {
                arbiter.cancel(*ticket);
            }
            stays
        });
    }

    /// Takes everyone out.
    pub(crate) fn take_all(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.waiting).into_values().map(|waiting| waiting.job).collect()
    }

    /// The models of those who wait for these weights.
    pub(crate) fn entries_of(&self, key: WeightsKey) -> impl Iterator<Item = &Arc<Entry>> {
        self.waiting.values().filter(move |waiting| waiting.key == key).map(|waiting| &waiting.entry)
    }

    /// Whether somebody waits for this model.
    pub(crate) fn is_waited_for(&self, entry: &Arc<Entry>) -> bool {
        self.waiting.values().any(|waiting| Arc::ptr_eq(&waiting.entry, entry))
    }

    pub(crate) fn tenants(&self) -> impl Iterator<Item = &str> {
        self.waiting.values().map(|waiting| waiting.job.work.tenant())
    }

    /// The models that are waited for, once for each who waits.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        self.waiting.values().map(|waiting| waiting.entry.name.as_str())
    }

    /// The mean time in which a request runs, in microseconds.
    pub(crate) fn service_micros(&self) -> u64 {
        self.service_micros
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.arbiter.usage()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_request_does_not_make_later_ones_wait_for_its_room() {
        let (mut needs, key, capacity) = (Needs::default(), WeightsKey::new([1; 32]), 160_000);
        assert_eq!(needs.guess(key, capacity), Need::default());
        needs.learn(key, Need { budget: 7_000, cache: 90_000 });
        assert_eq!(needs.guess(key, capacity), Need { budget: 7_000, cache: 10_000 });
        needs.learn(key, Need { budget: 10, cache: 200 });
        needs.learn(key, Need { budget: 7_000, cache: 90_000 });
        assert_eq!(needs.guess(key, capacity), Need { budget: 10, cache: 200 });
    }

    #[test]
    fn what_is_remembered_of_needs_is_bounded() {
        let mut needs = Needs::default();
        for n in 0..2 * MOST_NEEDS {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_le_bytes());
            needs.learn(WeightsKey::new(digest), Need::default());
        }
        assert!(needs.0.len() <= MOST_NEEDS);
    }
}
