//! openraft's network over a [`Transport`].

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future, stream};
use openraft::{
    BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    async_runtime::watch::WatchReceiver,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RPCTypes},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::{
    GroupConfig, Peer, RpcKind, Transport, TransportError, codec,
    pace::{Pace, Paced},
    raft_types::{LogId, MetricsReceiver, Snapshot, Types, Vote, room},
    snapshot_file::SnapshotFile,
};

/// Bytes of a snapshot in one message.
const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Messages with entries that one follower may have in flight: they hide the network's round trip
/// and the follower's fsync.
const MAX_PIPELINED_APPENDS: usize = 16;

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

/// Empty until the replica runs; then it knows where every member listens now.
pub(crate) type Members = Arc<OnceLock<MetricsReceiver>>;

/// Where `id` listens according to the membership that this node knows.
pub(crate) fn address_of(metrics: &MetricsReceiver, id: u64) -> Option<String> {
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().get_node(&id).map(|node| node.addr.clone())
}

pub(crate) struct Network {
    transport: Arc<dyn Transport>,
    node_id: u64,
    group: String,
    append_limit: Duration,
    commit_notice: Duration,
    spare_wait: Duration,
    members: Members,
    pace: Arc<Pace>,
}

impl Network {
    pub(crate) fn new(transport: Arc<dyn Transport>, config: &GroupConfig, members: Members) -> Self {
        let append_limit = config.timings.append_limit();
        let commit_notice = Duration::from_millis(config.timings.commit_notice_ms);
        let spare_wait = Duration::from_millis(config.timings.spare_wait_ms);
        let (node_id, group, pace) = (config.node_id, config.name.clone(), Arc::default());
        Self { transport, node_id, group, append_limit, commit_notice, spare_wait, members, pace }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        Link {
            transport: self.transport.clone(),
            from: self.node_id,
            peer: Peer { id: target, address: node.addr.clone(), group: self.group.clone() },
            append_limit: self.append_limit,
            commit_notice: self.commit_notice,
            spare_wait: self.spare_wait,
            members: self.members.clone(),
            pace: self.pace.clone(),
        }
    }
}

/// The longest that a MiB may take on its way, and into the follower's log.
const SLOWEST_MIB: Duration = Duration::from_secs(1);

/// The way to one peer.
pub(crate) struct Link {
    transport: Arc<dyn Transport>,
    from: u64,
    /// As it was when this link was made.
    peer: Peer,
    append_limit: Duration,
    commit_notice: Duration,
    spare_wait: Duration,
    members: Members,
    pace: Arc<Pace>,
}

impl Link {
    /// Whether this peer is one of the voters that make a quorum with this leader and answer fastest; while the membership
    /// changes each of them is.
    fn is_needed(&self, paced: &Paced) -> bool {
        let Some(metrics) = self.members.get().filter(|_| !self.spare_wait.is_zero()) else { return true };
        let metrics = metrics.borrow_watched();
        match metrics.membership_config.membership().get_joint_config().as_slice() {
            [voters] if voters.contains(&self.from) => paced.is_needed(voters),
            _ => true,
        }
    }

    /// The peer at its current address: openraft keeps a link when only the address changes.
    fn peer(&self) -> Peer {
        let mut peer = self.peer.clone();
        if let Some(address) = self.members.get().and_then(|members| address_of(members, peer.id)) {
            peer.address = address;
        }
        peer
    }

    /// Sends now, before the future is polled: the order of calls is the order on the wire.
    fn call<A: DeserializeOwned>(
        &self,
        kind: RpcKind,
        action: RPCTypes,
        request: io::Result<Vec<u8>>,
        timeout: Duration,
    ) -> impl Future<Output = Result<A, RPCError<Types>>> + Send + use<A> {
        let (id, target) = (self.from, self.peer.id);
        let sent = request.map(Bytes::from).map(|body| {
            let timeout = timeout + time_to_send(body.len());
            tokio::time::timeout(timeout, self.transport.call(self.peer(), kind, body, timeout))
        });
        async move {
            match sent.map_err(|e| failed(&e))?.await {
                Ok(Ok(answer)) => codec::decode(&answer).map_err(|e| failed(&e)),
                Ok(Err(e @ TransportError::Unreachable(_))) => Err(RPCError::Unreachable(Unreachable::new(&e))),
                Ok(Err(e)) => Err(RPCError::Network(NetworkError::new(&e))),
                Err(_) => Err(RPCError::Timeout(Timeout { action, id, target, timeout })),
            }
        }
    }

