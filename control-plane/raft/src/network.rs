//! openraft's network over a [`Transport`].

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use openraft::{
    BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RPCTypes},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Peer, RpcKind, Transport, TransportError, codec,
    raft_types::{Snapshot, Types, Vote},
    snapshot_file::SnapshotFile,
};

/// Bytes of a snapshot in one message.
const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// A part of a snapshot file.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotChunk {
    /// The sending leader's vote.
    pub(crate) vote: Vote,
    /// Where in the file.
    pub(crate) offset: u64,
    /// Bytes of the whole file.
    pub(crate) total: u64,
    pub(crate) data: Bytes,
}

pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) node_id: u64,
    pub(crate) group: String,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        let peer = Peer { id: target, address: node.addr.clone(), group: self.group.clone() };
        Link { transport: self.transport.clone(), from: self.node_id, peer }
    }
}

/// The way to one peer.
pub(crate) struct Link {
    transport: Arc<dyn Transport>,
    from: u64,
    peer: Peer,
}

impl Link {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: RpcKind,
        action: RPCTypes,
        request: &Q,
        timeout: Duration,
    ) -> Result<A, RPCError<Types>> {
        let body = Bytes::from(codec::encode(request).map_err(|e| failed(&e))?);
        let call = self.transport.call(self.peer.clone(), kind, body, timeout);
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(answer)) => codec::decode(&answer).map_err(|e| failed(&e)),
            Ok(Err(e @ TransportError::Unreachable(_))) => Err(RPCError::Unreachable(Unreachable::new(&e))),
            Ok(Err(e)) => Err(RPCError::Network(NetworkError::new(&e))),
            Err(_) => {
                let (id, target) = (self.from, self.peer.id);
                Err(RPCError::Timeout(Timeout { action, id, target, timeout }))
            }
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        file: &SnapshotFile,
        timeout: Duration,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let total = file.len();
        let mut offset = 0;
        loop {
            let data = file.chunk(offset, SNAPSHOT_CHUNK_BYTES).map_err(|e| failed(&e))?;
            let next = offset + data.len() as u64;
            let chunk = SnapshotChunk { vote, offset, total, data: Bytes::from(data) };
            let response: SnapshotResponse<Types> =
                self.call(RpcKind::SnapshotChunk, RPCTypes::InstallSnapshot, &chunk, timeout).await?;
            // A receiver that knows a later leader says so with its vote, and wants no more.
            if next >= total || response.vote > vote {
                return Ok(response);
            }
            offset = next;
        }
    }
}

fn failed(error: &io::Error) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(error))
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let action = RPCTypes::AppendEntries;
        self.call(RpcKind::AppendEntries, action, &rpc, option.soft_ttl()).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(RpcKind::Vote, RPCTypes::Vote, &rpc, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(RpcKind::PreVote, RPCTypes::Vote, &rpc, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let send = self.send_snapshot(vote, &snapshot.snapshot, option.soft_ttl());
        futures::select_biased! {
            closed = Box::pin(cancel).fuse() => Err(StreamingError::Closed(closed)),
            sent = Box::pin(send).fuse() => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let action = RPCTypes::TransferLeader;
        self.call(RpcKind::TransferLeader, action, &req, option.soft_ttl()).await
    }
}
