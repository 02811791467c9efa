//! Keeps the newest audit checkpoints in the control plane's consensus, and compares the log with them.
//!
//! Rule: a contradiction refuses the start (`PV-AUDIT-ROLLED-BACK`); one that is found later ends the
//! recording, and with it every call that must be recorded. A control plane that does not answer stops
//! nothing: the log starts and goes on, says so, and is compared as soon as there is an answer.
//! Only the leader of the audit group compares and proposes: a replica that lags is behind without
//! having been rolled back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use provost_audit_core::{Checkpoint, Hash, LogId};
use provost_audit_store::{AuditError, AuditNode, HeldCheckpoint};
use provost_control_api::ControlNode;
use provost_control_state::{AuditCheckpoint, MAX_AUDIT_CHECKPOINTS};
use provost_types::BoxFuture;
use provost_wire::{
    admin::Failure,
    node::{self as wire, HeldRequest, HoldRequest, audit_checkpoints_client::AuditCheckpointsClient},
    tls::{self, Expect, Identity},
};
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

/// Between two looks at the log.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two proposals: each is an entry of the control plane's log.
const HOLD_EVERY: Duration = Duration::from_secs(5);
/// One control-plane node gets so long to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The longest wait for an answer at start.
const START_LIMIT: Duration = Duration::from_secs(5);
/// Between two warnings that nobody answers.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// The code of a refusal because the log would go back.
const ROLLED_BACK: &str = "PV-AUDIT-ROLLED-BACK";

/// Why checkpoints are not held.
#[derive(Debug)]
pub enum HoldError {
    /// What is held contradicts them.
    RolledBack(String),
    /// Nobody answered, or not well; another time.
    Unavailable(String),
}

/// The control plane as it holds checkpoints.
pub trait Holder: Send + Sync {
    /// What is held.
    fn held(&self) -> BoxFuture<'_, Result<Vec<AuditCheckpoint>, HoldError>>;
    /// Holds these.
    fn hold(&self, checkpoints: Vec<AuditCheckpoint>) -> BoxFuture<'_, Result<(), HoldError>>;
}

/// A control-plane node in this process.
pub struct Local(pub ControlNode);

impl Holder for Local {
    /// Without a quorum, what this replica knows: what is held only grows, so that is true as well.
    fn held(&self) -> BoxFuture<'_, Result<Vec<AuditCheckpoint>, HoldError>> {
        Box::pin(async move {
            use provost_control_api::identity::Registry;
            match tokio::time::timeout(ANSWER_LIMIT, self.0.held_audit_checkpoints()).await {
                Ok(Ok(held)) => Ok(held),
                _ => Ok(Registry::cluster(&self.0).audit_checkpoints().cloned().collect()),
            }
        })
    }

    fn hold(&self, checkpoints: Vec<AuditCheckpoint>) -> BoxFuture<'_, Result<(), HoldError>> {
        Box::pin(async move {
            self.0.hold_audit_checkpoints(checkpoints).await.map_err(|e| match e.code() {
                ROLLED_BACK => HoldError::RolledBack(e.to_string()),
                _ => HoldError::Unavailable(e.to_string()),
            })
        })
    }
}

/// Control-plane nodes elsewhere.
pub struct Remote {
    nodes: Vec<Channel>,
    at: AtomicUsize,
}

impl Remote {
    /// At these addresses.
    pub fn new(identity: &Arc<Identity>, control_plane: &[String]) -> Self {
        let channel =
            |address: &String| tls::channel(identity.clone(), address, Expect::role(tls::Role::ControlPlane)).ok();
        Self { nodes: control_plane.iter().filter_map(channel).collect(), at: AtomicUsize::new(0) }
    }

    /// Asks one node after the other, beginning with the one that answered last.
    async fn ask<T, F>(&self, call: impl Fn(AuditCheckpointsClient<Channel>) -> F) -> Result<T, HoldError>
    where
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let mut last = "no control-plane node is configured".to_owned();
        for _ in 0..self.nodes.len() {
            let at = self.at.load(Ordering::Relaxed);
            let Some(node) = self.nodes.get(at % self.nodes.len()) else { break };
            match tokio::time::timeout(ANSWER_LIMIT, call(AuditCheckpointsClient::new(node.clone()))).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => {
                    let failure = Failure::of(&status).to_string();
                    if failure.contains(ROLLED_BACK) {
                        return Err(HoldError::RolledBack(failure));
                    }
                    last = failure;
                }
                Err(_) => last = format!("no answer in {ANSWER_LIMIT:?}"),
            }
            self.at.store(at + 1, Ordering::Relaxed);
        }
        Err(HoldError::Unavailable(last))
    }
}

impl Holder for Remote {
    fn held(&self) -> BoxFuture<'_, Result<Vec<AuditCheckpoint>, HoldError>> {
        Box::pin(async move {
            let answer = self.ask(|mut client| async move { client.held(HeldRequest {}).await }).await?;
            let stored =
                |c: wire::AuditCheckpoint| AuditCheckpoint { log: c.log, size: c.size, root: c.root, note: c.note };
            Ok(answer.into_inner().checkpoints.into_iter().map(stored).collect())
        })
    }

    fn hold(&self, checkpoints: Vec<AuditCheckpoint>) -> BoxFuture<'_, Result<(), HoldError>> {
        Box::pin(async move {
            let sent =
                |c: AuditCheckpoint| wire::AuditCheckpoint { log: c.log, size: c.size, root: c.root, note: c.note };
            let request = HoldRequest { checkpoints: checkpoints.into_iter().map(sent).collect() };
            let call = |mut client: AuditCheckpointsClient<Channel>| {
                let request = request.clone();
                async move { client.hold(request).await }
            };
            self.ask(call).await.map(drop)
        })
    }
}

