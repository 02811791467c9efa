//! Kept answers as a pure machine: bounded in bytes, each with an end, the least used goes first.

use std::collections::{BTreeMap, HashMap};

use provost_mcp::RawJson;

/// What an answer is kept under: a hash of all that it depends on.
pub(crate) type Key = [u8; 32];

/// What an entry costs beside its bytes.
const ENTRY_BYTES: u64 = 256;

#[derive(Debug)]
struct Entry {
    body: RawJson,
    kept_ms: u64,
    until_ms: u64,
    /// Its place in the order of use.
    turn: u64,
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.body.as_bytes().len() as u64 + ENTRY_BYTES
    }
}

/// A kept answer, as it is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) body: RawJson,
    /// How long it has been kept.
    pub(crate) age_ms: u64,
    /// How long it is good for yet.
    pub(crate) left_ms: u64,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Store {
    max_bytes: u64,
    bytes: u64,
    entries: HashMap<Key, Entry>,
    order: BTreeMap<u64, Key>,
    turns: u64,
}

impl Store {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, bytes: 0, entries: HashMap::new(), order: BTreeMap::new(), turns: 0 }
    }

    /// Takes an answer out again, if it is still good.
    pub(crate) fn get(&mut self, key: &Key, now_ms: u64) -> Option<Hit> {
        let entry = self.entries.get_mut(key)?;
        if now_ms >= entry.until_ms {
            self.remove(key);
            return None;
        }
        self.order.remove(&entry.turn);
        self.turns += 1;
        entry.turn = self.turns;
        self.order.insert(entry.turn, *key);
        let (age_ms, left_ms) = (now_ms.saturating_sub(entry.kept_ms), entry.until_ms - now_ms);
        Some(Hit { body: entry.body.clone(), age_ms, left_ms })
    }

    /// Keeps an answer for so long. One that is larger than a quarter of everything is not kept.
    pub(crate) fn put(&mut self, key: Key, body: RawJson, now_ms: u64, ttl_ms: u64) {
        self.remove(&key);
        self.turns += 1;
        let entry = Entry { body, kept_ms: now_ms, until_ms: now_ms.saturating_add(ttl_ms), turn: self.turns };
        let bytes = entry.bytes();
        if ttl_ms == 0 || bytes > self.max_bytes / 4 {
            return;
        }
        while self.bytes + bytes > self.max_bytes {
            let Some(oldest) = self.order.first_key_value().map(|(_, key)| *key) else { break };
            self.remove(&oldest);
        }
        self.bytes += bytes;
        self.order.insert(entry.turn, key);
        self.entries.insert(key, entry);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self { turns: self.turns, ..Self::new(self.max_bytes) };
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.turn);
            self.bytes -= entry.bytes();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(length: usize) -> RawJson {
        RawJson::from_text(&"x".repeat(length))
    }

    #[test]
    fn an_answer_is_given_until_its_end() {
        let mut store = Store::new(10_000);
        store.put([1; 32], body(10), 100, 50);
        assert_eq!(store.get(&[1; 32], 149).map(|h| (h.age_ms, h.left_ms)), Some((49, 1)));
        assert_eq!(store.get(&[1; 32], 150), None);
        assert_eq!(store.bytes, 0, "what is over is forgotten");
        store.put([1; 32], body(10), 100, 0);
        store.put([2; 32], body(5_000), 100, 50);
        assert!(store.entries.is_empty(), "nothing that is over at once, nothing that is too large");
        store.put([3; 32], body(10), 100, 50);
        store.clear();
        assert_eq!((store.get(&[3; 32], 101), store.bytes), (None, 0));
    }

    #[test]
    fn the_least_used_goes_first() {
        let mut store = Store::new(4 * (ENTRY_BYTES + 102));
        for n in 0..4 {
            store.put([n; 32], body(100), 0, 100);
        }
        assert!(store.get(&[0; 32], 1).is_some());
        store.put([9; 32], body(100), 1, 100);
        assert!(store.get(&[1; 32], 1).is_none());
        assert!([0, 2, 3, 9].iter().all(|n| store.get(&[*n; 32], 1).is_some()));
    }

    proptest! {
        #[test]
        fn the_bytes_are_bounded_and_counted(steps in prop::collection::vec((0_u8..12, 0_usize..400, 0_u64..40, any::<bool>()), 1..200)) {
            let mut store = Store::new(3_000);
            let mut now = 0;
            for (key, length, time, is_put) in steps {
                now += time;
                if is_put {
                    store.put([key; 32], body(length), now, time * 5);
                } else if let Some(hit) = store.get(&[key; 32], now) {
                    prop_assert!(hit.left_ms > 0);
                }
                let counted: u64 = store.entries.values().map(Entry::bytes).sum();
                prop_assert!(store.bytes == counted && counted <= 3_000);
                prop_assert_eq!(store.order.len(), store.entries.len());
            }
        }
    }
}
