//! Making room: what is loaded next, what goes for it, and who has to stop.

use std::collections::BTreeSet;

use super::Arbiter;
use super::model::Model;
use super::queue::Place;
use crate::eviction::{Candidate, cheapest_set};
use crate::{Action, Admission, Priority, Weights, WeightsKey};

/// Who needs room.
pub(super) struct Claim {
    pub(super) key: WeightsKey,
    pub(super) place: Place,
    pub(super) critical: bool,
}

impl Arbiter {
    /// Begins to load for the first request whose weights are absent and can have room: while one
    /// waits for room the bus serves those behind it, until its patience ends. Then they are held
    /// back, and models in use are asked to make room.
    pub(super) fn begin_load(&mut self) {
        for model in self.models.iter_mut() {
            model.yields_to = None;
        }
        if self.loading.is_some() {
            return;
        }
        let mut tried = BTreeSet::new();
        for (place, waiting) in self.queue.in_order(self.now, self.limits.ageing_micros) {
            let request = waiting.request;
            let key = request.weights.key;
            if self.memory.holds(key) || !tried.insert(key) {
                continue;
            }
            // Bytes that come free belong to the request that holds the others back.
            if self.held.is_some_and(|held| held < place) {
                return;
            }
            let claim = Claim { key, place, critical: request.priority == Priority::Critical };
            let needed = request.needed();
            if self.make_room(&claim, needed) {
                self.load(request.weights);
                return;
            }
            // Who waits for pinned weights, or what is set aside, to go may wait for ever: nobody is held back, or stops, for that.
            if !self.can_have_room(&request) {
                continue;
            }
            let waited = self.now.saturating_sub(waiting.since);
            if claim.critical || waited >= self.limits.memory_patience_micros {
                self.ask_to_yield(&claim, needed);
                return;
            }
        }
        // Somebody may wait for bytes beside weights that are there.
        if self.queue.len() == 0 {
            self.restore_one();
        }
    }

    /// Gives idle caches and adapters, and what must go of idle weights, up for `needed` bytes; false, and nothing
    /// is given up, when that is not possible now.
    pub(super) fn make_room(&mut self, claim: &Claim, needed: u64) -> bool {
        let Some(victims) = self.find_room(claim, needed) else {
            return false;
        };
        let all_of_it = if victims.is_empty() { needed } else { u64::MAX };
        self.drop_idle_caches(claim.key, all_of_it);
        self.drop_idle_adapters(all_of_it);
        self.evict(&victims);
        true
    }

    /// The cheapest set of idle weights whose going frees enough once all idle caches and adapters are given back;
    /// none when that is not possible now.
    pub(super) fn find_room(&self, claim: &Claim, needed: u64) -> Option<Vec<Candidate>> {
        let idle = self.idle_cache_bytes(claim.key).saturating_add(self.adapters.idle_bytes());
        let coming = self.memory.free().saturating_add(idle);
        // What the device lacks already has to come back first.
        let lacking = needed.saturating_add(self.memory.overdraft()).saturating_sub(coming);
        if lacking == 0 {
            return Some(Vec::new());
        }
        let idle = self.ready().into_iter().filter(|ready| ready.refs == 0 && self.may_displace(claim, ready.key));
        cheapest_set(idle.collect(), lacking)
    }

    /// Ready weights with what they are worth now.
    pub(super) fn ready(&self) -> Vec<Candidate> {
        let half_life = self.limits.demand_half_life_micros;
        self.memory.ready(|key| self.models.get(key).map_or(0.0, |model| model.worth(self.now, half_life)))
    }

    pub(super) fn evict(&mut self, victims: &[Candidate]) {
        self.memory.strike(victims);
        for victim in victims {
            self.drop_companions(victim.key);
            self.outbox.push(Action::Evict { key: victim.key });
        }
    }

    /// Whether the claim goes before what the weights are there for, once they are idle.
    fn may_displace(&self, claim: &Claim, key: WeightsKey) -> bool {
        if self.is_pinned(key) {
            return false;
        }
        let Some(model) = self.models.get(key) else {
            return true;
        };
        if key == claim.key {
            return false;
        }
        let ageing = self.limits.ageing_micros;
        let best = self.queue.of_model(key).map(|waiting| waiting.place(self.now, ageing)).min();
        // Weights that serve critical requests are not displaced before their time, not even by
        // critical ones: two of them would drive each other out for ever.
        if claim.critical && model.weights.class.max(model.served) < Priority::Critical {
            return best.is_none_or(|best| claim.place < best);
        }
        let stayed = self.now >= model.stays_until;
        match best {
            Some(best) => stayed && best.0 >= claim.place.0 && (!model.fresh || claim.place < best),
            None if self.memory.refs(key) > 0 => stayed,
            None => stayed || self.now >= self.dispensable_at(model),
        }
    }

    /// From when on idle weights may go although their residency is not over: when the bus has the
    /// time to bring them back whenever they are asked for, beside what it has been loading.
    pub(super) fn dispensable_at(&self, model: &Model) -> u64 {
        if !self.limits.early_eviction {
            return model.stays_until;
        }
        let rate = model.rate(self.now, self.limits.demand_half_life_micros);
        self.bus.spares_at(rate * model.weights.load_micros as f64, model.stays_until)
    }

    /// Lets models that may be displaced take no new requests, the least worth first, until what
    /// will be idle is enough. Where all of them are not enough, nobody stops for nothing.
    fn ask_to_yield(&mut self, claim: &Claim, needed: u64) {
        let displaced: Vec<Candidate> =
            self.ready().into_iter().filter(|ready| self.may_displace(claim, ready.key)).collect();
        let idle = displaced.iter().filter(|ready| ready.refs == 0).map(|ready| ready.bytes).sum::<u64>();
        let caches = self.idle_cache_bytes(claim.key).saturating_add(self.adapters.idle_bytes());
        let needed = needed.saturating_add(self.memory.overdraft());
        let mut coming = self.memory.free().saturating_add(idle).saturating_add(caches);
        let mut yielding = Vec::new();
        for busy in displaced.iter().filter(|ready| ready.refs > 0) {
            if coming >= needed {
                break;
            }
            let budgets = self.models.get(busy.key).map_or(0, |model| model.budgets);
            let cache = self.caches.bytes(busy.key).saturating_add(self.adapters.used_bytes(busy.key));
            coming = coming.saturating_add(busy.bytes).saturating_add(budgets).saturating_add(cache);
            yielding.push(busy.key);
        }
        if coming < needed {
            return;
        }
        for key in yielding {
            if let Some(model) = self.models.get_mut(key) {
                model.yields_to = Some(claim.place);
            }
        }
    }

    /// Loads again what exclusive use had displaced, while nobody waits and nothing has to go.
    fn restore_one(&mut self) {
        while let Some(weights) = self.restore.pop_front() {
            if !self.memory.holds(weights.key) && weights.bytes <= self.memory.free() {
                self.load(weights);
                return;
            }
        }
    }

    fn load(&mut self, weights: Weights) {
        // The books would evict of their own accord, and nobody would be told.
        if weights.bytes > self.memory.free() {
            return;
        }
        let Ok(Admission::Load { lease, .. }) = self.memory.acquire(weights.key, weights.bytes, weights.load_micros)
        else {
            return;
        };
        // Weights that are being loaded are never evicted; their users get leases of their own.
        self.memory.release(lease);
        self.loading = Some(weights.key);
        self.outbox.push(Action::Load { weights });
    }
}
