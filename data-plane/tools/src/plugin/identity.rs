//! What every plugin has, whatever its source.

use std::sync::Arc;

use provost_types::{Name, PluginSpec};

use crate::resilience::Shield;

/// What a plugin needs of its resource beside its source.
pub(crate) struct Identity {
    pub(crate) tenant: Name,
    pub(crate) name: Name,
    pub(crate) digest: Arc<str>,
    /// As records name it.
    pub(crate) recorded: Arc<str>,
    pub(super) shield: Shield,
}

impl Identity {
    pub(crate) fn new(tenant: Name, name: Name, (digest, recorded): (Arc<str>, Arc<str>), spec: &PluginSpec) -> Self {
        let shield = Shield::new(&tenant, &name, spec);
        Self { tenant, name, digest, recorded, shield }
    }
}
