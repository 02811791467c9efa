//! Adapters: small weights that requests use over others.
//!
//! An adapter is there only while the weights that it is used over are. Its bytes come out of the budget of the first request
//! that uses it, are booked beside the weights from then on, and stay between requests until somebody needs their room:
//! whoever does takes adapters that nobody uses before weights. What the driver has read before that, it says: such bytes
//! are set aside, and given to nobody.

use std::collections::BTreeMap;

use super::Arbiter;
use crate::{Action, Grant, Lease, WeightsKey};

/// The adapters by the weights that they are used over, and by what they contain.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    of: BTreeMap<(WeightsKey, WeightsKey), Adapter>,
    uses: u64,
}

#[derive(Debug)]
struct Adapter {
    bytes: u64,
    lease: Lease,
    /// Requests that use it.
    refs: u32,
    last_use: u64,
}

impl Adapters {
    fn hold(&mut self, base: WeightsKey, adapter: WeightsKey) -> bool {
        self.uses += 1;
        let Some(held) = self.of.get_mut(&(base, adapter)) else {
            return false;
        };
        held.refs += 1;
        held.last_use = self.uses;
        true
    }

    /// Bytes of those that nobody uses.
    pub(super) fn idle_bytes(&self) -> u64 {
        self.of.values().filter(|adapter| adapter.refs == 0).map(|adapter| adapter.bytes).sum()
    }

    /// Bytes of those over these weights that somebody uses.
    pub(super) fn used_bytes(&self, base: WeightsKey) -> u64 {
        let used = self.of.iter().filter(|((of, _), adapter)| *of == base && adapter.refs > 0);
        used.map(|(_, adapter)| adapter.bytes).sum()
    }

    /// Those that nobody uses, the one that was used longest ago first.
    fn idle_by_last_use(&self) -> Vec<(WeightsKey, WeightsKey)> {
        let idle = self.of.iter().filter(|(_, adapter)| adapter.refs == 0);
        let mut idle: Vec<_> = idle.map(|(keys, adapter)| (adapter.last_use, *keys)).collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, keys)| keys).collect()
    }

    fn of_base(&self, base: WeightsKey) -> Vec<(WeightsKey, WeightsKey)> {
        self.of.keys().filter(|(of, _)| *of == base).copied().collect()
    }
}

impl Arbiter {
    /// Adapters of so many bytes are in memory, or on their way there, and no request has them in the books. It replaces what
    /// was said before; where there is not so much, what is idle goes for it.
    pub fn set_aside(&mut self, now: u64, bytes: u64) {
        self.advance(now);
        self.memory.set_aside(bytes);
    }

    /// Whether an adapter over these weights is in the books.
    pub fn has_adapter(&self, base: WeightsKey, adapter: WeightsKey) -> bool {
        self.adapters.of.contains_key(&(base, adapter))
    }

    /// Bytes that can be had without anything going for them.
    pub fn free(&self) -> u64 {
        self.memory.free()
    }

    /// Lets a started request use an adapter that is there; it stays until the request has ended, or waits again. False: it is
    /// not there, and the request needs its bytes in its budget before it can [`attach`](Self::attach) it.
    pub fn hold_adapter(&mut self, now: u64, grant: &mut Grant, adapter: WeightsKey) -> bool {
        self.advance(now);
        if grant.adapter.is_some() {
            return grant.adapter == Some(adapter);
        }
        let is_there = self.adapters.hold(grant.key(), adapter);
        if is_there {
            grant.adapter = Some(adapter);
        }
        is_there
    }

    /// Books an adapter of `bytes` over the weights of a started request, which uses it; its bytes come out of the request's
    /// budget. False, and nothing is booked, when the budget is less, or the request has another adapter.
    pub fn attach(&mut self, now: u64, grant: &mut Grant, adapter: WeightsKey, bytes: u64) -> bool {
        if self.hold_adapter(now, grant, adapter) {
            return true;
        }
        if grant.adapter.is_some() || grant.request.budget_bytes < bytes {
            return false;
        }
        let Some(lease) = self.memory.split(&grant.budget, bytes) else {
            return false;
        };
        let key = grant.key();
        self.book_budget(key, bytes, 0);
        grant.request.budget_bytes -= bytes;
        grant.adapter = Some(adapter);
        let last_use = self.adapters.uses;
        self.adapters.of.insert((key, adapter), Adapter { bytes, lease, refs: 1, last_use });
        true
    }

    /// A request does not use its adapter any more.
    pub(super) fn let_go(&mut self, base: WeightsKey, adapter: Option<WeightsKey>) {
        let held = adapter.and_then(|adapter| self.adapters.of.get_mut(&(base, adapter)));
        if let Some(held) = held {
            held.refs = held.refs.saturating_sub(1);
        }
    }

    /// Gives adapters back that nobody uses, until `needed` bytes are free.
    pub(super) fn drop_idle_adapters(&mut self, needed: u64) {
        for keys in self.adapters.idle_by_last_use() {
            if self.memory.free() >= needed {
                return;
            }
            self.drop_adapter(keys);
        }
    }

    /// Gives adapters back that nobody uses while the device is fuller than it may be.
    pub(super) fn shed_adapters(&mut self) {
        for keys in self.adapters.idle_by_last_use() {
            if self.memory.overdraft() == 0 {
                return;
            }
            self.drop_adapter(keys);
        }
    }

    /// Gives back what goes with weights: their cache, and the adapters over them.
    pub(super) fn drop_companions(&mut self, key: WeightsKey) {
        self.drop_cache(key);
        for keys in self.adapters.of_base(key) {
            self.drop_adapter(keys);
        }
    }

    fn drop_adapter(&mut self, keys: (WeightsKey, WeightsKey)) {
        if let Some(Adapter { lease, .. }) = self.adapters.of.remove(&keys) {
            self.memory.release(lease);
            let (base, adapter) = keys;
            self.outbox.push(Action::DropAdapter { base, adapter });
        }
    }
}
