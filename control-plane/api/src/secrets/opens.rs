//! Whether a key provider is the one that wrapped a state's data keys: asked before somebody relies on it.

use provost_control_state::State;

use super::{KeyProvider, SecretError, ring::RingKey};

/// Opens the newest data key. `false`: the state has none yet.
pub(crate) fn opens_newest_key(provider: &dyn KeyProvider, state: &State) -> Result<bool, SecretError> {
    let Some((term, text)) = state.key_ring().last_key_value() else { return Ok(false) };
    let what = || SecretError::does_not_open(format!("the data key of term {term}"));
    let key = RingKey::parse(text).ok_or_else(what)?;
    provider.unwrap(&key.wrapped).map(|_| true)
}
