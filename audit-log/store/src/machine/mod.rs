//! The audit group's state machine: gives each record its place and writes it down.
//!
//! Invariants: deterministic (no clock, no randomness; the same entries give the same logs on
//! every node); a batch is checked whole before any of it is applied; a batch that was applied is
//! answered again, never applied again.

mod append;
mod catching_up;
mod open;
mod replica;
mod signing;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use provost_audit_core::{LogId, RecordReader};
use provost_audit_verify::LogLayout;
use provost_types::Pseudonym;

pub(crate) use self::open::disk_checkpoint;
pub use self::replica::SharedMachine;
use self::replica::wait_persisted;
use crate::{
    catch_up::LeafSource,
    disk::Disk,
    entry::{Command, Head, Reply},
    log_files::{Dirty, LogFiles},
    persist::{Job, PersistJob, Persister, Progress, PublishJob},
    prune_files::PruneFiles,
    retention_state::{Hold, LogFacts, RetentionCommand, RetentionReply, RetentionState},
    state::MachineState,
    subject_entry::{KeyCommand, KeyReply},
    subject_store::SubjectStore,
};

/// The machine: its state, its files, and the thread that makes them durable.
pub struct AuditMachine {
    dir: PathBuf,
    disk: Disk,
    public_key: [u8; 32],
    state: MachineState,
    logs: BTreeMap<LogId, LogFiles>,
    pub(crate) keys: SubjectStore,
    persister: Persister,
    /// Remembers what records have in common.
    reader: RecordReader,
    /// Files that a seal in this batch of entries asked to make durable.
    persist_due: bool,
    published: BTreeSet<LogId>,
    /// Logs whose pruned segments the next persist removes.
    prune_due: BTreeSet<LogId>,
    /// Logs whose cosigned checkpoint is to be published.
    cosigned_due: BTreeSet<LogId>,
    /// The files that name the keys are to be written.
    keys_due: bool,
    /// Where records are had that the Raft log does not hold any more.
    source: Option<Arc<dyn LeafSource>>,
    /// A step failed half-way: memory is no state that may become durable.
    broken: bool,
    /// Why nothing is taken any more, though nothing failed.
    refused: Option<String>,
}

impl AuditMachine {
    /// Index of the last applied entry.
    pub fn last_applied(&self) -> Option<u64> {
        self.state.applied
    }

    /// Applies one entry and makes its records readable. Convenience over [`AuditMachine::step`]
    /// and [`AuditMachine::finish`].
    pub fn apply(&mut self, index: u64, entry: &Bytes) -> io::Result<Vec<u8>> {
        let reply = self.step(index, Some(entry))?;
        self.finish()?;
        Ok(reply)
    }

    /// Applies one entry in memory; [`AuditMachine::finish`] must follow before it is answered.
    pub fn step(&mut self, index: u64, entry: Option<&Bytes>) -> io::Result<Vec<u8>> {
        self.check()?;
        self.state.applied = Some(index);
        let Some(entry) = entry else { return Ok(Vec::new()) };
        let reply = match Command::decode(entry) {
            Ok(Command::Append(append)) => self.append(&append).inspect_err(|_| self.broken = true)?,
            Ok(Command::Seal) => self.seal(false),
            Ok(Command::SealAll) => self.seal(true),
            Ok(Command::Rotated(rotated)) => self.rotated(rotated),
            Ok(Command::Signed(notes)) => self.take_signed(notes),
            Ok(Command::Keys(command)) => Reply::Keys(self.apply_keys(index, command)),
            Ok(Command::Retention(command)) => self.retain(command),
            Ok(Command::Cosigned(note)) => self.take_cosigned(note),
            Err(e) => Reply::Invalid(e.to_string()),
        };
        Ok(reply.encode())
    }