    /// One message of a stream of appends. The answer says how far the follower's log is the same
    /// as this leader's.
    fn append(
        &self,
        rpc: &AppendEntriesRequest<Types>,
        timeout: Duration,
    ) -> impl Future<Output = Result<StreamAppendResult<Types>, RPCError<Types>>> + Send + use<> {
        let previous: Option<LogId> = rpc.prev_log_id;
        let last = rpc.entries.last().map(|entry| entry.log_id).or(previous);
        let request = codec::encode_about(rpc, codec::SMALL + rpc.entries.iter().map(room).sum::<usize>());
        let answer = self.call(RpcKind::AppendEntries, RPCTypes::AppendEntries, request, timeout);
        async move {
            match answer.await? {
                // A follower takes all or nothing, and the start of the log conflicts with nothing.
                AppendEntriesResponse::PartialSuccess(_) => Err(failed(&nonsense("part of the entries taken"))),
                AppendEntriesResponse::Conflict if previous.is_none() => Err(failed(&nonsense("no conflict possible"))),
                whole => Ok(whole.into_stream_result(previous, last)),
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
            let room = codec::SMALL + data.len();
            let chunk = SnapshotChunk { vote, offset, total, data: Bytes::from(data) };
            let request = codec::encode_about(&chunk, room);
            let response: SnapshotResponse<Types> =
                self.call(RpcKind::SnapshotChunk, RPCTypes::InstallSnapshot, request, timeout).await?;
            // A receiver that knows a later leader says so with its vote, and wants no more.
            if next >= total || response.vote > vote {
                return Ok(response);
            }
            offset = next;
        }
    }
}

/// A conflict at or before what the follower acknowledged in the same stream is no conflict: the
/// append overtook the one before it. openraft would take it for a follower that lost its log,
/// which it cannot cope with; as a failed message it is sent again.
fn refute(
    answer: Result<StreamAppendResult<Types>, RPCError<Types>>,
    acknowledged: Option<LogId>,
) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
    match answer {
        Ok(Err(StreamAppendError::Conflict(at))) if Some(at) <= acknowledged => {
            Err(failed(&io::Error::other(format!("an append behind {at} overtook the one that ends there"))))
        }
        other => other,
    }
}

/// Requests at least so long one after another while `is_needed` says no: what comes in the meantime shares the next one.
fn gathered<S>(
    requests: S,
    wait: Duration,
    paced: Arc<Paced>,
    is_needed: impl Fn(&Paced) -> bool + Send + Sync,
) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin,
{
    let start = (requests, paced, is_needed, None);
    Box::pin(stream::unfold(start, move |(mut requests, paced, is_needed, last)| async move {
        if let Some(last) = last {
            paced.wait(last + wait, || is_needed(&paced)).await;
        }
        let request = requests.next().await?;
        Some((request, (requests, paced, is_needed, Some(Instant::now()))))
    }))
}

/// Requests without those that nobody misses: one without entries only tells a follower how far the log is committed, and
/// so does the next one. It waits for that so long at most, and is left out when it comes. The first request of a stream goes
/// at once: it may be the question how far the follower's log is the leader's.
fn with_few_notices<S>(requests: S, wait: Duration) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin,
{
    stream::unfold((requests.fuse(), Duration::ZERO), move |(mut requests, wait_now)| async move {
        let mut request = requests.next().await?;
        if !wait_now.is_zero() && request.entries.is_empty() {
            let until = Instant::now() + wait_now;
            while request.entries.is_empty()
                && let Ok(Some(later)) = tokio::time::timeout_at(until, requests.next()).await
            {
                request = later;
            }
        }
        Some((request, (requests, wait)))
    })
}

