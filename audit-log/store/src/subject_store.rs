//! The keys of subjects as the machine holds them: the state, its file, and what is not in it yet.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use zeroize::Zeroizing;

use crate::{
    error::AuditError,
    subject_entry::{KeyCommand, KeyReply},
    subject_file::{SubjectFile, SubjectPaths},
    subject_secret::Secret,
    subject_state::SubjectState,
};

/// Keys in memory, and how they become durable.
pub(crate) struct SubjectStore {
    pub state: SubjectState,
    file: SubjectFile,
    dirty: bool,
    /// Keys were destroyed: what still holds them must go before anybody is answered.
    destroyed: bool,
    /// [`SubjectState::generation`], for those who do not hold the machine.
    generation: Arc<AtomicU64>,
}

/// Makes the keys durable; part of a persist.
pub(crate) struct KeysJob {
    file: SubjectFile,
    plain: Zeroizing<Vec<u8>>,
    renew: bool,
}

impl KeysJob {
    pub(crate) fn run(&self) -> io::Result<()> {
        self.file.write(&self.plain, self.renew)
    }
}

impl SubjectStore {
    /// Reads the keys. `applied`: the last entry about keys that the machine's state knows of; a
    /// file that knows less is an older copy.
    pub(crate) fn open(paths: SubjectPaths, applied: Option<u64>) -> Result<Self, AuditError> {
        let path = paths.keys.clone();
        let file = SubjectFile::new(paths);
        let state = file.read()?.unwrap_or_default();
        if state.applied < applied {
            let why = "it is missing, or older than the log: keys that records name are not in it".to_owned();
            return Err(AuditError::Keys { path, why });
        }
        let generation = Arc::new(AtomicU64::new(state.generation));
        Ok(Self { state, file, dirty: false, destroyed: false, generation })
    }

    pub(crate) fn apply(&mut self, index: u64, command: KeyCommand) -> KeyReply {
        let before = self.state.applied;
        let (reply, destroyed) = self.state.apply(index, command);
        self.dirty |= self.state.applied != before;
        self.destroyed |= destroyed;
        self.generation.store(self.state.generation, Ordering::SeqCst);
        reply
    }

    /// Whether keys were destroyed since the last [`SubjectStore::take_job`].
    pub(crate) fn destroyed(&self) -> bool {
        self.destroyed
    }

    pub(crate) fn generation(&self) -> Arc<AtomicU64> {
        self.generation.clone()
    }

    /// What the next persist has to write, if anything.
    pub(crate) fn take_job(&mut self) -> io::Result<Option<KeysJob>> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(None);
        }
        let plain = self.plain()?;
        Ok(Some(KeysJob { file: self.file.clone(), plain, renew: std::mem::take(&mut self.destroyed) }))
    }

    /// The state as bytes: for the file, and for a node that joins.
    pub(crate) fn plain(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        postcard::to_stdvec(&self.state).map(Zeroizing::new).map_err(io::Error::other)
    }

    /// Takes another replica's keys in place of these, which are too old to go on from. Durable with
    /// the next persist; keys that were destroyed meanwhile are destroyed here by it.
    pub(crate) fn adopt(&mut self, exported: &[u8], at_least: Option<u64>) -> io::Result<()> {
        if applied_of(exported)? < at_least {
            return Err(io::Error::other("PV-AUDIT-KEYS: the other node's keys are too old as well"));
        }
        let state: SubjectState = postcard::from_bytes(exported).map_err(io::Error::other)?;
        self.destroyed |= state.generation != self.state.generation;
        self.dirty = true;
        self.state = state;
        self.generation.store(self.state.generation, Ordering::SeqCst);
        Ok(())
    }

    /// Makes the log key of a cluster that has none. It is durable before anything is wrapped
    /// under it, because what is can be opened with nothing else.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        if self.state.log_key.is_some() || self.state.applied.is_some() {
            return Ok(());
        }
        self.state.log_key = Some(Secret::random()?);
        self.file.write(&self.plain()?, false)
    }
}

/// Makes the log key of a cluster that has none, durably; nothing happens when it is there.
pub fn begin_keys(paths: SubjectPaths) -> Result<(), AuditError> {
    let path = paths.keys.clone();
    SubjectStore::open(paths, None)?.begin().map_err(AuditError::io(&path))
}

/// Index of the last entry about keys that an export holds.
pub(crate) fn applied_of(exported: &[u8]) -> io::Result<Option<u64>> {
    let state = postcard::from_bytes::<SubjectState>(exported);
    let state = state.map_err(|_| io::Error::other("PV-AUDIT-KEYS: what another node gave is no key state"))?;
    match state.log_key {
        Some(_) => Ok(state.applied),
        None => Err(io::Error::other("PV-AUDIT-KEYS: the other node has no keys itself")),
    }
}

/// Takes over the keys that another node gave out, before the log is opened here the first time.
pub fn adopt_keys(paths: SubjectPaths, exported: &[u8]) -> Result<(), AuditError> {
    let path = paths.keys.clone();
    let wrong = |why: &str| AuditError::Keys { path: path.clone(), why: why.to_owned() };
    let file = SubjectFile::new(paths);
    if file.read()?.is_some() {
        return Err(wrong("there are keys here already"));
    }
    let state = postcard::from_bytes::<SubjectState>(exported);
    let state = state.map_err(|_| wrong("what another node gave is no key state"))?;
    if state.log_key.is_none() {
        return Err(wrong("the other node has no keys itself"));
    }
    file.write(exported, false).map_err(AuditError::io(&path))
}