    fn check(&self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write to the audit files failed"));
        }
        if let Some(why) = &self.refused {
            return Err(io::Error::other(why.clone()));
        }
        self.persister.check()
    }

    /// Writes what the steps since the last call appended, and starts what they asked for.
    pub fn finish(&mut self) -> io::Result<()> {
        for files in self.logs.values_mut() {
            files.flush().inspect_err(|_| self.broken = true)?;
        }
        let destroyed = self.keys.destroyed();
        if std::mem::take(&mut self.persist_due) || destroyed {
            self.persist()?;
        }
        if destroyed {
            // Whoever is told that keys are gone must not find them here after a power cut.
            wait_persisted(&mut self.progress(), self.state.applied)?;
        }
        let published = std::mem::take(&mut self.published);
        if !published.is_empty() {
            self.publish(&published)?;
        }
        // After the checkpoints that both keys signed: a list of keys never names one that has not taken
        // over yet.
        if std::mem::take(&mut self.keys_due) {
            self.persister.send(Job::Keys(self.key_files()))?;
        }
        for log in std::mem::take(&mut self.cosigned_due) {
            let Some((_, note)) = self.state.cosigned.get(&log) else { continue };
            let job = PublishJob { dir: self.dir.join(log.folder()), note: note.clone() };
            self.persister.send(Job::Cosigned(job))?;
        }
        Ok(())
    }

    /// Starts to make everything applied so far durable.
    pub fn persist(&mut self) -> io::Result<()> {
        self.check()?;
        let mut dirty = Dirty::default();
        for (log, files) in &mut self.logs {
            // Before the state is made that outlives the pruned files.
            files.forget_bodies(self.state.retention.pruned.get(log).map_or(0, |pruned| pruned.to));
            dirty.merge(files.take_dirty());
            self.state.logs.insert(log.clone(), files.head.clone());
        }
        let job = PersistJob {
            applied: self.state.applied.unwrap_or_default(),
            files: dirty.files,
            dirs: dirty.dirs,
            state: self.state.encode()?,
            keys: self.keys.take_job()?,
            remove: dirty.remove,
            prune: std::mem::take(&mut self.prune_due).iter().filter_map(|log| self.prune_files(log)).collect(),
        };
        self.persister.send(Job::Persist(job))
    }

    pub(crate) fn progress(&self) -> Progress {
        self.persister.progress()
    }

    /// Takes nothing any more: the group's replica here ends with the next entry.
    pub(crate) fn refuse(&mut self, why: String) {
        self.refused.get_or_insert(why);
    }

    /// The head of each log.
    pub fn heads(&self) -> Vec<Head> {
        let head = |(log, files): (&LogId, &LogFiles)| Head {
            log: log.clone(),
            size: files.head.size(),
            root: files.head.frontier.root(),
            chain: files.head.chain,
        };
        self.logs.iter().map(head).collect()
    }

    /// Whether there is such a log.
    pub(crate) fn has_log(&self, log: &LogId) -> bool {
        self.logs.contains_key(log)
    }

    /// What was pruned and what is held.
    pub(crate) fn retention(&self) -> &RetentionState {
        &self.state.retention
    }

    /// What a prune of a log must respect.
    pub(crate) fn facts(&self, log: &LogId) -> LogFacts {
        let intents = self.state.intents.range((log.clone(), 0)..=(log.clone(), u128::MAX));
        LogFacts {
            signed: self.signed_size(log),
            tail_first: self.logs.get(log).map_or(0, |files| files.head.tail_first),
            oldest_intent: intents.map(|(_, intent)| intent.index).min(),
        }
    }

    /// A hold that came first wins, whatever the node that ordered the erasure knew of it. An order that is
    /// refused is none about keys: neither the state nor the file of the keys counts it.
    fn apply_keys(&mut self, index: u64, command: KeyCommand) -> KeyReply {
        if let KeyCommand::Erase(erasure) = &command
            && let Some(hold) = self.state.retention.hold_on_subject(&erasure.log, erasure.subject)
        {
            return KeyReply::Held(hold.clone());
        }
        self.state.body_keys = Some(index);
        self.keys.apply(index, command)
    }

    /// Whom an administrator means, and the hold that keeps their bodies.
    pub(crate) fn held(&self, log: &LogId, principal: &str) -> (Option<Pseudonym>, Option<&Hold>) {
        let retention = &self.state.retention;
        match self.keys.state.meant(log, principal) {
            Some(subject) => (Some(subject), retention.hold_on_subject(log, subject)),
            None => (None, retention.hold_on_name(log, principal)),
        }
    }

    fn retain(&mut self, command: RetentionCommand) -> Reply {
        let (log, facts) = (command.log().clone(), self.facts(command.log()));
        let prunes = matches!(command, RetentionCommand::Prune(_));
        let reply = self.state.retention.apply(command, facts);
        if prunes && reply == RetentionReply::Done {
            self.prune_due.insert(log);
            self.persist_due = true;
        }
        Reply::Retention(reply)
    }

    fn prune_files(&self, log: &LogId) -> Option<PruneFiles> {
        let pruned = self.state.retention.pruned.get(log)?;
        let layout = LogLayout::new(self.dir.join(log.folder()));
        Some(PruneFiles { disk: self.disk.clone(), layout, to: pruned.to, record: pruned.record })
    }
}
