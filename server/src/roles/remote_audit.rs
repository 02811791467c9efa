//! The audit log of another node, as a sink.
//!
//! Events that wait together are sent together: up to [`MAX_RUNNING`] batches are under way, and
//! what arrives meanwhile forms the next one. An event whose answer does not come is sent to the
//! next node too, so it may be recorded twice; it is never taken for recorded when it is not.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use provost_types::{AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture};
use provost_wire::node::{RecordRequest, Recorded, audit_client::AuditClient, recorded};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::transport::Channel;

/// The longest wait for records to be durable elsewhere.
const RECORD_LIMIT: Duration = Duration::from_secs(5);
/// Batches under way at once.
const MAX_RUNNING: usize = 2;
/// Events in one batch.
const MAX_BATCH_EVENTS: usize = 512;
/// Bytes of one message with events; an event that alone is larger travels alone.
const MAX_BATCH_BYTES: usize = 2 << 20;
/// Bytes of one message that an audit node takes.
pub const MAX_RECORD_MESSAGE_BYTES: usize = 16 << 20;
/// Events that wait; more wait at their callers.
const MAX_WAITING: usize = 4_096;

type Nodes = Arc<ArcSwap<Vec<Channel>>>;
type Outcome = Result<AuditReceipt, AuditUnavailable>;

/// Sends each record to the first audit node that takes it. Without one nothing is recorded, and
/// so nothing that must be recorded is done.
pub struct RemoteAudit {
    nodes: Nodes,
    waiting: mpsc::Sender<Waiting>,
}

struct Waiting {
    event: Bytes,
    outcome: oneshot::Sender<Outcome>,
}

impl RemoteAudit {
    /// A sink without nodes. Must be called within a tokio runtime.
    pub fn start() -> Arc<Self> {
        let (waiting, events) = mpsc::channel(MAX_WAITING);
        let nodes = Nodes::default();
        tokio::spawn(run(nodes.clone(), events));
        Arc::new(Self { nodes, waiting })
    }

    /// Replaces the nodes to record at.
    pub fn set(&self, nodes: Vec<Channel>) {
        self.nodes.store(Arc::new(nodes));
    }

    async fn send(&self, event: AuditEvent) -> Outcome {
        let event = serde_json::to_vec(&event).map_err(|e| AuditUnavailable(e.to_string()))?.into();
        let (outcome, answered) = oneshot::channel();
        let ended = || AuditUnavailable("this node is stopping".to_owned());
        self.waiting.send(Waiting { event, outcome }).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl AuditSink for RemoteAudit {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Outcome> {
        Box::pin(self.send(event))
    }
}

/// Forms batches until the sink is dropped.
async fn run(nodes: Nodes, mut events: mpsc::Receiver<Waiting>) {
    let running = Arc::new(Semaphore::new(MAX_RUNNING));
    while let Ok(place) = running.clone().acquire_owned().await {
        let mut batch = Vec::new();
        if events.recv_many(&mut batch, MAX_BATCH_EVENTS).await == 0 {
            return;
        }
        let nodes = nodes.load_full();
        tokio::spawn(async move {
            for part in parts(batch) {
                record(&nodes, part).await;
            }
            drop(place);
        });
    }
}

/// Cuts a batch into messages.
fn parts(batch: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut parts: Vec<Vec<Waiting>> = Vec::new();
    let mut bytes = 0;
    for waiting in batch {
        bytes += waiting.event.len();
        match parts.last_mut() {
            Some(part) if bytes <= MAX_BATCH_BYTES => part.push(waiting),
            _ => {
                bytes = waiting.event.len();
                parts.push(vec![waiting]);
            }
        }
    }
    parts
}

/// Answers every event of a message.
async fn record(nodes: &[Channel], mut open: Vec<Waiting>) {
    let mut last = "no node of the cluster has the role audit-log".to_owned();
    for channel in nodes {
        let mut client = AuditClient::new(channel.clone()).max_encoding_message_size(MAX_RECORD_MESSAGE_BYTES);
        let events = open.iter().map(|waiting| waiting.event.clone()).collect();
        let recorded = match tokio::time::timeout(RECORD_LIMIT, client.record(RecordRequest { events })).await {
            Ok(Ok(answer)) => answer.into_inner().recorded,
            Ok(Err(status)) => {
                status.message().clone_into(&mut last);
                continue;
            }
            Err(_) => {
                last = format!("the audit log did not answer in {RECORD_LIMIT:?}");
                continue;
            }
        };
        // What has no answer stays open.
        let mut recorded = recorded.into_iter();
        open.retain_mut(|waiting| match receipt_of(recorded.next()) {
            Ok(receipt) => {
                let (nobody, _) = oneshot::channel();
                let outcome = std::mem::replace(&mut waiting.outcome, nobody);
                // A caller that went away has its record all the same.
                let _ = outcome.send(Ok(receipt));
                false
            }
            Err(failure) => {
                last = failure;
                true
            }
        });
        if open.is_empty() {
            return;
        }
    }
    for waiting in open {
        let _ = waiting.outcome.send(Err(AuditUnavailable(last.clone())));
    }
}

fn receipt_of(recorded: Option<Recorded>) -> Result<AuditReceipt, String> {
    match recorded.and_then(|r| r.result) {
        Some(recorded::Result::Receipt(receipt)) => serde_json::from_slice(&receipt).map_err(|e| e.to_string()),
        Some(recorded::Result::Failure(failure)) => Err(failure),
        None => Err("the audit log left an event unanswered".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_bound_and_an_event_is_never_lost() {
        let waiting = |bytes: usize| Waiting { event: vec![0; bytes].into(), outcome: oneshot::channel().0 };
        let sizes = |events: &[usize]| -> Vec<usize> {
            parts(events.iter().map(|n| waiting(*n)).collect()).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[1, 1, 1]), [3]);
        assert_eq!(sizes(&[MAX_BATCH_BYTES, 1, MAX_BATCH_BYTES + 1, 1]), [1, 1, 1, 1]);
        assert_eq!(sizes(&[MAX_BATCH_BYTES - 1, 1, 1]), [2, 1]);
    }
}
