//! One stream to one peer: requests out with ids, answers back in any order.
//!
//! Life: idle until the first message, then connect, then exchange until the stream breaks or has
//! been idle. A failed attempt is followed by a pause that doubles up to a bound; messages that
//! come meanwhile are refused at once, because Raft has timers of its own and would rather know.
//! When a stream breaks, or its oldest request stays unanswered for too long (a network that
//! drops packets says nothing), all that was sent and not answered fails, and the next message
//! makes a new connection.
//! A message is "sent" once it was given to the stream; before that its fate is certain, and
//! callers rely on the difference.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use provost_wire::node::{PeerRequest, PeerResponse, peer_client::PeerClient};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    Peer, RpcKind, TransportError,
    grpc::{Dial, MAX_PEER_MESSAGE_BYTES},
};

/// For the connection, its handshake and the first answer of the server.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// After the first failed attempt, and the most after many.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A lane without messages is closed after this time.
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// Requests of one lane that may be unanswered.
const MAX_UNANSWERED: usize = 8_192;
/// Messages given to the stream and not yet to the network.
const STREAM_QUEUE: usize = 4;

/// Which messages share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LaneKind {
    /// Heartbeats, entries, votes.
    Raft,
    /// Parts of snapshots.
    Bulk,
    /// Forwarded calls: their answers wait for a commit.
    Forward,
}

impl LaneKind {
    pub(crate) fn of(kind: RpcKind) -> Self {
        match kind {
            RpcKind::AppendEntries | RpcKind::Vote | RpcKind::PreVote | RpcKind::TransferLeader => LaneKind::Raft,
            RpcKind::SnapshotChunk => LaneKind::Bulk,
            RpcKind::Propose | RpcKind::ReadIndex | RpcKind::Membership | RpcKind::Followers => LaneKind::Forward,
        }
    }

    /// Messages that may wait for the stream.
    pub(crate) fn max_queued(self) -> usize {
        match self {
            LaneKind::Raft => 64,
            LaneKind::Bulk => 4,
            LaneKind::Forward => 1_024,
        }
    }

    /// How long a request may stay unanswered before the connection is given up. Longer than an
    /// answer takes on a slow disk, shorter than TCP's own patience after a partition.
    fn stall_limit(self) -> Duration {
        match self {
            LaneKind::Raft => Duration::from_secs(4),
            LaneKind::Bulk => Duration::from_secs(90),
            LaneKind::Forward => Duration::from_secs(40),
        }
    }
}

/// A message and where its answer goes.
pub(crate) struct Outgoing {
    pub(crate) kind: RpcKind,
    pub(crate) body: Bytes,
    pub(crate) answer: Answer,
}

type Answer = oneshot::Sender<Result<Bytes, TransportError>>;

impl Outgoing {
    fn refuse(self, why: &str) {
        // The caller may have gone: then nobody is to be told.
        let _ = self.answer.send(Err(TransportError::Unreachable(why.to_owned())));
    }
}

pub(crate) struct LaneTask {
    from: u64,
    peer: Peer,
    kind: LaneKind,
    dial: Dial,
    messages: mpsc::Receiver<Outgoing>,
}

/// The two directions of a stream.
struct Connection {
    requests: mpsc::Sender<PeerRequest>,
    answers: Streaming<PeerResponse>,
}

/// Requests sent and not answered, by id: the first is the oldest.
#[derive(Default)]
struct Unanswered(BTreeMap<u64, (Instant, Answer)>);

impl Unanswered {
    fn fail_all(self, why: &str) {
        for (_, answer) in self.0.into_values() {
            let _ = answer.send(Err(TransportError::Failed(why.to_owned())));
        }
    }

    /// Whether there is room for one more, after forgetting callers that gave up.
    fn has_room(&mut self) -> bool {
        if self.0.len() >= MAX_UNANSWERED {
            self.0.retain(|_, (_, answer)| !answer.is_closed());
        }
        self.0.len() < MAX_UNANSWERED
    }

    fn complete(&mut self, response: PeerResponse) {
        // An answer for nobody is late: its caller gave up and was forgotten.
        let Some((_, answer)) = self.0.remove(&response.id) else { return };
        let result = match response.failure {
            None => Ok(response.body),
            Some(failure) => {
                let text = format!("{}: {}", failure.code, failure.message);
                Err(if failure.unreachable { TransportError::Unreachable(text) } else { TransportError::Failed(text) })
            }
        };
        let _ = answer.send(result);
    }
}

/// Why an exchange ended.
enum End {
    /// The stream broke, after at least one answer or before any.
    Broken { why: String, answered: bool },
    /// Nothing to send for a while, or nobody left who could.
    Idle,
}

impl LaneTask {
    pub(crate) fn new(from: u64, peer: Peer, kind: LaneKind, dial: Dial, messages: mpsc::Receiver<Outgoing>) -> Self {
        Self { from, peer, kind, dial, messages }
    }

