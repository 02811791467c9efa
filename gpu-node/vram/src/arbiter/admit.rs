//! Starting requests whose weights are in memory.

use std::collections::BTreeSet;

use super::cache::Lack;
use super::queue::{Place, Waiting};
use super::{Arbiter, room::Claim};
use crate::{Action, Admission, Grant, Priority, WeightsKey};

/// What became of an attempt to start a request.
enum Attempt {
    Started,
    /// Its model is not there.
    NotReady,
    /// Its model takes no requests that come after one that needs its memory.
    Yields,
    /// Its budget is not free.
    NoBudget,
    /// Others of its model use the cache, in which there is no room for it.
    CacheFull,
}

impl Arbiter {
    /// Starts what can start, in order. A request that waits for its budget lets others pass until its
    /// patience ends, and then those whose place is before its own: weights that have just come for one of
    /// them go only once they have served it. One that waits for its cache holds back those of its model.
    pub(super) fn start_what_can(&mut self) {
        self.held = None;
        let mut untried: BTreeSet<WeightsKey> = self.queue.iter().map(|waiting| waiting.request.weights.key).collect();
        for (place, waiting) in self.queue.to_begin(self.now, self.limits.ageing_micros) {
            if untried.is_empty() {
                return;
            }
            let key = waiting.request.weights.key;
            let is_held_back = self.held.is_some_and(|held| held < place);
            let has_lane = self.active_in(waiting.request.lane) < self.limits.active_bound;
            if is_held_back || !has_lane || !untried.contains(&key) {
                continue;
            }
            let is_patient = self.now.saturating_sub(waiting.since) < self.limits.memory_patience_micros;
            match self.attempt(place, &waiting) {
                Attempt::NotReady => {
                    untried.remove(&key);
                }
                Attempt::NoBudget if !is_patient && self.can_have_room(&waiting.request) => {
                    self.queue.hold_up(waiting.ticket);
                    self.held = Some(place);
                }
                Attempt::CacheFull if !is_patient => {
                    self.queue.hold_up(waiting.ticket);
                    untried.remove(&key);
                }
                Attempt::Started | Attempt::Yields | Attempt::NoBudget | Attempt::CacheFull => {}
            }
        }
    }

    fn attempt(&mut self, place: Place, waiting: &Waiting) -> Attempt {
        let request = waiting.request;
        let key = request.weights.key;
        if !self.memory.is_ready(key) {
            return Attempt::NotReady;
        }
        let yields_to = self.models.get(key).and_then(|model| model.yields_to);
        if yields_to.is_some_and(|first| first < place) {
            return Attempt::Yields;
        }
        // With nobody on these weights there is nobody who could make room in their cache.
        let ended = self.models.get(key).map(|model| model.ended);
        if waiting.full_at.is_some() && waiting.full_at == ended && self.memory.refs(key) > 0 {
            return Attempt::CacheFull;
        }
        let claim = Claim { key, place, critical: request.priority == Priority::Critical };
        let budget = match self.fund(&claim, &request, 0) {
            Ok(budget) => budget,
            Err(Lack::Room) => return Attempt::NoBudget,
            Err(Lack::Cache) => return Attempt::CacheFull,
        };
        // They are there; a refusal would mean that the books are wrong, and waiting is the safe answer.
        let weights = request.weights;
        let Ok(Admission::Ready { lease }) = self.memory.acquire(key, weights.bytes, weights.load_micros) else {
            self.memory.release(budget);
            return Attempt::NotReady;
        };
        self.queue.remove(waiting.ticket);
        *self.active.entry(request.lane).or_default() += 1;
        let mut was_fresh = false;
        if let Some(model) = self.models.get_mut(key) {
            was_fresh = std::mem::take(&mut model.fresh);
            model.budgets += request.budget_bytes;
            model.served = model.served.max(request.priority);
        }
        let (ticket, since) = (waiting.ticket, waiting.since);
        let grant = Grant { ticket, request, since, was_fresh, weights: lease, budget, adapter: None };
        self.outbox.push(Action::Start { grant });
        Attempt::Started
    }
}
