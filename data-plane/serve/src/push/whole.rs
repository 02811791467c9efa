//! A whole state while it comes in.

use std::{collections::BTreeMap, sync::Arc};

use provost_types::{ResourceKey, Resources};
use provost_wire::{
    node::Whole,
    state_hash::{Element, Sum},
};

use super::mirror::{Held, MirrorError, read};

/// What has come of it.
pub(crate) struct WholeParts {
    revision: u64,
    resources: Resources,
    elements: BTreeMap<ResourceKey, Element>,
    key_ring: BTreeMap<u64, String>,
    sum: Sum,
    bytes: usize,
}

impl WholeParts {
    pub(crate) fn new(revision: u64) -> Self {
        let (resources, elements, key_ring) = Default::default();
        Self { revision, resources, elements, key_ring, sum: Sum::default(), bytes: 0 }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a part. What `before` has too is shared with it: what is compiled from resources is
    /// then made anew only for those that changed.
    pub(crate) fn add(&mut self, part: Whole, before: Option<&Held>) -> Result<(), MirrorError> {
        for json in &part.resources {
            self.bytes += json.len();
            let resource = read(json, self.revision)?;
            let (key, element) = (resource.key(), Element::of_document(json));
            let same = before.filter(|b| b.elements.get(&key) == Some(&element));
            let resource = match same.and_then(|b| b.resources.get(&key)) {
                Some(shared) => shared.clone(),
                None => Arc::new(resource),
            };
            self.sum.add(element);
            self.elements.insert(key.clone(), element);
            self.resources.insert(key, resource);
        }
        for (term, wrapped) in part.key_ring {
            self.sum.add(Element::of_key(term, &wrapped));
            self.key_ring.insert(term, wrapped);
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Held {
        let Self { revision, resources, elements, key_ring, sum, .. } = self;
        Held { revision, resources, elements, key_ring: Arc::new(key_ring), sum }
    }
}
