//! Keys of bodies as writers in this process get them: from the machine, made through consensus at
//! their first use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use provost_audit_core::LogId;
use provost_control_raft::Group;
use provost_types::{AuditUnavailable, BoxFuture, Month, Name, SubjectKey, SubjectKeys};
use tokio::sync::Mutex;

use crate::{
    entry::{Command, Reply},
    machine::SharedMachine,
    subject_entry::{KeyCommand, KeyReply},
    subject_state::Found,
};

/// Proposals until a key is there: one for the tenant, one for the subject, and one more for each
/// time that keys are destroyed meanwhile.
const MAX_ROUNDS: usize = 8;

/// The port over this node's machine and group.
pub(crate) struct LocalSubjectKeys {
    machine: SharedMachine,
    group: Group,
    deadline: Duration,
    /// Whether this node may make the log key: see [`crate::AuditNodeConfig::begins_keys`].
    begins: bool,
    generation: Arc<AtomicU64>,
    /// One proposal at a time: many callers want the same key when a month begins.
    turn: Mutex<()>,
}

impl LocalSubjectKeys {
    pub(crate) fn new(machine: SharedMachine, group: Group, deadline: Duration, begins: bool) -> Self {
        let generation = machine.0.lock().keys.generation();
        Self { machine, group, deadline, begins, generation, turn: Mutex::default() }
    }

    async fn find_or_make(&self, log: &LogId, subject: &str, month: Month) -> Result<SubjectKey, AuditUnavailable> {
        if let Some(found) = self.found(log, subject, month)? {
            return Ok(found);
        }
        let _turn = self.turn.lock().await;
        for _ in 0..MAX_ROUNDS {
            let unavailable = |e: std::io::Error| AuditUnavailable(e.to_string());
            let command = {
                let mut machine = self.machine.0.lock();
                if self.begins {
                    machine.keys.begin().map_err(unavailable)?;
                }
                // Two log keys in one group would each open half of what is wrapped.
                if machine.keys.state.log_key.is_none() {
                    return Err(not_here());
                }
                match machine.keys.state.find(log, subject, month) {
                    Found::Key(key) => return Ok(key),
                    Found::NotHere => return Err(not_here()),
                    Found::Absent(None) => machine.keys.state.propose_pseudonyms(log),
                    Found::Absent(Some(slot)) => machine.keys.state.propose_key(slot, subject),
                }
                .map_err(unavailable)?
            };
            match propose(&self.group, command).await? {
                KeyReply::Full => return Err(AuditUnavailable("there are too many keys of bodies".to_owned())),
                // Stale: keys were destroyed meanwhile; it is wrapped again.
                KeyReply::Done
                | KeyReply::Key(_)
                | KeyReply::Stale { .. }
                | KeyReply::Erased(_)
                | KeyReply::Held(_) => {}
            }
            // Another replica may have made it meanwhile, and this one be a moment behind.
            self.group.read_barrier().await.map_err(|e| AuditUnavailable(e.to_string()))?;
        }
        Err(AuditUnavailable("the key of the body could not be made".to_owned()))
    }

    /// Makes a tenant's key of pseudonyms, if there is none.
    pub(crate) async fn name_subjects(&self, log: &LogId) -> Result<(), AuditUnavailable> {
        let unavailable = |e: std::io::Error| AuditUnavailable(e.to_string());
        let command = {
            let mut machine = self.machine.0.lock();
            if self.begins {
                machine.keys.begin().map_err(unavailable)?;
            }
            machine.keys.state.propose_pseudonyms(log).map_err(unavailable)?
        };
        propose(&self.group, command).await.map(drop)
    }

    fn found(&self, log: &LogId, subject: &str, month: Month) -> Result<Option<SubjectKey>, AuditUnavailable> {
        match self.machine.0.lock().keys.state.find(log, subject, month) {
            Found::Key(key) => Ok(Some(key)),
            Found::NotHere => Err(not_here()),
            Found::Absent(_) => Ok(None),
        }
    }
}

fn not_here() -> AuditUnavailable {
    AuditUnavailable("this node does not hold the keys of bodies (PV-AUDIT-KEYS)".to_owned())
}

/// Proposes an entry about keys.
pub(crate) async fn propose(group: &Group, command: KeyCommand) -> Result<KeyReply, AuditUnavailable> {
    let proposed = group.propose(Bytes::from(Command::Keys(command).encode())).await;
    let proposed = proposed.map_err(|e| AuditUnavailable(e.to_string()))?;
    match Reply::decode(&proposed.reply) {
        Ok(Reply::Keys(reply)) => Ok(reply),
        Ok(other) => Err(AuditUnavailable(format!("the audit machine answered {other:?}"))),
        Err(e) => Err(AuditUnavailable(e.to_string())),
    }
}

impl SubjectKeys for LocalSubjectKeys {
    fn key<'a>(
        &'a self,
        tenant: &'a Name,
        subject: &'a str,
        month: Month,
    ) -> BoxFuture<'a, Result<SubjectKey, AuditUnavailable>> {
        Box::pin(async move {
            let log = LogId(Some(tenant.clone()));
            match tokio::time::timeout(self.deadline, self.find_or_make(&log, subject, month)).await {
                Ok(found) => found,
                Err(_) => Err(AuditUnavailable(format!("no key within {} ms", self.deadline.as_millis()))),
            }
        })
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}
