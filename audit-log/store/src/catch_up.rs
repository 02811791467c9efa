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

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use provost_audit_core::{BLOCK_RECORDS, Checkpoint, LogId, PRUNED_LEN, RecordView, SEGMENT_LEAVES, split_notes};
use provost_audit_verify::{HISTORY_FILE, LogLayout, LogReader};
use provost_wire::audit::{
    CheckpointsRequest, CheckpointsResponse, LeavesRequest, LeavesResponse, PrunedRequest, PrunedResponse,
};
use tokio::{runtime::Handle, sync::mpsc};
use tonic::{Status, transport::Channel};
use zeroize::Zeroizing;

use crate::{
    client::{client, fetch_keys},
    open_body::BodyReader,
    subject_store::applied_of,
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

/// The records of whichever replica answers, over gRPC.
pub(crate) struct PeerLeaves {
    pub replicas: Replicas,
    pub runtime: Handle,
}

/// Without a record for so long it is over, and the next start begins again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two rounds of the replicas.
const PAUSE: Duration = Duration::from_millis(500);
/// A part of a stream is waited for so long.
const PART_LIMIT: Duration = Duration::from_secs(20);
/// Bytes of records in one message.
const PART_BYTES: usize = 1 << 20;
/// Messages that wait for the network.
const PARTS_QUEUED: usize = 4;
/// The most that is taken as a whole: the history of checkpoints, what stays of pruned segments.
const MAX_WHOLE_BYTES: usize = 256 << 20;

impl LeafSource for PeerLeaves {
    fn leaves(&self, log: &LogId, from: u64, to: u64, take: TakeLeaf<'_>) -> io::Result<()> {
        let mut next = from;
        let what = format!("records {from} to {to} of {log}");
        let mut heard = Instant::now();
        let mut last = "no other audit node is known".to_owned();
        while next < to && heard.elapsed() < PATIENCE {
            for (name, channel) in (self.replicas)() {
                let request = LeavesRequest { log: log.tenant().to_owned(), from: next, to };
                let before = next;
                let ended = self.runtime.block_on(async {
                    let mut stream = within(client(channel).leaves(request)).await?.into_inner();
                    while next < to {
                        let Some(part) = within(stream.message()).await? else { break };
                        let wanted = usize::try_from(to - next).unwrap_or(usize::MAX);
                        for (n, leaf) in part.leaves.iter().enumerate().take(wanted) {
                            let body = part.bodies.get(n).filter(|body| !body.is_empty());
                            if let Err(error) = take(leaf, body.map(Bytes::as_ref)) {
                                return Ok(Err(error));
                            }
                            next += 1;
                        }
                    }
                    Ok::<_, Status>(Ok(()))
                });
                match ended {
                    Ok(Ok(())) if next >= to => return Ok(()),
                    Ok(Ok(())) => last = format!("{name} has no more than {next}"),
                    Ok(Err(error)) => return Err(error),
                    Err(status) => last = format!("{name}: {}", status.message()),
                }
                if next > before {
                    heard = Instant::now();
                }
            }
            std::thread::sleep(PAUSE);
        }
        match next >= to {
            true => Ok(()),
            false => Err(io::Error::other(format!("PV-AUDIT-BEHIND: {what} cannot be had: {last}"))),
        }
    }

    fn checkpoints(&self, log: &LogId) -> io::Result<Vec<u8>> {
        self.whole(&format!("the checkpoints of {log}"), |channel| async move {
            let request = CheckpointsRequest { log: log.tenant().to_owned() };
            let mut stream = within(client(channel).checkpoints(request)).await?.into_inner();
            let mut all = Vec::new();
            while let Some(part) = within(stream.message()).await? {
                all.extend_from_slice(&part.part);
                bounded(&all)?;
            }
            Ok(all)
        })
    }

    fn pruned(&self, log: &LogId, to: u64) -> io::Result<Vec<u8>> {
        self.whole(&format!("what stays of the pruned records of {log}"), |channel| async move {
            let request = PrunedRequest { log: log.tenant().to_owned(), to };
            let mut stream = within(client(channel).pruned(request)).await?.into_inner();
            let mut all = Vec::new();
            while let Some(part) = within(stream.message()).await? {
                all.extend_from_slice(&part.part);
                bounded(&all)?;
            }
            match all.len() as u64 / PRUNED_LEN as u64 * SEGMENT_LEAVES >= to {
                true => Ok(all),
                false => Err(Status::unavailable("it has not pruned them yet")),
            }
        })
    }

    fn keys(&self, at_least: Option<u64>) -> io::Result<Zeroizing<Vec<u8>>> {
        let began = Instant::now();
        let mut last = "no other audit node is known".to_owned();
        while began.elapsed() < PATIENCE {
            for (name, channel) in (self.replicas)() {
                match self.runtime.block_on(Self::keys_of(channel, at_least)) {
                    Ok(keys) => return Ok(keys),
                    Err(why) => last = format!("{name}: {why}"),
                }
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::Error::other(format!("PV-AUDIT-BEHIND: the keys of bodies cannot be had: {last}")))
    }
}

impl PeerLeaves {
    /// Something small enough to be taken whole, from whichever replica gives it.
    fn whole<F: Future<Output = Result<Vec<u8>, Status>>>(
        &self,
        what: &str,
        ask: impl Fn(Channel) -> F,
    ) -> io::Result<Vec<u8>> {
        let began = Instant::now();
        let mut last = "no other audit node is known".to_owned();
        while began.elapsed() < PATIENCE {
            for (name, channel) in (self.replicas)() {
                match self.runtime.block_on(ask(channel)) {
                    Ok(all) => return Ok(all),
                    Err(status) => last = format!("{name}: {}", status.message()),
                }
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::Error::other(format!("PV-AUDIT-BEHIND: {what} cannot be had: {last}")))
    }
}

fn bounded(all: &[u8]) -> Result<(), Status> {
    match all.len() <= MAX_WHOLE_BYTES {
        true => Ok(()),
        false => Err(Status::resource_exhausted("it sends too much")),
    }
}

impl PeerLeaves {
    async fn keys_of(channel: Channel, at_least: Option<u64>) -> Result<Zeroizing<Vec<u8>>, String> {
        let keys = fetch_keys(channel).await.map_err(|status| status.message().to_owned())?;
        match applied_of(&keys) {
            Ok(applied) if applied >= at_least => Ok(keys),
            Ok(_) => Err("its keys are not as new as the snapshot".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("nothing came for {PART_LIMIT:?}"));
    tokio::time::timeout(PART_LIMIT, answer).await.map_err(late)?
}

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

type Parts<T> = mpsc::Sender<Result<T, Status>>;

/// Reads records for another replica, on a blocking thread.
pub(crate) fn send_leaves(layout: LogLayout, from: u64, to: u64) -> mpsc::Receiver<Result<LeavesResponse, Status>> {
    let (parts, receiver) = mpsc::channel(PARTS_QUEUED);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read_leaves(layout, from, to, &parts) {
            // A replica that went away needs no error.
            let _ = parts.blocking_send(Err(error));
        }
    });
    receiver
}

fn read_leaves(layout: LogLayout, from: u64, to: u64, parts: &Parts<LeavesResponse>) -> Result<(), Status> {
    let unreadable = |e: provost_audit_verify::ReadFault| Status::data_loss(e.to_string());
    let bodies_of = layout.clone();
    let mut reader = LogReader::from_segment(layout, from - from % SEGMENT_LEAVES)
        .with_filter(Box::new(move |block| block.first_index + BLOCK_RECORDS > from && block.first_index < to));
    let (mut part, mut bytes) = (LeavesResponse::default(), 0);
    let mut bodies = SentBodies { layout: bodies_of, open: None };
    let send = |part: &mut LeavesResponse| {
        let sent = parts.blocking_send(Ok(std::mem::take(part)));
        sent.map_err(|_| Status::cancelled("the replica went away"))
    };
    while let Some(chunk) = reader.next().map_err(unreadable)? {
        for (index, leaf) in chunk.iter() {
            if index >= to {
                break;
            }
            if index < from {
                continue;
            }
            let body = bodies.of(index, leaf)?;
            bytes += leaf.len() + body.len();
            part.leaves.push(Bytes::copy_from_slice(leaf));
            part.bodies.push(body);
            if bytes >= PART_BYTES {
                send(&mut part)?;
                bytes = 0;
            }
        }
    }
    if part.leaves.is_empty() { Ok(()) } else { send(&mut part) }
}

/// The bodies beside records that are sent, in their order.
struct SentBodies {
    layout: LogLayout,
    open: Option<(u64, Option<BodyReader>)>,
}

impl SentBodies {
    /// The sealed body that the record names; empty: it names none.
    fn of(&mut self, index: u64, leaf: &[u8]) -> Result<Bytes, Status> {
        let lost = |why: String| Status::data_loss(format!("PV-AUDIT-BODY: the body of record {index}: {why}"));
        let view = RecordView::read(leaf).map_err(|e| lost(e.to_string()))?;
        if view.body_sealed.is_none() {
            return Ok(Bytes::new());
        }
        let first = index - index % SEGMENT_LEAVES;
        if self.open.as_ref().is_none_or(|(open, _)| *open != first) {
            let reader = BodyReader::open(&self.layout.bodies(first)).map_err(|e| lost(e.to_string()))?;
            self.open = Some((first, reader));
        }
        let reader = self.open.as_mut().and_then(|(_, reader)| reader.as_mut());
        let body = reader.map_or(Ok(None), |reader| reader.find(index)).map_err(|e| lost(e.to_string()))?;
        body.map(Bytes::from).ok_or_else(|| lost("it is not there".to_owned()))
    }
}

/// Reads the published checkpoints for another replica.
pub(crate) fn send_checkpoints(layout: LogLayout) -> mpsc::Receiver<Result<CheckpointsResponse, Status>> {
    let (parts, receiver) = mpsc::channel(PARTS_QUEUED);
    tokio::task::spawn_blocking(move || match std::fs::read(layout.dir.join(HISTORY_FILE)) {
        Ok(all) => {
            for part in all.chunks(PART_BYTES) {
                if parts.blocking_send(Ok(CheckpointsResponse { part: Bytes::copy_from_slice(part) })).is_err() {
                    return;
                }
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => drop(parts.blocking_send(Err(Status::data_loss(e.to_string())))),
    });
    receiver
}

/// Reads what stays of pruned segments for another replica.
pub(crate) fn send_pruned(layout: LogLayout, to: u64) -> mpsc::Receiver<Result<PrunedResponse, Status>> {
    let (parts, receiver) = mpsc::channel(PARTS_QUEUED);
    tokio::task::spawn_blocking(move || {
        let read = |first: u64| std::fs::read(layout.pruned(first));
        let firsts = layout.list_pruned().map(|firsts| firsts.into_iter().filter(|first| *first < to));
        let all: io::Result<Vec<Vec<u8>>> = firsts.and_then(|firsts| firsts.map(read).collect());
        match all.map(|all| all.concat()) {
            Ok(all) => {
                for part in all.chunks(PART_BYTES) {
                    if parts.blocking_send(Ok(PrunedResponse { part: Bytes::copy_from_slice(part) })).is_err() {
                        return;
                    }
                }
            }
            Err(e) => drop(parts.blocking_send(Err(Status::data_loss(e.to_string())))),
        }
    });
    receiver
}
