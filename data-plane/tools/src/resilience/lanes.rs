//! Places and the queue for them as a pure machine, fair between those who wait.
//!
//! Invariants: never more run than there are places, and never more wait than may; nobody waits while a place is
//! free; places go round the lanes (one for each key, here a principal), so that one with a thousand waiting calls
//! gets no more than one with a single call; a full queue takes the newest call of the longest lane for one of a
//! lane that is shorter by more than one.
//! Left out: waking (`gate`), time, and what a key is.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Names one who waits.
pub(crate) type Ticket = u64;

/// What became of one who came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It has a place.
    Run,
    /// It waits; another's wait may have ended for it.
    Wait { ticket: Ticket, evicted: Option<Ticket> },
    /// There is neither a place nor room to wait.
    Full,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Lanes<K> {
    places: usize,
    max_queued: usize,
    running: usize,
    queued: usize,
    lanes: HashMap<K, VecDeque<Ticket>>,
    /// Lanes that are not empty, in the order in which they are served.
    order: VecDeque<K>,
    next: Ticket,
}

impl<K: Clone + Eq + Hash> Lanes<K> {
    /// With so many places and so much room to wait.
    pub(crate) fn new(places: usize, max_queued: usize) -> Self {
        Self {
            places: places.max(1),
            max_queued,
            running: 0,
            queued: 0,
            lanes: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
        }
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Whether one who comes runs at once.
    pub(crate) fn has_place(&self) -> bool {
        self.running < self.places
    }

    /// How many wait.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// One comes.
    pub(crate) fn enter(&mut self, key: &K) -> Entry {
        if self.running < self.places {
            self.running += 1;
            return Entry::Run;
        }
        let mut evicted = None;
        if self.queued >= self.max_queued {
            evicted = self.make_room(key);
            if evicted.is_none() {
                return Entry::Full;
            }
        }
        let ticket = self.next;
        self.next += 1;
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.is_empty() {
            self.order.push_back(key.clone());
        }
        lane.push_back(ticket);
        self.queued += 1;
        Entry::Wait { ticket, evicted }
    }

    /// One that ran is done: its place goes to the next, who is named.
    pub(crate) fn leave(&mut self) -> Option<Ticket> {
        let Some(key) = self.order.pop_front() else {
            self.running = self.running.saturating_sub(1);
            return None;
        };
        let lane = self.lanes.get_mut(&key);
        let ticket = lane.and_then(|lane| lane.pop_front());
        if self.lanes.get(&key).is_some_and(|lane| !lane.is_empty()) {
            self.order.push_back(key);
        } else {
            self.lanes.remove(&key);
        }
        self.queued = self.queued.saturating_sub(1);
        ticket
    }

    /// One that waits gives up; `false`: it does not wait any more.
    pub(crate) fn give_up(&mut self, key: &K, ticket: Ticket) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else { return false };
        let Some(at) = lane.iter().position(|t| *t == ticket) else { return false };
        lane.remove(at);
        self.queued -= 1;
        if lane.is_empty() {
            self.lanes.remove(key);
            self.order.retain(|k| k != key);
        }
        true
    }

