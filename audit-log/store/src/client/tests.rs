//! A writer over replicas that answer late.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use provost_types::AuditSink;
use tonic::Response;

use super::*;
use crate::{AuditWriter, AuditWriterConfig, Command, own_events::own_event};

/// What each commit takes, whoever is asked.
const COMMIT: Duration = Duration::from_secs(3);
/// What a record may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Replicas that commit whatever reaches them, whether or not somebody still waits for the answer.
#[derive(Default)]
struct SlowGroup {
    client: AuditClient,
    asked: AtomicU64,
    /// Batches that have their place, by epoch and number.
    placed: Mutex<BTreeSet<(u64, u64)>>,
    /// Records of them, all in the cluster's log.
    records: AtomicU64,
}

impl SlowGroup {
    /// The machine: a batch that it has is answered, not appended again.
    fn place(&self, command: &Bytes) -> Reply {
        let Ok(Command::Append(append)) = Command::decode(command) else {
            return Reply::Invalid("no batch".to_owned());
        };
        if self.placed.lock().insert((append.epoch, append.batch)) {
            self.records.fetch_add(append.records.len() as u64, Ordering::SeqCst);
        }
        Reply::Appended(vec![(LogId::CLUSTER, append.batch)])
    }
}

impl Proposer for SlowGroup {
    fn pipeline(&self) -> usize {
        1
    }

    fn writer_state(self: Arc<Self>, _: String) -> BoxFuture<'static, Result<WriterState, ProposeError>> {
        let epoch = u64::from(!self.placed.lock().is_empty());
        Box::pin(std::future::ready(Ok(WriterState { epoch, chains: BTreeMap::new() })))
    }

    fn propose(self: Arc<Self>, command: Bytes) -> BoxFuture<'static, Result<Reply, ProposeError>> {
        Box::pin(async move {
            let nth = self.asked.fetch_add(1, Ordering::SeqCst);
            let group = self.clone();
            let committed = tokio::spawn(async move {
                tokio::time::sleep(COMMIT).await;
                let reply = group.place(&command).encode().into();
                Response::new(AppendResponse { reply, keys_generation: 0 })
            });
            let call = async move { committed.await.map_err(|e| Status::internal(e.to_string())) };
            self.client.append(&format!("n{}", nth % 3), call).await
        })
    }

    fn open_calls(self: Arc<Self>, _: String, _: u64) -> BoxFuture<'static, Result<Vec<OpenCall>, ProposeError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

#[tokio::test(start_paused = true)]
async fn commits_that_take_longer_than_the_first_wait_are_heard_and_stand_once() {
    let group = Arc::<SlowGroup>::default();
    let config = AuditWriterConfig { cluster: "provost".to_owned(), writer: "dp-1".to_owned(), deadline: DEADLINE };
    let writer = AuditWriter::start(config, group.clone());
    tokio::time::timeout(Duration::from_secs(60), writer.ready()).await.expect("no answer is ever heard").unwrap();
    let begun = group.asked.load(Ordering::SeqCst);
    assert!((2..=3).contains(&begun), "the first record was sent {begun} times");
    for _ in 0..3 {
        writer.record(own_event("dp-1", "log.test", 1)).await.unwrap();
    }
    assert_eq!(group.asked.load(Ordering::SeqCst), begun + 3, "what is heard is not sent again");
    assert_eq!(group.records.load(Ordering::SeqCst), 4, "log.start and three records, each once");
    assert_eq!(group.placed.lock().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_says_nothing_is_left_after_the_first_wait() {
    let client = AuditClient::default();
    let began = tokio::time::Instant::now();
    let silent = std::future::pending::<Result<Response<AppendResponse>, Status>>();
    let error = client.append("n1", silent).await.unwrap_err();
    assert_eq!(error, ProposeError::Again("audit node n1 does not answer".to_owned()));
    assert_eq!(began.elapsed().as_secs(), FIRST.as_secs());
    assert_eq!(client.inner.at.load(Ordering::Relaxed), 1, "the next one is asked");
    // The next one refuses: that it did so at once says nothing about how long a commit takes.
    let refused = async { Err::<Response<AppendResponse>, _>(Status::unavailable("PV-AUDIT-UNAVAILABLE: starting")) };
    client.append("n2", refused).await.unwrap_err();
    assert_eq!(client.inner.patience.limit(), FIRST * 2);
}
