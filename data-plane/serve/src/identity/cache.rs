//! What was found out about tokens, by their hash, in a fixed number of places.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

/// Entries of one generation; there are two.
const GENERATION: usize = 8_192;

/// Two generations: when the younger one is full the older one is dropped and the younger takes its place, so
/// that what is used stays (it is put into the younger one again) and nothing has to be searched for.
#[derive(Debug)]
pub(crate) struct TokenCache<T> {
    maps: RwLock<Maps<T>>,
}

#[derive(Debug)]
struct Maps<T> {
    young: HashMap<[u8; 32], Arc<T>>,
    old: HashMap<[u8; 32], Arc<T>>,
}

impl<T> Default for TokenCache<T> {
    fn default() -> Self {
        Self { maps: RwLock::new(Maps { young: HashMap::new(), old: HashMap::new() }) }
    }
}

impl<T> TokenCache<T> {
    /// What is known of a token.
    pub(crate) fn get(&self, hash: &[u8; 32]) -> Option<Arc<T>> {
        let found = {
            let maps = self.maps.read();
            if let Some(found) = maps.young.get(hash) {
                return Some(found.clone());
            }
            maps.old.get(hash).cloned()?
        };
        self.put(*hash, found.clone());
        Some(found)
    }

    /// Remembers it.
    pub(crate) fn put(&self, hash: [u8; 32], value: Arc<T>) {
        let mut maps = self.maps.write();
        if maps.young.len() >= GENERATION && !maps.young.contains_key(&hash) {
            maps.old = std::mem::take(&mut maps.young);
        }
        maps.young.insert(hash, value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(n: usize) -> [u8; 32] {
        *blake3::hash(&n.to_le_bytes()).as_bytes()
    }

    #[test]
    fn what_is_used_stays_and_the_number_has_a_bound() {
        let cache = TokenCache::default();
        for n in 0..10 * GENERATION {
            cache.put(key(n), Arc::new(n));
            assert_eq!(*cache.get(&key(0)).unwrap(), 0, "after {n}");
        }
        let maps = cache.maps.read();
        assert!(maps.young.len() <= GENERATION && maps.old.len() <= GENERATION);
        drop(maps);
        assert!(cache.get(&key(1)).is_none(), "what is not used goes");
    }
}
