//! The books of a pool: who holds which block, and which blocks hold a known beginning.
//!
//! Pure. A block is free (its content means nothing), held (by one sequence, or by several that
//! begin alike), or idle: held by nobody, but its content is remembered under the hash of all tokens
//! up to its end and is used again if a sequence begins so. Idle blocks are as good as free ones:
//! when blocks run out, the one that has been idle longest is forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::prefix::PrefixHash;

/// Blocks of one pool by state.
#[derive(Debug)]
pub(super) struct BlockBooks {
    blocks: Vec<Block>,
    free: BTreeSet<u32>,
    /// By the moment in which they became idle.
    idle: BTreeMap<u64, u32>,
    remembered: HashMap<PrefixHash, u32>,
    moments: u64,
}

#[derive(Clone, Debug, Default)]
struct Block {
    refs: u32,
    hash: Option<PrefixHash>,
    idle_since: u64,
}

/// Blocks of a sequence, in order of its positions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) blocks: Vec<u32>,
    /// This many at the front hold what the sequence begins with.
    pub(super) reused: usize,
}

impl BlockBooks {
    pub(super) fn new(blocks: u32) -> Self {
        Self {
            blocks: vec![Block::default(); blocks as usize],
            free: (0..blocks).collect(),
            idle: BTreeMap::new(),
            remembered: HashMap::new(),
            moments: 0,
        }
    }

