//! The rules that others follow: one queue in order of arrival, and a simple choice of victims.

use std::collections::BTreeMap;

use super::{Act, Policy, Rule};
use crate::trace::{Arrival, Model, Trace};

/// A request that has waited this long for memory holds back those behind it. Microseconds.
const HOLD_BACK_MICROS: u64 = 15_000_000;
/// Ollama gives an idle model up after this time. Microseconds.
const KEEP_ALIVE_MICROS: u64 = 300_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Loading,
    Ready,
}

struct Held {
    state: State,
    refs: u32,
    last_use: u64,
    /// It takes no new requests and goes when it is idle.
    expiring: bool,
}

/// One of the plain rules.
pub(super) struct Plain {
    rule: Rule,
    capacity: u64,
    slots: usize,
    most_models: usize,
    models: Vec<Model>,
    held: Vec<Held>,
    queue: Vec<(usize, Arrival)>,
    running: BTreeMap<usize, Arrival>,
    used: u64,
}

impl Plain {
    pub(super) fn new(rule: Rule, trace: &Trace) -> Self {
        let absent = |_: &Model| Held { state: State::Absent, refs: 0, last_use: 0, expiring: false };
        Self {
            rule,
            capacity: trace.capacity,
            slots: trace.slots,
            most_models: if rule == Rule::Count { count_that_fits(trace) } else { usize::MAX },
            held: trace.models.iter().map(absent).collect(),
            models: trace.models.clone(),
            queue: Vec::new(),
            running: BTreeMap::new(),
            used: 0,
        }
    }

    /// First come first served; whoever waits for memory lets others pass for a while.
    fn decide_by_use(&mut self, now: u64, acts: &mut Vec<Act>) {
        let mut at = 0;
        while at < self.queue.len() && self.running.len() < self.slots {
            let (id, arrival) = self.queue[at];
            let gone = match self.held[arrival.model].state {
                State::Ready => self.start(now, id, arrival, acts),
                State::Loading => {
                    at += 1;
                    continue;
                }
                State::Absent => {
                    self.load(arrival, acts);
                    false
                }
            };
            if gone {
                self.queue.remove(at);
                continue;
            }
            let blocked = self.held[arrival.model].state != State::Loading;
            if blocked && now.saturating_sub(arrival.at) > HOLD_BACK_MICROS {
                return;
            }
            at += 1;
        }
    }

    /// One at a time from the head of the queue.
    fn decide_by_keep_alive(&mut self, now: u64, acts: &mut Vec<Act>) {
        for model in 0..self.held.len() {
            let held = &self.held[model];
            let over = held.expiring || now.saturating_sub(held.last_use) >= KEEP_ALIVE_MICROS;
            if held.state == State::Ready && held.refs == 0 && over {
                self.evict(model, acts);
            }
        }
        // Requests whose model is there have left the queue for it; they wait for a place only.
        let mut at = 0;
        while at < self.queue.len() && self.running.len() < self.slots {
            let (id, arrival) = self.queue[at];
            let held = &self.held[arrival.model];
            if held.state == State::Loading && !held.expiring {
                at += 1;
                continue;
            }
            if held.state == State::Ready && !held.expiring {
                if self.start(now, id, arrival, acts) {
                    self.queue.remove(at);
                    continue;
                }
                return;
            }
            let loading = self.held.iter().any(|held| held.state == State::Loading);
            if held.state == State::Absent && !loading && !self.load(arrival, acts) {
                self.expire_one();
            }
            return;
        }
    }

    /// Marks the model to go: the first idle one, else the first. One at a time.
    fn expire_one(&mut self) {
        if self.held.iter().any(|held| held.expiring) {
            return;
        }
        let ready = |held: &&mut Held| held.state == State::Ready;
        let idle = self.held.iter_mut().filter(ready).find(|held| held.refs == 0);
        if let Some(held) = idle {
            held.expiring = true;
        } else if let Some(held) = self.held.iter_mut().find(|held| held.state == State::Ready) {
            held.expiring = true;
        }
    }

