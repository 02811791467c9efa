//! Sealed bodies beside the records: are they those that the records name?
//!
//! Needs no key. Reads each body file once, in the order of the records, and holds one body at a
//! time.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, BufReader, Read},
    path::PathBuf,
};

use provost_audit_core::{
    BODY_HEADER_LEN, BODY_PREFIX_LEN, BodyHeader, BodyPrefix, Hash, Record, RecordView, SEGMENT_LEAVES,
};
use provost_types::Phase;

use crate::layout::LogLayout;

/// The event that destroys keys.
const ERASE_EVENT: &str = "audit.erase";

/// A body is not the one that its record names.
pub(crate) struct BodyFault {
    pub file: PathBuf,
    pub offset: u64,
    pub what: String,
    /// Expected and actual hash, where that is what differs.
    pub hashes: Option<(Hash, Hash)>,
}

/// What was seen of the bodies of one log.
pub(crate) struct Bodies {
    layout: LogLayout,
    origin: Hash,
    open: Option<Open>,
    /// By key: bodies that are kept.
    kept: HashMap<String, u64>,
    /// Keys that an erasure names.
    erased: HashSet<String>,
    /// Bodies that records name and that are not there.
    pub missing: u64,
}

/// The body file of one segment.
struct Open {
    first: u64,
    file: Option<BufReader<File>>,
    at: u64,
    /// What stands before the next body.
    next: Option<BodyPrefix>,
}

impl Bodies {
    pub(crate) fn new(layout: LogLayout, origin: &str) -> Self {
        let origin = Hash::of(origin.as_bytes());
        Self { layout, origin, open: None, kept: HashMap::new(), erased: HashSet::new(), missing: 0 }
    }

    /// The next record. Its body, if it names one, must stand next in the file.
    pub(crate) fn observe(&mut self, index: u64, view: &RecordView<'_>, leaf: &[u8]) -> Result<(), Box<BodyFault>> {
        if view.phase == Phase::Event && view.event == Some(ERASE_EVENT) {
            self.note_erasure(leaf);
        }
        let first = index - index % SEGMENT_LEAVES;
        if self.open.as_ref().is_none_or(|open| open.first != first) {
            self.begin(first)?;
        }
        let stands = self.open.as_ref().and_then(|open| open.next).filter(|next| next.index <= index);
        match (view.body_sealed, stands) {
            (None, None) => Ok(()),
            (_, Some(next)) if next.index < index => Err(self.fault("a body stands here that no record names")),
            (None, Some(_)) => Err(self.fault("a body stands here whose record names none")),
            (Some(_), None) => {
                self.missing += 1;
                Ok(())
            }
            (Some(expected), Some(next)) => self.compare(expected, next, view),
        }
    }

    /// Bodies that are kept, and how many of them nobody can open any more.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let gone = self.kept.iter().filter(|(key, _)| self.erased.contains(*key)).map(|(_, count)| count);
        (self.kept.values().sum(), gone.sum())
    }

    fn note_erasure(&mut self, leaf: &[u8]) {
        let Ok(record) = Record::decode(leaf) else { return };
        let keys = record.event_objects.iter().filter_map(|object| object.strip_prefix("key:"));
        self.erased.extend(keys.map(str::to_owned));
    }

    fn compare(&mut self, expected: Hash, next: BodyPrefix, view: &RecordView<'_>) -> Result<(), Box<BodyFault>> {
        let mut body = vec![0; next.len as usize];
        let whole = match self.open.as_mut().and_then(|open| open.file.as_mut()) {
            Some(file) => read_whole(file, &mut body).map_err(|e| self.fault(&e.to_string()))?,
            None => false,
        };
        if !whole {
            // The file's end cuts it: it is not there (yet).
            self.missing += 1;
            if let Some(open) = &mut self.open {
                open.next = None;
            }
            return Ok(());
        }
        let actual = Hash::of(&body);
        if actual != expected {
            let mut fault = self.fault("the body is not the one that the record names: it was changed or replaced");
            fault.hashes = Some((expected, actual));
            return Err(fault);
        }
        *self.kept.entry(view.body_key.unwrap_or_default().to_owned()).or_default() += 1;
        if let Some(open) = &mut self.open {
            open.at += (BODY_PREFIX_LEN + body.len()) as u64;
        }
        self.advance()
    }

    fn begin(&mut self, first: u64) -> Result<(), Box<BodyFault>> {
        let path = self.layout.bodies(first);
        self.open = Some(Open { first, file: None, at: 0, next: None });
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(self.fault(&e.to_string())),
        };
        let mut file = BufReader::new(file);
        let mut header = [0; BODY_HEADER_LEN];
        if !read_whole(&mut file, &mut header).map_err(|e| self.fault(&e.to_string()))? {
            return Ok(());
        }
        let header = BodyHeader::decode(&header).map_err(|e| self.fault(&e.to_string()))?;
        if header != (BodyHeader { first_index: first, origin: self.origin }) {
            return Err(self.fault("the bodies are of another log or segment, or their header changed"));
        }
        if let Some(open) = &mut self.open {
            (open.file, open.at) = (Some(file), BODY_HEADER_LEN as u64);
        }
        self.advance()
    }

    /// Reads what stands before the next body.
    fn advance(&mut self) -> Result<(), Box<BodyFault>> {
        let mut prefix = [0; BODY_PREFIX_LEN];
        let Some(Open { file: Some(file), next, .. }) = &mut self.open else { return Ok(()) };
        let read = match read_whole(file, &mut prefix) {
            Ok(true) => BodyPrefix::decode(&prefix).map(Some).map_err(|e| e.to_string()),
            Ok(false) => Ok(None),
            Err(e) => Err(e.to_string()),
        };
        match read {
            Ok(found) => {
                *next = found;
                Ok(())
            }
            Err(why) => Err(self.fault(&why)),
        }
    }

    fn fault(&self, what: &str) -> Box<BodyFault> {
        let (first, offset) = self.open.as_ref().map_or((0, 0), |open| (open.first, open.at));
        Box::new(BodyFault { file: self.layout.bodies(first), offset, what: what.to_owned(), hashes: None })
    }
}

/// `false`: the file ends before.
fn read_whole(file: &mut BufReader<File>, out: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(out) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}
