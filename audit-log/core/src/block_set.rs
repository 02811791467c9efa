//! A set of the blocks of one segment, as 256 bits.

/// Some of a segment's 256 blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockSet([u64; 4]);

impl BlockSet {
    /// Every block.
    pub const ALL: BlockSet = BlockSet([u64::MAX; 4]);

    /// Adds block `n`.
    pub fn insert(&mut self, n: u8) {
        if let Some(word) = self.0.get_mut(usize::from(n / 64)) {
            *word |= 1 << (n % 64);
        }
    }

    /// Whether block `n` is in it.
    pub fn contains(&self, n: u8) -> bool {
        self.0.get(usize::from(n / 64)).is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    /// The blocks that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Self([a & e, b & f, c & g, d & h])
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The blocks, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        let set = *self;
        (0..=u8::MAX).filter(move |n| set.contains(*n))
    }

    /// Four words of 64 bits, little-endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        for (bytes, word) in out.chunks_exact_mut(8).zip(self.0) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Reads [`BlockSet::to_bytes`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let mut set = Self::default();
        for (word, bytes) in set.0.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        set
    }
}
