//! Calls of legacy upstreams that wait for their client's answer.
//!
//! Purpose: a legacy server asks in the middle of a call and waits. The gateway answers its own
//! client with an `input_required` result and keeps the upstream call here; the client's retry
//! takes it out again by the state it was given.
//! Invariants: the key is 128 random bits and is good for one retry, of the same caller and
//! operation; the table is bounded; a call that nobody comes back for is cancelled after a time.
//! The state names this process, so that a retry that reaches another node finds it. If this process
//! ends, its parked calls end with it, and the retry learns that it must start anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::call::Running;
use crate::UpstreamError;

/// Marks our own states, so that an upstream's can be told apart.
const PREFIX: &str = "provost-parked-";

struct Entry {
    owner: Owner,
    running: Running,
}

/// Who may take a parked call, and for which operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) principal: String,
    pub(super) method: String,
    pub(super) target: String,
}

/// The parked calls of one plugin.
pub(super) struct Parking {
    /// This process, where there are others.
    tag: Option<String>,
    entries: Mutex<HashMap<String, Entry>>,
    max_entries: usize,
    ttl: Duration,
}

impl Parking {
    pub(super) fn new(tag: Option<String>, max_entries: usize, ttl: Duration) -> Self {
        Self { tag, entries: Mutex::default(), max_entries, ttl }
    }

    /// Whether the state was given by a parking table.
    pub(super) fn is_ours(state: &str) -> bool {
        state.starts_with(PREFIX)
    }

    /// Whether such a state may be in some JSON.
    pub(super) fn is_mentioned(json: &[u8]) -> bool {
        memchr::memmem::find(json, PREFIX.as_bytes()).is_some()
    }

    /// The process that gave the state.
    pub(super) fn kept_by(state: &str) -> Option<&str> {
        Some(state.strip_prefix(PREFIX)?.split_once('-')?.0)
    }

    /// Keeps the call; returns the state for the client.
    pub(super) fn park(self: &Arc<Self>, owner: Owner, running: Running) -> Result<String, UpstreamError> {
        let random = rand::random::<u128>();
        let key = match &self.tag {
            Some(tag) => format!("{PREFIX}{tag}-{random:032x}"),
            None => format!("{PREFIX}{random:032x}"),
        };
        {
            let mut entries = self.entries.lock();
            if entries.len() >= self.max_entries {
                return Err(UpstreamError::Busy("too many calls wait for their clients".to_owned()));
            }
            entries.insert(key.clone(), Entry { owner, running });
        }
        let (weak, expired, ttl) = (Arc::downgrade(self), key.clone(), self.ttl);
        tokio::spawn(async move {
            tokio::time::sleep(ttl).await;
            // Dropping the call cancels it upstream.
            if let Some(parking) = weak.upgrade() {
                let entry = parking.entries.lock().remove(&expired);
                drop(entry);
            }
        });
        Ok(key)
    }

    /// Takes the call out if it is the owner's. Another's retry leaves it in place.
    pub(super) fn take(&self, state: &str, owner: &Owner) -> Option<Running> {
        let mut entries = self.entries.lock();
        if entries.get(state)?.owner != *owner {
            return None;
        }
        entries.remove(state).map(|e| e.running)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.entries.lock().len()
    }
}
