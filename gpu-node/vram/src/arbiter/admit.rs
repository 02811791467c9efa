//! Starting requests whose weights are in memory.

use std::collections::BTreeSet;

use super::cache::Lack;
use super::queue::{Place, Waiting};
use super::{Arbiter, room::Claim};
use crate::{Action, Admission, Grant, Priority, WeightsKey};

/// What became of an attempt to start a request.
enum Attempt {
    Started,
    /// Its model is not there, or takes no new requests.
    NotReady,
    /// Its budget is not free.
    NoBudget,
    /// Others of its model use the cache, in which there is no room for it.
    CacheFull,
}

impl Arbiter {
    /// Starts what can start, in order. A request that waits for its budget lets smaller ones
    /// pass until its patience ends; one that waits for its cache those of its model.
    pub(super) fn start_what_can(&mut self) {
        self.held = None;
        let mut untried: BTreeSet<WeightsKey> = self.queue.iter().map(|waiting| waiting.request.weights.key).collect();
        for (place, waiting) in self.queue.in_order(self.now, self.limits.ageing_micros) {
            if untried.is_empty() {
                return;
            }
            let key = waiting.request.weights.key;
            if !untried.contains(&key) || self.active_in(waiting.request.lane) >= self.limits.active_bound {
                continue;
            }
            let is_patient = self.now.saturating_sub(waiting.since) < self.limits.memory_patience_micros;
            match self.attempt(place, &waiting) {
                Attempt::Started => {}
                Attempt::NotReady => {
                    untried.remove(&key);
                }
                Attempt::NoBudget if !is_patient => {
                    self.held = Some(place);
                    return;
                }
                Attempt::CacheFull if !is_patient => {
                    untried.remove(&key);
                }
                Attempt::NoBudget | Attempt::CacheFull => {}
            }
        }
    }

    fn attempt(&mut self, place: Place, waiting: &Waiting) -> Attempt {
        let request = waiting.request;
        let key = request.weights.key;
        let yields_to = self.models.get(key).and_then(|model| model.yields_to);
        if !self.memory.is_ready(key) || yields_to.is_some_and(|first| first < place) {
            return Attempt::NotReady;
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
        let grant = Grant { ticket: waiting.ticket, request, since: waiting.since, was_fresh, weights: lease, budget };
        self.outbox.push(Action::Start { grant });
        Attempt::Started
    }
}
