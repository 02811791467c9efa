//! How messages reach peers. A transport moves opaque bytes: it knows nothing of Raft.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;

/// A boxed future of a transport.
pub type TransportFuture = Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>>;

/// Which of a group's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RpcKind {
    /// Log entries or a heartbeat.
    AppendEntries,
    /// A request for a vote.
    Vote,
    /// A question whether a vote would be given.
    PreVote,
    /// A part of a snapshot.
    SnapshotChunk,
    /// The leader asks the receiver to take over.
    TransferLeader,
    /// Commands for the leader to log.
    Propose,
    /// A question to the leader from which index a read is linearizable.
    ReadIndex,
    /// A change of the membership for the leader to make.
    Membership,
    /// A question to the leader how far the members are.
    Followers,
}

impl RpcKind {
    /// Every kind, with its number on the wire. Numbers are never reused.
    const CODES: [(RpcKind, u32); 9] = [
        (RpcKind::AppendEntries, 1),
        (RpcKind::Vote, 2),
        (RpcKind::PreVote, 3),
        (RpcKind::SnapshotChunk, 4),
        (RpcKind::TransferLeader, 5),
        (RpcKind::Propose, 6),
        (RpcKind::ReadIndex, 7),
        (RpcKind::Membership, 8),
        (RpcKind::Followers, 9),
    ];

    /// The stable number on the wire.
    pub fn code(self) -> u32 {
        Self::CODES.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, code)| *code)
    }

    /// The kind of a number on the wire.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::CODES.iter().find(|(_, known)| *known == code).map(|(kind, _)| *kind)
    }
}

/// Who a message is for. A transport must make sure that the peer it reaches has this id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Node id.
    pub id: u64,
    /// Where the membership says it listens.
    pub address: String,
    /// The group's name: one connection may carry several groups.
    pub group: String,
}

/// Why a message got no answer. The difference decides whether a command may be sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The peer's group certainly did not get the message; wait before the next try.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The message was sent and not answered: the peer may have done what it says.
    #[error("{0}")]
    Failed(String),
}

/// Carries messages to peers and their answers back.
pub trait Transport: Send + Sync + 'static {
    /// Sends one message; the receiver passes it to [`crate::Group::handle`]. `timeout` is a hint:
    /// the caller gives up by itself.
    ///
    /// Messages of one kind to one peer should arrive in the order of the calls (not of the
    /// polls): several appends are in flight at once, and one that overtakes another is refused
    /// and sent again. Nothing worse comes of it.
    fn call(&self, peer: Peer, kind: RpcKind, body: Bytes, timeout: Duration) -> TransportFuture;
}

/// The transport of a group of one.
pub struct NoPeers;

impl Transport for NoPeers {
    fn call(&self, peer: Peer, _: RpcKind, _: Bytes, _: Duration) -> TransportFuture {
        let text = format!("node {} has no address: this node runs without a transport", peer.id);
        Box::pin(std::future::ready(Err(TransportError::Unreachable(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_number() {
        for (position, (kind, code)) in RpcKind::CODES.into_iter().enumerate() {
            assert_eq!(code, position as u32 + 1, "numbers are never reused or moved");
            assert_eq!((kind.code(), RpcKind::from_code(code)), (code, Some(kind)));
        }
        assert_eq!((RpcKind::from_code(0), RpcKind::from_code(10)), (None, None));
    }
}
