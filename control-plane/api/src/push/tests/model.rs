//! What a node makes of the messages, believing nothing.

use std::collections::BTreeMap;

use provost_types::Resource;
use provost_wire::{
    node::{Hello, PushDown, push_down::Down},
    state_hash::{Element, Sum},
};
use tonic::codegen::Bytes;

/// What a node holds, rebuilt and hashed from nothing at each step.
#[derive(Default)]
pub(super) struct Model {
    pub(super) revision: u64,
    pub(super) hash: Bytes,
    pub(super) documents: BTreeMap<String, Bytes>,
    pub(super) key_ring: BTreeMap<u64, String>,
    pub(super) parts: Vec<PushDown>,
    /// Whole states and deltas taken.
    pub(super) wholes: usize,
    pub(super) deltas: usize,
    /// Of the last whole state.
    pub(super) back_from: u64,
    /// Leaves the hash to [`Model::check`].
    pub(super) lazy: bool,
}

impl Model {
    /// Takes a message; whether the state moved by it.
    pub(super) fn take(&mut self, message: PushDown) -> bool {
        let hash = match message.down.as_ref().unwrap() {
            Down::Whole(whole) => whole.hash.clone(),
            Down::Delta(delta) => delta.hash.clone(),
            Down::Bookmark(_) => return false,
            Down::Refused(refused) => panic!("refused: {refused:?}"),
        };
        self.parts.push(message);
        if hash.is_empty() {
            return false;
        }
        let parts = std::mem::take(&mut self.parts);
        if matches!(parts[0].down, Some(Down::Whole(_))) {
            self.documents.clear();
            self.key_ring.clear();
            self.wholes += 1;
        } else {
            self.deltas += 1;
        }
        for part in parts {
            match part.down.unwrap() {
                Down::Whole(whole) => {
                    self.back_from = whole.back_from;
                    self.revision = whole.revision;
                    whole.resources.into_iter().for_each(|json| self.put(json));
                    self.key_ring.extend(whole.key_ring);
                }
                Down::Delta(delta) => {
                    assert!(self.revision == delta.from || self.revision == delta.to, "a gap");
                    self.revision = delta.to;
                    delta.puts.into_iter().for_each(|json| self.put(json));
                    for key in delta.deletes {
                        assert!(self.documents.remove(&key).is_some(), "{key} was not there");
                    }
                    if !delta.key_ring.is_empty() {
                        self.key_ring = delta.key_ring.into_iter().collect();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        self.hash = hash;
        if !self.lazy {
            self.check();
        }
        true
    }

    pub(super) fn check(&self) {
        let mut sum = Sum::default();
        self.documents.values().for_each(|json| sum.add(Element::of_document(json)));
        self.key_ring.iter().for_each(|(term, wrapped)| sum.add(Element::of_key(*term, wrapped)));
        assert_eq!(self.hash[..], sum.hash(self.revision), "at revision {}", self.revision);
    }

    fn put(&mut self, json: Bytes) {
        let resource: Resource = serde_json::from_slice(&json).unwrap();
        self.documents.insert(resource.key().to_string(), json);
    }

    pub(super) fn read(&self) -> BTreeMap<String, Resource> {
        let read = |(k, json): (&String, &Bytes)| (k.clone(), serde_json::from_slice(json).unwrap());
        self.documents.iter().map(read).collect()
    }

    pub(super) fn hello(&self, node: &str) -> Hello {
        Hello {
            node: node.to_owned(),
            epoch: 1,
            revision: self.revision,
            hash: self.hash.clone(),
            wire_version: provost_wire::WIRE_VERSION,
            version: "test".into(),
            group: String::new(),
        }
    }
}
