//! The configuration of the instance.

use std::cell::RefCell;

use serde::de::DeserializeOwned;

use crate::Failure;

thread_local! {
    /// As text: an instance reads it at most once or twice.
    static CONFIG: RefCell<Option<String>> = const { RefCell::new(None) };
}

pub(crate) fn keep(config: String) {
    CONFIG.with_borrow_mut(|kept| *kept = Some(config));
}

/// The configuration, or `{}` where there is none.
pub(crate) fn read<C: DeserializeOwned>() -> Result<C, Failure> {
    CONFIG.with_borrow(|kept| {
        let text = kept.as_deref().unwrap_or("{}");
        serde_json::from_str(text).map_err(|why| Failure::Broken(format!("the configuration: {why}")))
    })
}