    /// Runs until idle or until the transport is dropped. Callers then open a new lane.
    pub(crate) async fn run(mut self) {
        let mut pause = PAUSE.0;
        // Until when no attempt is made, and why.
        let mut refusing: Option<(Instant, String)> = None;
        while let Ok(Some(first)) = tokio::time::timeout(IDLE_LIMIT, self.messages.recv()).await {
            if let Some((until, why)) = &refusing
                && Instant::now() < *until
            {
                first.refuse(why);
                continue;
            }
            let why = match self.connect().await {
                Ok(connection) => match self.exchange(connection, first).await {
                    End::Idle => return,
                    End::Broken { why, answered } => {
                        tracing::debug!(peer = self.peer.id, group = self.peer.group, lane = ?self.kind, why, "stream ended");
                        if answered {
                            pause = PAUSE.0;
                            refusing = None;
                            continue;
                        }
                        why
                    }
                },
                Err(why) => {
                    first.refuse(&why);
                    // What came during the attempt waited long enough.
                    while let Ok(message) = self.messages.try_recv() {
                        message.refuse(&why);
                    }
                    why
                }
            };
            refusing = Some((Instant::now() + pause, why));
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// The server answers with headers at once, before any request: from then on requests go out
    /// without waiting.
    async fn connect(&self) -> Result<Connection, String> {
        let channel = (self.dial)(&self.peer);
        let mut client = PeerClient::new(channel)
            .max_decoding_message_size(MAX_PEER_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_PEER_MESSAGE_BYTES);
        let (requests, outgoing) = mpsc::channel(STREAM_QUEUE);
        let exchange = client.exchange(ReceiverStream::new(outgoing));
        match tokio::time::timeout(CONNECT_LIMIT, exchange).await {
            Ok(Ok(response)) => Ok(Connection { requests, answers: response.into_inner() }),
            Ok(Err(status)) => Err(text_of(&status)),
            Err(_) => Err(format!("no connection to {} within {CONNECT_LIMIT:?}", self.peer.address)),
        }
    }

    async fn exchange(&mut self, connection: Connection, first: Outgoing) -> End {
        let Connection { requests, mut answers } = connection;
        let mut unanswered = Unanswered::default();
        let mut next_id = 1;
        let mut answered = false;
        let mut waiting = Some(first);
        let limit = self.kind.stall_limit();
        let mut last_sent = Instant::now();
        // One timer that looks for what is overdue: one for each message would be set and unset with each.
        let mut look = std::pin::pin!(tokio::time::sleep_until(last_sent + limit));
        let why = loop {
            let messages = &mut self.messages;
            let waiting_now = &mut waiting;
            // The room comes first: what has been taken from the queue can then be sent at once.
            let next = async {
                let Ok(room) = requests.reserve().await else { return Err(()) };
                match waiting_now.take() {
                    Some(message) => Ok(Some((room, message))),
                    None => Ok(messages.recv().await.map(|message| (room, message))),
                }
            };
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(response)) => {
                        answered = true;
                        unanswered.complete(response);
                    }
                    Ok(None) => break "the peer closed the stream".to_owned(),
                    Err(status) => break text_of(&status),
                },
                next = next => match next {
                    Ok(Some((room, message))) if !message.answer.is_closed() => {
                        if !unanswered.has_room() {
                            message.refuse("too many requests are unanswered");
                            continue;
                        }
                        let Outgoing { kind, body, answer } = message;
                        let (from, to) = (self.from, self.peer.id);
                        let group = self.peer.group.clone();
                        room.send(PeerRequest { id: next_id, group, kind: kind.code(), body, from, to });
                        last_sent = Instant::now();
                        unanswered.0.insert(next_id, (last_sent, answer));
                        next_id += 1;
                    }
                    // Its caller gave up before it was sent.
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        unanswered.fail_all("this node's transport was dropped");
                        return End::Idle;
                    }
                    Err(()) => break "the stream does not take requests any more".to_owned(),
                },
                () = look.as_mut() => {
                    let now = Instant::now();
                    let oldest = unanswered.0.values().next().map(|(since, _)| *since);
                    if oldest.is_some_and(|since| since + limit <= now) {
                        break format!("no answer within {limit:?}");
                    }
                    if oldest.is_none() && last_sent + IDLE_LIMIT <= now {
                        return End::Idle;
                    }
                    // What is sent from now on is not overdue before that.
                    look.as_mut().reset(oldest.unwrap_or(now) + limit);
                }
            }
        };
        if let Some(message) = waiting {
            message.refuse(&why);
        }
        unanswered.fail_all(&why);
        End::Broken { why, answered }
    }
}

/// What a status says, with its causes: tonic hides "connection refused" two levels down.
fn text_of(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    if text.is_empty() { format!("{:?}", status.code()) } else { text }
}
