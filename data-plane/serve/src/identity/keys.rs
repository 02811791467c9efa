//! The keys of one provider, kept.
//!
//! Invariants: one fetch at a time, and at most one in [`MIN_INTERVAL`], whatever tokens come; a caller that
//! leaves stops no fetch. Keys that are older than [`REFRESH_AFTER`] are fetched again while they are used, and
//! older than [`FRESH_FOR`] before they are used; when that fails they are good until [`STALE_FOR`].
//! The clock here is the monotonic one: setting the machine's time makes no keys old or new.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use provost_data_tools::DocumentClient;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use super::{fetch::Whence, jwk::KeySet, jwt::Unverified};

/// Between the beginnings of two fetches: what tokens with unknown keys can make the node ask for.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// The age from which keys are fetched again while they are used.
const REFRESH_AFTER: Duration = Duration::from_secs(5 * 60);
/// The age up to which keys are used without asking first.
const FRESH_FOR: Duration = Duration::from_secs(15 * 60);
/// The age up to which keys are used although the provider cannot be reached.
const STALE_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that a call waits for keys.
const WAIT: Duration = Duration::from_secs(3);
/// Calls that wait at once for one provider; others are answered with what is known.
const MAX_WAITING: usize = 256;

/// Keys, and when they came.
#[derive(Debug)]
struct Fetched {
    set: Arc<KeySet>,
    at: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct KeySource {
    whence: Whence,
    client: OnceLock<Option<DocumentClient>>,
    fetched: ArcSwapOption<Fetched>,
    attempts: Mutex<Attempts>,
    /// Counts fetches that have ended.
    ended: watch::Sender<u64>,
    waiting: Semaphore,
}

#[derive(Debug, Default)]
struct Attempts {
    running: bool,
    /// The last one that ended brought nothing.
    failed: bool,
    begun: Option<Instant>,
}

impl KeySource {
    pub(super) fn new(whence: Whence) -> Self {
        Self {
            whence,
            client: OnceLock::new(),
            fetched: ArcSwapOption::empty(),
            attempts: Mutex::default(),
            ended: watch::Sender::new(0),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    pub(super) fn whence(&self) -> &Whence {
        &self.whence
    }

    /// The keys to verify with now.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        let fetched = self.fetched.load();
        fetched.as_ref().filter(|fetched| fetched.at.elapsed() < STALE_FOR).map(|fetched| fetched.set.clone())
    }

    /// Fetches what will be needed: begins it for keys that grow old, and waits for those that a token needs and
    /// that are not here.
    pub(super) async fn prepare(self: &Arc<Self>, token: Option<&Unverified<'_>>) {
        let (usable, age) = match self.fetched.load_full() {
            Some(fetched) => (token.is_none_or(|token| fetched.set.has(token)), fetched.at.elapsed()),
            None => (false, Duration::MAX),
        };
        if usable && age < FRESH_FOR {
            if age >= REFRESH_AFTER {
                self.begin();
            }
            return;
        }
        let Some(mut ended) = self.begin() else { return };
        // A provider that is down makes no call slow that can be decided without it.
        if usable && self.attempts.lock().failed {
            return;
        }
        let Ok(_place) = self.waiting.try_acquire() else { return };
        let _ = timeout(WAIT, ended.changed()).await;
    }

    /// Begins a fetch, or finds one that runs: what tells its end. `None`: it is too early for another one.
    pub(super) fn begin(self: &Arc<Self>) -> Option<watch::Receiver<u64>> {
        // Before anything can end, so that no end is missed.
        let ended = self.ended.subscribe();
        let mut attempts = self.attempts.lock();
        if attempts.running {
            return Some(ended);
        }
        if attempts.begun.is_some_and(|begun| begun.elapsed() < MIN_INTERVAL) {
            return None;
        }
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        *attempts = Attempts { running: true, begun: Some(Instant::now()), ..*attempts };
        drop(attempts);
        let end = Ending(self.clone());
        runtime.spawn(async move {
            end.0.fetch().await;
            drop(end);
        });
        Some(ended)
    }

    async fn fetch(&self) {
        let make = || DocumentClient::new().inspect_err(|cause| tracing::error!(%cause, "no client for keys")).ok();
        let Some(client) = self.client.get_or_init(make) else { return };
        match self.whence.keys(client).await {
            Ok(set) => {
                tracing::debug!(issuer = %self.whence.issuer, "fetched keys");
                self.keep(set);
                self.attempts.lock().failed = false;
            }
            Err(fault) => {
                self.attempts.lock().failed = true;
                tracing::warn!(
                    issuer = %self.whence.issuer,
                    "PV-AUTH-ISSUER-KEYS: keys cannot be fetched: {fault}; those that are here are used for a day"
                );
            }
        }
    }

    /// Keys that have not changed stay the same object: what was verified with them stays verified.
    fn keep(&self, set: KeySet) {
        let known = self.fetched.load_full().map(|known| known.set.clone()).filter(|known| **known == set);
        let set = known.unwrap_or_else(|| Arc::new(set));
        self.fetched.store(Some(Arc::new(Fetched { set, at: Instant::now() })));
    }
}

/// Tells the end of a fetch, however it ends.
struct Ending(Arc<KeySource>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.attempts.lock().running = false;
        self.0.ended.send_modify(|count| *count += 1);
    }
}
