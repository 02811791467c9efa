//! The pushed state, rebuilt and checked.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use provost_types::{Kind, Name, Resource, ResourceKey, Resources, Revision, Snapshot};
use provost_wire::{
    node::{Delta, Whole},
    state_hash::{Element, Sum},
};
use tonic::codegen::Bytes;

use super::whole::WholeParts;

/// Bytes of a state or delta that travels in parts.
const MAX_STATE_BYTES: usize = 1 << 30;

/// A state as the control plane has it: whole, checked, never changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    /// All resources at a revision.
    pub snapshot: Arc<Snapshot>,
    /// The wrapped data keys that seal secrets, by term. They change without a revision.
    pub key_ring: Arc<BTreeMap<u64, String>>,
    /// Of both, as the control plane has it.
    pub hash: [u8; 32],
}

/// Why what was sent was not taken. What was there before stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MirrorError {
    #[error("a delta begins at revision {from}, which is not what this node has")]
    Gap { from: u64 },
    #[error("the state made at revision {revision} is not the one that the control plane has")]
    Hash { revision: u64 },
    #[error("a resource of revision {revision} cannot be read here: {cause}")]
    Document { revision: u64, cause: String },
    #[error("a state of revision {offered} was offered, older than revision {held} of this node")]
    Older { offered: u64, held: u64 },
    #[error("a state has more than {MAX_STATE_BYTES} bytes")]
    Size,
}

impl MirrorError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            MirrorError::Gap { .. } => "PV-PUSH-GAP",
            MirrorError::Hash { .. } => "PV-PUSH-HASH",
            MirrorError::Document { .. } => "PV-PUSH-DOCUMENT",
            MirrorError::Older { .. } => "PV-PUSH-OLDER",
            MirrorError::Size => "PV-PUSH-SIZE",
        }
    }
}

/// A state with what is needed to go on from it.
pub(crate) struct Held {
    pub(crate) revision: u64,
    pub(crate) resources: Resources,
    pub(crate) elements: BTreeMap<ResourceKey, Element>,
    pub(crate) key_ring: Arc<BTreeMap<u64, String>>,
    pub(crate) sum: Sum,
}

impl Held {
    fn pushed(&self, hash: [u8; 32]) -> Arc<Pushed> {
        let snapshot = Snapshot { revision: Revision(self.revision), resources: self.resources.clone() };
        Arc::new(Pushed { snapshot: Arc::new(snapshot), key_ring: self.key_ring.clone(), hash })
    }
}

/// Parts of what is not complete yet.
enum Pending {
    Whole(WholeParts),
    Delta(Vec<Delta>, usize),
}

/// The client's copy. Parts wait beside it: a stream that ends between two parts changes nothing.
#[derive(Default)]
pub(crate) struct Mirror {
    held: Option<Held>,
    /// Whether deltas may be applied to `held`.
    sound: bool,
    pending: Option<Pending>,
}

impl Mirror {
    /// A copy of a stored state. If this build writes its documents in another way than the one
    /// that sent them, the hash cannot be made again: the state is good, but no base for deltas.
    pub(crate) fn of(pushed: &Pushed) -> Self {
        let (revision, resources) = (pushed.snapshot.revision.0, pushed.snapshot.resources.clone());
        let mut sum = Sum::default();
        let mut elements = BTreeMap::new();
        for (key, resource) in &resources {
            let element = Element::of_document(&serde_json::to_vec(&**resource).unwrap_or_default());
            sum.add(element);
            elements.insert(key.clone(), element);
        }
        pushed.key_ring.iter().for_each(|(term, wrapped)| sum.add(Element::of_key(*term, wrapped)));
        let sound = sum.hash(revision) == pushed.hash;
        let held = Held { revision, resources, elements, key_ring: pushed.key_ring.clone(), sum };
        Self { held: Some(held), sound, pending: None }
    }

    /// What deltas may begin at.
    pub(crate) fn point(&self) -> Option<(u64, [u8; 32])> {
        self.held.as_ref().filter(|_| self.sound).map(|held| (held.revision, held.sum.hash(held.revision)))
    }

