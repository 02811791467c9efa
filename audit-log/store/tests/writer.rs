//! Writers over a group that loses answers, is away, and is asked by two processes of one name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{START_NS, event, tenant, verify_both};
use provost_audit_store::{
    AuditLog, AuditLogConfig, AuditWriter, AuditWriterConfig, LocalProposer, OpenCall, ProposeError, Proposer, Query,
    Reply, WriterState, open, query,
};
use provost_audit_verify::Exit;
use provost_types::{AuditSink, BoxFuture, CallStatus, Phase};
use tempfile::tempdir;
use tokio::sync::Notify;

/// The group, with a way to it that fails in turn.
struct Flaky {
    group: Arc<LocalProposer>,
    calls: AtomicU64,
    /// Every so-manieth command is done and its answer lost; 0: none.
    lose_answer: u64,
    /// Every so-manieth command does not arrive; 0: none.
    lose_command: u64,
    away: AtomicBool,
}

impl Flaky {
    fn new(log: &AuditLog, lose_answer: u64, lose_command: u64) -> Arc<Self> {
        let (calls, away) = Default::default();
        Arc::new(Self { group: Arc::new(log.node().proposer()), calls, lose_answer, lose_command, away })
    }
}

fn lost() -> ProposeError {
    ProposeError::Again("the wire was cut".to_owned())
}

impl Proposer for Flaky {
    fn pipeline(&self) -> usize {
        3
    }
    fn writer_state(self: Arc<Self>, writer: String) -> BoxFuture<'static, Result<WriterState, ProposeError>> {
        self.group.clone().writer_state(writer)
    }
    fn propose(self: Arc<Self>, command: Bytes) -> BoxFuture<'static, Result<Reply, ProposeError>> {
        Box::pin(async move {
            let n = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            let hits = |every: u64| every > 0 && n.is_multiple_of(every);
            if self.away.load(Ordering::SeqCst) || hits(self.lose_command) {
                return Err(lost());
            }
            let reply = self.group.clone().propose(command).await;
            if hits(self.lose_answer) { Err(lost()) } else { reply }
        })
    }
    fn open_calls(
        self: Arc<Self>,
        writer: String,
        before: u64,
    ) -> BoxFuture<'static, Result<Vec<OpenCall>, ProposeError>> {
        self.group.clone().open_calls(writer, before)
    }
}

fn start(name: &str, deadline: Duration, proposer: Arc<dyn Proposer>) -> AuditWriter {
    let config = AuditWriterConfig { cluster: "provost".to_owned(), writer: name.to_owned(), deadline };
    AuditWriter::start(config, proposer)
}

const PATIENT: Duration = Duration::from_secs(120);

async fn group(dir: &Path) -> AuditLog {
    open(AuditLogConfig { deadline: PATIENT, ..AuditLogConfig::new(dir, "node-1") }).await.unwrap()
}

