//! What a plugin's guest keeps from call to call: a few values, on this node, until it ends.

use std::collections::HashMap;

use parking_lot::Mutex;
use provost_data_wasm::KvError;

/// Keys of one plugin.
const MAX_KEYS: usize = 4_096;
/// Bytes of its keys and values together.
const MAX_BYTES: usize = 4 << 20;

/// The values of one plugin of one tenant. A new version of the plugin finds those of the one before.
#[derive(Default)]
pub(crate) struct Store {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    values: HashMap<String, Vec<u8>>,
    bytes: usize,
}

impl Store {
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.held.lock().values.get(key).cloned()
    }

    /// Keeps a value, or removes it.
    pub(crate) fn set(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), KvError> {
        let held = &mut *self.held.lock();
        let size = |value: &Vec<u8>| key.len() + value.len();
        let before = held.values.get(key).map_or(0, size);
        let Some(value) = value else {
            held.values.remove(key);
            held.bytes -= before;
            return Ok(());
        };
        let bytes = held.bytes - before + size(&value);
        if bytes > MAX_BYTES || (before == 0 && held.values.len() >= MAX_KEYS) {
            return Err(KvError::Full);
        }
        held.bytes = bytes;
        held.values.insert(key.to_owned(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_full_at_its_bound_and_has_room_again() {
        let store = Store::default();
        let half = vec![0; MAX_BYTES / 2 - 1];
        assert_eq!(store.set("a", Some(half.clone())), Ok(()));
        assert_eq!(store.set("b", Some(half.clone())), Ok(()));
        assert_eq!(store.set("c", Some(vec![0])), Err(KvError::Full));
        assert_eq!(store.set("a", Some(half.clone())), Ok(()), "in its own place");
        assert_eq!(store.set("b", None), Ok(()));
        assert_eq!((store.get("b"), store.get("a")), (None, Some(half)));
        assert_eq!(store.set("c", Some(vec![1])), Ok(()));
        assert_eq!(store.get("c"), Some(vec![1]));
    }
}
