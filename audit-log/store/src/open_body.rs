//! Opens the body of a record, on a node that holds its key.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use provost_audit_core::{
    BODY_HEADER_LEN, BODY_PREFIX_LEN, BodyHeader, BodyPrefix, Hash, LogId, MAX_STORED_BODY, SEGMENT_LEAVES,
};
use provost_audit_verify::LogLayout;
use provost_sealed::{BodyKey, OpenError, Place};
use provost_types::{KeyId, Month, SubjectKey};
use zeroize::Zeroizing;

use crate::{AuditNode, Found, QueryError, show, subject_state::Lookup};

/// A record and what became of its body.
#[derive(Debug)]
pub struct BodyShown {
    /// The record.
    pub found: Found,
    /// The body.
    pub body: BodyState,
}

/// What became of a record's body.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyState {
    /// Opened, and the one that the record commits to.
    Opened(Zeroizing<Vec<u8>>),
    /// Its key was destroyed at this time, nanoseconds since the Unix epoch: nobody can read it.
    Erased(u64),
    /// Nothing was stored; the record says why.
    Omitted(String),
    /// The record has none.
    None,
}

/// Why a body cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The record cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The key is neither here nor known to be destroyed.
    #[error("PV-AUDIT-KEYS: this node does not hold the key of record {0}; ask another node of the audit log")]
    NoKey(u64),
    /// What is stored is not the body.
    #[error("PV-AUDIT-BODY: the body of record {index} in {file}: {why}; run `provost audit verify`", file = .file.display())]
    Damaged {
        /// The record.
        index: u64,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl AuditNode {
    /// Opens the body of record `index`. Blocking: reads files. The caller records that it was read.
    pub fn open_body(&self, log: &LogId, index: u64) -> Result<BodyShown, BodyError> {
        let found = show(self.dir(), log, index)?.found;
        let body = self.bodies(log).open(&found)?;
        Ok(BodyShown { found, body })
    }

    /// Opens bodies of one log, one after the other. For as long as one question takes: it remembers the
    /// keys that it has used.
    pub fn bodies(&self, log: &LogId) -> Bodies<'_> {
        Bodies { node: self, log: log.clone(), keys: HashMap::new(), file: None }
    }
}

/// Opens bodies of one log; those of later records after those of earlier ones.
pub struct Bodies<'a> {
    node: &'a AuditNode,
    log: LogId,
    keys: HashMap<KeyId, Option<(SubjectKey, String)>>,
    /// The first record of the segment whose bodies are being read, and the place in that file.
    file: Option<(u64, Option<BodyReader>)>,
}

impl Bodies<'_> {
    /// The body of a record. Blocking: reads files. The caller records that it was read.
    pub fn open(&mut self, found: &Found) -> Result<BodyState, BodyError> {
        let (record, index) = (&found.record, found.index);
        let (Some(commit), Some(id)) = (record.body_commit, record.body_key) else {
            return Ok(BodyState::None);
        };
        if !self.keys.contains_key(&id) {
            let held = match self.node.inner.checkpointer.machine.0.lock().keys.state.lookup(id) {
                Lookup::Here(key, subject) => Some((key, subject)),
                Lookup::Erased(time_ns) => return Ok(BodyState::Erased(time_ns)),
                Lookup::NotHere => None,
            };
            self.keys.insert(id, held);
        }
        if !matches!(self.keys.get(&id), Some(Some(_))) {
            return Err(BodyError::NoKey(index));
        }
        let Some(expected) = record.body_sealed else {
            let why = record.body_omitted.as_deref().unwrap_or_default().to_owned();
            return Ok(BodyState::Omitted(why));
        };
        let segment = index - index % SEGMENT_LEAVES;
        let path = LogLayout::new(self.node.dir().join(self.log.folder())).bodies(segment);
        let damaged = |why: String| BodyError::Damaged { index, file: path.clone(), why };
        let stored = self.stored(&path, segment, index).map_err(|e| damaged(e.to_string()))?;
        let stored = stored.ok_or_else(|| damaged("it is not there".to_owned()))?;
        if Hash(provost_sealed::sha256(&stored)) != expected {
            return Err(damaged("it was changed".to_owned()));
        }
        let Some(Some((key, subject))) = self.keys.get(&id) else { return Err(BodyError::NoKey(index)) };
        let place = Place {
            tenant: self.log.tenant(),
            subject,
            month: Month::of_ns(record.time_ns),
            call_id: record.call_id,
            phase: record.phase,
        };
        let opened = BodyKey::new(key, &place).open(&stored, &commit.0);
        opened.map(BodyState::Opened).map_err(|e: OpenError| damaged(e.to_string()))
    }

    fn stored(&mut self, path: &Path, segment: u64, index: u64) -> io::Result<Option<Vec<u8>>> {
        if self.file.as_ref().is_none_or(|(first, _)| *first != segment) {
            self.file = Some((segment, BodyReader::open(path)?));
        }
        match &mut self.file {
            Some((_, Some(reader))) => reader.find(index),
            _ => Ok(None),
        }
    }
}

/// Reads one file of bodies forward.
pub(crate) struct BodyReader {
    file: File,
    at: u64,
}

impl BodyReader {
    /// `None`: there is no such file.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut header = [0; BODY_HEADER_LEN];
        file.read_exact_at(&mut header, 0)?;
        BodyHeader::decode(&header).map_err(io::Error::other)?;
        Ok(Some(Self { file, at: BODY_HEADER_LEN as u64 }))
    }

    /// The sealed body of a record; later calls ask for later ones.
    pub(crate) fn find(&mut self, index: u64) -> io::Result<Option<Vec<u8>>> {
        let len = self.file.metadata()?.len();
        let mut prefix = [0; BODY_PREFIX_LEN];
        while self.at + BODY_PREFIX_LEN as u64 <= len {
            self.file.read_exact_at(&mut prefix, self.at)?;
            let found = BodyPrefix::decode(&prefix).map_err(io::Error::other)?;
            if found.index > index {
                return Ok(None);
            }
            let at = self.at + BODY_PREFIX_LEN as u64;
            self.at = at + u64::from(found.len);
            if found.index == index {
                let mut body = vec![0; (found.len as usize).min(MAX_STORED_BODY)];
                self.file.read_exact_at(&mut body, at)?;
                return Ok(Some(body));
            }
        }
        Ok(None)
    }
}
