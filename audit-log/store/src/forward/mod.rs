//! Sends records on, to syslog or to an OTLP collector: each at least once, in the log's order.
//!
//! Invariants: the cursor moves only after the receiver took the batch, and is durable before the
//! next batch is sent; a receiver that is slow or dead delays nothing but itself, because what is
//! sent is read from the files, never handed over by those who record.
//! If the process dies between the receiver's taking a batch and the cursor's reaching the disk,
//! that batch is sent again: receivers tell duplicates by log and index.
//! Left out: who configures it; sending from several nodes once (each node that is told to forward
//! forwards).

mod cursor;
mod otlp;
mod syslog;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_audit_core::LogId;
use provost_types::BoxFuture;

use crate::{follow::Follower, query::Found};
use cursor::Cursor;

pub use otlp::OtlpTarget;
pub use syslog::SyslogTarget;

/// Records in one batch.
const MAX_BATCH_RECORDS: usize = 512;
/// Bytes of records in one batch, about.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// How often the files are looked at while nothing comes.
const POLL: Duration = Duration::from_millis(200);
/// A replica that starts has so long to bring what its cursor has seen.
const AHEAD_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const AHEAD_POLL: Duration = Duration::from_millis(500);
/// First and longest pause after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A batch that is not taken by then has failed.
const DELIVERY_LIMIT: Duration = Duration::from_secs(30);

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardTarget {
    /// RFC 5424 over TCP or TLS.
    Syslog(SyslogTarget),
    /// OTLP logs over HTTP.
    Otlp(OtlpTarget),
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardConfig {
    /// Names the cursor and the metrics.
    pub name: String,
    /// Where records go.
    pub target: ForwardTarget,
    /// Which logs; empty: all.
    pub logs: Vec<LogId>,
    /// Without a cursor: pass over what is already there.
    pub from_now: bool,
}

/// Why forwarding cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("PV-AUDIT-FORWARD: `{name}`: {why}")]
pub struct ForwardError {
    /// The receiver's name.
    pub name: String,
    /// What is wrong and what to do.
    pub why: String,
}

/// How a receiver stands.
#[derive(Clone, Debug, Default)]
pub struct ForwardStatus {
    /// The next record of each log to be sent.
    pub positions: BTreeMap<LogId, u64>,
    /// Records that were taken, in this process's life.
    pub sent: u64,
    /// Deliveries that failed.
    pub failures: u64,
    /// Records that the receiver took and refused for good.
    pub rejected: u64,
    /// Records that were pruned before they could be sent.
    pub pruned: u64,
    /// Why the last delivery failed; `None` once one succeeded.
    pub last_error: Option<String>,
    /// When a delivery last succeeded.
    pub last_taken: Option<Instant>,
}

/// What a receiver says of a batch that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    rejected: u64,
}

/// Why a batch was not taken.
#[derive(Debug)]
struct Refused {
    why: String,
    /// The receiver wants to be left alone for so long.
    wait: Option<Duration>,
}

impl Refused {
    fn new(why: impl ToString) -> Self {
        Self { why: why.to_string(), wait: None }
    }
}

/// Takes batches.
trait Receiver: Send {
    /// Resolves when the receiver has taken all of it.
    fn deliver<'a>(&'a mut self, batch: &'a [Sent]) -> BoxFuture<'a, Result<Taken, Refused>>;
}

/// A record on its way, with its log's origin.
struct Sent {
    found: Found,
    origin: Arc<str>,
}

/// Sends one receiver's records until it is dropped.
pub struct Forwarder {
    name: String,
    audit_dir: PathBuf,
    receiver: Box<dyn Receiver>,
    follower: Follower,
    cursor: Cursor,
    status: Arc<Mutex<ForwardStatus>>,
}

/// A look at a forwarder while it runs.
#[derive(Clone)]
pub struct ForwardHandle {
    name: String,
    status: Arc<Mutex<ForwardStatus>>,
}

impl ForwardHandle {
    /// The receiver's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it stands.
    pub fn status(&self) -> ForwardStatus {
        self.status.lock().clone()
    }
}

impl Forwarder {
    /// Reads the cursor in `cursor_dir` and the files that the target names; connects to nothing.
    pub fn open(config: ForwardConfig, audit_dir: &Path, cursor_dir: &Path) -> Result<Self, ForwardError> {
        let name = config.name;
        let wrong = |why: String| ForwardError { name: name.clone(), why };
        let receiver: Box<dyn Receiver> = match config.target {
            ForwardTarget::Syslog(target) => Box::new(syslog::Syslog::new(target).map_err(wrong)?),
            ForwardTarget::Otlp(target) => Box::new(otlp::Otlp::new(target).map_err(wrong)?),
        };
        let cursor = Cursor::open(cursor_dir, &name).map_err(wrong)?;
        let mut follower = Follower::new(audit_dir, config.logs);
        match cursor.positions() {
            Some(positions) => positions.iter().for_each(|(log, next)| follower.set(log.clone(), *next)),
            None if config.from_now => follower.skip_to_end().map_err(|e| wrong(e.to_string()))?,
            None => {}
        }
        let positions = follower.positions();
        let status = Arc::new(Mutex::new(ForwardStatus { positions, ..ForwardStatus::default() }));
        Ok(Self { name, audit_dir: audit_dir.to_owned(), receiver, follower, cursor, status })
    }

