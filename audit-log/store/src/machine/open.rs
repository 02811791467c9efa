//! Opening the audit directory: what is beyond the stored state is cut back, what is behind it refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::Arc,
};

use provost_audit_core::{Checkpoint, LogId, RecordReader};
use provost_audit_verify::{CHECKPOINT_FILE, LogLayout, list_logs};

use super::AuditMachine;
use crate::{
    catch_up::LeafSource,
    disk::{Disk, DiskWatch},
    error::AuditError,
    log_files::LogFiles,
    persist::Persister,
    prune_files::PruneFiles,
    state::{LogHead, MachineState, STATE_FILE},
    subject_file::SubjectPaths,
    subject_store::SubjectStore,
};

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
            let mut head = head.clone();
            // A prune takes the body file away that a state from before it still names.
            head.bodies = head.bodies.behind(state.retention.pruned.get(log).map_or(0, |pruned| pruned.to));
            let files = LogFiles::reopen(&disk, log, layout, &log.origin(cluster), head)?;
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
        let machine = Self {
            dir: dir.to_owned(),
            disk,
            public_key: state.keys.last().map_or(public_key, |(_, noted)| *noted),
            state,
            logs,
            keys,
            persister,
            reader: RecordReader::default(),
            persist_due: false,
            published,
            prune_due: BTreeSet::new(),
            cosigned_due,
            keys_due: false,
            source: None,
            broken: false,
            refused: None,
        };
        // Now, because later entries replace them: one that both keys of a change signed must not be missing.
        machine.republish(&machine.unpublished()?).map_err(AuditError::io(dir))?;
        Ok(machine)
    }

    /// Logs whose checkpoint in the stored state a crash kept from the disk. One that contradicts it is left
    /// alone: the comparison with the consensus refuses it.
    fn unpublished(&self) -> Result<BTreeSet<LogId>, AuditError> {
        let mut missing = BTreeSet::new();
        for (log, signed) in &self.state.checkpoints {
            let continues = disk_checkpoint(&self.dir, log)?.is_none_or(|on_disk| {
                let same = (on_disk.root, on_disk.chain) == (signed.head.root, signed.head.chain);
                on_disk.size < signed.head.size || (on_disk.size == signed.head.size && same)
            });
            let path = self.dir.join(log.folder()).join(CHECKPOINT_FILE);
            if continues && fs::read_to_string(&path).ok().as_deref() != Some(signed.note.as_str()) {
                missing.insert(log.clone());
            }
        }
        Ok(missing)
    }

    /// Gives the machine other replicas' records, for a snapshot that is ahead of it.
    pub fn with_source(mut self, source: Arc<dyn LeafSource>) -> Self {
        self.source = Some(source);
        self
    }

    /// The key that signs by what is stored here; `None`: the first one does.
    pub(crate) fn noted_key(dir: &Path) -> Result<Option<[u8; 32]>, AuditError> {
        let state = MachineState::read(&dir.join(STATE_FILE))?;
        Ok(state.and_then(|state| state.keys.last().map(|(_, key)| *key)))
    }
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
