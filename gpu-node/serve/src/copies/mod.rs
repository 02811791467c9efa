//! Bringing declared models from other GPU nodes of the cluster.
//!
//! Purpose: what a `Model` names by digest and the store here lacks is copied from a node that has it ([`follow()`]); [`Copies`]
//! says how far that is.
//! Invariants: of all copies at most [`MOST_COPIES`] run; together they leave free what is to stay free; a copy has its name in
//! the store only when each of its files was found to be what the digest says.
//! Left out: who the nodes are and that they are members (`server`), what is sent to others (`blobs`).

mod fetch;
mod follow;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use provost_types::FileDigest;
use tonic::transport::Channel;

use crate::store::StoreError;

pub(crate) use follow::follow;

/// Models that are copied at a time; others wait.
pub(crate) const MOST_COPIES: usize = 2;
/// A node that sent what is not the digest's is not asked for that again for so long.
const MISTRUST: Duration = Duration::from_secs(600);
/// Most nodes and digests for which that is remembered; beyond, all are forgotten.
const MOST_MISTRUSTED: usize = 1024;

/// A node that may have models.
#[derive(Clone, Debug)]
pub struct BlobPeer {
    /// Its name.
    pub name: String,
    /// The way to it.
    pub channel: Channel,
}

/// How far a copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCopy {
    /// Bytes that are here.
    pub bytes: u64,
    /// Bytes of all files.
    pub of: u64,
    /// The node that sends them.
    pub from: String,
}

/// What is known of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyStands {
    /// It is under way.
    Runs(ModelCopy),
    /// It did not come to its end, and is tried again: why.
    Stuck(String),
}

/// Copies that are under way, or did not come to their end.
#[derive(Debug, Default)]
pub(crate) struct Copies(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    copies: BTreeMap<FileDigest, CopyStands>,
    /// Why each did not come to its end the last time.
    said: BTreeMap<FileDigest, String>,
    mistrusted: BTreeMap<(FileDigest, String), Instant>,
}

/// Why a copy did not come to its end.
#[derive(Debug)]
pub(crate) enum Failed {
    /// No node has it.
    Nobody,
    /// Nodes have it, and none has sent it whole and right: why, of each.
    Peers(String),
    /// It cannot be kept.
    Store(StoreError),
}

impl Copies {
    /// What is known of the copy of this model.
    pub(crate) fn of(&self, digest: FileDigest) -> Option<CopyStands> {
        self.lock().copies.get(&digest).cloned()
    }

    /// Begins a copy of which `copy.of - copy.bytes` are to come, if there is room for that, and for what others that run still
    /// need, beside what is to stay free.
    pub(super) fn begin(
        &self,
        digest: FileDigest,
        copy: ModelCopy,
        free: u64,
        reserve: u64,
        place: &Path,
    ) -> Result<(), StoreError> {
        let mut known = self.lock();
        let others = known.copies.iter().filter(|(other, _)| **other != digest).map(|(_, stands)| match stands {
            CopyStands::Runs(copy) => copy.of.saturating_sub(copy.bytes),
            CopyStands::Stuck(_) => 0,
        });
        let free = free.saturating_sub(others.fold(0, u64::saturating_add));
        let bytes = copy.of.saturating_sub(copy.bytes);
        if bytes.saturating_add(reserve) > free {
            return Err(StoreError::NoRoom { bytes, free, reserve, place: place.display().to_string() });
        }
        known.copies.insert(digest, CopyStands::Runs(copy));
        Ok(())
    }

    /// So many more bytes are here.
    pub(super) fn add(&self, digest: FileDigest, bytes: u64) {
        if let Some(CopyStands::Runs(copy)) = self.lock().copies.get_mut(&digest) {
            copy.bytes = copy.bytes.saturating_add(bytes).min(copy.of);
        }
    }

    /// A copy did not come to its end. True: for another reason than the last time.
    pub(super) fn stuck(&self, digest: FileDigest, why: String) -> bool {
        let mut known = self.lock();
        let is_news = known.said.insert(digest, why.clone()).is_none_or(|before| before != why);
        known.copies.insert(digest, CopyStands::Stuck(why));
        is_news
    }

    pub(super) fn forget(&self, digest: FileDigest) {
        let mut known = self.lock();
        known.copies.remove(&digest);
        known.said.remove(&digest);
    }

    /// What this node sends of that model is not believed for some time.
    pub(super) fn mistrust(&self, digest: FileDigest, peer: &str) {
        let mut known = self.lock();
        known.mistrusted.retain(|_, since| since.elapsed() < MISTRUST);
        if known.mistrusted.len() >= MOST_MISTRUSTED {
            known.mistrusted.clear();
        }
        known.mistrusted.insert((digest, peer.to_owned()), Instant::now());
    }

    pub(super) fn is_trusted(&self, digest: FileDigest, peer: &str) -> bool {
        let known = self.lock();
        known.mistrusted.get(&(digest, peer.to_owned())).is_none_or(|since| since.elapsed() >= MISTRUST)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str(
                "PV-MODEL-MISSING: the store of this node does not have its files, and no other GPU node that answers offers \
                 them; import it on one of them",
            ),
            Self::Peers(why) => write!(f, "PV-MODEL-COPY: no node has sent it whole: {why}; it is tried again"),
            Self::Store(cause) => fmt::Display::fmt(cause, f),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn copy(bytes: u64, of: u64) -> ModelCopy {
        ModelCopy { bytes, of, from: "gpu-2".to_owned() }
    }

    #[test]
    fn copies_together_leave_free_what_is_to_stay_free() {
        let (copies, place) = (Copies::default(), Path::new("/models"));
        let digest = |n: u8| FileDigest::from_bytes([n; 32]);
        copies.begin(digest(1), copy(40, 100), 100, 30, place).unwrap();
        let refused = copies.begin(digest(2), copy(0, 11), 100, 30, place).unwrap_err().to_string();
        assert!(refused.starts_with("PV-MODEL-STORE-FULL") && refused.contains("of 40 bytes"), "{refused}");
        copies.begin(digest(2), copy(0, 10), 100, 30, place).unwrap();
        // It goes on: what came needs no more room.
        copies.begin(digest(1), copy(40, 100), 100, 30, place).unwrap();
        copies.add(digest(1), 70);
        assert_eq!(copies.of(digest(1)), Some(CopyStands::Runs(copy(100, 100))));
        assert!(copies.stuck(digest(2), "why".to_owned()) && !copies.stuck(digest(2), "why".to_owned()));
        copies.begin(digest(3), copy(0, 70), 100, 30, place).unwrap();
        copies.forget(digest(3));
        assert_eq!(copies.of(digest(3)), None);
    }

    #[test]
    fn who_sends_something_else_is_not_asked_for_that_again() {
        let copies = Copies::default();
        let (one, other) = (FileDigest::from_bytes([1; 32]), FileDigest::from_bytes([2; 32]));
        copies.mistrust(one, "gpu-2");
        assert!(!copies.is_trusted(one, "gpu-2"));
        assert!(copies.is_trusted(other, "gpu-2") && copies.is_trusted(one, "gpu-3"));
        for n in 0..2 * MOST_MISTRUSTED {
            copies.mistrust(one, &n.to_string());
        }
        assert!(copies.lock().mistrusted.len() <= MOST_MISTRUSTED);
    }
}
