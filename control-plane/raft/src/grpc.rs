//! The gRPC transport: long-lived streams to peers.
//!
//! A peer has up to three lanes a group, each a stream on a connection of its own, so that a
//! large message of one never stands before a small one of another: Raft's own messages, parts of
//! snapshots, and forwarded calls. A lane is opened when it is first used and closed when it has
//! been idle; see [`crate::lane`] for its life.
//! Left out: TLS. The caller's `dial` makes the channel, and must make sure that the peer's
//! certificate carries the id that is dialled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};
use tonic::transport::Channel;

use crate::{
    Peer, RpcKind, Transport, TransportError,
    lane::{LaneKind, LaneTask, Outgoing},
    transport::TransportFuture,
};

/// Bytes of one message between replicas: a batch of entries is cut at 4 MiB, and one entry that
/// alone is larger (at most 8 MiB) may be the last of a batch.
pub const MAX_PEER_MESSAGE_BYTES: usize = 16 << 20;

/// Makes a channel to a peer. Called for each connection attempt, so that what it reads
/// (certificates, addresses) is current. It should connect lazily.
pub type Dial = Arc<dyn Fn(&Peer) -> Channel + Send + Sync>;

type Lanes = HashMap<(Peer, LaneKind), mpsc::Sender<Outgoing>>;

/// Carries messages over gRPC; see the module.
pub struct GrpcTransport {
    node_id: u64,
    dial: Dial,
    lanes: Mutex<Lanes>,
}

impl GrpcTransport {
    /// The transport of the node `node_id`. May serve several groups.
    pub fn new(node_id: u64, dial: Dial) -> Self {
        Self { node_id, dial, lanes: Mutex::default() }
    }

    /// Puts a message on its lane, which is opened or replaced when it has none or an ended one.
    fn enqueue(&self, peer: Peer, kind: LaneKind, message: Outgoing) -> Result<(), TransportError> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer, kind);
        let message = match lanes.get(&key) {
            None => message,
            Some(lane) => match lane.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(full(&key)),
                Err(TrySendError::Closed(message)) => message,
            },
        };
        self.open(&mut lanes, key, message)
    }

    fn open(&self, lanes: &mut Lanes, key: (Peer, LaneKind), message: Outgoing) -> Result<(), TransportError> {
        // Lanes to former addresses end by themselves; forget them here.
        lanes.retain(|_, lane| !lane.is_closed());
        let (queue, messages) = mpsc::channel(key.1.max_queued());
        let sent = queue.try_send(message);
        tokio::spawn(LaneTask::new(self.node_id, key.0.clone(), key.1, self.dial.clone(), messages).run());
        let result = sent.map_err(|_| full(&key));
        lanes.insert(key, queue);
        result
    }
}

fn full((peer, kind): &(Peer, LaneKind)) -> TransportError {
    TransportError::Unreachable(format!("{} messages to node {} wait already", kind.max_queued(), peer.id))
}

impl Transport for GrpcTransport {
    fn call(&self, peer: Peer, kind: RpcKind, body: Bytes, _: Duration) -> TransportFuture {
        let (answer, answered) = oneshot::channel();
        let queued = self.enqueue(peer, LaneKind::of(kind), Outgoing { kind, body, answer });
        Box::pin(async move {
            queued?;
            // The lane answers every message it takes; it dies silently only with the runtime.
            answered.await.unwrap_or_else(|_| Err(TransportError::Failed("the connection ended".to_owned())))
        })
    }
}
