//! The receiving side of a group's messages.

use std::{fs::OpenOptions, io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use openraft::raft::SnapshotResponse;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    GroupError, RpcKind, codec,
    group::GroupCore,
    network::SnapshotChunk,
    raft_types::{Snapshot, Types, Vote},
    route::Refusal,
    snapshot_file::SnapshotFile,
};

/// Where the snapshot that is being received stands.
pub(crate) struct Receiving {
    vote: Vote,
    total: u64,
    /// Bytes received.
    next: u64,
}

impl GroupCore {
    /// Answers one message of a peer. The first poll hands a message of Raft to its core, so that
    /// whoever polls in the order of arrival keeps that order.
    ///
    /// Forwarded calls are answered by this node or refused; refusals are answers too, because
    /// the asker must know whether a command was logged.
    pub(crate) async fn handle(self: &Arc<Self>, kind: RpcKind, body: Bytes) -> Result<Bytes, GroupError> {
        let raft = &self.raft;
        match kind {
            RpcKind::AppendEntries => answer(raft.append_entries(decode(&body)?).await),
            RpcKind::Vote => answer(raft.vote(decode(&body)?).await),
            RpcKind::PreVote => answer(raft.pre_vote(decode(&body)?).await),
            RpcKind::TransferLeader => answer(raft.handle_transfer_leader(decode(&body)?).await),
            RpcKind::SnapshotChunk => self.receive_chunk(decode(&body)?).await,
            RpcKind::Propose => encode(&self.propose_for_peer(decode(&body)?).await),
            RpcKind::ReadIndex => encode(&self.read_index().await.map_err(Refusal::from)),
            RpcKind::Membership => {
                let change = decode(&body)?;
                encode(&self.change_here(change).await.map_err(Refusal::from))
            }
            RpcKind::Followers => encode(&self.followers_here().map_err(Refusal::from)),
        }
    }

    /// Chunks arrive in order into one temporary file; the first starts it anew, the last hands
    /// it to Raft. A crash or a new leader in between leaves a temporary file that the next
    /// transfer or the next start removes.
    async fn receive_chunk(&self, chunk: SnapshotChunk) -> Result<Bytes, GroupError> {
        let mut receiving = self.receiving.lock().await;
        if chunk.offset == 0 {
            *receiving = Some(Receiving { vote: chunk.vote, total: chunk.total, next: 0 });
        }
        // Of another leader or another snapshot: its sender starts again.
        let known = receiving.as_mut().filter(|r| r.vote == chunk.vote && r.total == chunk.total);
        let Some(known) = known.filter(|r| r.next == chunk.offset) else {
            return Err(GroupError::Wire(format!("snapshot part at {} was not expected", chunk.offset)));
        };
        let path = self.snapshots.temporary("receiving");
        let file = OpenOptions::new().create(true).write(true).truncate(chunk.offset == 0).open(&path)?;
        file.write_all_at(&chunk.data, chunk.offset)?;
        known.next += chunk.data.len() as u64;
        if known.next < chunk.total {
            return encode(&SnapshotResponse::<Types>::new(chunk.vote));
        }
        *receiving = None;
        let (meta, snapshot) = SnapshotFile::open(&path)?;
        snapshot.verify()?;
        let snapshot = Snapshot { meta, snapshot };
        answer(self.raft.install_full_snapshot(chunk.vote, snapshot).await)
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, GroupError> {
    codec::decode(body).map_err(|e: io::Error| GroupError::Wire(e.to_string()))
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, GroupError> {
    Ok(Bytes::from(codec::encode(value)?))
}

fn answer<T: Serialize, E>(result: Result<T, E>) -> Result<Bytes, GroupError> {
    // The only errors of these calls are fatal ones: this node is ending.
    encode(&result.map_err(|_| GroupError::Stopped)?)
}
