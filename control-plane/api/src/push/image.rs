//! A state with the documents of its resources, as nodes get them.

use std::{collections::BTreeMap, sync::Arc};

use imbl::ordmap::DiffItem;
use provost_control_state::State;
use provost_types::{Resource, ResourceKey};
use provost_wire::state_hash::{Element, Sum};
use tonic::codegen::Bytes;

use super::batch::{Batch, Point};

/// A resource as JSON, made once when it changed.
struct Document {
    json: Bytes,
    element: Element,
}

/// A resource could not be written as JSON. What is pushed stays as it was.
#[derive(Debug, thiserror::Error)]
#[error("{key} cannot be encoded: {cause}")]
pub(crate) struct EncodeError {
    key: ResourceKey,
    cause: serde_json::Error,
}

/// The pushed form of one state.
pub(crate) struct Image {
    state: Arc<State>,
    documents: BTreeMap<ResourceKey, Document>,
    sum: Sum,
    point: Point,
    /// Made when the first stream needs it.
    whole: Option<Arc<Batch>>,
}

impl Image {
    /// Encodes everything.
    pub(crate) fn new(state: Arc<State>) -> Result<Self, EncodeError> {
        let mut sum = Sum::default();
        let mut documents = BTreeMap::new();
        for (key, resource) in state.resources() {
            let document = encode(key, resource)?;
            sum.add(document.element);
            documents.insert(key.clone(), document);
        }
        state.key_ring().iter().for_each(|(term, wrapped)| sum.add(Element::of_key(*term, wrapped)));
        let point = point(&sum, &state);
        Ok(Self { state, documents, sum, point, whole: None })
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(crate) fn point(&self) -> &Point {
        &self.point
    }

    /// Goes to a later state and returns what leads there; `None`: nodes see no difference.
    /// Comparing and encoding cost what changed: versions of the map share the rest.
    pub(crate) fn advance(&mut self, next: Arc<State>) -> Result<Option<Batch>, EncodeError> {
        let key_ring = (self.state.key_ring() != next.key_ring()).then(|| next.key_ring());
        let same_revision = next.revision() == self.state.revision();
        let mut puts = Vec::new();
        let mut deletes = Vec::new();
        for change in self.state.resources().diff(next.resources()) {
            match change {
                DiffItem::Add(key, new) | DiffItem::Update { new: (key, new), .. } => {
                    puts.push((key.clone(), encode(key, new)?));
                }
                DiffItem::Remove(key, _) => deletes.push(key.clone()),
            }
        }
        // While a change is held, what governs calls changes under one and the same revision.
        if same_revision && key_ring.is_none() && puts.is_empty() && deletes.is_empty() {
            return Ok(None);
        }
        // From here on nothing fails: the image is never between two states.
        if key_ring.is_some() {
            let element = |(term, wrapped): (&u64, &String)| Element::of_key(*term, wrapped);
            self.state.key_ring().iter().map(element).for_each(|e| self.sum.remove(e));
            next.key_ring().iter().map(element).for_each(|e| self.sum.add(e));
        }
        for key in &deletes {
            if let Some(old) = self.documents.remove(key) {
                self.sum.remove(old.element);
            }
        }
        let mut sent = Vec::with_capacity(puts.len());
        for (key, document) in puts {
            sent.push(document.json.clone());
            self.sum.add(document.element);
            if let Some(old) = self.documents.insert(key, document) {
                self.sum.remove(old.element);
            }
        }
        let to = point(&self.sum, &next);
        let deletes = deletes.iter().map(ToString::to_string);
        let batch = Batch::delta(self.point.clone(), to.clone(), sent.into_iter(), deletes, key_ring);
        self.state = next;
        self.point = to;
        self.whole = None;
        Ok(Some(batch))
    }

    /// Everything; one batch for all streams that need it at this revision.
    pub(crate) fn whole(&mut self) -> Arc<Batch> {
        let make = || {
            let documents = self.documents.values().map(|d| d.json.clone());
            Arc::new(Batch::whole(self.point.clone(), documents, self.state.key_ring()))
        };
        self.whole.get_or_insert_with(make).clone()
    }
}

fn encode(key: &ResourceKey, resource: &Resource) -> Result<Document, EncodeError> {
    let json = serde_json::to_vec(resource).map_err(|cause| EncodeError { key: key.clone(), cause })?;
    Ok(Document { element: Element::of_document(&json), json: json.into() })
}

fn point(sum: &Sum, state: &State) -> Point {
    let revision = state.revision().0;
    Point { revision, hash: Bytes::copy_from_slice(&sum.hash(revision)) }
}