    fn make_room(&mut self, key: &K) -> Option<Ticket> {
        let own = self.lanes.get(key).map_or(0, VecDeque::len);
        let (longest, length) =
            self.order.iter().map(|k| (k, self.lanes.get(k).map_or(0, VecDeque::len))).max_by_key(|(_, n)| *n)?;
        if length <= own + 1 {
            return None;
        }
        let longest = longest.clone();
        let ticket = self.lanes.get(&longest).and_then(|lane| lane.back().copied())?;
        self.give_up(&longest, ticket);
        Some(ticket)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn waits(entry: Entry) -> Ticket {
        match entry {
            Entry::Wait { ticket, .. } => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_go_round() {
        let mut lanes = Lanes::new(1, 10);
        assert_eq!(lanes.enter(&"a"), Entry::Run);
        let a: Vec<Ticket> = (0..4).map(|_| waits(lanes.enter(&"a"))).collect();
        let b = waits(lanes.enter(&"b"));
        let c = waits(lanes.enter(&"c"));
        let served: Vec<Ticket> = std::iter::from_fn(|| lanes.leave()).collect();
        assert_eq!(served, [a[0], b, c, a[1], a[2], a[3]]);
        assert_eq!((lanes.running(), lanes.queued()), (0, 0));
    }

    #[test]
    fn a_full_queue_takes_from_the_longest_lane() {
        let mut lanes = Lanes::new(1, 3);
        lanes.enter(&"a");
        let a: Vec<Ticket> = (0..3).map(|_| waits(lanes.enter(&"a"))).collect();
        assert_eq!(lanes.enter(&"a"), Entry::Full);
        assert!(matches!(lanes.enter(&"b"), Entry::Wait { evicted: Some(t), .. } if t == a[2]));
        // Two of `a`, one of `b`: nothing would be fairer.
        assert_eq!(lanes.enter(&"b"), Entry::Full);
        assert!(!lanes.give_up(&"a", a[2]) && lanes.give_up(&"a", a[1]));
        assert_eq!(lanes.queued(), 2);
    }

    #[test]
    fn without_a_queue_nobody_waits() {
        let mut lanes = Lanes::new(2, 0);
        assert_eq!([0; 3].map(|_| lanes.enter(&())), [Entry::Run, Entry::Run, Entry::Full]);
        assert_eq!(lanes.leave(), None);
        assert_eq!(lanes.enter(&()), Entry::Run);
    }

    proptest! {
        /// Whatever comes and goes: the bounds hold, nobody waits beside a free place, and every one who
        /// waited is served, evicted or gone, once.
        #[test]
        fn the_bounds_hold(places in 1_usize..5, max_queued in 0_usize..8, steps in prop::collection::vec((0_u8..4, 0_u8..3), 1..300)) {
            let mut lanes = Lanes::new(places, max_queued);
            let (mut running, mut waiting) = (0_usize, BTreeMap::new());
            for (what, key) in steps {
                match what {
                    0 | 1 => match lanes.enter(&key) {
                        Entry::Run => running += 1,
                        Entry::Wait { ticket, evicted } => {
                            prop_assert_eq!(running, places);
                            if let Some(evicted) = evicted {
                                prop_assert!(waiting.remove(&evicted).is_some());
                            }
                            waiting.insert(ticket, key);
                        }
                        Entry::Full => prop_assert!(running == places && waiting.len() == max_queued),
                    },
                    2 if running > 0 => match lanes.leave() {
                        Some(ticket) => prop_assert!(waiting.remove(&ticket).is_some()),
                        None => {
                            prop_assert!(waiting.is_empty());
                            running -= 1;
                        }
                    },
                    _ => {
                        if let Some((ticket, key)) = waiting.pop_first() {
                            prop_assert!(lanes.give_up(&key, ticket));
                            prop_assert!(!lanes.give_up(&key, ticket));
                        }
                    }
                }
                prop_assert!(running <= places && waiting.len() <= max_queued);
                prop_assert_eq!((lanes.running(), lanes.queued()), (running, waiting.len()));
                prop_assert!(waiting.is_empty() || running == places);
                prop_assert_eq!(lanes.order.len(), lanes.lanes.len());
            }
        }

        /// Of lanes that always have somebody waiting, none is served more than once oftener than another.
        #[test]
        fn lanes_that_wait_are_served_alike(lengths in prop::collection::vec(20_usize..40, 2..5)) {
            let mut lanes = Lanes::new(1, 1_000);
            lanes.enter(&usize::MAX);
            let mut of = BTreeMap::new();
            for (key, length) in lengths.iter().enumerate() {
                for _ in 0..*length {
                    of.insert(waits(lanes.enter(&key)), key);
                }
            }
            let mut served = vec![0_usize; lengths.len()];
            for _ in 0..20 {
                served[of[&lanes.leave().unwrap()]] += 1;
                let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
                prop_assert!(most - least <= 1, "{:?}", served);
            }
        }
    }
}
