//! A process's own way into the audit log, wherever the log's replicas run.
//!
//! Invariants: records of one process stand in the log in the order of their numbers, each once;
//! a caller is answered only when its record is durable on a quorum, or refused within its
//! deadline; a process whose name writes elsewhere in a later epoch records nothing more.
//! Left out: which replica is asked (the [`Proposer`] knows).

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use provost_types::{AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    batch::Answer,
    error::AuditError,
    own_events::{now_ns, own_event},
    proposer::{ProposeError, Proposer},
    recovery::unknown_outcome,
    sequencer::{Asked, Message, QUEUE, Sequencer, Shared, Stage},
};

/// Between two tries to end the calls of an earlier start.
const RECOVERY_PAUSE: Duration = Duration::from_millis(500);

/// Who writes.
#[derive(Clone, Debug)]
pub struct AuditWriterConfig {
    /// The cluster's name: the first part of every log's origin.
    pub cluster: String,
    /// This process's name: the `writer_id` of its records.
    pub writer: String,
    /// A caller waits this long for its record to become durable before it is refused.
    pub deadline: Duration,
}

/// Records what happens in this process; clones share it.
#[derive(Clone)]
pub struct AuditWriter {
    inner: Arc<Inner>,
}

struct Inner {
    config: AuditWriterConfig,
    queue: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    recovered: watch::Receiver<Option<Result<(), String>>>,
}

impl AuditWriter {
    /// Starts to write: asks the group where this writer stands, takes the next epoch, and ends the
    /// calls that were running when an earlier process ended. All of that in the background, for as
    /// long as it takes; records wait for it. Must be called within a tokio runtime.
    pub fn start(config: AuditWriterConfig, proposer: Arc<dyn Proposer>) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let (stage, _) = watch::channel(Stage::Starting);
        let shared = Arc::new(Shared { stage, cause: Mutex::default() });
        let sequencer = Sequencer::new(proposer.clone(), config.cluster.clone(), config.writer.clone(), shared.clone());
        tokio::spawn(sequencer.run(messages));
        let (done, recovered) = watch::channel(None);
        let inner = Arc::new(Inner { config, queue, shared, recovered });
        tokio::spawn(recover(Arc::downgrade(&inner), proposer, done));
        Self { inner }
    }

    /// This start's epoch; `None` until the group took it.
    pub fn epoch(&self) -> Option<u64> {
        match &*self.inner.shared.stage.borrow() {
            Stage::Writing { epoch } => Some(*epoch),
            _ => None,
        }
    }

    /// Waits until the group has taken this start's epoch, and the calls of earlier starts have
    /// their outcome.
    pub async fn ready(&self) -> Result<(), AuditError> {
        let mut recovered = self.inner.recovered.clone();
        let done = recovered.wait_for(Option::is_some).await;
        match done.as_deref() {
            Ok(Some(Err(why))) => Err(AuditError::Unavailable(why.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(AuditError::Unavailable("the writer has ended".to_owned())),
        }
    }

    /// Records `log.stop` and finishes what was handed in, for at most `limit`. Records handed in
    /// later are refused.
    pub async fn close(&self, limit: Duration) -> Result<(), AuditError> {
        let closing = async {
            if let Some(epoch) = self.epoch() {
                self.submit(Box::new(own_event(&self.inner.config.writer, "log.stop", epoch)), false).await?;
            }
            let (done, closed) = oneshot::channel();
            if self.inner.queue.send(Message::Close(done)).await.is_ok() && self.epoch().is_some() {
                let _ = closed.await;
            }
            Ok::<_, AuditUnavailable>(())
        };
        match tokio::time::timeout(limit, closing).await {
            Ok(closed) => closed.map_err(|e| AuditError::Unavailable(e.0)),
            Err(_) => Err(AuditError::Unavailable(self.late(limit))),
        }
    }

    /// An event is large, and each future on its way would have a copy of it: it is boxed before the first.
    async fn submit(&self, event: Box<AuditEvent>, if_awaited: bool) -> Answer {
        let closed = || AuditUnavailable("the audit log is closed".to_owned());
        let (reply, answer) = oneshot::channel();
        let message = Message::Record(Asked { event, reply, if_awaited });
        self.inner.queue.send(message).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn submit_in_time(&self, event: Box<AuditEvent>, if_awaited: bool) -> Answer {
        let deadline = self.inner.config.deadline;
        match tokio::time::timeout(deadline, self.submit(event, if_awaited)).await {
            Ok(answer) => answer,
            Err(_) => Err(AuditUnavailable(self.late(deadline))),
        }
    }

    fn late(&self, limit: Duration) -> String {
        let cause = self.inner.shared.cause.lock().clone();
        let cause = cause.unwrap_or_else(|| "the audit nodes are slow".to_owned());
        format!("not durable within {} ms: {cause}", limit.as_millis())
    }
}

impl AuditSink for AuditWriter {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        self.record_boxed(Box::new(event))
    }

    fn record_boxed(&self, event: Box<AuditEvent>) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        Box::pin(self.submit_in_time(event, false))
    }

    fn record_if_awaited(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        Box::pin(self.submit_in_time(Box::new(event), true))
    }
}

/// Ends the calls of earlier starts, a part at a time: those that were ended are not named again.
async fn recover(inner: Weak<Inner>, proposer: Arc<dyn Proposer>, done: watch::Sender<Option<Result<(), String>>>) {
    let Some(mut stage) = inner.upgrade().map(|inner| inner.shared.stage.subscribe()) else { return };
    let epoch = match stage.wait_for(|stage| *stage != Stage::Starting).await.as_deref() {
        Ok(Stage::Writing { epoch }) => *epoch,
        Ok(Stage::Failed(why)) => return drop(done.send_replace(Some(Err(why.clone())))),
        _ => return,
    };
    let mut ended = 0;
    loop {
        let Some(writer) = inner.upgrade().map(|inner| AuditWriter { inner }) else { return };
        match end_some(&writer, &proposer, epoch).await {
            Ok(0) => break,
            Ok(some) => ended += some,
            Err(ProposeError::Again(why)) => {
                tracing::debug!(%why, "calls of an earlier start are not ended yet");
                drop(writer);
                tokio::time::sleep(RECOVERY_PAUSE).await;
            }
            Err(ProposeError::Refused(why)) => {
                tracing::error!(%why, "calls of an earlier start cannot be ended");
                return drop(done.send_replace(Some(Err(why))));
            }
        }
    }
    if ended > 0 {
        tracing::warn!(calls = ended, "calls of an earlier start ended as unknown");
    }
    done.send_replace(Some(Ok(())));
}

async fn end_some(writer: &AuditWriter, proposer: &Arc<dyn Proposer>, epoch: u64) -> Result<usize, ProposeError> {
    let name = writer.inner.config.writer.clone();
    let calls = proposer.clone().open_calls(name, epoch).await?;
    let outcomes: Result<Vec<_>, _> = calls.iter().map(|call| unknown_outcome(call, now_ns())).collect();
    let outcomes = outcomes.map_err(|e| ProposeError::Refused(e.to_string()))?;
    let records = outcomes.into_iter().map(|outcome| writer.submit(Box::new(outcome), false));
    futures::future::try_join_all(records).await.map_err(|e| ProposeError::Refused(e.0))?;
    Ok(calls.len())
}
