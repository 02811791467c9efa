//! How a replica that is too far behind for the Raft log gets the records that a snapshot describes.
//!
//! A snapshot of the audit group is a manifest: the machine's state with the head of each log. The
//! records themselves come from another replica, in order, with the sealed bodies beside them; the files
//! are made of them as if they had been applied here, and the tree and the chain that result must be the
//! manifest's. What was pruned is not there any more: what stays of it is taken instead, and leads to the
//! same tree. Whatever a
//! replica sends, nothing that differs from what the group agreed on is ever used.
//! If the process dies meanwhile, or the records do not fit, the old state stands: the next start
//! cuts the files back to it, and takes the snapshot again.

mod send;
mod take;

use std::{io, sync::Arc};

use provost_audit_core::{Checkpoint, LogId, split_notes};
use tonic::transport::Channel;
use zeroize::Zeroizing;

pub(crate) use self::{
    send::{send_checkpoints, send_leaves, send_pruned},
    take::PeerLeaves,
};

/// Gives the bytes of each record in turn, and the sealed body beside it where it names one.
pub type TakeLeaf<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>) -> io::Result<()>;

/// Another replica's records. Called on a blocking thread.
pub trait LeafSource: Send + Sync + 'static {
    /// Hands over the records `from..to` of a log, in order. An error of `take` ends it.
    fn leaves(&self, log: &LogId, from: u64, to: u64, take: TakeLeaf<'_>) -> io::Result<()>;
    /// The checkpoints that were published of a log, as in its file.
    fn checkpoints(&self, log: &LogId) -> io::Result<Vec<u8>>;
    /// Another replica's keys of bodies, as they are after entry `at_least`.
    fn keys(&self, at_least: Option<u64>) -> io::Result<Zeroizing<Vec<u8>>>;
    /// What stays of the segments before record `to`, end to end.
    fn pruned(&self, log: &LogId, to: u64) -> io::Result<Vec<u8>>;
}

/// How other replicas are reached now; the one of this process is not among them.
pub type Replicas = Arc<dyn Fn() -> Vec<(String, Channel)> + Send + Sync>;

/// Those of the published checkpoints that are of this log and earlier than `latest`, one of `size`
/// records, in the form of the file. A change of keys signs a size again. What they sign is left to the
/// verifier.
pub(crate) fn earlier_checkpoints(history: &[u8], origin: &str, latest: &str, size: u64) -> String {
    let text = String::from_utf8_lossy(history);
    let older = split_notes(&text).into_iter().filter(|note| {
        Checkpoint::parse_unchecked(note).is_ok_and(|found| found.origin == origin && found.size <= size)
            && *note != latest
    });
    older.map(|note| format!("{note}\n")).collect()
}