/// Before anything is signed: refuses a log that contradicts what is held. A replica that does not lead
/// is not asked; a control plane that does not answer in time refuses nothing; [`run`] compares later.
pub async fn at_start(log: &AuditNode, holder: &dyn Holder) -> Result<(), AuditError> {
    if !log.is_leader() {
        return Ok(());
    }
    let held = tokio::time::timeout(START_LIMIT, holder.held()).await;
    match held.unwrap_or_else(|_| Err(HoldError::Unavailable(format!("no answer in {START_LIMIT:?}")))) {
        Ok(held) => compare(log, held).await,
        Err(HoldError::RolledBack(why) | HoldError::Unavailable(why)) => {
            tracing::warn!(why, "the audit log starts without having been compared with the control plane's copy");
            Ok(())
        }
    }
}

/// How a log is called in the control plane: `ORIGIN+KEYID`, with the first key that signed it. Two audit
/// groups that do not share their key are two logs, though they may have one origin; a rotation makes
/// no new log, so that storage from before it is seen to be older.
fn held_name(log: &AuditNode, id: &LogId) -> String {
    let key = log.first_key(id);
    let [a, b, c, d] = key.id();
    format!("{}+{a:02x}{b:02x}{c:02x}{d:02x}", key.name)
}

/// A leader that was just elected may not have applied yet what was acknowledged before. One that is not
/// heard by the others, or leads no longer, compares nothing: that error is no contradiction.
async fn compare(log: &AuditNode, held: Vec<AuditCheckpoint>) -> Result<(), AuditError> {
    log.up_to_date().await?;
    let read = |c: AuditCheckpoint| {
        let root = Hash::parse(c.root.as_bytes()).ok()?;
        let (origin, _) = c.log.rsplit_once('+')?;
        let ours = LogId::from_origin(origin).is_some_and(|id| held_name(log, &id) == c.log);
        ours.then(|| HeldCheckpoint { log: origin.to_owned(), size: c.size, root })
    };
    let held: Vec<HeldCheckpoint> = held.into_iter().filter_map(read).collect();
    let log = log.clone();
    let compared = tokio::task::spawn_blocking(move || log.compare_with_held(&held)).await;
    compared.unwrap_or_else(|e| Err(AuditError::Unavailable(e.to_string())))
}

/// Compares, then keeps the copy up to date, while this node leads the audit group.
pub async fn run(log: AuditNode, holder: Arc<dyn Holder>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = Turn { log, holder, compared: false, held: BTreeMap::new(), next: Instant::now(), warned: None };
    loop {
        ticks.tick().await;
        if !turn.log.is_leader() {
            turn.compared = false;
            continue;
        }
        match turn.take().await {
            Ok(()) => {}
            Err(why @ (AuditError::RolledBack { .. } | AuditError::Differs { .. })) => {
                turn.log.refuse(&why);
                return;
            }
            Err(other) => turn.warn(&other.to_string()),
        }
    }
}

struct Turn {
    log: AuditNode,
    holder: Arc<dyn Holder>,
    compared: bool,
    held: BTreeMap<LogId, u64>,
    next: Instant,
    warned: Option<Instant>,
}

impl Turn {
    /// That nobody answers is no error.
    async fn take(&mut self) -> Result<(), AuditError> {
        if !self.compared {
            match self.holder.held().await {
                Ok(held) => compare(&self.log, held).await?,
                Err(HoldError::RolledBack(why) | HoldError::Unavailable(why)) => {
                    self.warn(&why);
                    return Ok(());
                }
            }
            self.compared = true;
        }
        if Instant::now() < self.next {
            return Ok(());
        }
        let grown = self.grown();
        for part in grown.chunks(MAX_AUDIT_CHECKPOINTS) {
            let checkpoints = part.iter().map(|(_, checkpoint)| checkpoint.clone()).collect();
            match self.holder.hold(checkpoints).await {
                Ok(()) => {
                    for (log, checkpoint) in part {
                        self.held.insert(log.clone(), checkpoint.size);
                        self.log.note_held(log.clone(), checkpoint.size);
                    }
                    self.warned = None;
                }
                // So it is, or another node leads and was quicker: the next turn compares.
                Err(HoldError::RolledBack(why)) => {
                    self.compared = false;
                    self.warn(&why);
                }
                Err(HoldError::Unavailable(why)) => self.warn(&why),
            }
            self.next = Instant::now() + HOLD_EVERY;
        }
        Ok(())
    }

    /// Checkpoints that are newer than what is held.
    fn grown(&self) -> Vec<(LogId, AuditCheckpoint)> {
        let newer = |(log, note): (LogId, String)| {
            let read = Checkpoint::parse_unchecked(&note).ok()?;
            let newer = self.held.get(&log).is_none_or(|size| *size < read.size);
            let (size, root) = (read.size, read.root.to_string());
            let held_as = held_name(&self.log, &log);
            newer.then_some((log, AuditCheckpoint { log: held_as, size, root, note }))
        };
        self.log.checkpoints().into_iter().filter_map(newer).collect()
    }

    fn warn(&mut self, why: &str) {
        if self.warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(why, "the control plane does not hold the audit log's checkpoints; the log goes on");
        }
    }
}
