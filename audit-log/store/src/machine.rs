//! The audit group's state machine: gives each record its place and writes it down.
//!
//! Invariants: deterministic (no clock, no randomness; the same entries give the same logs on
//! every node); a batch is checked whole before any of it is applied; a batch that was applied is
//! answered again, never applied again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use provost_audit_core::{Checkpoint, CheckpointError, Hash, LogId, RecordView, SignedNote, VerifierKey, leaf_hash};
use provost_audit_verify::{CHECKPOINT_FILE, HISTORY_FILE, KEY_FILE, KEYS_FILE, LogLayout, list_logs};
use provost_control_raft::{AppliedState, Entry, Machine, SnapshotWriter};
use provost_types::{CallId, Phase};

use crate::{
    catch_up::{LeafSource, earlier_checkpoints},
    disk::{Disk, DiskWatch},
    entry::{Append, Command, Head, Reply, Rotated},
    error::AuditError,
    log_files::{Dirty, LogFiles},
    persist::{Job, PersistJob, Persister, Progress, PublishJob},
    prune_files::PruneFiles,
    retention_state::{LogFacts, Pruned, RetentionCommand, RetentionReply, RetentionState},
    state::{
        Applied, LogHead, MachineState, OpenIntent, REMEMBERED_BATCHES, STATE_FILE, SealedHead, Signed, Writer,
        WriterChain,
    },
    subject_file::SubjectPaths,
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
    /// Opens the audit directory, or makes it. `public_key` is written beside each log, until the group
    /// notes another one.
    ///
    /// Files that reach beyond the last persisted state are cut back; files that hold less, or
    /// other bytes, are refused.
    ///
    /// The keys of bodies are kept beside the directory, as in a data directory.
    pub fn open(dir: &Path, cluster: &str, public_key: [u8; 32]) -> Result<Self, AuditError> {
        Self::open_with_keys(dir, cluster, public_key, keys_beside(dir))
    }

    /// Like [`AuditMachine::open`], with the keys of bodies in these files.
    pub fn open_with_keys(
        dir: &Path,
        cluster: &str,
        public_key: [u8; 32],
        keys: SubjectPaths,
    ) -> Result<Self, AuditError> {
        Self::open_on(Disk::default(), dir, cluster, public_key, keys)
    }

    /// As [`AuditMachine::open`], with somebody who is asked before each change of the files.
    pub fn open_watched(
        watch: Arc<dyn DiskWatch>,
        dir: &Path,
        cluster: &str,
        public_key: [u8; 32],
    ) -> Result<Self, AuditError> {
        Self::open_on(Disk::watched(watch), dir, cluster, public_key, keys_beside(dir))
    }

    fn open_on(
        disk: Disk,
        dir: &Path,
        cluster: &str,
        public_key: [u8; 32],
        keys: SubjectPaths,
    ) -> Result<Self, AuditError> {
        fs::create_dir_all(dir).map_err(AuditError::io(dir))?;
        let path = dir.join(STATE_FILE);
        let state = match MachineState::read(&path)? {
            Some(state) => state,
            None => first_state(&disk, dir, &path, cluster)?,
        };
        if state.cluster != cluster {
            let why = format!("it belongs to cluster {}, not to {cluster}", state.cluster);
            return Err(AuditError::State { path, why });
        }
        refuse_rollback(dir, &state)?;
        let keys = SubjectStore::open(keys, state.body_keys)?;
        // What was written of a prune that the state does not know: it is written again.
        for log in state.logs.keys() {
            let layout = LogLayout::new(dir.join(log.folder()));
            let known = state.retention.pruned.get(log).map_or(0, |pruned| pruned.to);
            for first in layout.list_pruned().map_err(AuditError::io(&layout.dir))?.into_iter().filter(|f| *f >= known)
            {
                let path = layout.pruned(first);
                disk.remove(&path).map_err(AuditError::io(&path))?;
            }
        }
        // A prune that the last start did not finish.
        for (log, pruned) in &state.retention.pruned {
            let layout = LogLayout::new(dir.join(log.folder()));
            let files = PruneFiles { disk: disk.clone(), layout, to: pruned.to, record: pruned.record };
            files.keep().and_then(|()| files.remove()).map_err(AuditError::io(&files.layout.segments()))?;
        }
        let mut logs = BTreeMap::new();
        for (log, head) in &state.logs {
            let layout = LogLayout::new(dir.join(log.folder()));
            let files = LogFiles::reopen(&disk, log, layout, &log.origin(cluster), head.clone())?;
            logs.insert(log.clone(), files);
        }
        for log in list_logs(dir).map_err(AuditError::io(dir))? {
            if !logs.contains_key(&log) {
                // Begun after the last persist, and never signed: the Raft log begins it again.
                let folder = dir.join(log.folder());
                fs::remove_dir_all(&folder).map_err(AuditError::io(&folder))?;
            }
        }
        let persister = Persister::start(dir.to_owned(), state.applied, disk.clone()).map_err(AuditError::io(dir))?;
        let (published, cosigned_due) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self {
            dir: dir.to_owned(),
            disk,
            public_key: state.keys.last().map_or(public_key, |(_, noted)| *noted),
            state,
            logs,
            keys,
            persister,
            persist_due: false,
            published,
            prune_due: BTreeSet::new(),
            cosigned_due,
            keys_due: false,
            source: None,
            broken: false,
            refused: None,
        })
    }

    /// Gives the machine other replicas' records, for a snapshot that is ahead of it.
    pub fn with_source(mut self, source: Arc<dyn LeafSource>) -> Self {
        self.source = Some(source);
        self
    }

    /// Brings every log to the manifest's head and takes its state. Files that were grown are beyond
    /// the stored state until the state is replaced: a crash or an error in between leaves what the
    /// next start cuts off.
    fn catch_up(&mut self, manifest: MachineState) -> io::Result<()> {
        let Some(source) = self.source.clone() else {
            let text = "PV-AUDIT-BEHIND: this replica is too far behind to catch up from the Raft log, and \
                        knows no other";
            return Err(io::Error::other(text));
        };
        if manifest.cluster != self.state.cluster {
            return Err(io::Error::other(format!("the snapshot is of cluster {}", manifest.cluster)));
        }
        self.broken = true;
        if self.keys.state.applied < manifest.body_keys {
            // Before the records: whatever fails behind this, keys that are newer do no harm.
            let exported = source.keys(manifest.body_keys)?;
            self.keys.adopt(&exported, manifest.body_keys)?;
        }
        for (log, head) in &manifest.logs {
            if let Some(pruned) = manifest.retention.pruned.get(log) {
                self.begin_after(log, pruned, &*source)?;
            }
            let files = self.log(log)?;
            let have = files.head.size();
            tracing::info!(%log, from = have, to = head.size(), "takes records from another replica");
            if have < head.size() {
                source.leaves(log, have, head.size(), &mut |leaf, body| {
                    let view = RecordView::read(leaf).map_err(|e| io::Error::other(e.to_string()))?;
                    if body.map(|body| Hash(provost_sealed::sha256(body))) != view.body_sealed {
                        let text = format!("PV-AUDIT-BEHIND: a body of {log} is not the one that its record names");
                        return Err(io::Error::other(text));
                    }
                    let index = files.append(leaf, leaf_hash(leaf), view.time_ns)?;
                    body.map_or(Ok(()), |body| files.append_body(index, body))
                })?;
            }
            files.flush()?;
            if (files.head.size(), files.head.chain) != (head.size(), head.chain)
                || files.head.frontier.root() != head.frontier.root()
            {
                let text = format!("PV-AUDIT-BEHIND: the records of {log} are not those that the group agreed on");
                return Err(io::Error::other(text));
            }
        }
        for (log, signed) in &manifest.checkpoints {
            let dir = self.dir.join(log.folder());
            let (origin, size) = (log.origin(&manifest.cluster), signed.head.size);
            let history = earlier_checkpoints(&source.checkpoints(log)?, &origin, &signed.note, size);
            crate::persist::replace(&dir.join(HISTORY_FILE), history.as_bytes())?;
        }
        self.state = manifest;
        self.prune_due.extend(self.state.retention.pruned.keys().cloned());
        self.broken = false;
        self.published = self.state.checkpoints.keys().cloned().collect();
        self.cosigned_due = self.state.cosigned.keys().cloned().collect();
        if let Some(noted) = self.noted() {
            self.public_key = noted;
            self.keys_due = true;
        }
        Ok(())
    }

    /// Records before `pruned` are nowhere any more: what stays of them takes their place here.
    fn begin_after(&mut self, log: &LogId, pruned: &Pruned, source: &dyn LeafSource) -> io::Result<()> {
        let older = self.logs.get(log).map(|files| files.head.clone());
        if older.as_ref().is_some_and(|head| head.size() >= pruned.to) {
            return Ok(());
        }
        let origin = log.origin(&self.state.cluster);
        let layout = LogLayout::new(self.dir.join(log.folder()));
        self.disk.make_dir(&layout.segments())?;
        let stays =
            PruneFiles { disk: self.disk.clone(), layout: layout.clone(), to: pruned.to, record: pruned.record };
        let head = stays.take(&source.pruned(log, pruned.to)?, &origin)?;
        let key = VerifierKey { name: origin.clone(), public_key: self.public_key };
        let mut files = LogFiles::begin(&self.disk, layout, &origin, &key.to_text(), head).map_err(io::Error::other)?;
        if let Some(older) = &older {
            files.replace(older);
        }
        self.logs.insert(log.clone(), files);
        Ok(())
    }

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
            Ok(Command::Keys(command)) => {
                self.state.body_keys = Some(index);
                Reply::Keys(self.keys.apply(index, command))
            }
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

    /// Whether any log has grown since its last checkpoint.
    pub(crate) fn is_dirty(&self) -> bool {
        self.logs.iter().any(|(log, files)| files.head.size() != self.signed_size(log))
    }

    fn signed_size(&self, log: &LogId) -> u64 {
        self.state.checkpoints.get(log).map_or(0, |signed| signed.head.size)
    }

    /// Takes nothing any more: the group's replica here ends with the next entry.
    pub(crate) fn refuse(&mut self, why: String) {
        self.refused.get_or_insert(why);
    }

    pub(crate) fn cosigned_size(&self, log: &LogId) -> u64 {
        self.state.cosigned.get(log).map_or(0, |(size, _)| *size)
    }

    /// The checkpoint held in consensus.
    pub(crate) fn checkpoint(&self, log: &LogId) -> Option<&Signed> {
        self.state.checkpoints.get(log)
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

    /// Epoch of a writer, and where it stands in each log.
    pub(crate) fn writer(&self, id: &str) -> (u64, BTreeMap<LogId, WriterChain>) {
        let writer = self.state.writers.get(id);
        writer.map(|w| (w.epoch, w.chains.clone())).unwrap_or_default()
    }

    /// Intents of a writer's epochs before `epoch` that have no outcome.
    pub(crate) fn orphans(&self, writer: &str, epoch: u64) -> Vec<(LogId, CallId, u64)> {
        let intents = self.state.intents.iter();
        intents
            .filter(|(_, intent)| intent.writer == writer && intent.epoch < epoch)
            .map(|((log, call), intent)| (log.clone(), CallId(*call), intent.index))
            .collect()
    }

    fn append(&mut self, append: &Append) -> io::Result<Reply> {
        let writer = self.state.writers.get(&append.writer);
        let (epoch, next) = writer.map_or((0, 0), |w| (w.epoch, w.next_batch));
        if append.epoch < epoch || append.epoch == 0 {
            return Ok(Reply::Fenced { epoch });
        }
        let next = if append.epoch > epoch { 0 } else { next };
        if append.batch > next {
            return Ok(Reply::OutOfOrder { next });
        }
        if append.batch < next {
            let known = writer.and_then(|w| w.recent.iter().find(|known| known.batch == append.batch));
            return Ok(match known {
                Some(known) if append.records.last().map(|r| leaf_hash(&r.leaf)) == Some(known.last) => {
                    Reply::Appended(known.places.clone())
                }
                // Two processes took the same epoch; this one came second.
                Some(_) => Reply::Fenced { epoch },
                None => Reply::Invalid("the batch was applied too long ago".to_owned()),
            });
        }
        match check_batch(append, writer) {
            Ok(checked) => self.write(append, checked),
            Err(why) => Ok(Reply::Invalid(why)),
        }
    }

    fn write(&mut self, append: &Append, checked: Vec<Checked>) -> io::Result<Reply> {
        let mut places: Vec<(LogId, u64)> = Vec::new();
        for (record, checked) in append.records.iter().zip(&checked) {
            let files = self.log(&record.log)?;
            let index = files.append(&record.leaf, checked.hash, checked.time_ns)?;
            if let Some(body) = &record.body {
                files.append_body(index, body)?;
            }
            if !places.iter().any(|(log, _)| *log == record.log) {
                places.push((record.log.clone(), index));
            }
            self.note_intent(append, &record.log, checked, index);
        }
        let last = checked.last().map(|c| c.hash).unwrap_or(Hash::ZERO);
        let writer = self.state.writers.entry(append.writer.clone()).or_default();
        if append.epoch > writer.epoch {
            writer.epoch = append.epoch;
            writer.recent.clear();
        }
        writer.next_batch = append.batch + 1;
        for (record, checked) in append.records.iter().zip(checked) {
            let chain = WriterChain { epoch: append.epoch, seq: checked.seq, prev: checked.hash };
            writer.chains.insert(record.log.clone(), chain);
        }
        if writer.recent.len() == REMEMBERED_BATCHES {
            writer.recent.pop_front();
        }
        writer.recent.push_back(Applied { batch: append.batch, last, places: places.clone() });
        Ok(Reply::Appended(places))
    }

    fn note_intent(&mut self, append: &Append, log: &LogId, checked: &Checked, index: u64) {
        let key = (log.clone(), checked.call_id.0);
        match checked.phase {
            Phase::Intent => {
                let (writer, epoch) = (append.writer.clone(), append.epoch);
                self.state.intents.insert(key, OpenIntent { index, writer, epoch });
            }
            Phase::Outcome => {
                self.state.intents.remove(&key);
            }
            Phase::Denied | Phase::Event => {}
        }
    }

    fn log(&mut self, log: &LogId) -> io::Result<&mut LogFiles> {
        if !self.logs.contains_key(log) {
            let origin = log.origin(&self.state.cluster);
            let key = VerifierKey { name: origin.clone(), public_key: self.public_key };
            let layout = LogLayout::new(self.dir.join(log.folder()));
            let files = LogFiles::create(&self.disk, layout, &origin, &key.to_text())?;
            self.logs.insert(log.clone(), files);
        }
        self.logs.get_mut(log).ok_or_else(|| io::Error::other("a log was not kept"))
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

    fn seal(&mut self, all: bool) -> Reply {
        let mut grown = Vec::new();
        for head in self.heads() {
            let same = !all && head.size == self.signed_size(&head.log);
            if same || head.size == 0 || grown.len() == crate::entry::MAX_HEADS {
                continue;
            }
            let sealed = SealedHead { size: head.size, root: head.root, chain: head.chain };
            self.state.sealed.insert(head.log.clone(), sealed);
            grown.push(head);
        }
        self.persist_due |= !grown.is_empty();
        Reply::Sealed(grown)
    }

    /// A head that was not sealed here, or that a newer seal replaced, is passed over.
    fn take_signed(&mut self, notes: Vec<String>) -> Reply {
        let mut taken = 0;
        for note in notes {
            let Ok(found) = self.match_sealed(&note) else { continue };
            let Some((log, head)) = found else { continue };
            self.state.sealed.remove(&log);
            self.state.checkpoints.insert(log.clone(), Signed { head, note });
            self.published.insert(log);
            taken += 1;
        }
        Reply::Taken(taken)
    }

    /// Notes the key that signs from now on and takes the checkpoints that both signed; all or nothing. A
    /// log that was signed before and is not among them would have no way from one key to the other.
    fn rotated(&mut self, rotated: Rotated) -> Reply {
        let Rotated { record, follows, public_key, notes } = rotated;
        let signs = self.noted().unwrap_or(follows);
        if signs == public_key {
            return Reply::Taken(0);
        }
        if signs != follows {
            return Reply::Invalid("another key signs this log now".to_owned());
        }
        let mut switched = BTreeMap::new();
        for note in notes {
            let Ok(Some((log, head))) = self.match_sealed(&note) else { continue };
            if bears(&note, &log.origin(&self.state.cluster), follows)
                && bears(&note, &log.origin(&self.state.cluster), public_key)
            {
                switched.insert(log, Signed { head, note });
            }
        }
        if let Some(log) = self.state.checkpoints.keys().find(|log| !switched.contains_key(*log)) {
            return Reply::Invalid(format!("{log} is not signed by both keys"));
        }
        let taken = switched.len() as u32;
        for (log, signed) in switched {
            self.state.sealed.remove(&log);
            self.state.checkpoints.insert(log.clone(), signed);
            self.published.insert(log);
        }
        if self.state.keys.is_empty() {
            self.state.keys.push((None, follows));
        }
        self.state.keys.push((Some(record), public_key));
        self.public_key = public_key;
        // The state first: files that name a key that the state does not know would refuse a start.
        self.persist_due = true;
        self.keys_due = true;
        Reply::Taken(taken)
    }

    /// The key that the group has noted; `None`: there was no other than the first.
    pub(crate) fn noted(&self) -> Option<[u8; 32]> {
        self.state.keys.last().map(|(_, key)| *key)
    }

    /// `audit.pub` of every log and at the top, and `cluster/keys`.
    pub(crate) fn key_files(&self) -> Vec<(PathBuf, String)> {
        let vkey =
            |log: &LogId, public_key| VerifierKey { name: log.origin(&self.state.cluster), public_key }.to_text();
        let own =
            |log: &LogId| (self.dir.join(log.folder()).join(KEY_FILE), format!("{}\n", vkey(log, self.public_key)));
        let mut files: Vec<(PathBuf, String)> = self.logs.keys().map(own).collect();
        files.push((self.dir.join(KEY_FILE), format!("{}\n", vkey(&LogId::CLUSTER, self.public_key))));
        let line = |(record, key): &(Option<u64>, [u8; 32])| {
            let record = record.map_or_else(|| "-".to_owned(), |record| record.to_string());
            format!("{record} {}\n", vkey(&LogId::CLUSTER, *key))
        };
        let keys: String = self.state.keys.iter().map(line).collect();
        if !keys.is_empty() && self.logs.contains_key(&LogId::CLUSTER) {
            files.push((self.dir.join(LogId::CLUSTER.folder()).join(KEYS_FILE), keys));
        }
        files
    }

    /// The first key that signed: it names the log, whatever key signs now.
    pub(crate) fn first_key(&self) -> [u8; 32] {
        self.state.keys.first().map_or(self.public_key, |(_, key)| *key)
    }

    /// The key that signs by what is stored here; `None`: the first one does.
    pub(crate) fn noted_key(dir: &Path) -> Result<Option<[u8; 32]>, AuditError> {
        let state = MachineState::read(&dir.join(STATE_FILE))?;
        Ok(state.and_then(|state| state.keys.last().map(|(_, key)| *key)))
    }

    /// Publishes a checkpoint with cosignatures. An older one than is published, or one beyond what was
    /// signed here, is passed over. Whoever proposes has checked the signatures.
    fn take_cosigned(&mut self, note: String) -> Reply {
        let Ok(checkpoint) = Checkpoint::parse_unchecked(&note) else { return Reply::Taken(0) };
        let log = LogId::from_origin(&checkpoint.origin);
        let Some(log) = log.filter(|log| log.origin(&self.state.cluster) == checkpoint.origin) else {
            return Reply::Taken(0);
        };
        let published = self.state.cosigned.get(&log).map_or(0, |(size, _)| *size);
        if checkpoint.size < published || checkpoint.size > self.signed_size(&log) {
            return Reply::Taken(0);
        }
        self.state.cosigned.insert(log.clone(), (checkpoint.size, note));
        self.cosigned_due.insert(log);
        Reply::Taken(1)
    }

    fn match_sealed(&self, note: &str) -> Result<Option<(LogId, SealedHead)>, CheckpointError> {
        let checkpoint = Checkpoint::parse_unchecked(note)?;
        let Some(log) = LogId::from_origin(&checkpoint.origin) else { return Ok(None) };
        let head = SealedHead { size: checkpoint.size, root: checkpoint.root, chain: checkpoint.chain };
        let same = log.origin(&self.state.cluster) == checkpoint.origin && self.state.sealed.get(&log) == Some(&head);
        // A leader that was replaced while a new key took over may come late with the old one's signature.
        let current = self.noted().is_none_or(|key| bears(note, &checkpoint.origin, key));
        Ok((same && current).then_some((log, head)))
    }

    /// Queues the checkpoint files of these logs.
    fn publish(&self, logs: &BTreeSet<LogId>) -> io::Result<()> {
        let jobs = logs.iter().filter_map(|log| {
            let note = self.state.checkpoints.get(log)?.note.clone();
            Some(PublishJob { dir: self.dir.join(log.folder()), note })
        });
        let all = self.state.checkpoints.values().map(|signed| format!("{}\n", signed.note));
        self.persister.send(Job::Publish(jobs.collect(), all.collect()))
    }

    /// Writes the checkpoints of these logs again (they are derived from consensus).
    pub(crate) fn republish(&self, logs: &BTreeSet<LogId>) -> io::Result<()> {
        if logs.is_empty() { Ok(()) } else { self.publish(logs) }
    }
}

/// Whether a signature names this key. Whoever proposes a note has signed it, so that nothing is verified.
fn bears(note: &str, origin: &str, public_key: [u8; 32]) -> bool {
    let key = VerifierKey { name: origin.to_owned(), public_key }.id();
    SignedNote::parse(note).is_ok_and(|note| note.signatures().any(|(name, id, _)| name == origin && id == key))
}

/// What a checked record says of itself.
struct Checked {
    hash: Hash,
    phase: Phase,
    call_id: CallId,
    time_ns: u64,
    seq: u64,
}

/// Checks a whole batch against its writer's chains: form, identity, sequence, link, tenant.
fn check_batch(append: &Append, writer: Option<&Writer>) -> Result<Vec<Checked>, String> {
    let mut moved: HashMap<&LogId, WriterChain> = HashMap::new();
    let mut checked = Vec::with_capacity(append.records.len());
    for (n, record) in append.records.iter().enumerate() {
        let view = RecordView::read(&record.leaf).map_err(|e| format!("record {n}: {e}"))?;
        let before = moved.get(&record.log).cloned();
        let before = before.or_else(|| writer.and_then(|w| w.chains.get(&record.log)).cloned()).unwrap_or_default();
        let wrong = [
            (view.writer_id != append.writer, "writer_id"),
            (view.epoch != append.epoch, "epoch"),
            (view.seq != before.next_seq(append.epoch), "seq"),
            (view.prev != before.prev, "writer_prev"),
            (view.tenant.unwrap_or_default() != record.log.tenant(), "tenant"),
        ];
        if let Some((_, field)) = wrong.iter().find(|(wrong, _)| *wrong) {
            return Err(format!("record {n}: `{field}` does not continue the writer's chain"));
        }
        // Beside the record stands the body that it names, or none.
        if record.body.as_deref().map(|body| Hash(provost_sealed::sha256(body))) != view.body_sealed {
            return Err(format!("record {n}: `body.sealed` is not the body that came with it"));
        }
        let hash = leaf_hash(&record.leaf);
        moved.insert(&record.log, WriterChain { epoch: append.epoch, seq: view.seq, prev: hash });
        checked.push(Checked { hash, phase: view.phase, call_id: view.call_id, time_ns: view.time_ns, seq: view.seq });
    }
    Ok(checked)
}

/// Where a data directory has the keys of bodies.
fn keys_beside(dir: &Path) -> SubjectPaths {
    SubjectPaths::below(dir.parent().unwrap_or(Path::new(".")))
}

/// The state of a directory that was never used; one that holds logs but no state is refused.
fn first_state(disk: &Disk, dir: &Path, path: &Path, cluster: &str) -> Result<MachineState, AuditError> {
    let logs = list_logs(dir).map_err(AuditError::io(dir))?;
    if !logs.is_empty() {
        let why = format!("it is missing, but {} logs are there", logs.len());
        return Err(AuditError::State { path: path.to_owned(), why });
    }
    let state = MachineState { cluster: cluster.to_owned(), ..MachineState::default() };
    let write = || {
        disk.replace(path, &state.encode()?)?;
        disk.sync_dir(dir)
    };
    write().map_err(AuditError::io(path))?;
    Ok(state)
}

/// Before anything is cut: a checkpoint on disk is never ahead of the persisted state, because it
/// is written after it. If it is, the state (or all of the storage) is an older copy.
fn refuse_rollback(dir: &Path, state: &MachineState) -> Result<(), AuditError> {
    for log in list_logs(dir).map_err(AuditError::io(dir))? {
        let Some(signed) = disk_checkpoint(dir, &log)? else { continue };
        let size = state.logs.get(&log).map_or(0, LogHead::size);
        if signed.size > size {
            let why = format!("a checkpoint on disk covers {} records, the stored state only {size}", signed.size);
            return Err(AuditError::RolledBack { log, why });
        }
    }
    Ok(())
}

/// The latest checkpoint beside a log's files.
pub(crate) fn disk_checkpoint(dir: &Path, log: &LogId) -> Result<Option<Checkpoint>, AuditError> {
    let path = dir.join(log.folder()).join(CHECKPOINT_FILE);
    match fs::read_to_string(&path) {
        Ok(note) => Checkpoint::parse_unchecked(&note)
            .map(Some)
            .map_err(|e| AuditError::Differs { log: log.clone(), why: format!("{}: {e}", path.display()) }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(AuditError::io(&path)(e)),
    }
}

/// The machine as the group and the handle share it. The lock is held for one batch of entries or
/// one look, never across an await.
#[derive(Clone)]
pub struct SharedMachine(pub Arc<Mutex<AuditMachine>>);

impl Machine for SharedMachine {
    fn last_applied(&self) -> io::Result<Option<AppliedState>> {
        Ok(self.0.lock().state.raft.clone().map(AppliedState::from_bytes))
    }

    fn apply(&mut self, batch: Vec<Entry>) -> io::Result<Vec<Vec<u8>>> {
        let mut machine = self.0.lock();
        let mut replies = Vec::with_capacity(batch.len());
        let last = batch.last().map(|entry| entry.applied.as_bytes().to_vec());
        for entry in &batch {
            replies.push(machine.step(entry.index, entry.payload.as_ref())?);
        }
        // A seal persists in `finish`: by then state and `raft` are both at the batch's end.
        machine.state.raft = last.or(machine.state.raft.take());
        machine.finish()?;
        Ok(replies)
    }

    /// A manifest: the state, after everything it describes has been made durable here. The
    /// records stay where they are, and are not copied for each snapshot.
    fn snapshot(&self) -> io::Result<SnapshotWriter> {
        let mut machine = self.0.lock();
        machine.persist()?;
        let (applied, mut progress) = (machine.state.applied, machine.progress());
        let manifest = machine.state.encode()?;
        Ok(Box::new(move |out: &mut dyn Write| {
            wait_persisted(&mut progress, applied)?;
            out.write_all(&manifest)
        }))
    }

    /// Takes what the manifest describes from another replica, unless it is here already.
    fn install(&mut self, applied: AppliedState, data: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        data.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes)?;
        let manifest = MachineState::decode(&bytes).map_err(io::Error::other)?;
        let mut machine = self.0.lock();
        if machine.state.applied < manifest.applied {
            machine.catch_up(manifest)?;
        }
        machine.state.raft = Some(applied.as_bytes().to_vec());
        machine.persist()?;
        // After the state: a checkpoint on disk is never ahead of it.
        machine.finish()
    }
}

/// The largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;

/// Blocks until the state at `applied` is durable.
fn wait_persisted(progress: &mut Progress, applied: Option<u64>) -> io::Result<()> {
    loop {
        match &*progress.borrow_and_update() {
            Ok(done) if *done >= applied => return Ok(()),
            Ok(_) => {}
            Err(why) => return Err(io::Error::other(why.clone())),
        }
        // This runs on a blocking thread, outside of any runtime's workers.
        let changed = futures::executor::block_on(progress.changed());
        changed.map_err(|_| io::Error::other("the persist thread has ended"))?;
    }
}
