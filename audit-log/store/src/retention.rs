//! How long records are kept: policies, prunes on demand, and holds.
//!
//! A prune goes: choose whole segments whose newest record is older than the policy keeps; record
//! `log.prune` in the same log (which records, their root, policy, who); wait until a checkpoint
//! covers that record; then the entry that prunes. The machine checks everything again, so that a
//! hold placed meanwhile wins. If the process dies in between, the record says what was meant, no
//! file is gone, and the next run begins anew.
//! Left out: who may ask (the admin API), which policy (the configuration).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use provost_audit_core::{HOLD_EVENT, LogId, PRUNE_EVENT, PruneNote, RELEASE_EVENT};
use provost_audit_verify::{LogLayout, list_logs};
use provost_types::{AuditSink, Subject, Who};

use crate::{
    checkpointer::Checkpointer,
    entry::{Command, Reply},
    own_events::{event_of, now_ns},
    prune_choice::choose,
    retention_state::{Hold, MAX_NAME, MAX_REASON, PruneOrder, RetentionCommand, RetentionReply},
    subject_keys::LocalSubjectKeys,
};

/// How long a prune waits for a checkpoint that covers its record.
const SIGN_LIMIT: Duration = Duration::from_secs(15);
/// How often it looks.
const SIGN_POLL: Duration = Duration::from_millis(50);

/// Why something was not pruned, held or released.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// A hold forbids it.
    #[error(
        "PV-AUDIT-HELD: {} must be kept: hold `{}` by {} ({}); release it first, if it may be released: `provost audit hold remove`",
        hold.log, hold.id, hold.by, hold.reason
    )]
    Held {
        /// The hold.
        hold: Box<Hold>,
    },
    /// No such hold.
    #[error("PV-AUDIT-NO-HOLD: the log of {log} has no hold `{id}`; `provost audit hold list` names them")]
    NoHold {
        /// The log.
        log: LogId,
        /// What was asked for.
        id: String,
    },
    /// The order does not fit.
    #[error("PV-AUDIT-RETENTION: {0}; nothing was changed")]
    Refused(String),
    /// The log cannot be written now.
    #[error("PV-AUDIT-UNAVAILABLE: {0}; ask again")]
    Unavailable(String),
}

/// An order to hold records.
#[derive(Clone, Debug)]
pub struct HoldOrder {
    /// Names the hold within its log.
    pub id: String,
    /// Whose records.
    pub log: LogId,
    /// Only this principal's: its name, or its pseudonym as records show it.
    pub principal: Option<String>,
    /// From this time on.
    pub since_ns: Option<u64>,
    /// Up to this time.
    pub until_ns: Option<u64>,
    /// Why.
    pub reason: String,
}

/// What a prune took, or would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneReport {
    /// The log.
    pub log: LogId,
    /// The first record that was kept before.
    pub from: u64,
    /// The first that is kept now.
    pub to: u64,
    /// Index of the record that says so; `None`: nothing was to go, or this was only a look.
    pub record: Option<u64>,
}

/// Keeps and prunes, through the audit group.
#[derive(Clone)]
pub struct Retention {
    pub(crate) checkpointer: Arc<Checkpointer>,
    pub(crate) keys: Arc<LocalSubjectKeys>,
    sink: Arc<dyn AuditSink>,
    audit_dir: PathBuf,
    cluster: String,
}

/// How long a log's records are kept; `None`: for ever.
pub type KeepRule = Arc<dyn Fn(&LogId) -> Option<(Duration, String)> + Send + Sync>;

impl Retention {
    pub(crate) fn new(
        (checkpointer, keys): (Arc<Checkpointer>, Arc<LocalSubjectKeys>),
        sink: Arc<dyn AuditSink>,
        audit_dir: &Path,
    ) -> Self {
        let cluster = checkpointer.cluster.clone();
        Self { checkpointer, keys, sink, audit_dir: audit_dir.to_owned(), cluster }
    }

    /// The holds there are, by log and name.
    pub fn holds(&self) -> Vec<Hold> {
        self.checkpointer.machine.0.lock().retention().holds.values().cloned().collect()
    }

