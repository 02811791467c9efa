//! Answers that are given again: those whose upstream says for how long, and those of tools that the operator names.
//!
//! Invariants: an answer is kept under everything that it may depend on: what is asked, in the form in which it is
//! sent; the revision of the policy; and, unless the upstream says `public`, the principal, its session and the token
//! that it came with (its hash). Only results are kept, never errors, questions or a tool's own failure. What leaves
//! Provost passes the same stages whether it was kept or not. Many who ask for the same at once cause one call.
//! Left out: lists, which the upstream's connection keeps for all callers, since they are filtered for each.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use provost_data_pipeline::{Execution, Operation, Reply};
use provost_mcp::{RawJson, RawObject};
use provost_types::CacheSpec;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{
    policy::names,
    store::{Hit, Key, Store},
};
use crate::ExecuteRequest;

/// Members of params that an answer depends on in a known way. A request with others is not answered from here.
const KNOWN: [&str; 4] = ["name", "uri", "arguments", "_meta"];

/// What a request may be answered from, and kept under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    own: Key,
    /// The same for everybody; only for what the upstream may call public.
    shared: Option<Key>,
    /// Which changes were known when it was asked for.
    changes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache {
    spec: CacheSpec,
    store: Mutex<Store>,
    /// What is being asked for now.
    flights: Mutex<HashMap<Key, watch::Sender<()>>>,
    /// This upstream gives hints: until then nobody waits for another's answer, which may not be good for it.
    gives_hints: AtomicBool,
    /// Counts what the upstream told of changes.
    changes: AtomicU64,
}

impl Cache {
    pub(crate) fn new(spec: CacheSpec) -> Self {
        let store = Mutex::new(Store::new(spec.max_bytes));
        Self { spec, store, flights: Mutex::default(), gives_hints: AtomicBool::new(false), changes: AtomicU64::new(0) }
    }

    /// Whether and how the request can be answered from here.
    pub(crate) fn plan(&self, request: &ExecuteRequest<'_>) -> Option<Plan> {
        let target = match &request.operation {
            Operation::ReadResource(uri) if self.spec.honour_hints => uri,
            Operation::CallTool(tool) if self.spec.ttl_ms > 0 && names(&self.spec.tools, tool) => tool,
            _ => return None,
        };
        let params = RawObject::parse(&request.params).ok()?;
        if params.iter().any(|(name, _)| !KNOWN.contains(&&*name)) {
            return None;
        }
        let arguments = params.get("arguments").unwrap_or(RawJson::EMPTY_OBJECT);
        let revision = request.revision.0.to_be_bytes();
        let is_read = matches!(request.operation, Operation::ReadResource(_));
        let asked: [&[u8]; 4] =
            [request.operation.method().as_bytes(), target.as_bytes(), arguments.as_bytes(), &revision];
        let session = request.client.session.as_deref().unwrap_or_default();
        // Where it is exchanged for one of the upstream's, another token of the same caller may give them other rights.
        let token = request.subject.map(|token| token.expose().as_bytes()).unwrap_or_default();
        let caller: [&[u8]; 3] = [request.principal.name.as_str().as_bytes(), session.as_bytes(), token];
        let own = hash(asked.into_iter().chain(caller));
        let changes = self.changes.load(Ordering::Acquire);
        Some(Plan { own, shared: is_read.then(|| hash(asked)), changes })
    }

    /// A kept answer.
    pub(crate) fn get(&self, plan: &Plan, now_ms: u64) -> Option<Hit> {
        let mut store = self.store.lock();
        store.get(&plan.own, now_ms).or_else(|| store.get(plan.shared.as_ref()?, now_ms))
    }

    /// Keeps an answer if it may be: not one that a change has overtaken.
    pub(crate) fn keep(&self, plan: &Plan, execution: &Execution, now_ms: u64) {
        let Reply::Result { body, is_error: false } = &execution.reply else { return };
        let (key, ttl_ms) = match (plan.shared, hints(body)) {
            (None, _) => (plan.own, self.spec.ttl_ms),
            (Some(_), None) => return,
            (Some(shared), Some((ttl_ms, is_public))) => {
                self.gives_hints.store(true, Ordering::Relaxed);
                (if is_public { shared } else { plan.own }, ttl_ms.min(self.spec.max_ttl_ms))
            }
        };
        let mut store = self.store.lock();
        if self.changes.load(Ordering::Acquire) == plan.changes {
            store.put(key, body.clone(), now_ms, ttl_ms);
        }
    }

    /// Joins those who ask for the same now. `Ok`: nobody does, and whoever asks says so until it drops this.
    /// `Err`: somebody does; it resolves when that is over. `None`: nobody is to wait.
    pub(crate) fn join(&self, plan: &Plan) -> Option<Result<Flight<'_>, watch::Receiver<()>>> {
        if plan.shared.is_some() && !self.gives_hints.load(Ordering::Relaxed) {
            return None;
        }
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&plan.own) {
            return Some(Err(flight.subscribe()));
        }
        flights.insert(plan.own, watch::channel(()).0);
        Some(Ok(Flight { cache: self, key: plan.own }))
    }

    /// Forgets everything: something changed upstream.
    pub(crate) fn clear(&self) {
        let mut store = self.store.lock();
        // Under the lock, so that nothing older is kept after it.
        self.changes.fetch_add(1, Ordering::AcqRel);
        store.clear();
    }
}

/// One that asks while others wait for it.
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    cache: &'a Cache,
    key: Key,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        // Dropping the sender wakes all who wait.
        self.cache.flights.lock().remove(&self.key);
    }
}

/// A kept answer as an execution. Where the answer itself says how long it is good for, it says how long yet.
pub(crate) fn again(hit: Hit) -> Execution {
    let mut body = hit.body;
    if hints(&body).is_some()
        && let Ok(mut object) = RawObject::parse(&body)
    {
        object.set("ttlMs", RawJson::from(serde_json::Value::from(hit.left_ms)));
        body = object.finish();
    }
    let mut execution = Execution::result(body, false);
    execution.effort.attempts = 0;
    execution.effort.cached_ms = Some(hit.age_ms);
    execution
}

/// `ttlMs` above 0, and whether `cacheScope` is `public` (MCP 2026-07-28, caching).
fn hints(body: &RawJson) -> Option<(u64, bool)> {
    memchr::memmem::find(body.as_bytes(), b"\"ttlMs\"")?;
    let object = RawObject::parse(body).ok()?;
    let ttl_ms: u64 = object.get("ttlMs")?.parse().ok()?;
    (ttl_ms > 0).then(|| (ttl_ms, object.get_text("cacheScope").as_deref() == Some("public")))
}

/// A hash of parts that cannot be taken for others.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