/// How often each call of a log stands there, by phase.
fn count(log: &AuditLog, phase: Phase) -> usize {
    let all = Query { log: Some(tenant("acme")), ..Query::default() };
    query(log.dir(), all).unwrap().filter(|found| found.as_ref().unwrap().record.phase == phase).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_and_lost_commands_double_and_lose_nothing() {
    let dir = tempdir().unwrap();
    let log = group(dir.path()).await;
    let flaky = Flaky::new(&log, 3, 5);
    let writer = start("dp-1", PATIENT, flaky.clone());
    let records = (0..600_u128).map(|call| {
        let writer = writer.clone();
        tokio::spawn(async move { writer.record(event(&tenant("acme"), Phase::Denied, call, START_NS)).await })
    });
    let mut places: Vec<u64> = Vec::new();
    for record in records.collect::<Vec<_>>() {
        places.push(record.await.unwrap().unwrap().index);
    }
    // Small batches too, each of which may be hit.
    for call in 600..640 {
        places.push(writer.record(event(&tenant("acme"), Phase::Denied, call, START_NS)).await.unwrap().index);
    }
    places.sort_unstable();
    assert_eq!(places, (0..640).collect::<Vec<u64>>(), "each record has one place");
    assert!(flaky.calls.load(Ordering::SeqCst) > 60, "nothing was sent again");
    assert_eq!(count(&log, Phase::Denied), 640);
    writer.close(PATIENT).await.unwrap();
    log.close().await.unwrap();
    let report = verify_both(&dir.path().join("audit"), None);
    assert_eq!(report.exit, Exit::Unanchored, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_started_last_writes_and_the_other_says_so() {
    let dir = tempdir().unwrap();
    let log = group(dir.path()).await;
    let denied = |call| event(&tenant("acme"), Phase::Denied, call, START_NS);
    let old = start("dp-1", PATIENT, Arc::new(log.node().proposer()));
    old.record(denied(1)).await.unwrap();
    let new = start("dp-1", PATIENT, Arc::new(log.node().proposer()));
    new.record(denied(2)).await.unwrap();
    assert_eq!((old.epoch(), new.epoch()), (Some(1), Some(2)));
    for _ in 0..2 {
        let refused = old.record(denied(3)).await.unwrap_err();
        assert!(refused.0.contains("PV-AUDIT-FENCED"), "{}", refused.0);
    }
    assert_eq!(old.epoch(), None, "it does not claim to write");
    new.record(denied(4)).await.unwrap();
    assert_eq!(count(&log, Phase::Denied), 3);
    new.close(PATIENT).await.unwrap();
    log.close().await.unwrap();
    assert_eq!(verify_both(&dir.path().join("audit"), None).exit, Exit::Unanchored);
}

/// Both may take one epoch: the second is told by the bytes of its first record.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_together_never_share_an_epoch() {
    let dir = tempdir().unwrap();
    let log = group(dir.path()).await;
    for round in 0..5_u128 {
        let writers: Vec<_> =
            (0..4).map(|_| start("dp-1", PATIENT, Flaky::new(&log, 4, 7) as Arc<dyn Proposer>)).collect();
        let tries = writers.iter().enumerate().map(|(n, writer)| {
            let call = round * 10 + n as u128;
            writer.record(event(&tenant("acme"), Phase::Denied, call, START_NS))
        });
        let outcomes = futures::future::join_all(tries).await;
        assert!(outcomes.iter().any(Result::is_ok), "nobody writes: {outcomes:?}");
        for refused in outcomes.iter().filter_map(|o| o.as_ref().err()) {
            assert!(refused.0.contains("PV-AUDIT-FENCED"), "{}", refused.0);
        }
        let mut epochs: Vec<u64> = writers.iter().filter_map(AuditWriter::epoch).collect();
        let alive = epochs.len();
        epochs.sort_unstable();
        epochs.dedup();
        assert_eq!(epochs.len(), alive, "two write in one epoch");
    }
    log.close().await.unwrap();
    let report = verify_both(&dir.path().join("audit"), None);
    assert_eq!(report.exit, Exit::Unanchored, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_away_refuses_in_time_by_its_cause_and_what_came_late_has_an_end() {
    let dir = tempdir().unwrap();
    let log = group(dir.path()).await;
    let flaky = Flaky::new(&log, 0, 0);
    let writer = start("dp-1", Duration::from_millis(400), flaky.clone());
    writer.ready().await.unwrap();
    flaky.away.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let intents = (0..50_u128).map(|call| writer.record(event(&tenant("acme"), Phase::Intent, call, START_NS)));
    for refused in futures::future::join_all(intents).await {
        let why = refused.unwrap_err().0;
        assert!(why.contains("not durable within 400 ms") && why.contains("the wire was cut"), "{why}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "refused only after {:?}", began.elapsed());
    flaky.away.store(false, Ordering::SeqCst);
    let began = Instant::now();
    while writer.record(event(&tenant("acme"), Phase::Denied, 99, START_NS)).await.is_err() {
        assert!(began.elapsed() < PATIENT, "it does not go on by itself");
    }
    writer.close(PATIENT).await.unwrap();
    let cancelled = Query { log: Some(tenant("acme")), status: Some(CallStatus::Cancelled), ..Query::default() };
    let late = query(log.dir(), cancelled).unwrap().count();
    assert_eq!(late, count(&log, Phase::Intent), "a call that did not run has no end");
    log.close().await.unwrap();
}

/// What waits for a record holds no copy of its event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_on_its_way_is_smaller_than_its_event() {
    let dir = tempdir().unwrap();
    let log = group(dir.path()).await;
    let denied = event(&tenant("acme"), Phase::Denied, 1, START_NS);
    let event_bytes = size_of_val(&denied);
    let recording = log.record(denied);
    let waiting_bytes = size_of_val(&*recording);
    assert!(waiting_bytes < event_bytes, "{waiting_bytes} of {event_bytes}");
    assert_eq!(recording.await.unwrap().index, 0);
    log.close().await.unwrap();
}

/// The group, which does nothing until it is let.
struct Held {
    group: Arc<LocalProposer>,
    asked: AtomicU64,
    open: tokio::sync::watch::Sender<bool>,
}

impl Proposer for Held {
    fn pipeline(&self) -> usize {
        4
    }
    fn writer_state(self: Arc<Self>, writer: String) -> BoxFuture<'static, Result<WriterState, ProposeError>> {
        self.group.clone().writer_state(writer)
    }
    fn propose(self: Arc<Self>, command: Bytes) -> BoxFuture<'static, Result<Reply, ProposeError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let _ = self.open.subscribe().wait_for(|open| *open).await;
            self.group.clone().propose(command).await
        })
    }
    fn open_calls(
        self: Arc<Self>,
        writer: String,
        before: u64,
    ) -> BoxFuture<'static, Result<Vec<OpenCall>, ProposeError>> {
        self.group.clone().open_calls(writer, before)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_others_are_before_waits_until_it_is_large() {
    let dir = tempdir().unwrap();
    let log = group(dir.path()).await;
    let (open, _) = tokio::sync::watch::channel(true);
    let held = Arc::new(Held { group: Arc::new(log.node().proposer()), asked: AtomicU64::new(0), open });
    let writer = start("dp-1", PATIENT, held.clone());
    writer.ready().await.unwrap();
    held.open.send_replace(false);
    let before = held.asked.load(Ordering::SeqCst);
    let mut records = Vec::new();
    // How many batches there are after so many records: of one, one, 64 and 66 records.
    for (count, batches) in [(1, 1), (2, 2), (3, 2), (65, 2), (66, 3), (131, 3), (132, 4)] {
        while records.len() < count {
            let (writer, call) = (writer.clone(), records.len() as u128);
            records.push(tokio::spawn(async move {
                writer.record(event(&tenant("acme"), Phase::Denied, call, START_NS)).await
            }));
        }
        let began = Instant::now();
        while held.asked.load(Ordering::SeqCst) - before < batches {
            assert!(began.elapsed() < PATIENT, "{count} records wait, and that is enough");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Long enough for a batch that should not be there to show.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(held.asked.load(Ordering::SeqCst) - before, batches, "after {count} records");
    }
    held.open.send_replace(true);
    for record in records {
        record.await.unwrap().unwrap();
    }
    assert_eq!(count(&log, Phase::Denied), 132);
    writer.close(PATIENT).await.unwrap();
    log.close().await.unwrap();
    assert_eq!(verify_both(&dir.path().join("audit"), None).exit, Exit::Unanchored);
}

/// On one thread, where each task that records lets the next one run first: the task that makes batches is woken by the first
/// of them, and runs between them.
#[tokio::test]
async fn records_of_tasks_that_can_run_share_a_batch() {
    let dir = tempdir().unwrap();
    let log = group(dir.path()).await;
    let (open, _) = tokio::sync::watch::channel(true);
    let held = Arc::new(Held { group: Arc::new(log.node().proposer()), asked: AtomicU64::new(0), open });
    let writer = start("dp-1", PATIENT, held.clone());
    writer.ready().await.unwrap();
    let before = held.asked.load(Ordering::SeqCst);
    let turns: Arc<[Notify]> = (0..8).map(|_| Notify::new()).collect();
    let tasks = (0..turns.len()).map(|task| {
        let (writer, turns) = (writer.clone(), turns.clone());
        tokio::spawn(async move {
            turns[task].notified().await;
            if let Some(next) = turns.get(task + 1) {
                next.notify_one();
            }
            writer.record(event(&tenant("acme"), Phase::Denied, task as u128, START_NS)).await
        })
    });
    let tasks: Vec<_> = tasks.collect();
    // Each waits for its turn by now.
    tokio::task::yield_now().await;
    turns[0].notify_one();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(held.asked.load(Ordering::SeqCst) - before, 1, "batches");
    writer.close(PATIENT).await.unwrap();
    log.close().await.unwrap();
}

/// A process ends; the next one of its name ends its calls, whichever way it reaches the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_process_ends_the_calls_of_the_last_and_of_nobody_else() {
    let dir = tempdir().unwrap();
    let log = group(dir.path()).await;
    let intent = |call| event(&tenant("acme"), Phase::Intent, call, START_NS);
    let (mine, other) = (Flaky::new(&log, 3, 0), Flaky::new(&log, 0, 0));
    let first = start("dp-1", PATIENT, mine.clone());
    let second = start("dp-2", PATIENT, other);
    for call in 0..700 {
        first.record(intent(call)).await.unwrap();
    }
    second.record(intent(900)).await.unwrap();
    drop(first);
    let next = start("dp-1", PATIENT, mine);
    next.ready().await.unwrap();
    let unknown = Query { log: Some(tenant("acme")), status: Some(CallStatus::Unknown), ..Query::default() };
    let ended: Vec<_> = query(log.dir(), unknown).unwrap().map(Result::unwrap).collect();
    assert_eq!(ended.len(), 700);
    assert!(ended.iter().all(|found| found.record.writer_id == "dp-1" && found.record.epoch == 2));
    second.record(event(&tenant("acme"), Phase::Outcome, 900, START_NS)).await.unwrap();
    log.close().await.unwrap();
    let report = verify_both(&dir.path().join("audit"), None);
    assert!(report.logs.iter().all(|l| l.open_intents == 0), "{report}");
}
