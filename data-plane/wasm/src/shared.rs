//! Components that are in memory, each once: a thousand plugins that are one component map its machine code once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use wasmtime::component::Component;

use crate::ComponentDigest;

/// Those that some plugin holds.
#[derive(Default)]
pub(crate) struct SharedComponents(Mutex<HashMap<ComponentDigest, Weak<Component>>>);

impl SharedComponents {
    /// The component, if a plugin holds it.
    pub(crate) fn get(&self, digest: &ComponentDigest) -> Option<Arc<Component>> {
        self.lock().get(digest)?.upgrade()
    }

    /// From now on the one of this digest, unless another plugin was first: then that one is.
    pub(crate) fn put(&self, digest: ComponentDigest, component: Component) -> Arc<Component> {
        let mut held = self.lock();
        if let Some(first) = held.get(&digest).and_then(Weak::upgrade) {
            return first;
        }
        held.retain(|_, component| component.strong_count() > 0);
        let component = Arc::new(component);
        held.insert(digest, Arc::downgrade(&component));
        component
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ComponentDigest, Weak<Component>>> {
        // Every change is one insertion or removal: it is whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
