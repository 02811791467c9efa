//! The receiving side of Raft's messages.

use std::{fs::OpenOptions, io, os::unix::fs::FileExt};

use bytes::Bytes;
use openraft::raft::SnapshotResponse;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    GroupError, RpcKind, codec,
    group::GroupCore,
    network::SnapshotChunk,
    raft_types::{Snapshot, Types},
    snapshot_file::SnapshotFile,
};

impl GroupCore {
    /// Answers one message of a peer.
    pub(crate) async fn handle(&self, kind: RpcKind, body: Bytes) -> Result<Bytes, GroupError> {
        let raft = self.raft();
        match kind {
            RpcKind::AppendEntries => answer(raft.append_entries(decode(&body)?).await),
            RpcKind::Vote => answer(raft.vote(decode(&body)?).await),
            RpcKind::PreVote => answer(raft.pre_vote(decode(&body)?).await),
            RpcKind::TransferLeader => answer(raft.handle_transfer_leader(decode(&body)?).await),
            RpcKind::SnapshotChunk => self.receive_chunk(decode(&body)?).await,
        }
    }

    /// Chunks arrive in order into one temporary file; the first starts it anew, the last hands
    /// it to Raft. A crash or a new leader in between leaves a temporary file that the next
    /// transfer or the next start removes.
    async fn receive_chunk(&self, chunk: SnapshotChunk) -> Result<Bytes, GroupError> {
        let mut received = self.receiving().lock().await;
        if chunk.offset != 0 && chunk.offset != *received {
            let text = format!("snapshot part at {} where {} was expected", chunk.offset, *received);
            return Err(GroupError::Wire(text));
        }
        let path = self.snapshots().temporary("receiving");
        let file = OpenOptions::new().create(true).write(true).truncate(chunk.offset == 0).open(&path)?;
        file.write_all_at(&chunk.data, chunk.offset)?;
        *received = chunk.offset + chunk.data.len() as u64;
        if *received < chunk.total {
            return encode(&SnapshotResponse::<Types>::new(chunk.vote));
        }
        *received = 0;
        let (meta, snapshot) = SnapshotFile::open(&path)?;
        snapshot.verify()?;
        let snapshot = Snapshot { meta, snapshot };
        answer(self.raft().install_full_snapshot(chunk.vote, snapshot).await)
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
