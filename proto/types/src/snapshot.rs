//! The immutable set of resources at one revision that a node runs on.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Kind, Name, Resource, ResourceKey, Revision};

/// All resources at one revision. Cheap to clone a version of: resources are shared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The revision that this is the state at.
    pub revision: Revision,
    /// Every resource by key, in key order.
    pub resources: BTreeMap<ResourceKey, Arc<Resource>>,
}

impl Snapshot {
    /// The resource under `key`.
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }

    /// The resources of one kind, in order of tenant and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values().filter(move |r| r.spec.kind() == kind)
    }

    /// The resources of one kind and tenant, in order of name.
    pub fn of_tenant<'a>(&'a self, kind: Kind, tenant: &'a Name) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.of_kind(kind).filter(move |r| r.metadata.tenant.as_ref() == Some(tenant))
    }
}
