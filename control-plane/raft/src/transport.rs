//! How messages reach peers. A transport moves opaque bytes: it knows nothing of Raft.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use bytes::Bytes;

use crate::{Group, GroupError, group::GroupCore};

/// A boxed future of a transport.
pub type TransportFuture = Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>>;

/// Which of Raft's messages.
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
}

/// Who a message is for. A transport must make sure that the peer it reaches has this id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Node id.
    pub id: u64,
    /// Where the membership says it listens.
    pub address: String,
    /// The group's name: one connection may carry several groups.
    pub group: String,
}

/// Why a message got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The peer cannot be reached; wait before the next try.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The peer was reached and the exchange failed; the next try may be at once.
    #[error("{0}")]
    Failed(String),
}

/// Carries messages to peers and their answers back.
pub trait Transport: Send + Sync + 'static {
    /// Sends one message; the receiver passes it to [`Group::handle`]. `timeout` is a hint: the
    /// caller gives up by itself.
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

/// Connects groups in one process, for tests and simulation. Links can be cut.
#[derive(Clone, Default)]
pub struct Loopback {
    network: Arc<RwLock<LoopbackNetwork>>,
    /// The node that sends through this handle.
    from: u64,
}

#[derive(Default)]
struct LoopbackNetwork {
    groups: HashMap<(u64, String), Weak<GroupCore>>,
    cut: std::collections::HashSet<u64>,
}

impl Loopback {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport of one node.
    pub fn of_node(&self, id: u64) -> Self {
        Self { network: self.network.clone(), from: id }
    }

    /// Makes a group reachable.
    pub fn attach(&self, group: &Group) {
        let core = group.core();
        let key = (core.node_id(), core.name().to_owned());
        self.write().groups.insert(key, Arc::downgrade(core));
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, id: u64) {
        self.write().cut.insert(id);
    }

    /// Undoes [`Loopback::isolate`].
    pub fn heal(&self, id: u64) {
        self.write().cut.remove(&id);
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, LoopbackNetwork> {
        self.network.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self, peer: &Peer) -> Option<Arc<GroupCore>> {
        let network = self.network.read().unwrap_or_else(PoisonError::into_inner);
        if network.cut.contains(&peer.id) || network.cut.contains(&self.from) {
            return None;
        }
        network.groups.get(&(peer.id, peer.group.clone()))?.upgrade()
    }
}

impl Transport for Loopback {
    fn call(&self, peer: Peer, kind: RpcKind, body: Bytes, _: Duration) -> TransportFuture {
        let target = self.target(&peer);
        let network = self.clone();
        Box::pin(async move {
            let unreachable = || TransportError::Unreachable(format!("node {} is cut off", peer.id));
            let core = target.ok_or_else(unreachable)?;
            let answer = core.handle(kind, body).await.map_err(|e| match e {
                GroupError::Stopped => TransportError::Unreachable(e.to_string()),
                other => TransportError::Failed(other.to_string()),
            })?;
            // The link may have been cut while the peer worked: the answer is then lost.
            network.target(&peer).ok_or_else(unreachable)?;
            Ok(answer)
        })
    }
}
