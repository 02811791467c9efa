//! What a request really needs is known only when its weights are there and it has been read.

use super::queue::Waiting;
use super::{Arbiter, room::Claim};
use crate::{Action, Grant, Priority, Rejection};

/// Why a started request does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// There is no room for it now: it waits again, in the place that it had.
    Later,
    /// It can never fit; its grant is void.
    Never(Rejection),
}

impl Arbiter {
    /// Tells what a started request needs, before it runs: more or less than it was submitted with.
    /// The actions that come with the grant are to be done first.
    ///
    /// # Errors
    /// [`Unfit`] when that is not there.
    pub fn fit(
        &mut self,
        now: u64,
        grant: Grant,
        budget_bytes: u64,
        cache_bytes: u64,
    ) -> Result<(Grant, Vec<Action>), Unfit> {
        self.advance(now);
        let Grant { ticket, mut request, since, was_fresh, weights, budget, adapter } = grant;
        let key = request.weights.key;
        self.memory.release(budget);
        self.book_budget(key, request.budget_bytes, 0);
        request.budget_bytes = budget_bytes;
        request.cache_bytes = cache_bytes;
        let capacity = self.memory.usage().capacity;
        let needed = request.needed();
        if needed > capacity {
            self.let_go(key, adapter);
            self.leave(&request, weights);
            return Err(Unfit::Never(Rejection::TooLarge { needed, capacity }));
        }
        let waiting = Waiting { ticket, request, since, rank: 0, is_held_up: false, full_at: None };
        let place = waiting.place(self.now, self.limits.ageing_micros);
        let claim = Claim { key, place, critical: request.priority == Priority::Critical };
        match self.fund(&claim, &request, 1) {
            Ok(budget) => {
                self.book_budget(key, 0, budget_bytes);
                let grant = Grant { ticket, request, since, was_fresh, weights, budget, adapter };
                Ok((grant, std::mem::take(&mut self.outbox)))
            }
            Err(_) => {
                self.let_go(key, adapter);
                self.leave(&request, weights);
                self.wait_again(waiting, was_fresh);
                Err(Unfit::Later)
            }
        }
    }

    /// Takes a started request back that found its cache full: it waits again, in the place that it
    /// had, until another request of its model has ended.
    pub fn put_back(&mut self, now: u64, grant: Grant) {
        self.advance(now);
        let Grant { ticket, request, since, was_fresh, weights, budget, adapter } = grant;
        let key = request.weights.key;
        self.memory.release(budget);
        self.book_budget(key, request.budget_bytes, 0);
        self.let_go(key, adapter);
        self.leave(&request, weights);
        let full_at = self.models.get(key).map(|model| model.ended);
        self.wait_again(Waiting { ticket, request, since, rank: 0, is_held_up: false, full_at }, was_fresh);
    }

    fn wait_again(&mut self, waiting: Waiting, was_fresh: bool) {
        if let Some(model) = self.models.get_mut(waiting.request.weights.key) {
            model.fresh |= was_fresh;
        }
        self.queue.push(waiting);
    }
}
