//! Starting requests whose weights are in memory.

use std::collections::BTreeSet;

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
}

impl Arbiter {
    /// Starts what can start, in order. A request that waits for its budget lets smaller ones
    /// pass until its patience ends.
    pub(super) fn start_what_can(&mut self) {
        self.held = None;
        let mut untried: BTreeSet<WeightsKey> = self.queue.iter().map(|waiting| waiting.request.weights.key).collect();
        for (place, waiting) in self.queue.in_order(self.now, self.limits.ageing_micros) {
            if self.active >= self.limits.active_bound || untried.is_empty() {
                return;
            }
            let key = waiting.request.weights.key;
            if !untried.contains(&key) {
                continue;
            }
            match self.attempt(place, &waiting) {
                Attempt::Started => {}
                Attempt::NotReady => {
                    untried.remove(&key);
                }
                Attempt::NoBudget if self.now.saturating_sub(waiting.since) >= self.limits.memory_patience_micros => {
                    self.held = Some(place);
                    return;
                }
                Attempt::NoBudget => {}
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
        if request.budget_bytes > self.memory.free() {
            let claim = Claim { key, place, critical: request.priority == Priority::Critical };
            let Some(victims) = self.find_room(&claim, request.budget_bytes) else {
                return Attempt::NoBudget;
            };
            self.evict(&victims);
        }
        // Both fit now; a refusal would mean that the books are wrong, and waiting is the safe answer.
        let weights = request.weights;
        let Ok(Admission::Ready { lease }) = self.memory.acquire(key, weights.bytes, weights.load_micros) else {
            return Attempt::NotReady;
        };
        let Ok(budget) = self.memory.reserve(request.budget_bytes) else {
            self.memory.release(lease);
            return Attempt::NoBudget;
        };
        self.queue.remove(waiting.ticket);
        self.active += 1;
        if let Some(model) = self.models.get_mut(key) {
            model.fresh = false;
            model.budgets += request.budget_bytes;
            model.served = model.served.max(request.priority);
        }
        let grant = Grant {
            ticket: waiting.ticket,
            key,
            budget_bytes: request.budget_bytes,
            weights: lease,
            budget: budget.lease,
        };
        self.outbox.push(Action::Start { grant });
        Attempt::Started
    }
}