    /// A look at it while it runs.
    pub fn handle(&self) -> ForwardHandle {
        ForwardHandle { name: self.name.clone(), status: self.status.clone() }
    }

    /// Says when the cursor is ahead of the log, and stays so: a replica that starts brings its last
    /// records a moment later.
    async fn compare(&mut self) {
        let began = Instant::now();
        loop {
            let ahead = match self.follower.ahead() {
                Ok(ahead) => ahead,
                Err(cause) => return tracing::warn!(forward = self.name, %cause, "the log cannot be read yet"),
            };
            if ahead.is_empty() {
                return;
            }
            if began.elapsed() >= AHEAD_LIMIT {
                for (log, next) in ahead {
                    tracing::error!(
                        forward = self.name, %log, next,
                        "PV-AUDIT-FORWARD: the cursor is ahead of the log: the log was rolled back or replaced, and \
                         what it holds below the cursor is not sent again; run `provost audit verify`"
                    );
                }
                return;
            }
            tokio::time::sleep(AHEAD_POLL).await;
        }
    }

    /// Runs without end. May be dropped at any time: what was not confirmed is sent again by the
    /// next start.
    pub async fn run(mut self) {
        let mut pause = BACK_OFF.0;
        // Before the first batch, so that "from now" holds over a restart that comes before it.
        while let Err(why) = self.save().await {
            self.failed(&why);
            back_off(&mut pause, None).await;
        }
        self.compare().await;
        loop {
            let batch = match self.next_batch().await {
                Ok(batch) => batch,
                Err(why) => {
                    self.failed(&why);
                    back_off(&mut pause, None).await;
                    continue;
                }
            };
            if batch.is_empty() {
                tokio::time::sleep(POLL).await;
                continue;
            }
            self.deliver(&batch).await;
            pause = BACK_OFF.0;
            while let Err(why) = self.save().await {
                self.failed(&why);
                back_off(&mut pause, None).await;
            }
            pause = BACK_OFF.0;
        }
    }

    async fn deliver(&mut self, batch: &[Sent]) {
        let mut pause = BACK_OFF.0;
        loop {
            let result = tokio::time::timeout(DELIVERY_LIMIT, self.receiver.deliver(batch)).await;
            let refused = match result {
                Ok(Ok(taken)) => {
                    let mut status = self.status.lock();
                    status.sent += batch.len() as u64;
                    status.rejected += taken.rejected;
                    status.pruned = self.follower.pruned();
                    status.last_error = None;
                    status.last_taken = Some(Instant::now());
                    return;
                }
                Ok(Err(refused)) => refused,
                Err(_) => Refused::new(format!("it did not take a batch within {} s", DELIVERY_LIMIT.as_secs())),
            };
            self.failed(&refused.why);
            back_off(&mut pause, refused.wait).await;
        }
    }

    fn failed(&self, why: &str) {
        let mut status = self.status.lock();
        status.failures += 1;
        // Once for each cause: a receiver that is away for a day fills no log.
        if status.last_error.as_deref() != Some(why) {
            tracing::warn!(forward = self.name, %why, "PV-AUDIT-FORWARD: records are not taken; they wait and are sent again");
        }
        status.last_error = Some(why.to_owned());
    }

    async fn next_batch(&mut self) -> Result<Vec<Sent>, String> {
        let mut follower = std::mem::replace(&mut self.follower, Follower::new(&self.audit_dir, Vec::new()));
        let read = tokio::task::spawn_blocking(move || {
            let before = follower.positions();
            let batch = follower.poll(MAX_BATCH_RECORDS, MAX_BATCH_BYTES);
            if batch.is_err() {
                // What was read of a batch that failed is read again.
                before.into_iter().for_each(|(log, next)| follower.set(log, next));
            }
            (follower, batch)
        });
        let (follower, batch) = read.await.map_err(|e| e.to_string())?;
        self.follower = follower;
        let mut origins: BTreeMap<LogId, Arc<str>> = BTreeMap::new();
        let sent = batch.map_err(|e| e.to_string())?.into_iter().map(|found| {
            let origin = origins.entry(found.log.clone());
            let origin = origin.or_insert_with(|| crate::export::origin_of(&self.audit_dir, &found.log).into());
            Sent { origin: origin.clone(), found }
        });
        Ok(sent.collect())
    }

    async fn save(&mut self) -> Result<(), String> {
        let positions = self.follower.positions();
        self.cursor.save(&positions).await?;
        self.status.lock().positions = positions;
        Ok(())
    }
}

/// Sleeps, longer each time, with some chance in it so that several do not come back together.
async fn back_off(pause: &mut Duration, asked: Option<Duration>) {
    let share = 0.75 + rand::random::<f64>() * 0.5;
    let wait = asked.map_or(*pause, |asked| asked.clamp(*pause, BACK_OFF.1));
    tokio::time::sleep(wait.mul_f64(share)).await;
    *pause = (*pause * 2).min(BACK_OFF.1);
}