    fn start(&mut self, now: u64, id: usize, arrival: Arrival, acts: &mut Vec<Act>) -> bool {
        if !self.room(arrival.budget_bytes, arrival.model, acts) {
            return false;
        }
        self.used += arrival.budget_bytes;
        self.held[arrival.model].refs += 1;
        self.held[arrival.model].last_use = now;
        self.running.insert(id, arrival);
        acts.push(Act::Start(id));
        true
    }

    fn load(&mut self, arrival: Arrival, acts: &mut Vec<Act>) -> bool {
        let model = arrival.model;
        let bytes = self.models[model].bytes;
        if self.rule == Rule::Count {
            let resident = self.held.iter().filter(|held| held.state != State::Absent).count();
            if resident >= self.most_models {
                let Some(victim) = self.least_recently_used(model) else {
                    return false;
                };
                self.evict(victim, acts);
            }
        }
        // Its own budget beside it, or it would sit there and could not be used.
        if !self.room(bytes + arrival.budget_bytes, model, acts) {
            return false;
        }
        self.used += bytes;
        self.held[model].state = State::Loading;
        acts.push(Act::Load(model));
        true
    }

    /// Makes room by giving up idle models, the least recently used first; none if not enough.
    fn room(&mut self, bytes: u64, keep: usize, acts: &mut Vec<Act>) -> bool {
        let free = self.capacity - self.used;
        let idle: u64 = (0..self.held.len()).filter(|m| self.is_idle(*m, keep)).map(|m| self.models[m].bytes).sum();
        let may_evict = self.rule != Rule::KeepAlive;
        if bytes > free + if may_evict { idle } else { 0 } {
            return false;
        }
        while self.capacity - self.used < bytes {
            let Some(victim) = self.least_recently_used(keep) else {
                return false;
            };
            self.evict(victim, acts);
        }
        true
    }

    fn is_idle(&self, model: usize, keep: usize) -> bool {
        model != keep && self.held[model].state == State::Ready && self.held[model].refs == 0
    }

    fn least_recently_used(&self, keep: usize) -> Option<usize> {
        (0..self.held.len()).filter(|model| self.is_idle(*model, keep)).min_by_key(|model| self.held[*model].last_use)
    }

    fn evict(&mut self, model: usize, acts: &mut Vec<Act>) {
        self.used -= self.models[model].bytes;
        self.held[model].state = State::Absent;
        self.held[model].expiring = false;
        acts.push(Act::Evict(model));
    }
}

impl Policy for Plain {
    fn arrives(&mut self, _now: u64, id: usize, arrival: &Arrival) {
        self.queue.push((id, *arrival));
    }

    fn loaded(&mut self, now: u64, model: usize) {
        self.held[model].state = State::Ready;
        self.held[model].last_use = now;
    }

    fn finished(&mut self, now: u64, id: usize) {
        if let Some(arrival) = self.running.remove(&id) {
            self.used -= arrival.budget_bytes;
            self.held[arrival.model].refs -= 1;
            self.held[arrival.model].last_use = now;
        }
    }

    fn decide(&mut self, now: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        // What was marked to go may go only in a second look.
        loop {
            let before = acts.len();
            let marked = self.held.iter().filter(|held| held.expiring).count();
            match self.rule {
                Rule::KeepAlive => self.decide_by_keep_alive(now, &mut acts),
                _ => self.decide_by_use(now, &mut acts),
            }
            let newly_marked = self.held.iter().filter(|held| held.expiring).count() > marked;
            if acts.len() == before && !newly_marked {
                return acts;
            }
        }
    }

    fn wake(&self) -> Option<u64> {
        None
    }
}

/// The largest number of models that fits beside full slots, whichever they are.
fn count_that_fits(trace: &Trace) -> usize {
    let mut sizes: Vec<u64> = trace.models.iter().map(|model| model.bytes).collect();
    sizes.sort_unstable_by_key(|bytes| std::cmp::Reverse(*bytes));
    let budget = trace.arrivals.iter().map(|arrival| arrival.budget_bytes).max().unwrap_or(0);
    let mut left = trace.capacity.saturating_sub(budget * trace.slots as u64);
    let fits = sizes.iter().take_while(|bytes| match left.checked_sub(**bytes) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    fits.count().max(1)
}
