//! What this replica gives another one: read on a blocking thread, in parts.

use std::io;

use bytes::Bytes;
use provost_audit_core::{BLOCK_RECORDS, RecordView, SEGMENT_LEAVES};
use provost_audit_verify::{HISTORY_FILE, LogLayout, LogReader};
use provost_wire::audit::{CheckpointsResponse, LeavesResponse, PrunedResponse};
use tokio::sync::mpsc;
use tonic::Status;

use crate::open_body::BodyReader;

/// Bytes of records in one message.
const PART_BYTES: usize = 1 << 20;
/// Messages that wait for the network.
const PARTS_QUEUED: usize = 4;

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