    /// The revision at hand, base for deltas or not; 0: none.
    pub(crate) fn revision(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.revision)
    }

    /// A new stream begins: what came in parts does not go on.
    pub(crate) fn new_stream(&mut self) {
        self.pending = None;
    }

    /// From now on only a whole state will do.
    pub(crate) fn distrust(&mut self) {
        self.sound = false;
        self.pending = None;
    }

    /// Takes a whole state or a part of one; the state once it is complete.
    pub(crate) fn whole(&mut self, part: Whole) -> Result<Option<Arc<Pushed>>, MirrorError> {
        let (revision, hash, held) = (part.revision, part.hash.clone(), self.revision());
        // What was halted is taken back; a control-plane node that knows of nothing later than that
        // cannot undo more.
        if revision < held && held > part.back_from {
            return Err(MirrorError::Older { offered: revision, held });
        }
        let mut parts = match self.pending.take() {
            Some(Pending::Whole(parts)) if parts.revision() == revision => parts,
            _ => WholeParts::new(revision),
        };
        parts.add(part, self.held.as_ref())?;
        if parts.bytes() > MAX_STATE_BYTES {
            return Err(MirrorError::Size);
        }
        if hash.is_empty() {
            self.pending = Some(Pending::Whole(parts));
            return Ok(None);
        }
        let held = parts.finish();
        let hash = checked(&held.sum, revision, &hash)?;
        let pushed = held.pushed(hash);
        (self.held, self.sound) = (Some(held), true);
        Ok(Some(pushed))
    }

    /// Takes a delta or a part of one; the state after it once it is complete.
    pub(crate) fn delta(&mut self, part: Delta) -> Result<Option<Arc<Pushed>>, MirrorError> {
        let Some(held) = self.held.as_mut().filter(|h| self.sound && h.revision == part.from) else {
            return Err(MirrorError::Gap { from: part.from });
        };
        let (mut parts, mut bytes) = match self.pending.take() {
            Some(Pending::Delta(parts, bytes)) => (parts, bytes),
            _ => (Vec::new(), 0),
        };
        if parts.first().is_some_and(|first| first.to != part.to) {
            return Err(MirrorError::Gap { from: part.from });
        }
        bytes += part.puts.iter().map(Bytes::len).sum::<usize>() + part.deletes.iter().map(String::len).sum::<usize>();
        if bytes > MAX_STATE_BYTES {
            return Err(MirrorError::Size);
        }
        let is_last = !part.hash.is_empty();
        parts.push(part);
        if !is_last {
            self.pending = Some(Pending::Delta(parts, bytes));
            return Ok(None);
        }
        apply(held, parts).map(Some)
    }
}

fn checked(sum: &Sum, revision: u64, sent: &[u8]) -> Result<[u8; 32], MirrorError> {
    let hash = sum.hash(revision);
    if hash[..] == *sent { Ok(hash) } else { Err(MirrorError::Hash { revision }) }
}

/// Everything is read and summed before the first change: on `Err` nothing has changed.
fn apply(held: &mut Held, parts: Vec<Delta>) -> Result<Arc<Pushed>, MirrorError> {
    let mut revision = held.revision;
    let mut hash = Bytes::new();
    let mut key_ring = None;
    let mut changes: BTreeMap<ResourceKey, Option<(Arc<Resource>, Element)>> = BTreeMap::new();
    for part in parts {
        revision = part.to;
        for json in &part.puts {
            let resource = read(json, revision)?;
            changes.insert(resource.key(), Some((Arc::new(resource), Element::of_document(json))));
        }
        for key in &part.deletes {
            let unknown = || MirrorError::Document { revision, cause: format!("`{key}` is no resource") };
            changes.insert(parse_key(key).ok_or_else(unknown)?, None);
        }
        if !part.key_ring.is_empty() {
            key_ring = Some(part.key_ring.into_iter().collect::<BTreeMap<_, _>>());
        }
        hash = part.hash;
    }
    let mut sum = held.sum;
    for (key, change) in &changes {
        if let Some(old) = held.elements.get(key) {
            sum.remove(*old);
        }
        if let Some((_, new)) = change {
            sum.add(*new);
        }
    }
    if let Some(key_ring) = &key_ring {
        held.key_ring.iter().for_each(|(term, wrapped)| sum.remove(Element::of_key(*term, wrapped)));
        key_ring.iter().for_each(|(term, wrapped)| sum.add(Element::of_key(*term, wrapped)));
    }
    let hash = checked(&sum, revision, &hash)?;
    for (key, change) in changes {
        match change {
            Some((resource, element)) => {
                held.elements.insert(key.clone(), element);
                held.resources.insert(key, resource);
            }
            None => {
                held.elements.remove(&key);
                held.resources.remove(&key);
            }
        }
    }
    (held.revision, held.sum) = (revision, sum);
    if let Some(key_ring) = key_ring {
        held.key_ring = Arc::new(key_ring);
    }
    Ok(held.pushed(hash))
}

pub(crate) fn read(json: &[u8], revision: u64) -> Result<Resource, MirrorError> {
    serde_json::from_slice(json).map_err(|e| MirrorError::Document { revision, cause: e.to_string() })
}

/// `Kind/tenant/name`, or `Kind/name` where there is no tenant.
fn parse_key(text: &str) -> Option<ResourceKey> {
    let (kind, rest) = text.split_once('/')?;
    let (tenant, name) = match rest.split_once('/') {
        Some((tenant, name)) => (Some(Name::new(tenant).ok()?), name),
        None => (None, rest),
    };
    Some(ResourceKey { kind: Kind::from_str(kind).ok()?, tenant, name: Name::new(name).ok()? })
}
