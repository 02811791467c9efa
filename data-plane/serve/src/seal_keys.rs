//! The keys under which texts that clients carry are sealed: session ids, `requestState`.
//!
//! Purpose: all nodes of a cluster get the same ones, so that any of them serves any client.
//! Invariants: there is always one that seals; a key that was known stays known for a day, which is as
//! long as sessions and the like are good, so that a rotation ends none. What has no end of its own (tokens of
//! guards) opens as long as its key is among the present ones.
//! Left out: where keys come from (whoever composes the node sets them).

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

/// Keys that are kept beside the present ones, so many at most.
const MAX_FORMER: usize = 64;
/// How long a key that is not among the present ones any more still opens.
const FORMER_TTL: Duration = Duration::from_secs(24 * 3600);
/// A new key seals from so long after it became known: other nodes must be able to open it by then.
const SETTLE: Duration = Duration::from_secs(60);

/// Bytes of a key.
type Key = [u8; 32];

#[derive(Clone)]
struct Known {
    key: Key,
    since: Instant,
    /// From when it is not among the present ones.
    gone: Option<Instant>,
}

/// See the module.
pub struct SealKeys(ArcSwap<BTreeMap<u64, Known>>);

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKeys")
    }
}

impl SealKeys {
    /// The term of a key that is this node's own.
    pub const OWN_TERM: u64 = 0;

    /// One key, of this node alone: until there are others, it seals.
    pub fn own(key: Key) -> Arc<Self> {
        let known = Known { key, since: Instant::now(), gone: None };
        Arc::new(Self(ArcSwap::from_pointee(BTreeMap::from([(Self::OWN_TERM, known)]))))
    }

    /// The cluster's keys of now, by term. Those of before that are missing only open from here on.
    pub fn set(&self, present: &BTreeMap<u64, Key>) {
        self.set_at(present, Instant::now());
    }

    fn set_at(&self, present: &BTreeMap<u64, Key>, now: Instant) {
        self.0.rcu(|known| {
            let mut next = BTreeMap::clone(known);
            for (term, known) in &mut next {
                if *term != Self::OWN_TERM && present.get(term) != Some(&known.key) {
                    known.gone.get_or_insert(now);
                }
            }
            next.retain(|_, known| known.gone.is_none_or(|gone| now.duration_since(gone) < FORMER_TTL));
            while next.len() > MAX_FORMER {
                // The own key has the lowest term and stays.
                let Some(oldest) = next.keys().nth(1).copied() else { break };
                next.remove(&oldest);
            }
            let newest = present.keys().next_back();
            for (term, key) in present {
                // Keys come one at a time: all but the newest were there for others before.
                let since = if Some(term) == newest { now } else { now.checked_sub(SETTLE).unwrap_or(now) };
                match next.get_mut(term) {
                    Some(known) if known.key == *key => known.gone = None,
                    _ => drop(next.insert(*term, Known { key: *key, since, gone: None })),
                }
            }
            next
        });
    }

    /// The key that seals now: the newest that every node has had time to learn, else the newest.
    pub(crate) fn sealing(&self) -> (u64, Key) {
        self.sealing_at(Instant::now())
    }

    fn sealing_at(&self, now: Instant) -> (u64, Key) {
        let all = self.0.load();
        let present = || all.iter().rev().filter(|(term, k)| k.gone.is_none() && **term != Self::OWN_TERM);
        let settled = present().find(|(_, known)| now.duration_since(known.since) >= SETTLE);
        // One of two that are both new is better than none that others have.
        let chosen = settled.or_else(|| present().next_back()).or_else(|| all.first_key_value());
        chosen.map_or((Self::OWN_TERM, Key::default()), |(term, known)| (*term, known.key))
    }

    /// The key of a term.
    pub(crate) fn of(&self, term: u64) -> Option<Key> {
        self.0.load().get(&term).map(|known| known.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(terms: &[u64]) -> BTreeMap<u64, Key> {
        terms.iter().map(|term| (*term, [u8::try_from(*term).unwrap_or(255); 32])).collect()
    }

    #[test]
    fn a_new_key_seals_once_others_can_know_it_and_an_old_one_opens_for_a_day() {
        let ring = SealKeys::own([9; 32]);
        let start = Instant::now();
        assert_eq!(ring.sealing_at(start).0, SealKeys::OWN_TERM);
        ring.set_at(&keys(&[3]), start);
        assert_eq!(ring.sealing_at(start).0, 3, "the cluster's first key is better than an own one");
        let later = start + Duration::from_secs(100);
        ring.set_at(&keys(&[3, 4]), later);
        assert_eq!(ring.sealing_at(later).0, 3, "another node may not know 4 yet");
        assert_eq!(ring.sealing_at(later + SETTLE).0, 4);
        // A rotation lets the old key go at once: it seals no more, and opens for a day.
        ring.set_at(&keys(&[5]), later + SETTLE);
        assert_eq!(ring.sealing_at(later + SETTLE).0, 5);
        assert_eq!(ring.of(4), Some([4; 32]));
        ring.set_at(&keys(&[5]), later + SETTLE + FORMER_TTL);
        assert_eq!((ring.of(4), ring.of(5)), (None, Some([5; 32])));
        assert_eq!(ring.of(SealKeys::OWN_TERM), Some([9; 32]), "what was sealed before the first key opens");
    }

    #[test]
    fn a_node_that_starts_seals_with_the_newest_key_that_others_have_for_sure() {
        let ring = SealKeys::own([9; 32]);
        let start = Instant::now() + SETTLE;
        ring.set_at(&keys(&[3, 4, 5, 6]), start);
        assert_eq!(ring.sealing_at(start).0, 5, "6 may have been made a moment ago");
        assert_eq!(ring.sealing_at(start + SETTLE).0, 6);
        assert_eq!(ring.of(3), Some([3; 32]), "the others open");
    }

    #[test]
    fn a_term_of_another_cluster_is_another_key() {
        let ring = SealKeys::own([9; 32]);
        ring.set(&keys(&[1]));
        ring.set(&BTreeMap::from([(1, [7; 32])]));
        assert_eq!(ring.of(1), Some([7; 32]));
    }

    #[test]
    fn no_number_of_rotations_fills_the_memory() {
        let ring = SealKeys::own([9; 32]);
        for term in 1..1_000 {
            ring.set(&keys(&[term]));
        }
        assert!(ring.0.load().len() <= MAX_FORMER + 1);
        assert_eq!(ring.sealing().0, 999);
    }
}
