//! Ends of sessions that a sibling has not heard of, until it is there again.
//!
//! Invariants: bounded for each node, and in time by the life of a session's id: past that nobody takes the id. What
//! is forgotten for want of room is served by the absent node, once it is back, until then. Lost with this process.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Ends that are kept for one node; the oldest go first.
const MAX_UNHEARD: usize = 4_096;
/// Nodes for which some are kept.
const MAX_NODES: usize = 64;
/// As long as a session's id is good.
const TTL: Duration = Duration::from_secs(24 * 3_600);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unheard(Mutex<HashMap<String, VecDeque<(String, Instant)>>>);

impl Unheard {
    /// The node did not hear that this session is over.
    pub(super) fn note(&self, node: &str, session: &str, now: Instant) {
        let mut nodes = self.0.lock();
        if !nodes.contains_key(node) && nodes.len() >= MAX_NODES {
            return;
        }
        let ends = nodes.entry(node.to_owned()).or_default();
        if ends.len() >= MAX_UNHEARD {
            ends.pop_front();
        }
        ends.push_back((session.to_owned(), now));
    }

    /// What it has still to hear; it is forgotten here.
    pub(super) fn take(&self, node: &str, now: Instant) -> Vec<String> {
        let ends = self.0.lock().remove(node).unwrap_or_default();
        let is_good = |since: &Instant| now.duration_since(*since) < TTL;
        ends.into_iter().filter(|(_, since)| is_good(since)).map(|(session, _)| session).collect()
    }

    /// Forgets nodes that are no members any more.
    pub(super) fn keep(&self, is_member: impl Fn(&str) -> bool) {
        self.0.lock().retain(|node, _| is_member(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_missed_is_kept_within_bounds_and_told_once() {
        let (unheard, now) = (Unheard::default(), Instant::now());
        unheard.note("a", "old", now);
        let later = now + TTL;
        for n in 0..MAX_UNHEARD {
            unheard.note("a", &n.to_string(), later);
        }
        unheard.note("b", "other", later);
        let told = unheard.take("a", later);
        assert_eq!((told.len(), told.first().map(String::as_str)), (MAX_UNHEARD, Some("0")));
        assert!(unheard.take("a", later).is_empty(), "once");
        unheard.note("a", "old", now);
        assert!(unheard.take("a", later).is_empty(), "its id is not good any more");
        unheard.keep(|node| node == "a");
        assert!(unheard.take("b", later).is_empty(), "it is no member any more");
        for n in 0..2 * MAX_NODES {
            unheard.note(&n.to_string(), "s", now);
        }
        assert_eq!(unheard.0.lock().len(), MAX_NODES);
    }
}