/// What a message of so many bytes may take longer than a small one. Without it a large entry on a slow link would
/// be given up and sent again for ever.
fn time_to_send(bytes: usize) -> Duration {
    SLOWEST_MIB * u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

fn failed(error: &io::Error) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(error))
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("impossible answer to an append: {what}"))
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.call(RpcKind::AppendEntries, RPCTypes::AppendEntries, codec::encode(&rpc), option.soft_ttl()).await
    }

    /// Several appends in flight, answers in the order of the requests, the end after the first
    /// that is not a plain success: what was sent behind it is refused by the follower anyway.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let link: &'s Link = self;
        let timeout = option.soft_ttl().max(self.append_limit);
        let paced = Arc::new(link.pace.begin(link.peer.id));
        let input = gathered(input, link.spare_wait, paced.clone(), |paced| link.is_needed(paced));
        let requests = with_few_notices(input, link.commit_notice);
        let append = move |rpc| {
            paced.sent();
            let (answer, paced) = (link.append(&rpc, timeout), paced.clone());
            answer.inspect(move |answer| {
                if let Ok(Ok(matched)) = answer {
                    paced.answered(matched.map_or(0, |id| id.index));
                }
            })
        };
        let answers = requests.map(append).buffered(MAX_PIPELINED_APPENDS);
        let start = (Box::pin(answers), None);
        let answers = stream::unfold(Some(start), |state| async move {
            let (mut answers, acknowledged) = state?;
            let answer = refute(answers.next().await?, acknowledged);
            let next = match &answer {
                Ok(Ok(matched)) => Some((answers, acknowledged.max(*matched))),
                _ => None,
            };
            Some((answer, next))
        });
        let answers: BoxStream<'s, _> = Box::pin(answers);
        Box::pin(future::ready(Ok(answers)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(RpcKind::Vote, RPCTypes::Vote, codec::encode(&rpc), option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(RpcKind::PreVote, RPCTypes::Vote, codec::encode(&rpc), option.soft_ttl()).await
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
        self.call(RpcKind::TransferLeader, RPCTypes::TransferLeader, codec::encode(&req), option.soft_ttl()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use openraft::{EntryPayload, vote::leader_id_std::CommittedLeaderId};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;
    use crate::raft_types::LogEntry;

    fn log_id(index: u64) -> LogId {
        LogId { leader_id: CommittedLeaderId::new(1), index }
    }

    fn request(entries: u64, commit: u64) -> AppendEntriesRequest<Types> {
        let entry = |n| LogEntry { log_id: log_id(n), payload: EntryPayload::Blank };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(9)),
            entries: (10..10 + entries).map(entry).collect(),
            leader_commit: Some(log_id(commit)),
        }
    }

    /// Entries and commit of each request that goes out, and when.
    #[tokio::test(start_paused = true)]
    async fn the_word_of_a_commit_waits_for_entries_but_not_for_long() {
        const WAIT: Duration = Duration::from_millis(5);
        let (send, requests) = mpsc::unbounded_channel();
        let mut out = Box::pin(with_few_notices(UnboundedReceiverStream::new(requests), WAIT));
        let begin = Instant::now();
        let mut next = async || {
            let request = out.next().await?;
            Some((request.entries.len(), request.leader_commit.map(|id| id.index), begin.elapsed().as_millis()))
        };
        send.send(request(0, 1)).unwrap();
        assert_eq!(next().await, Some((0, Some(1), 0)), "the first is a question");
        for (entries, commit) in [(0, 2), (0, 3), (1, 4), (2, 4), (0, 5), (0, 6)] {
            send.send(request(entries, commit)).unwrap();
        }
        assert_eq!(next().await, Some((1, Some(4), 0)), "entries carry the commit");
        assert_eq!(next().await, Some((2, Some(4), 0)));
        assert_eq!(next().await, Some((0, Some(6), 5)), "the last word, in time");
        send.send(request(0, 7)).unwrap();
        drop(send);
        assert_eq!(next().await, Some((0, Some(7), 5)), "nothing comes any more");
        assert_eq!(next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn whom_no_commit_needs_is_asked_less_often() {
        const WAIT: Duration = Duration::from_millis(4);
        let (begin, needed) = (Instant::now(), AtomicBool::new(true));
        let endless = Box::pin(stream::repeat_with(|| request(1, 1)));
        let pace = Arc::new(Pace::default());
        let mut out = gathered(endless, WAIT, Arc::new(pace.begin(2)), |_| needed.load(Ordering::Relaxed));
        let mut next = async || {
            out.next().await.unwrap();
            begin.elapsed().as_millis()
        };
        assert_eq!((next().await, next().await), (0, 0), "needed");
        needed.store(false, Ordering::Relaxed);
        assert_eq!((next().await, next().await), (4, 8), "not needed");
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!((next().await, next().await), (18, 22), "the first after a while at once");
        let other = pace.begin(3);
        let (at, ()) = tokio::join!(next(), async {
            tokio::time::sleep(WAIT / 4).await;
            needed.store(true, Ordering::Relaxed);
            drop(other);
        });
        assert_eq!(at, 23, "the other one is gone");
        assert_eq!(next().await, 23);
    }
}