    /// Holds records, from the moment on that this answers.
    pub async fn hold(&self, order: HoldOrder, by: Who) -> Result<Hold, RetentionError> {
        let refused = |why: String| Err(RetentionError::Refused(why));
        if order.reason.trim().is_empty() || order.reason.len() > MAX_REASON {
            return refused(format!("a reason of 1 to {MAX_REASON} bytes is needed: it is what the log says"));
        }
        if order.id.is_empty() || order.id.len() > MAX_NAME || order.id.contains(char::is_whitespace) {
            return refused(format!("a hold's name has 1 to {MAX_NAME} bytes and no spaces"));
        }
        let (since_ns, until_ns) = (order.since_ns.unwrap_or(0), order.until_ns.unwrap_or(u64::MAX));
        if since_ns >= until_ns {
            return refused("the hold ends before it begins".to_owned());
        }
        if !list_logs(&self.audit_dir).is_ok_and(|logs| logs.contains(&order.log)) {
            return refused(format!("there is no log of {}", order.log));
        }
        let subject = match &order.principal {
            Some(principal) => self.subject_of(&order.log, principal).await?,
            None => None,
        };
        let hold = Hold {
            id: order.id,
            log: order.log,
            subject,
            principal: order.principal,
            since_ns,
            until_ns,
            reason: order.reason,
            by: name_of(&by),
            time_ns: now_ns(),
        };
        let mut objects = vec![format!("hold:{}", hold.id)];
        objects.extend(hold.principal.as_ref().map(|p| format!("principal:{p}")));
        objects.extend(order.since_ns.map(|t| format!("since:{t}")));
        objects.extend(order.until_ns.map(|t| format!("until:{t}")));
        self.record(&hold.log, HOLD_EVENT, objects, hold.reason.clone(), by).await?;
        match self.propose(RetentionCommand::Hold(hold.clone())).await? {
            RetentionReply::Done => Ok(hold),
            other => Err(unexpected(other)),
        }
    }

    /// Releases a hold.
    pub async fn release(&self, log: LogId, id: String, reason: String, by: Who) -> Result<(), RetentionError> {
        let known = self.holds().iter().any(|hold| hold.log == log && hold.id == id);
        if !known {
            return Err(RetentionError::NoHold { log, id });
        }
        if reason.trim().is_empty() || reason.len() > MAX_REASON {
            let text = format!("a reason of 1 to {MAX_REASON} bytes is needed: it is what the log says");
            return Err(RetentionError::Refused(text));
        }
        self.record(&log, RELEASE_EVENT, vec![format!("hold:{id}")], reason, by).await?;
        match self.propose(RetentionCommand::Release(log.clone(), id.clone())).await? {
            RetentionReply::Done => Ok(()),
            RetentionReply::NoHold => Err(RetentionError::NoHold { log, id }),
            other => Err(unexpected(other)),
        }
    }

