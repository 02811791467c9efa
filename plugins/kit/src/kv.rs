//! What stays from one call to the next, for the tenant. There is no lock: the last writer wins.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Failure,
    bindings::provost::plugin::host::{self, KvError},
};

/// The value of a key.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Failure> {
    host::kv_get(key).map_err(failure)
}

/// Keeps a value.
pub fn set(key: &str, value: &[u8]) -> Result<(), Failure> {
    host::kv_set(key, Some(value)).map_err(failure)
}

/// Removes a value.
pub fn remove(key: &str) -> Result<(), Failure> {
    host::kv_set(key, None).map_err(failure)
}

/// The value of a key that [`set_json`] kept.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Failure> {
    let Some(value) = get(key)? else { return Ok(None) };
    serde_json::from_slice(&value).map(Some).map_err(|why| Failure::Broken(format!("{key}: {why}")))
}

/// Keeps a value as JSON.
pub fn set_json(key: &str, value: &impl Serialize) -> Result<(), Failure> {
    let value = serde_json::to_vec(value).map_err(|why| Failure::Broken(format!("{key}: {why}")))?;
    set(key, &value)
}

fn failure(error: KvError) -> Failure {
    Failure::Broken(match error {
        KvError::Denied(why) => format!("the store is not for this plugin: {why}"),
        KvError::TooLarge(why) => why,
        KvError::Full => "the plugin keeps as much as it may".to_owned(),
        KvError::Unavailable(why) => format!("the store cannot be reached: {why}"),
    })
}
