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

use provost_audit_core::{BODY_HEADER_LEN, BODY_PREFIX_LEN, BodyHeader, BodyPrefix, Hash, SEGMENT_LEAVES};
use provost_types::KeyId;

use crate::{facts::BodyFact, layout::LogLayout, regular};

const NOBODYS: &str = "a body stands here that no record names";

/// A body is not the one that its record names.
pub(crate) struct BodyFault {
    pub file: PathBuf,
    pub offset: u64,
    pub what: String,
    /// Expected and actual hash, where that is what differs.
    pub hashes: Option<(Hash, Hash)>,
    /// Whether the file is nothing that can be read, rather than one with other bytes.
    pub missing: bool,
}

/// What was seen of the bodies of one log.
pub(crate) struct Bodies {
    layout: LogLayout,
    origin: Hash,
    open: Option<Open>,
    /// By key: bodies that are kept.
    kept: HashMap<Option<KeyId>, u64>,
    /// Keys that an erasure names.
    erased: HashSet<KeyId>,
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

    /// The records `from..to`, which come next; `facts` are those of them that name bodies. Each body
    /// must stand next in the file. The index of a fault is the record at which it shows.
    pub(crate) fn take(&mut self, from: u64, to: u64, facts: &[BodyFact]) -> Result<(), (u64, Box<BodyFault>)> {
        let mut at = from;
        let mut facts = facts.iter().peekable();
        while at < to {
            let first = at - at % SEGMENT_LEAVES;
            let end = to.min(first + SEGMENT_LEAVES);
            if self.open.as_ref().is_none_or(|open| open.first != first) {
                self.begin(first).map_err(|fault| (at, fault))?;
            }
            while let Some(fact) = facts.next_if(|fact| fact.index < end) {
                self.nothing_before(at, fact.index)?;
                match self.stands().filter(|next| next.index == fact.index) {
                    None if self.stands().is_some_and(|next| next.index < fact.index) => {
                        return Err((fact.index, self.fault(NOBODYS)));
                    }
                    None => self.missing += 1,
                    Some(next) => self.compare(fact, next).map_err(|fault| (fact.index, fault))?,
                }
                at = fact.index + 1;
            }
            self.nothing_before(at, end)?;
            at = end;
        }
        Ok(())
    }

    fn stands(&self) -> Option<BodyPrefix> {
        self.open.as_ref().and_then(|open| open.next)
    }

    /// The records `at..to` name no body: none of theirs, or of earlier ones, may stand here.
    fn nothing_before(&self, at: u64, to: u64) -> Result<(), (u64, Box<BodyFault>)> {
        match self.stands() {
            Some(next) if at < to && next.index < at => Err((at, self.fault(NOBODYS))),
            Some(next) if at < to && next.index < to => {
                Err((next.index, self.fault("a body stands here whose record names none")))
            }
            _ => Ok(()),
        }
    }

    /// Keys that an erasure names.
    pub(crate) fn note_erased(&mut self, keys: Vec<KeyId>) {
        self.erased.extend(keys);
    }

    /// Bodies that are kept, and how many of them nobody can open any more.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let gone = self
            .kept
            .iter()
            .filter(|(key, _)| key.is_some_and(|key| self.erased.contains(&key)))
            .map(|(_, count)| count);
        (self.kept.values().sum(), gone.sum())
    }

    fn compare(&mut self, fact: &BodyFact, next: BodyPrefix) -> Result<(), Box<BodyFault>> {
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
        if actual != fact.sealed {
            let mut fault = self.fault("the body is not the one that the record names: it was changed or replaced");
            fault.hashes = Some((fact.sealed, actual));
            return Err(fault);
        }
        *self.kept.entry(fact.key).or_default() += 1;
        if let Some(open) = &mut self.open {
            open.at += (BODY_PREFIX_LEN + body.len()) as u64;
        }
        self.advance()
    }

    fn begin(&mut self, first: u64) -> Result<(), Box<BodyFault>> {
        let path = self.layout.bodies(first);
        self.open = Some(Open { first, file: None, at: 0, next: None });
        let file = match regular::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => {
                let mut fault = self.fault(&e.to_string());
                fault.missing = true;
                return Err(fault);
            }
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
        Box::new(BodyFault {
            file: self.layout.bodies(first),
            offset,
            what: what.to_owned(),
            hashes: None,
            missing: false,
        })
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
