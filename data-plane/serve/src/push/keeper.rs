//! Writes the last good state, away from calls and from the stream.
//!
//! A burst of revisions writes the newest only: after a write the keeper rests for `save_gap`, so
//! what is on disk is never further behind than that and one write. A failed write is reported and
//! tried again; the node goes on, since what it runs does not depend on it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    client::Shared,
    config::{PushConfig, Timings},
    last_good::{LastGood, StoreError},
    mirror::Pushed,
};

pub(crate) struct Keeper {
    store: Arc<LastGood>,
    shared: Arc<Shared>,
    timings: Timings,
    stamp_every: Duration,
    states: watch::Receiver<Option<Arc<Pushed>>>,
    /// The last note of when the state was confirmed.
    stamped: Option<SystemTime>,
}

impl Keeper {
    pub(crate) fn new(store: LastGood, shared: Arc<Shared>, config: &PushConfig) -> Self {
        // Subscribed before the client is handed out: no state becomes active unseen.
        let states = shared.active.subscribe();
        let (timings, stamp_every) = (config.timings, config.stamp_every());
        Self { store: Arc::new(store), shared, timings, stamp_every, states, stamped: None }
    }

    /// Until the client stops; the newest state is written then.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        let mut stamps = interval(self.stamp_every);
        stamps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = self.states.changed() => self.save_newest().await,
                _ = stamps.tick() => self.stamp().await,
                () = shared.ended() => break,
            }
        }
        if self.is_behind() {
            self.save_newest().await;
        }
        self.stamp().await;
    }

    /// Whether the node runs a state that is not on disk.
    fn is_behind(&self) -> bool {
        self.states.has_changed().unwrap_or(false)
    }

    /// Writes the newest state, then rests.
    async fn save_newest(&mut self) {
        let newest = self.states.borrow_and_update().clone();
        let Some(pushed) = newest else { return };
        let revision = pushed.snapshot.revision;
        let confirmed = self.shared.contact.confirmed_at();
        let saved = self.blocking(move |store| store.save(&pushed, confirmed)).await;
        let rest = if saved {
            self.shared.saved.send_replace(Some(revision));
            self.timings.save_gap
        } else {
            // Seen as new again: the next turn writes it, or what came meanwhile.
            self.states.mark_changed();
            self.timings.save_retry
        };
        tokio::select! {
            () = sleep(rest) => {}
            () = self.shared.ended() => {}
        }
    }

    /// Only what is on disk may be called confirmed there.
    async fn stamp(&mut self) {
        if self.is_behind() {
            return;
        }
        let Some(confirmed) = self.shared.contact.confirmed_at() else { return };
        if self.stamped != Some(confirmed) && self.blocking(move |store| store.stamp(confirmed)).await {
            self.stamped = Some(confirmed);
        }
    }

    /// Whether it was done.
    async fn blocking(&self, work: impl FnOnce(&LastGood) -> Result<(), StoreError> + Send + 'static) -> bool {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(Ok(())) => true,
            Ok(Err(e)) => {
                tracing::error!(code = "PV-PUSH-STORE", "{e}; a start without a control plane may run an older state");
                false
            }
            // The runtime is ending.
            Err(_) => false,
        }
    }
}
