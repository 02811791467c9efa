//! Subtree roots from what is on disk, for proofs.

use std::{io, ops::Range, os::unix::fs::FileExt};

use provost_audit_core::{
    BLOCK_RECORDS, Frontier, Hash, ProofError, SEGMENT_LEAVES, consistency_proof, inclusion_proof,
};

use crate::{
    layout::LogLayout,
    read::{LogReader, segment_footer},
    regular,
    walk::ReadFault,
};

/// The leaf hashes of one log up to a fixed size.
///
/// Full segments answer with the root in their footer; the rest is hashed from the stored leaf
/// hashes. Nothing here is trusted: a proof made from wrong hashes does not verify.
pub struct LeafHashes {
    layout: LogLayout,
    /// First leaf that is not in a full block.
    tail_first: u64,
    tail: Vec<Hash>,
}

/// Why a proof could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LeafHashError {
    /// The files.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// The files.
    #[error("the leaf hashes cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The numbers.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl LeafHashes {
    /// Opens the log; what is appended later is not seen.
    pub fn open(layout: LogLayout) -> Result<Self, LeafHashError> {
        let last = layout.list_segments()?.last().copied().unwrap_or_default().max(crate::first_kept(&layout)?);
        let mut tail = Vec::new();
        // Bodies of full blocks are not read: their hashes are in the file beside them.
        let mut reader = LogReader::from_segment(layout.clone(), last).with_filter(Box::new(|_| false));
        while let Some(chunk) = reader.next()? {
            tail.extend_from_slice(&chunk.hashes);
        }
        let tail_first = reader.position() - tail.len() as u64;
        Ok(Self { layout, tail_first, tail })
    }

    /// Leaves on disk.
    pub fn size(&self) -> u64 {
        self.tail_first + self.tail.len() as u64
    }

    /// Audit path of leaf `index` in the tree of `size` leaves.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, LeafHashError> {
        inclusion_proof(index, size, &mut |range| self.root(range))
    }

    /// Proof that the tree of `new` leaves extends the tree of `old` leaves.
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, LeafHashError> {
        consistency_proof(old, new, &mut |range| self.root(range))
    }

    /// Root of a range of leaves: RFC 6962's subtree when it begins at a multiple of its width.
    pub fn root(&self, range: Range<u64>) -> Result<Hash, LeafHashError> {
        if range.start > range.end || range.end > self.size() {
            return Err(ProofError::OutOfRange.into());
        }
        let mut tree = Frontier::default();
        let mut at = range.start;
        while at < range.end {
            let whole = range.start.is_multiple_of(SEGMENT_LEAVES)
                && at.is_multiple_of(SEGMENT_LEAVES)
                && range.end - at >= SEGMENT_LEAVES;
            if whole {
                let root = segment_footer(&self.layout, at)?.root;
                tree.append_subtree(root, SEGMENT_LEAVES.trailing_zeros());
                at += SEGMENT_LEAVES;
                continue;
            }
            let run = range.end.min(at - at % BLOCK_RECORDS + BLOCK_RECORDS);
            for hash in self.hashes(at..run)? {
                tree.append(hash);
            }
            at = run;
        }
        Ok(tree.root())
    }

    /// Stored hashes of leaves within one block, or within the tail.
    pub(crate) fn hashes(&self, range: Range<u64>) -> Result<Vec<Hash>, LeafHashError> {
        if range.start >= self.tail_first {
            let within = |index: u64| (index - self.tail_first) as usize;
            let part = self.tail.get(within(range.start)..within(range.end));
            return Ok(part.ok_or(ProofError::OutOfRange)?.to_vec());
        }
        let first = range.start - range.start % SEGMENT_LEAVES;
        let file = regular::open(&self.layout.leaf_hashes(first))?;
        let mut bytes = vec![0; (range.end - range.start) as usize * 32];
        file.read_exact_at(&mut bytes, (range.start - first) * 32)?;
        let (hashes, _) = bytes.as_chunks::<32>();
        Ok(hashes.iter().map(|h| Hash(*h)).collect())
    }
}
