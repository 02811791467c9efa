//! Who may use the device next: the queue, the turns and the books as one machine.
//!
//! The driver submits requests, tells what happened, and asks `poll` what to do. Time is an
//! argument, in microseconds of any clock that does not go back; one that does is taken as
//! standing still. If the driver dies between an action and its report, the machine goes with it:
//! both belong to one process, and the device's memory to that process too.

mod accounts;
mod adapters;
mod admit;
mod bus;
mod cache;
mod exclusive;
mod fit;
mod model;
mod pins;
mod queue;
mod room;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    Action, DeviceMemory, Drain, ExclusiveToken, Grant, Lane, Lease, Limits, Priority, Rejection, Request, Ticket,
    Usage, Weights, WeightsKey,
};
use adapters::Adapters;
use bus::Bus;
use cache::Caches;
use exclusive::Exclusive;
pub use exclusive::ExclusiveRequest;
pub use fit::Unfit;
use model::Models;
use queue::{Place, Queue, Waiting};

/// The shortest and the longest time after which a refused request is told to come again.
const RETRY_AFTER_MICROS: (u64, u64) = (1_000_000, 60_000_000);

/// Decides what is loaded, evicted, started and refused on one device.
///
/// A request waits in a bounded queue until its weights are in memory and its budget is free; it
/// gets both at once, so that two requests never hold what the other needs. The oldest of the
/// highest priority for which there is room decides what is loaded next. Its room comes from idle
/// weights that have been resident long enough or are not likely to be missed; where these do not
/// suffice for long, models whose residency is over take no new requests until they are idle.
#[derive(Debug)]
pub struct Arbiter {
    limits: Limits,
    memory: DeviceMemory,
    queue: Queue,
    models: Models,
    caches: Caches,
    adapters: Adapters,
    /// Weights that are not given up for others.
    pinned: BTreeSet<WeightsKey>,
    now: u64,
    next_ticket: u64,
    active: BTreeMap<Lane, usize>,
    /// One at a time: the bus is one.
    loading: Option<WeightsKey>,
    bus: Bus,
    /// The request for whose budget those behind it are held back.
    held: Option<Place>,
    /// Loaded again when nobody waits: what was resident before exclusive use.
    restore: VecDeque<Weights>,
    exclusive: Exclusive,
    /// Bytes that the last measurement found missing.
    missing: u64,
    outbox: Vec<Action>,
}

impl Arbiter {
    /// An arbiter of an empty device.
    pub fn new(limits: Limits) -> Self {
        Self {
            memory: DeviceMemory::new(limits.capacity_bytes.saturating_sub(limits.headroom_bytes)),
            limits,
            queue: Queue::default(),
            models: Models::default(),
            caches: Caches::default(),
            adapters: Adapters::default(),
            pinned: BTreeSet::new(),
            now: 0,
            next_ticket: 0,
            active: BTreeMap::new(),
            loading: None,
            bus: Bus::default(),
            held: None,
            restore: VecDeque::new(),
            exclusive: Exclusive::default(),
            missing: 0,
            outbox: Vec::new(),
        }
    }

    /// Lets a request wait.
    ///
    /// # Errors
    /// [`Rejection`] when it can never fit, when the queue is full, or during exclusive use.
    pub fn submit(&mut self, now: u64, request: Request) -> Result<Ticket, Rejection> {
        self.advance(now);
        let capacity = self.memory.usage().capacity;
        let needed = request.needed();
        if needed > capacity {
            return Err(Rejection::TooLarge { needed, capacity });
        }
        if let Some(retry_after_micros) = self.exclusive.remaining(self.now) {
            return Err(Rejection::Exclusive { retry_after_micros });
        }
        if self.queue.len() >= self.limits.queue_bound {
            let (waiting, retry_after_micros) = (self.queue.len(), self.retry_after());
            return Err(Rejection::QueueFull { waiting, retry_after_micros });
        }
        let (queue, memory) = (&self.queue, &self.memory);
        let needed = |key| memory.holds(key) || queue.of_model(key).next().is_some();
        self.models.forget(self.now, self.limits.demand_half_life_micros, needed);
        self.models.ask(request.weights, self.now, self.limits.demand_half_life_micros);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.queue.push(Waiting { ticket, request, since: self.now, rank: 0, is_held_up: false, full_at: None });
        Ok(ticket)
    }

    /// Ranks a request that waits among those with the same priority: the one of the least rank goes
    /// first, by the place of the one that came first, among those for the same weights, and among those
    /// in the same lane where weights are there. One that has lacked memory for longer than its patience
    /// is passed by no equal, whatever its rank. Without ranks it is first come first served.
    pub fn rank(&mut self, ticket: Ticket, rank: u64) {
        self.queue.rank(ticket, rank);
    }

