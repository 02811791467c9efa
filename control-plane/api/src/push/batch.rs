//! One step of the pushed state, encoded once for every stream.

use std::{collections::BTreeMap, mem};

use provost_wire::node::{Delta, PushDown, Whole, push_down::Down};
use tonic::codegen::Bytes;

use super::PART_BYTES;

/// A state by revision and hash. A revision alone is not enough: the key ring changes without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) revision: u64,
    pub(crate) hash: Bytes,
}

/// A whole state, or what leads from one state to the next.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Where it may be applied; `None`: anywhere, it is a whole state.
    pub(crate) from: Option<Point>,
    pub(crate) to: Point,
    /// The messages, in order. Documents in them are shared with the image and with each other.
    pub(crate) parts: Vec<PushDown>,
    /// Bytes of the documents.
    pub(crate) bytes: usize,
}

type KeyRing = BTreeMap<u64, String>;

impl Batch {
    pub(crate) fn whole(to: Point, resources: impl Iterator<Item = Bytes>, key_ring: &KeyRing) -> Self {
        let mut packer = Packer::default();
        resources.for_each(|json| packer.put(json));
        let (chunks, bytes) = packer.finish();
        let last = chunks.len() - 1;
        let part = |(i, chunk): (usize, Chunk)| {
            let (hash, key_ring) = if i == last { (to.hash.clone(), wire(key_ring)) } else { Default::default() };
            Down::Whole(Whole { revision: to.revision, hash, resources: chunk.puts, key_ring, back_from: 0 })
        };
        let parts = chunks.into_iter().enumerate().map(part).map(message).collect();
        Self { from: None, to, parts, bytes }
    }

    /// `key_ring`: as it is at `to`, if it changed.
    pub(crate) fn delta(
        from: Point,
        to: Point,
        puts: impl Iterator<Item = Bytes>,
        deletes: impl Iterator<Item = String>,
        key_ring: Option<&KeyRing>,
    ) -> Self {
        let mut packer = Packer::default();
        puts.for_each(|json| packer.put(json));
        deletes.for_each(|key| packer.delete(key));
        let (chunks, bytes) = packer.finish();
        let last = chunks.len() - 1;
        let part = |(i, chunk): (usize, Chunk)| {
            let (hash, key_ring) = match key_ring {
                _ if i < last => Default::default(),
                None => (to.hash.clone(), Default::default()),
                Some(ring) => (to.hash.clone(), wire(ring)),
            };
            let Chunk { puts, deletes } = chunk;
            Down::Delta(Delta { from: from.revision, to: to.revision, hash, puts, deletes, key_ring })
        };
        let parts = chunks.into_iter().enumerate().map(part).map(message).collect();
        Self { from: Some(from), to, parts, bytes }
    }
}

fn wire(key_ring: &KeyRing) -> std::collections::HashMap<u64, String> {
    key_ring.iter().map(|(term, wrapped)| (*term, wrapped.clone())).collect()
}

fn message(down: Down) -> PushDown {
    PushDown { down: Some(down) }
}

#[derive(Default)]
struct Chunk {
    puts: Vec<Bytes>,
    deletes: Vec<String>,
}

/// Fills messages in order.
#[derive(Default)]
struct Packer {
    done: Vec<Chunk>,
    open: Chunk,
    open_bytes: usize,
    bytes: usize,
}

impl Packer {
    fn put(&mut self, json: Bytes) {
        self.room(json.len());
        self.open.puts.push(json);
    }

    fn delete(&mut self, key: String) {
        self.room(key.len());
        self.open.deletes.push(key);
    }

    fn room(&mut self, bytes: usize) {
        if self.open_bytes > 0 && self.open_bytes + bytes > PART_BYTES {
            self.done.push(mem::take(&mut self.open));
            self.open_bytes = 0;
        }
        self.open_bytes += bytes;
        self.bytes += bytes;
    }

    /// At least one chunk: an empty step is a message too.
    fn finish(mut self) -> (Vec<Chunk>, usize) {
        self.done.push(self.open);
        (self.done, self.bytes)
    }
}
