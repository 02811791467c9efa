//! The immutable set of resources at one revision that a node runs on.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::{Kind, Name, Resource, ResourceKey, Revision};

/// Resources by key, in key order. Persistent: a clone costs nothing and shares everything, a
/// changed copy shares what did not change, and two versions are compared in the time of what
/// differs. So a change costs the same in a cluster of ten resources and of a hundred thousand.
pub type Resources = OrdMap<ResourceKey, Arc<Resource>>;

/// All resources at one revision. Cheap to clone: everything is shared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The revision that this is the state at.
    pub revision: Revision,
    /// Every resource by key, in key order.
    pub resources: Resources,
}

impl Snapshot {
    /// The resource under `key`.
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }

    /// The resources of one kind, in order of tenant and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        let from = ResourceKey { kind, tenant: None, name: Name::smallest() };
        self.resources.range(from..).take_while(move |(k, _)| k.kind == kind).map(|(_, r)| r)
    }

    /// The resources of one kind and tenant, in order of name.
    pub fn of_tenant<'a>(&'a self, kind: Kind, tenant: &'a Name) -> impl Iterator<Item = &'a Arc<Resource>> {
        let from = ResourceKey { kind, tenant: Some(tenant.clone()), name: Name::smallest() };
        let own = move |k: &ResourceKey| k.kind == kind && k.tenant.as_ref() == Some(tenant);
        self.resources.range(from..).take_while(move |(k, _)| own(k)).map(|(_, r)| r)
    }
}