    /// Takes a request out of the queue; false when it does not wait (any more).
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.queue.remove(ticket).is_some()
    }

    /// What to do now. To be called after every event and at [`Arbiter::next_wake`].
    pub fn poll(&mut self, now: u64) -> Vec<Action> {
        self.advance(now);
        self.refuse_overdue();
        self.step_exclusive();
        if self.exclusive.is_open() {
            self.shed();
            self.begin_load();
            self.start_what_can();
        }
        std::mem::take(&mut self.outbox)
    }

    /// The next time at which `poll` may decide something without an event; it may turn out not to.
    pub fn next_wake(&self) -> Option<u64> {
        let overdue = self.queue.iter().map(Waiting::overdue_at);
        let aged = self.queue.iter().filter_map(|waiting| waiting.rises_at(self.now, self.limits.ageing_micros));
        let held = self.queue.iter().map(|waiting| waiting.since.saturating_add(self.limits.memory_patience_micros));
        let ready = self.memory.ready(|_| 0.0).into_iter().filter_map(|ready| self.models.get(ready.key));
        let stays = ready.flat_map(|model| [model.stays_until, self.dispensable_at(model)]);
        let stays = stays.filter(|_| self.queue.len() > 0);
        let times = overdue.chain(aged).chain(held).chain(stays).chain(self.exclusive.wake());
        times.filter(|time| *time > self.now).min()
    }

    /// Takes a grant back: its request has ended, well or not.
    pub fn finish(&mut self, now: u64, grant: Grant) {
        self.advance(now);
        let Grant { request, weights, budget, adapter, .. } = grant;
        let key = request.weights.key;
        self.memory.release(budget);
        self.let_go(key, adapter);
        self.book_budget(key, request.budget_bytes, 0);
        if let Some(model) = self.models.get_mut(key) {
            model.ended += 1;
        }
        self.leave(&request, weights);
    }

    /// Gives a place back, and the lease on the weights.
    fn leave(&mut self, request: &Request, weights: Lease) {
        if let Some(active) = self.active.get_mut(&request.lane) {
            *active = active.saturating_sub(1);
        }
        if let Some(key) = self.memory.release(weights) {
            self.drop_companions(key);
            self.outbox.push(Action::Evict { key });
        }
    }

    /// Notes what of the budgets of a model has come and gone.
    fn book_budget(&mut self, key: WeightsKey, gone: u64, come: u64) {
        if let Some(model) = self.models.get_mut(key) {
            model.budgets = model.budgets.saturating_sub(gone).saturating_add(come);
        }
    }

    /// Reports that weights are in place; loading them took `took_micros`.
    pub fn loaded(&mut self, now: u64, key: WeightsKey, took_micros: u64) {
        self.advance(now);
        self.loading.take_if(|loading| *loading == key);
        if self.memory.loaded(key, took_micros) {
            self.outbox.push(Action::Evict { key });
        }
        let limits = self.limits;
        let wanted = self.queue.of_model(key).map(|waiting| waiting.request.weights.class).max();
        if let Some(model) = self.models.get_mut(key) {
            model.weights.load_micros = took_micros.max(1);
            // What comes back after exclusive use has the class that it had.
            model.weights.class = wanted.unwrap_or(model.weights.class);
            model.stays_until = now.saturating_add(took_micros.saturating_mul(limits.residency_loads));
            model.fresh = true;
            model.served = Priority::Background;
            model.retried = false;
        }
    }

    /// Reports that weights could not be loaded. Those who wait for them are refused.
    pub fn load_failed(&mut self, now: u64, key: WeightsKey) {
        self.advance(now);
        self.loading.take_if(|loading| *loading == key);
        self.memory.load_failed(key);
        if let Some(model) = self.models.get_mut(key) {
            model.retried = false;
        }
        for waiting in self.queue.take(|waiting| waiting.request.weights.key == key) {
            self.outbox.push(Action::Refuse { ticket: waiting.ticket, why: Rejection::LoadFailed });
        }
    }

    /// Removes weights as soon as nobody uses them; requests that come later load them again.
    pub fn unload(&mut self, now: u64, key: WeightsKey) -> Drain {
        self.advance(now);
        let drain = self.memory.drain(key);
        if drain == Drain::Drop {
            self.drop_companions(key);
            self.outbox.push(Action::Evict { key });
        }
        drain
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Requests that run.
    pub fn active(&self) -> usize {
        self.active.values().sum()
    }

    fn active_in(&self, lane: Lane) -> usize {
        self.active.get(&lane).copied().unwrap_or(0)
    }

    /// The books in sums.
    pub fn usage(&self) -> Usage {
        self.memory.usage()
    }

    /// True when the weights are in memory and loaded.
    pub fn is_ready(&self, key: WeightsKey) -> bool {
        self.memory.is_ready(key)
    }

    /// Who has, or is about to have, the device alone.
    pub fn exclusive_token(&self) -> Option<ExclusiveToken> {
        self.exclusive.token()
    }

    fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.bus.advance(self.now, self.loading.is_some());
    }

    fn refuse_overdue(&mut self) {
        let now = self.now;
        let gone = self.queue.take(|waiting| waiting.overdue_at() <= now);
        let retry_after_micros = self.retry_after();
        for waiting in gone {
            self.outbox.push(Action::Refuse { ticket: waiting.ticket, why: Rejection::Overdue { retry_after_micros } });
        }
    }

    /// When those who wait now will have run, if all places are used; loading is not counted.
    fn retry_after(&self) -> u64 {
        let (least, most) = RETRY_AFTER_MICROS;
        let places = u64::try_from(self.limits.active_bound.max(1)).unwrap_or(u64::MAX);
        (self.queue.service_micros() / places).clamp(least, most)
    }
}
