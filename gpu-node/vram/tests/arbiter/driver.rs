//! A device that does what the arbiter says and checks that it may.

use std::collections::{BTreeMap, BTreeSet};

use provost_gpu_vram::{Action, Arbiter, ExclusiveToken, Grant, Limits, Rejection, Request, Ticket, Unfit, WeightsKey};

/// The device, and everything that is on it.
pub struct Driver {
    pub arbiter: Arbiter,
    pub limits: Limits,
    pub now: u64,
    /// Weights in place, with their bytes.
    pub present: BTreeMap<WeightsKey, u64>,
    /// Caches, with their bytes.
    pub caches: BTreeMap<WeightsKey, u64>,
    /// Adapters by the weights that they are used over, with their bytes.
    pub adapters: BTreeMap<(WeightsKey, WeightsKey), u64>,
    /// The adapters that requests use, with their bytes; only of those that turn out to need something.
    pub tuned: BTreeMap<Ticket, (WeightsKey, u64)>,
    /// What requests turn out to need when they are started.
    pub truths: BTreeMap<Ticket, Truth>,
    pub loading: Option<(WeightsKey, u64)>,
    pub running: Vec<(Grant, u64)>,
    pub waiting: BTreeMap<Ticket, Request>,
    pub refused: Vec<(Ticket, Rejection)>,
    pub evicted: Vec<WeightsKey>,
    pub holder: Option<ExclusiveToken>,
    pub exclusive: Vec<Exclusive>,
    known: BTreeSet<Ticket>,
}

/// What a request turns out to need.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    pub budget: u64,
    pub cache: u64,
    /// It finds its cache full, once.
    pub finds_full: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusive {
    Granted,
    Refused,
    Lapsed,
}

impl Driver {
    pub fn new(limits: Limits) -> Self {
        Self {
            arbiter: Arbiter::new(limits),
            limits,
            now: 0,
            present: BTreeMap::new(),
            caches: BTreeMap::new(),
            adapters: BTreeMap::new(),
            tuned: BTreeMap::new(),
            truths: BTreeMap::new(),
            loading: None,
            running: Vec::new(),
            waiting: BTreeMap::new(),
            refused: Vec::new(),
            evicted: Vec::new(),
            holder: None,
            exclusive: Vec::new(),
            known: BTreeSet::new(),
        }
    }

    pub fn submit(&mut self, request: Request) -> Result<Ticket, Rejection> {
        self.submit_as(request, 0, None)
    }

    /// Submits a request that uses an adapter of so many bytes, and turns out to need something else.
    pub fn submit_tuned(
        &mut self,
        request: Request,
        rank: u64,
        truth: Truth,
        adapter: (WeightsKey, u64),
    ) -> Result<Ticket, Rejection> {
        let ticket = self.arbiter.submit(self.now, request)?;
        self.tuned.insert(ticket, adapter);
        self.take(ticket, request, rank, Some(truth));
        Ok(ticket)
    }

    /// Submits a request of a rank among its equals that turns out to need something else.
    pub fn submit_as(&mut self, request: Request, rank: u64, truth: Option<Truth>) -> Result<Ticket, Rejection> {
        let ticket = self.arbiter.submit(self.now, request)?;
        self.take(ticket, request, rank, truth);
        Ok(ticket)
    }

    fn take(&mut self, ticket: Ticket, request: Request, rank: u64, truth: Option<Truth>) {
        assert!(self.known.insert(ticket), "a ticket is never given twice");
        self.arbiter.rank(ticket, rank);
        self.waiting.insert(ticket, request);
        self.truths.extend(truth.map(|truth| (ticket, truth)));
        self.poll();
    }

