//! The arbiter as a policy of the simulator.

use std::collections::BTreeMap;

use provost_gpu_vram::{Action, Arbiter, Grant, Lane, Limits, Request, Ticket, Weights, WeightsKey};

use super::{Act, Policy};
use crate::trace::{Arrival, Model, Trace};

/// Nobody is refused for waiting: the rules that it is compared with do not refuse either.
const PATIENCE_MICROS: u64 = 24 * 3_600 * 1_000_000;
const QUEUE_BOUND: usize = 4_096;

/// Drives an arbiter.
pub(super) struct OfArbiter {
    arbiter: Arbiter,
    models: Vec<Model>,
    ids: BTreeMap<Ticket, usize>,
    grants: BTreeMap<usize, Grant>,
    refused: Vec<usize>,
}

impl OfArbiter {
    pub(super) fn new(trace: &Trace, early_eviction: bool) -> Self {
        // The device of the simulator has no temporaries, so no headroom either.
        let limits = Limits {
            headroom_bytes: 0,
            queue_bound: QUEUE_BOUND,
            active_bound: trace.slots,
            early_eviction,
            ..Limits::new(trace.capacity)
        };
        Self {
            arbiter: Arbiter::new(limits),
            models: trace.models.clone(),
            ids: BTreeMap::new(),
            grants: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    fn key(model: usize) -> WeightsKey {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&(model as u64).to_le_bytes());
        WeightsKey::new(digest)
    }

    fn model(&self, key: WeightsKey) -> Option<usize> {
        (0..self.models.len()).find(|model| Self::key(*model) == key)
    }
}

impl Policy for OfArbiter {
    fn arrives(&mut self, now: u64, id: usize, arrival: &Arrival) {
        let Model { bytes, load_micros, class } = self.models[arrival.model];
        let request = Request {
            weights: Weights { key: Self::key(arrival.model), bytes, load_micros, class },
            budget_bytes: arrival.budget_bytes,
            cache_bytes: 0,
            lane: Lane::Long,
            service_micros: arrival.service_micros,
            priority: arrival.priority,
            patience_micros: PATIENCE_MICROS,
        };
        match self.arbiter.submit(now, request) {
            Ok(ticket) => drop(self.ids.insert(ticket, id)),
            Err(_) => self.refused.push(id),
        }
    }

    fn loaded(&mut self, now: u64, model: usize) {
        self.arbiter.loaded(now, Self::key(model), self.models[model].load_micros);
    }

    fn finished(&mut self, now: u64, id: usize) {
        if let Some(grant) = self.grants.remove(&id) {
            self.arbiter.finish(now, grant);
        }
    }

    fn decide(&mut self, now: u64) -> Vec<Act> {
        let mut acts: Vec<Act> = self.refused.drain(..).map(Act::Refuse).collect();
        for action in self.arbiter.poll(now) {
            match action {
                Action::Evict { key } => acts.extend(self.model(key).map(Act::Evict)),
                Action::Load { weights } => acts.extend(self.model(weights.key).map(Act::Load)),
                Action::Start { grant } => {
                    if let Some(id) = self.ids.remove(&grant.ticket()) {
                        acts.push(Act::Start(id));
                        self.grants.insert(id, grant);
                    }
                }
                Action::Refuse { ticket, .. } => acts.extend(self.ids.remove(&ticket).map(Act::Refuse)),
                // Nobody asks for a cache, an adapter or the device alone here.
                Action::DropCache { .. }
                | Action::DropAdapter { .. }
                | Action::MakeCache { .. }
                | Action::ExclusiveGranted { .. }
                | Action::ExclusiveRefused { .. }
                | Action::ExclusiveLapsed { .. } => {}
            }
        }
        acts
    }

    fn wake(&self) -> Option<u64> {
        self.arbiter.next_wake()
    }
}
