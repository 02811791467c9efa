//! Messages as datagrams: late, lost, out of order, and never answered when a way is cut. Some are
//! refused before they are sent, which their sender may tell from the others.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use turmoil::net::UdpSocket;

use super::random::Random;
use crate::{Group, GroupError, Peer, RpcKind, Transport, TransportError, transport::TransportFuture};

const PORT: u16 = 7_000;
/// Bytes of one datagram: a part of a snapshot with room for its frame.
const MAX_DATAGRAM_BYTES: usize = 2 << 20;
/// Of a hundred messages, how many are lost, and how many are refused before they are sent.
const LOST_PERCENT: u64 = 1;
const REFUSED_PERCENT: u64 = 2;

#[derive(Serialize, Deserialize)]
enum Frame {
    Request { id: u64, kind: u32, body: Bytes },
    Answer { id: u64, result: Result<Bytes, (bool, String)> },
}

type Answer = oneshot::Sender<Result<Bytes, TransportError>>;

#[derive(Clone)]
pub(super) struct SimTransport {
    socket: Arc<UdpSocket>,
    waiting: Arc<Mutex<BTreeMap<u64, Answer>>>,
    next_id: Arc<AtomicU64>,
    random: Arc<Mutex<Random>>,
}

impl SimTransport {
    pub(super) async fn bind(random: Random) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind(("0.0.0.0", PORT)).await?);
        // Not from 1: an answer to a question from before a crash must find nobody.
        let next_id = Arc::new(AtomicU64::new(random.clone().next() >> 8));
        Ok(Self { socket, waiting: Arc::default(), next_id, random: Arc::new(Mutex::new(random)) })
    }

    /// Handles what arrives, until the host ends.
    pub(super) async fn serve(self, group: Group) {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer).await {
            match postcard::from_bytes(&buffer[..length]).expect("frames are whole") {
                Frame::Request { id, kind, body } => {
                    let (group, this) = (group.clone(), self.clone());
                    tokio::spawn(async move {
                        let kind = RpcKind::from_code(kind).expect("a known kind");
                        let result = group.handle(kind, body).await;
                        let result = result.map_err(|e| (matches!(e, GroupError::Stopped), e.to_string()));
                        this.send(&Frame::Answer { id, result }, from);
                    });
                }
                Frame::Answer { id, result } => {
                    let Some(answer) = self.waiting.lock().unwrap().remove(&id) else { continue };
                    let _ = answer.send(result.map_err(|(unreachable, text)| {
                        if unreachable { TransportError::Unreachable(text) } else { TransportError::Failed(text) }
                    }));
                }
            }
        }
    }

    fn send(&self, frame: &Frame, to: impl turmoil::ToSocketAddrs) {
        if self.percent(LOST_PERCENT) {
            return;
        }
        let bytes = postcard::to_stdvec(frame).expect("frames encode");
        // A way that is cut tells nobody.
        let _ = self.socket.try_send_to(&bytes, to);
    }

    fn percent(&self, chance: u64) -> bool {
        self.random.lock().unwrap().percent(chance)
    }
}

impl Transport for SimTransport {
    fn call(&self, peer: Peer, kind: RpcKind, body: Bytes, _: Duration) -> TransportFuture {
        if self.percent(REFUSED_PERCENT) {
            let refused = TransportError::Unreachable("refused by chance".to_owned());
            return Box::pin(std::future::ready(Err(refused)));
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id, answer);
        self.send(&Frame::Request { id, kind: kind.code(), body }, (peer.address.as_str(), PORT));
        let waiting = self.waiting.clone();
        Box::pin(async move {
            let _forget = Forget { id, waiting };
            answered.await.unwrap_or_else(|_| Err(TransportError::Failed("the node ended".to_owned())))
        })
    }
}

/// Forgets a question whose asker gave up.
struct Forget {
    id: u64,
    waiting: Arc<Mutex<BTreeMap<u64, Answer>>>,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.waiting.lock().unwrap().remove(&self.id);
    }
}
