//! When the node last heard from the control plane, and when its state was last confirmed.
//!
//! A control-plane node that is cut off from its quorum still serves what it has and still sends
//! bookmarks, but the time in them stands still. So only a bookmark whose time has moved since the
//! one before it, on the same stream, confirms the state, and it counts from the moment of the one
//! before it. No two clocks are compared.
//!
//! A node that never had a state counts the first one that it is sent as confirmed when it came:
//! there is nothing older to compare with, and the confirmation proper is two bookmarks away. A
//! node that had one does not: what it knows of its age is better than a guess.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Freshness, StalenessLimits, verdict};

/// How far the clock may have gone back since the stored moment, before nothing is known.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// A moment by two clocks: one stops while the machine sleeps, the other can be set.
#[derive(Clone, Copy, Debug)]
struct Moment {
    steady: Instant,
    /// How old it was at `steady`.
    before: Duration,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self { steady: Instant::now(), before: Duration::ZERO, wall: SystemTime::now() }
    }

    /// A moment of an earlier run of the node.
    fn stored(wall: SystemTime) -> Option<Self> {
        let before = match SystemTime::now().duration_since(wall) {
            Ok(age) => age,
            Err(ahead) if ahead.duration() <= CLOCK_TOLERANCE => Duration::ZERO,
            Err(_) => return None,
        };
        Some(Self { steady: Instant::now(), before, wall })
    }

    /// The larger one: too old fails closed.
    fn age(&self) -> Duration {
        let steady = self.before + self.steady.elapsed();
        self.wall.elapsed().map_or(steady, |wall| wall.max(steady))
    }
}

#[derive(Default)]
struct Inner {
    endpoint: Option<String>,
    heard: Option<Moment>,
    /// The time in the last bookmark of this stream, and when it came.
    bookmark: Option<(u64, Moment)>,
    confirmed: Option<Moment>,
}

/// Shared by the client and those who ask.
#[derive(Default)]
pub(crate) struct Contact(Mutex<Inner>);

impl Contact {
    /// The state is one that was confirmed in an earlier run, at `confirmed`.
    pub(crate) fn restored(&self, confirmed: Option<SystemTime>) {
        self.0.lock().confirmed = confirmed.and_then(Moment::stored);
    }

    pub(crate) fn connected(&self, endpoint: &str) {
        let mut inner = self.0.lock();
        inner.endpoint = Some(endpoint.to_owned());
        inner.bookmark = None;
    }

    pub(crate) fn disconnected(&self) {
        self.0.lock().endpoint = None;
    }

    pub(crate) fn heard(&self) {
        self.0.lock().heard = Some(Moment::now());
    }

    /// A state came from a control-plane node; counts where nothing is known.
    pub(crate) fn received(&self) {
        let mut inner = self.0.lock();
        inner.confirmed = inner.confirmed.or_else(|| Some(Moment::now()));
    }

    /// `is_current`: the node runs what the control-plane node has.
    pub(crate) fn bookmark(&self, time_ns: u64, is_current: bool) {
        let mut inner = self.0.lock();
        let now = Moment::now();
        match inner.bookmark {
            Some((before_ns, before)) if time_ns > before_ns => {
                if is_current {
                    inner.confirmed = Some(before);
                }
                inner.bookmark = Some((time_ns, now));
            }
            Some(_) => {}
            None => inner.bookmark = Some((time_ns, now)),
        }
    }

    pub(crate) fn endpoint(&self) -> Option<String> {
        self.0.lock().endpoint.clone()
    }

    pub(crate) fn heard_ago(&self) -> Option<Duration> {
        self.0.lock().heard.map(|m| m.age())
    }

    pub(crate) fn confirmed_ago(&self) -> Option<Duration> {
        self.0.lock().confirmed.map(|m| m.age())
    }

    pub(crate) fn confirmed_at(&self) -> Option<SystemTime> {
        self.confirmed_ago().and_then(|age| SystemTime::now().checked_sub(age))
    }
}

/// Answers for each call whether grants still hold: one short lock.
#[derive(Clone)]
pub struct StalenessReader {
    pub(crate) contact: Arc<Contact>,
}

impl StalenessReader {
    /// What the age of the state allows now.
    pub fn freshness(&self, limits: &StalenessLimits) -> Freshness {
        verdict(self.age(), limits)
    }

    /// Since a quorum confirmed that the node's state is the newest; `None`: unknown.
    pub fn age(&self) -> Option<Duration> {
        self.contact.confirmed_ago()
    }
}
