//! Where sealed values and wrapped keys are read from.

use std::sync::Arc;

use provost_types::{Resource, ResourceKey};

use crate::machine::Published;

/// A snapshot with its key ring, always the present one: the state of a control-plane node, or
/// what was pushed to another node.
pub trait SealedSource: Send + Sync {
    /// The secret's resource.
    fn sealed(&self, key: &ResourceKey) -> Option<Arc<Resource>>;
    /// The wrapped data key of a term, as the ring holds it.
    fn wrapped_key(&self, term: u64) -> Option<String>;
}

impl SealedSource for Published {
    fn sealed(&self, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.state.load().resources().get(key).cloned()
    }
    fn wrapped_key(&self, term: u64) -> Option<String> {
        self.state.load().key_ring().get(&term).cloned()
    }
}