    /// Does what there is to do, and checks every law that holds at each moment.
    pub fn poll(&mut self) {
        loop {
            let actions = self.arbiter.poll(self.now);
            if actions.is_empty() {
                break;
            }
            // What goes is gone before what is started takes anything.
            let (starts, others): (Vec<_>, Vec<_>) =
                actions.into_iter().partition(|action| matches!(action, Action::Start { .. }));
            for action in others.into_iter().chain(starts) {
                self.perform(action);
                assert!(self.bytes() <= self.limits.capacity_bytes - self.limits.headroom_bytes, "more than there is");
            }
        }
        assert!(self.arbiter.waiting() <= self.limits.queue_bound);
        assert_eq!(self.arbiter.waiting(), self.waiting.len());
        assert_eq!(self.arbiter.active(), self.running.len());
        assert!(self.running.len() <= self.limits.active_bound * 2, "in two lanes");
        let usage = self.arbiter.usage();
        assert!(usage.weights + usage.reserved <= usage.capacity);
        match self.holder {
            Some(_) => assert_eq!(usage.weights, 0, "the holder has all of it"),
            None => assert_eq!(usage.weights + usage.reserved, self.bytes(), "the books are the device"),
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Evict { key } => {
                assert!(self.present.remove(&key).is_some(), "evicts only what is present");
                assert!(!self.caches.contains_key(&key), "the cache goes before the weights");
                assert!(!self.adapters.keys().any(|(base, _)| *base == key), "and so do adapters");
                assert!(!self.running.iter().any(|(grant, _)| grant.key() == key), "never what is leased");
                self.evicted.push(key);
            }
            Action::Load { weights } => {
                assert!(self.holder.is_none());
                assert!(self.loading.is_none(), "one load at a time");
                assert!(!self.present.contains_key(&weights.key), "one copy");
                self.loading = Some((weights.key, weights.bytes));
            }
            Action::Start { grant } => {
                assert!(self.holder.is_none());
                let request = self.waiting.remove(&grant.ticket()).expect("only who waits is started");
                assert_eq!(request.weights.key, grant.key());
                assert!(self.present.contains_key(&grant.key()), "on weights that are there");
                self.start(grant, request);
            }
            Action::DropCache { key } => {
                assert!(self.caches.remove(&key).is_some(), "drops only what is there");
                assert!(!self.running.iter().any(|(grant, _)| grant.key() == key), "never what is used");
            }
            Action::DropAdapter { base, adapter } => {
                assert!(self.adapters.remove(&(base, adapter)).is_some(), "drops only what is there");
                let uses = |grant: &Grant| grant.key() == base && grant.adapter() == Some(adapter);
                assert!(!self.running.iter().any(|(grant, _)| uses(grant)), "never what is used");
            }
            Action::MakeCache { key, bytes } => {
                assert!(self.present.contains_key(&key), "for weights that are there");
                assert!(self.caches.insert(key, bytes).is_none(), "one cache");
            }
            Action::Refuse { ticket, why } => {
                assert!(self.waiting.remove(&ticket).is_some(), "only who waits is refused");
                self.refused.push((ticket, why));
            }
            Action::ExclusiveGranted { token } => {
                assert!(self.running.is_empty() && self.present.is_empty() && self.loading.is_none());
                assert!(self.caches.is_empty() && self.adapters.is_empty());
                self.holder = Some(token);
                self.exclusive.push(Exclusive::Granted);
            }
            Action::ExclusiveRefused { .. } => {
                assert!(self.holder.is_none());
                self.exclusive.push(Exclusive::Refused);
            }
            Action::ExclusiveLapsed { token } => {
                assert_eq!(self.holder.take(), Some(token));
                self.exclusive.push(Exclusive::Lapsed);
            }
        }
    }

    fn bytes(&self) -> u64 {
        let budgets: u64 = self.running.iter().map(|(_, bytes)| bytes).sum();
        let weights = self.present.values().sum::<u64>() + self.loading.map_or(0, |(_, bytes)| bytes);
        weights + self.caches.values().sum::<u64>() + self.adapters.values().sum::<u64>() + budgets
    }

    /// Runs a request with what it turns out to need.
    fn start(&mut self, mut grant: Grant, request: Request) {
        let (ticket, key) = (grant.ticket(), grant.key());
        let Some(truth) = self.truths.get_mut(&ticket) else {
            assert!(self.caches.get(&key).copied().unwrap_or(0) >= request.cache_bytes);
            self.running.push((grant, request.budget_bytes));
            return;
        };
        let (budget, cache) = (truth.budget, truth.cache);
        let finds_full = std::mem::take(&mut truth.finds_full);
        let tuned = self.tuned.get(&ticket).copied();
        let missing = tuned.filter(|(adapter, _)| !self.arbiter.hold_adapter(self.now, &mut grant, *adapter));
        let own = budget;
        let budget = own + missing.map_or(0, |(_, bytes)| bytes);
        match self.arbiter.fit(self.now, grant, budget, cache) {
            Ok((mut grant, actions)) => {
                for action in actions {
                    assert!(!matches!(action, Action::Start { .. }));
                    self.perform(action);
                }
                assert!(self.caches.get(&key).copied().unwrap_or(0) >= cache);
                if finds_full {
                    self.arbiter.put_back(self.now, grant);
                    self.waiting.insert(ticket, Request { budget_bytes: budget, cache_bytes: cache, ..request });
                } else {
                    if let Some((adapter, bytes)) = missing {
                        assert!(self.arbiter.attach(self.now, &mut grant, adapter, bytes));
                        assert!(self.adapters.insert((key, adapter), bytes).is_none(), "one copy");
                    }
                    assert_eq!(grant.adapter(), tuned.map(|(adapter, _)| adapter));
                    self.running.push((grant, own));
                }
            }
            Err(Unfit::Later) => {
                self.waiting.insert(ticket, Request { budget_bytes: budget, cache_bytes: cache, ..request });
            }
            Err(Unfit::Never(why)) => self.refused.push((ticket, why)),
        }
    }

    /// Completes what is being loaded.
    pub fn loaded(&mut self, took: u64) {
        if let Some((key, bytes)) = self.loading.take() {
            self.present.insert(key, bytes);
            self.arbiter.loaded(self.now, key, took);
            self.poll();
        }
    }

    /// Ends the `at`th of what runs.
    pub fn finish(&mut self, at: usize) {
        let (grant, _) = self.running.remove(at);
        self.arbiter.finish(self.now, grant);
        self.poll();
    }

    pub fn pass(&mut self, micros: u64) {
        self.now += micros;
        self.poll();
    }

    pub fn is_running(&self, ticket: Ticket) -> bool {
        self.running.iter().any(|(grant, _)| grant.ticket() == ticket)
    }

    /// Makes model `n` resident and idle, with its minimum residency over.
    pub fn settle(&mut self, request: Request) {
        let ticket = self.submit(request).unwrap();
        self.loaded(request.weights.load_micros);
        let at = self.running.iter().position(|(grant, _)| grant.ticket() == ticket).expect("it runs");
        self.finish(at);
        self.pass(request.weights.load_micros * self.limits.residency_loads);
    }
}