    /// Prunes the segments of `log` whose newest record is older than `keep`, or says which would go.
    /// `policy` names the rule in the record. The cluster's log is kept whole: its records prove the
    /// keys and the ends of all others.
    pub async fn prune(
        &self,
        log: &LogId,
        keep: Duration,
        policy: &str,
        by: Who,
        only_look: bool,
    ) -> Result<PruneReport, RetentionError> {
        if *log == LogId::CLUSTER {
            let why = "the cluster's log is kept whole: its records prove the keys and the ends of all other logs";
            return Err(RetentionError::Refused(why.to_owned()));
        }
        let (signed, tail_first) = self.bounds(log);
        let before = now_ns().saturating_sub(u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX));
        let layout = LogLayout::new(self.audit_dir.join(log.folder()));
        let choose = move || choose(&layout, before, signed.min(tail_first));
        let chosen =
            tokio::task::spawn_blocking(choose).await.map_err(|e| RetentionError::Unavailable(e.to_string()))?;
        let chosen = chosen.map_err(RetentionError::Refused)?;
        let report = PruneReport { log: log.clone(), from: chosen.from, to: chosen.to, record: None };
        if chosen.from == chosen.to {
            return Ok(report);
        }
        let held = self.checkpointer.machine.0.lock().retention().hold_on(log, chosen.times).cloned();
        if let Some(hold) = held {
            return Err(RetentionError::Held { hold: Box::new(hold) });
        }
        if only_look {
            return Ok(report);
        }
        let note = PruneNote { to: chosen.to, root: chosen.root, chain: chosen.chain, policy: policy.to_owned() };
        let detail = format!("records {} to {} of {} go", chosen.from, chosen.to, log.origin(&self.cluster));
        let record = self.record(log, PRUNE_EVENT, note.objects(), detail, by).await?;
        self.signed_beyond(log, record).await?;
        let order = PruneOrder { log: log.clone(), to: chosen.to, record, times: chosen.times };
        match self.propose(RetentionCommand::Prune(order)).await? {
            RetentionReply::Done => Ok(PruneReport { record: Some(record), ..report }),
            other => Err(unexpected(other)),
        }
    }

    /// Runs the rules at an interval, while this node leads. Ends when it is dropped.
    pub async fn run(self, rule: KeepRule, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if self.checkpointer.group.is_leader() {
                self.apply_rules(&rule).await;
            }
        }
    }

    /// Prunes what the rules say, log by log. What cannot be pruned now is left for the next time.
    pub async fn apply_rules(&self, rule: &KeepRule) {
        let by = Who { authenticated_by: "internal".to_owned(), ..Who::default() };
        for log in list_logs(&self.audit_dir).unwrap_or_default() {
            let Some((keep, policy)) = rule(&log) else { continue };
            match self.prune(&log, keep, &policy, by.clone(), false).await {
                Ok(report) if report.record.is_some() => {
                    tracing::info!(%log, from = report.from, to = report.to, policy, "records were pruned");
                }
                Ok(_) => {}
                Err(RetentionError::Held { hold }) => {
                    tracing::info!(%log, hold = hold.id, "nothing is pruned: records are held");
                }
                Err(cause) => tracing::warn!(%log, %cause, "nothing was pruned; it is tried again"),
            }
        }
    }

    /// How far the checkpoint and the tail let a prune go.
    fn bounds(&self, log: &LogId) -> (u64, u64) {
        let facts = self.checkpointer.machine.0.lock().facts(log);
        (facts.signed, facts.tail_first)
    }

    async fn signed_beyond(&self, log: &LogId, record: u64) -> Result<(), RetentionError> {
        let unavailable = |why: String| RetentionError::Unavailable(why);
        if self.checkpointer.group.is_leader() {
            self.checkpointer.checkpoint().await.map_err(|e| unavailable(e.to_string()))?;
        }
        let signed = async {
            while self.bounds(log).0 <= record {
                tokio::time::sleep(SIGN_POLL).await;
            }
        };
        tokio::time::timeout(SIGN_LIMIT, signed)
            .await
            .map_err(|_| unavailable("no checkpoint covers the record of the prune yet; nothing was pruned".to_owned()))
    }

    async fn record(
        &self,
        log: &LogId,
        event: &str,
        objects: Vec<String>,
        detail: String,
        by: Who,
    ) -> Result<u64, RetentionError> {
        let subject = Subject { event: event.to_owned(), objects, detail };
        let receipt = self.sink.record(event_of(log.0.clone(), subject, by)).await;
        receipt.map(|receipt| receipt.index).map_err(|e| RetentionError::Unavailable(e.0))
    }

    async fn propose(&self, command: RetentionCommand) -> Result<RetentionReply, RetentionError> {
        let proposed = self.checkpointer.group.propose(Command::Retention(command).encode()).await;
        let proposed = proposed.map_err(|e| RetentionError::Unavailable(e.to_string()))?;
        match Reply::decode(&proposed.reply) {
            Ok(Reply::Retention(reply)) => Ok(reply),
            other => Err(RetentionError::Unavailable(format!("the audit machine answered {other:?}"))),
        }
    }
}

fn unexpected(reply: RetentionReply) -> RetentionError {
    match reply {
        RetentionReply::Held(hold) => RetentionError::Held { hold: Box::new(hold) },
        RetentionReply::Refused(why) => RetentionError::Refused(why),
        other => RetentionError::Unavailable(format!("the audit machine answered {other:?}")),
    }
}

fn name_of(who: &Who) -> String {
    let name = if who.principal.is_empty() { &who.authenticated_by } else { &who.principal };
    name.chars().take(MAX_NAME / 4).collect()
}
