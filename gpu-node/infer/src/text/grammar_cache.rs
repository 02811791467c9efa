//! Grammars that were compiled before, by digest.
//!
//! A tenant's are its own: how fast an answer begins tells nobody what others asked.

use std::collections::VecDeque;

/// Grammars that a model keeps, and the bytes of their schemas together: what is compiled takes many times as much.
const MAX_GRAMMARS: usize = 16;
const MAX_BYTES: usize = 256 << 10;

/// What a grammar is found by.
pub(crate) type GrammarDigest = [u8; 32];

/// Grammars of some kind; those used last stay.
#[derive(Debug)]
pub(crate) struct GrammarCache<T> {
    /// Used last at the end.
    kept: VecDeque<Kept<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept<T> {
    digest: GrammarDigest,
    bytes: usize,
    grammar: T,
}

impl<T> Default for GrammarCache<T> {
    fn default() -> Self {
        Self { kept: VecDeque::new(), bytes: 0 }
    }
}

/// The digest of what is compiled for a tenant.
pub(crate) fn digest(scope: &str, source: &[u8]) -> GrammarDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(scope.len() as u64).to_le_bytes());
    hasher.update(scope.as_bytes());
    hasher.update(source);
    *hasher.finalize().as_bytes()
}

impl<T> GrammarCache<T> {
    /// The grammar of this digest, if it is kept.
    pub(crate) fn find(&mut self, digest: &GrammarDigest) -> Option<&T> {
        let at = self.kept.iter().position(|kept| kept.digest == *digest)?;
        let found = self.kept.remove(at)?;
        self.kept.push_back(found);
        self.kept.back().map(|kept| &kept.grammar)
    }

    /// Keeps a grammar whose schemas have so many bytes; others go for it.
    pub(crate) fn keep(&mut self, digest: GrammarDigest, bytes: usize, grammar: T) {
        if bytes > MAX_BYTES || self.kept.iter().any(|kept| kept.digest == digest) {
            return;
        }
        self.bytes += bytes;
        self.kept.push_back(Kept { digest, bytes, grammar });
        while self.kept.len() > MAX_GRAMMARS || self.bytes > MAX_BYTES {
            let Some(gone) = self.kept.pop_front() else { return };
            self.bytes -= gone.bytes;
        }
    }
}

#[cfg(test)]
impl<T> GrammarCache<T> {
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n: usize) -> GrammarDigest {
        digest("", &n.to_le_bytes())
    }

    #[test]
    fn what_is_used_stays_and_what_is_kept_has_bounds() {
        let mut cache = GrammarCache::default();
        for n in 0..2 * MAX_GRAMMARS {
            cache.keep(of(n), 1, n);
            assert_eq!(cache.find(&of(0)), Some(&0));
        }
        assert_eq!((cache.kept.len(), cache.bytes), (MAX_GRAMMARS, MAX_GRAMMARS));
        assert_eq!(cache.find(&of(1)), None);
        cache.keep(of(1), MAX_BYTES - 1, 1);
        assert_eq!((cache.kept.len(), cache.find(&of(0)).copied(), cache.bytes), (2, Some(0), MAX_BYTES));
        cache.keep(of(2), MAX_BYTES + 1, 2);
        assert_eq!(cache.find(&of(2)), None);
        // Twice is once.
        cache.keep(of(0), 1, 7);
        assert_eq!((cache.find(&of(0)).copied(), cache.bytes), (Some(0), MAX_BYTES));
    }

    #[test]
    fn tenants_do_not_share_grammars() {
        assert_ne!(digest("a", b"bc"), digest("ab", b"c"));
        assert_eq!(digest("a", b"bc"), digest("a", b"bc"));
    }
}