    pub(super) fn total(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    pub(super) fn held(&self) -> usize {
        self.total() - self.free.len() - self.idle.len()
    }

    /// Takes `count` blocks for a sequence whose full blocks would have the hashes `beginning`.
    /// None: there are not so many; nothing has changed then.
    pub(super) fn claim(&mut self, beginning: &[PrefixHash], count: usize) -> Option<Claim> {
        let known = beginning.iter().take(count).map_while(|hash| self.remembered.get(hash).copied());
        let mut blocks: Vec<u32> = known.collect();
        let reused = blocks.len();
        let woken = blocks.iter().filter(|block| self.block(**block).refs == 0).count();
        let fresh = count - reused;
        if fresh > self.free.len() + self.idle.len() - woken {
            return None;
        }
        for block in &blocks {
            self.hold(*block);
        }
        while self.free.len() < fresh {
            self.forget_oldest()?;
        }
        let after = blocks.last().map_or(0, |last| last + 1);
        let first = self.run_of(fresh, after);
        for index in 0..fresh as u32 {
            let block = match first {
                Some(first) => first + index,
                None => *self.free.first()?,
            };
            self.hold(block);
            blocks.push(block);
        }
        Some(Claim { blocks, reused })
    }

    /// Gives back what a claim took.
    pub(super) fn release(&mut self, blocks: &[u32]) {
        // The end of a beginning is of use only while its front is known: it is forgotten first.
        for block in blocks.iter().rev() {
            let moment = self.moments;
            let entry = self.block_mut(*block);
            entry.refs = entry.refs.saturating_sub(1);
            if entry.refs > 0 {
                continue;
            }
            if entry.hash.is_some() {
                entry.idle_since = moment;
                self.idle.insert(moment, *block);
                self.moments += 1;
            } else {
                self.free.insert(*block);
            }
        }
    }

    /// Notes that a held block is full and what it and all before it hold. Where another block
    /// holds the same, that one stays the known one.
    pub(super) fn remember(&mut self, block: u32, hash: PrefixHash) {
        if self.block(block).hash.is_none() && !self.remembered.contains_key(&hash) {
            self.remembered.insert(hash, block);
            self.block_mut(block).hash = Some(hash);
        }
    }

    /// The first of `count` free blocks in a row, best right at `after`: what lies in a row is read
    /// without copying.
    fn run_of(&self, count: usize, after: u32) -> Option<u32> {
        let whole_from = |first: u32| {
            let run = self.free.range(first..).zip(first..).take(count);
            run.filter(|(free, wanted)| **free == *wanted).count() == count
        };
        if count == 0 {
            return None;
        }
        if self.free.contains(&after) && whole_from(after) {
            return Some(after);
        }
        let (mut first, mut length, mut previous) = (0, 0usize, None);
        for block in &self.free {
            if previous.is_some_and(|previous: u32| previous + 1 == *block) {
                length += 1;
            } else {
                (first, length) = (*block, 1);
            }
            if length == count {
                return Some(first);
            }
            previous = Some(*block);
        }
        None
    }

    fn hold(&mut self, block: u32) {
        let entry = self.block_mut(block);
        entry.refs += 1;
        if entry.refs == 1 && entry.hash.is_some() {
            let since = entry.idle_since;
            self.idle.remove(&since);
        }
        self.free.remove(&block);
    }

    fn forget_oldest(&mut self) -> Option<()> {
        let (_, block) = self.idle.pop_first()?;
        if let Some(hash) = self.block_mut(block).hash.take() {
            self.remembered.remove(&hash);
        }
        self.free.insert(block);
        Some(())
    }

    // Ids come from these books alone, so they are in range.
    fn block(&self, block: u32) -> &Block {
        &self.blocks[block as usize]
    }

    fn block_mut(&mut self, block: u32) -> &mut Block {
        &mut self.blocks[block as usize]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hashes(scope: &str, tokens: &[u32]) -> Vec<PrefixHash> {
        PrefixHash::of_blocks(PrefixHash::root(scope.as_bytes()), tokens)
    }

    /// Claims for a sequence of these tokens and notes its full blocks.
    fn fill(books: &mut BlockBooks, beginning: &[PrefixHash], count: usize) -> Claim {
        let claim = books.claim(beginning, count).unwrap();
        for (block, hash) in claim.blocks.iter().zip(beginning) {
            books.remember(*block, *hash);
        }
        claim
    }

    fn tokens(blocks: u32, first: u32) -> Vec<u32> {
        (first..first + blocks * super::super::BLOCK_POSITIONS as u32).collect()
    }

    #[test]
    fn what_begins_alike_shares_blocks_until_the_last_holder_leaves() {
        let mut books = BlockBooks::new(8);
        let beginning = hashes("", &tokens(2, 0));
        let first = fill(&mut books, &beginning, 3);
        let second = books.claim(&beginning, 3).unwrap();
        assert_eq!((first.reused, second.reused), (0, 2));
        assert_eq!(first.blocks[..2], second.blocks[..2]);
        assert_ne!(first.blocks[2], second.blocks[2]);
        assert_eq!(books.held(), 4);
        books.release(&first.blocks);
        assert_eq!((books.held(), books.idle()), (3, 0));
        books.release(&second.blocks);
        assert_eq!((books.held(), books.idle()), (0, 2));
        assert_eq!(books.claim(&beginning, 2).unwrap().reused, 2);
    }

    #[test]
    fn a_scope_does_not_see_another() {
        let mut books = BlockBooks::new(8);
        fill(&mut books, &hashes("a", &tokens(2, 0)), 2);
        assert_eq!(books.claim(&hashes("b", &tokens(2, 0)), 2).unwrap().reused, 0);
    }

    #[test]
    fn idle_blocks_are_given_away_oldest_first_and_ends_before_fronts() {
        let mut books = BlockBooks::new(4);
        let (old, new) = (hashes("", &tokens(2, 0)), hashes("", &tokens(2, 1000)));
        let (first, second) = (fill(&mut books, &old, 2), fill(&mut books, &new, 2));
        books.release(&first.blocks);
        books.release(&second.blocks);
        let other = books.claim(&[], 1).unwrap();
        assert_eq!(other.blocks, [first.blocks[1]]);
        let again = books.claim(&old, 2).unwrap();
        assert_eq!(again.reused, 1, "the front is still known");
        // Three are held; the newer beginning has one block left, its front.
        assert_eq!((books.held(), books.idle()), (3, 1));
        assert!(books.claim(&[], 2).is_none());
        assert_eq!((books.held(), books.idle()), (3, 1), "a refusal changes nothing");
        assert_eq!(books.claim(&new, 1).unwrap().reused, 1);
    }

    #[test]
    fn blocks_in_a_row_are_preferred() {
        let mut books = BlockBooks::new(10);
        let a = books.claim(&[], 2).unwrap();
        let b = books.claim(&[], 3).unwrap();
        assert_eq!(b.blocks, [2, 3, 4]);
        books.release(&a.blocks);
        assert_eq!(books.claim(&[], 4).unwrap().blocks, [5, 6, 7, 8]);
        // No row is left: what there is, from below.
        assert_eq!(books.claim(&[], 3).unwrap().blocks, [0, 1, 9]);
        assert!(books.claim(&[], 1).is_none());
    }
}
