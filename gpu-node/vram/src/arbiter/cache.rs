//! The caches of the models: memory that the requests for one set of weights share, and that is
//! kept between them for what they may have in common.
//!
//! A cache is there only while its weights are, and in use only while requests run on them. Whoever
//! needs room takes caches that nobody uses before weights: to fill one again is computing, to bring
//! weights back is the bus.

use std::collections::BTreeMap;

use super::Arbiter;
use super::room::Claim;
use crate::{Action, Lease, Request, WeightsKey};

/// Part of the free memory that a cache may take beyond what it must have; the rest is for others.
const PART_OF_FREE: u64 = 2;
/// A cache that nobody uses is made anew when it could be this many times as large. More than two: one
/// that was just made may have little more than half of what it could have.
const STUNTED_TIMES: u64 = 4;

/// The caches by weights.
#[derive(Debug, Default)]
pub(super) struct Caches {
    of: BTreeMap<WeightsKey, Cache>,
    uses: u64,
}

#[derive(Debug)]
struct Cache {
    bytes: u64,
    lease: Lease,
    last_use: u64,
}

/// What a request lacks whose weights are there.
pub(super) enum Lack {
    /// Memory.
    Room,
    /// A larger cache, while others use the one that there is.
    Cache,
}

impl Caches {
    pub(super) fn bytes(&self, key: WeightsKey) -> u64 {
        self.of.get(&key).map_or(0, |cache| cache.bytes)
    }

    fn use_one(&mut self, key: WeightsKey) {
        self.uses += 1;
        if let Some(cache) = self.of.get_mut(&key) {
            cache.last_use = self.uses;
        }
    }

    /// All, the one that was used longest ago first.
    fn by_last_use(&self) -> Vec<WeightsKey> {
        let mut all: Vec<_> = self.of.iter().map(|(key, cache)| (cache.last_use, *key)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, key)| key).collect()
    }
}

impl Arbiter {
    /// Reports that the memory of a cache could not be had, or was lost.
    pub fn cache_failed(&mut self, now: u64, key: WeightsKey) {
        self.advance(now);
        self.drop_cache(key);
    }

    /// Books the budget of a request whose weights are there, and a cache that is large enough.
    /// `own` of the leases on the weights are the request's.
    pub(super) fn fund(&mut self, claim: &Claim, request: &Request, own: u32) -> Result<Lease, Lack> {
        let key = request.weights.key;
        let has = self.caches.bytes(key);
        let suffices = has >= request.cache_bytes;
        let in_use = has > 0 && self.memory.refs(key) > own;
        if suffices
            && (in_use || !self.is_stunted(has, request.budget_bytes))
            && self.make_room(claim, request.budget_bytes)
        {
            return self.book(request);
        }
        if in_use {
            return Err(if suffices { Lack::Room } else { Lack::Cache });
        }
        // Nobody uses it: its bytes count as free, and it is made anew.
        let needed = request.budget_bytes.saturating_add(request.cache_bytes);
        if self.find_room(claim, needed.saturating_sub(has)).is_none() {
            return Err(Lack::Room);
        }
        self.drop_cache(key);
        if !self.make_room(claim, needed) {
            return Err(Lack::Room);
        }
        let budget = self.book(request)?;
        if request.cache_bytes > 0 && !self.make_cache(key, request.cache_bytes) {
            self.memory.release(budget);
            return Err(Lack::Room);
        }
        Ok(budget)
    }

    fn book(&mut self, request: &Request) -> Result<Lease, Lack> {
        // There is room; a refusal would mean that the books are wrong, and waiting is the safe answer.
        let lease = self.memory.reserve_free(request.budget_bytes).ok_or(Lack::Room)?;
        self.caches.use_one(request.weights.key);
        Ok(lease)
    }

    /// A cache of a multiple of what the first request needs, so of whole blocks.
    fn make_cache(&mut self, key: WeightsKey, needed: u64) -> bool {
        let times = (self.wished(self.memory.free()) / needed).max(1);
        let bytes = needed.saturating_mul(times);
        let Some(lease) = self.memory.reserve_free(bytes) else {
            return false;
        };
        self.caches.of.insert(key, Cache { bytes, lease, last_use: 0 });
        self.caches.use_one(key);
        self.outbox.push(Action::MakeCache { key, bytes });
        true
    }

    /// Bytes that a cache may have where so many are `free`.
    fn wished(&self, free: u64) -> u64 {
        self.limits.cache_bytes.min(free / PART_OF_FREE)
    }

    /// Whether a cache would be much larger if it were made now, beside a request with this budget.
    fn is_stunted(&self, has: u64, budget: u64) -> bool {
        let free = self.memory.free().saturating_add(has).saturating_sub(budget);
        has > 0 && has.saturating_mul(STUNTED_TIMES) < self.wished(free)
    }

    /// Bytes of caches that nobody uses, but for the one of `key`.
    pub(super) fn idle_cache_bytes(&self, key: WeightsKey) -> u64 {
        let idle = self.caches.of.iter().filter(|(other, _)| **other != key && self.memory.refs(**other) == 0);
        idle.map(|(_, cache)| cache.bytes).sum()
    }

    /// Gives caches back that nobody uses, but for the one of `key`, until `needed` bytes are free.
    pub(super) fn drop_idle_caches(&mut self, key: WeightsKey, needed: u64) {
        for other in self.caches.by_last_use() {
            if self.memory.free() >= needed {
                return;
            }
            if other != key && self.memory.refs(other) == 0 {
                self.drop_cache(other);
            }
        }
    }

    /// Gives caches back that nobody uses while the device is fuller than it may be.
    pub(super) fn shed_caches(&mut self) {
        for key in self.caches.by_last_use() {
            if self.memory.overdraft() == 0 {
                return;
            }
            if self.memory.refs(key) == 0 {
                self.drop_cache(key);
            }
        }
    }

    pub(super) fn drop_cache(&mut self, key: WeightsKey) {
        if let Some(Cache { lease, .. }) = self.caches.of.remove(&key) {
            self.memory.release(lease);
            self.outbox.push(Action::DropCache { key });
        }
    }
}
