//! The notes of a checkpoint file, one after the other.
//!
//! Invariants: one note and what is read ahead are in memory, however long the file is; a file that is no file of
//! notes is left after a bounded part of it.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use provost_audit_core::MAX_CHECKPOINT_BYTES;

use crate::regular;

/// Read-ahead, bytes.
const READ_AHEAD: usize = 64 * 1024;
/// No signed checkpoint is as short: its root and chain alone have 88 characters.
const MIN_NOTE_BYTES: usize = 64;
/// Pieces shorter than that which one file may hold. More are no damage but a file that is to take long.
const MAX_SCRAPS: usize = 1_000;

/// One note of a file.
pub(crate) struct Note {
    pub text: String,
    pub offset: u64,
    /// Whether the file ends with it and no blank line follows: a crash may have cut it.
    pub last: bool,
}

/// Why a file's notes are not read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotesFault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no file of notes, from this place on.
    #[error("byte {offset}: {why}")]
    Garbage { offset: u64, why: &'static str },
}

impl From<NotesFault> for io::Error {
    fn from(fault: NotesFault) -> Self {
        match fault {
            NotesFault::Io(e) => e,
            NotesFault::Garbage { .. } => io::Error::new(io::ErrorKind::InvalidData, fault.to_string()),
        }
    }
}

/// Reads the notes of one file; nothing comes after a fault.
pub(crate) struct Notes {
    /// `None`: everything was read.
    file: Option<File>,
    held: Vec<u8>,
    /// How many of the bytes held were given out.
    used: usize,
    /// Where the next note stands in the file.
    at: u64,
    scraps: usize,
}

/// The notes of a file, or none when there is no such file.
pub(crate) fn read_notes(path: &Path) -> io::Result<Notes> {
    let file = match regular::open(path) {
        Ok(file) => Some(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    Ok(Notes { file, held: Vec::new(), used: 0, at: 0, scraps: 0 })
}

/// Where the first note of these bytes ends: before the second blank line.
fn end_of(rest: &[u8]) -> Option<usize> {
    let body = memchr::memmem::find(rest, b"\n\n")? + 2;
    Some(body + memchr::memmem::find(rest.get(body..)?, b"\n\n")? + 1)
}

impl Notes {
    fn fill(&mut self) -> io::Result<()> {
        self.held.drain(..self.used);
        self.used = 0;
        let Some(file) = &mut self.file else { return Ok(()) };
        let got = file.take(READ_AHEAD as u64).read_to_end(&mut self.held)?;
        if got < READ_AHEAD {
            self.file = None;
        }
        Ok(())
    }

    /// Nothing comes after this.
    fn stop(&mut self, fault: NotesFault) -> NotesFault {
        self.file = None;
        self.held.clear();
        self.used = 0;
        fault
    }

    fn step(&mut self) -> Result<Option<Note>, NotesFault> {
        let (len, last) = loop {
            let rest = self.held.get(self.used..).unwrap_or_default();
            // By bytes, so that offsets are right where a file holds anything but text.
            match end_of(rest) {
                Some(end) => break (end, false),
                None if rest.len() > MAX_CHECKPOINT_BYTES => break (rest.len(), true),
                None if self.file.is_some() => self.fill()?,
                None if rest.is_empty() => return Ok(None),
                None => break (rest.len(), true),
            }
        };
        let offset = self.at;
        if len > MAX_CHECKPOINT_BYTES {
            return Err(NotesFault::Garbage { offset, why: "a note is longer than one may be" });
        }
        if len < MIN_NOTE_BYTES {
            self.scraps += 1;
            if self.scraps > MAX_SCRAPS {
                return Err(NotesFault::Garbage { offset, why: "too many pieces that are no notes" });
            }
        }
        let piece = self.held.get(self.used..self.used + len).unwrap_or_default();
        let text = String::from_utf8_lossy(piece).into_owned();
        // The blank line behind it; at the end there may be none.
        self.used = (self.used + len + 1).min(self.held.len());
        self.at += len as u64 + 1;
        Ok(Some(Note { text, offset, last }))
    }
}

impl Iterator for Notes {
    type Item = Result<Note, NotesFault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().map_err(|fault| self.stop(fault)).transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    /// Text, offset and whether it is the last, of each; and the offset of a fault.
    fn notes_of(bytes: &[u8]) -> (Vec<(String, u64, bool)>, Option<u64>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        fs::write(&path, bytes).unwrap();
        let (mut found, mut fault) = (Vec::new(), None);
        for note in read_notes(&path).unwrap() {
            assert_eq!(fault, None, "nothing comes after a fault");
            match note {
                Ok(note) => found.push((note.text, note.offset, note.last)),
                Err(NotesFault::Garbage { offset, .. }) => fault = Some(offset),
                Err(NotesFault::Io(e)) => panic!("{e}"),
            }
        }
        (found, fault)
    }

    #[test]
    fn notes_are_split_at_blank_lines_wherever_a_read_ends() {
        assert_eq!(notes_of(b""), (Vec::new(), None));
        let of = |text: &str, offset, last| (text.to_owned(), offset, last);
        assert_eq!(notes_of(b"a\n\nb\n\nc\n\nd\n"), (vec![of("a\n\nb\n", 0, false), of("c\n\nd\n", 6, true)], None));
        assert_eq!(notes_of(b"a\n\nb\n\nc"), (vec![of("a\n\nb\n", 0, false), of("c", 6, true)], None));
        // Lengths without a common factor with the read-ahead: its end comes to stand everywhere in a note.
        let note = format!("{}\n\n{}\n\n", "t".repeat(90), "s".repeat(39));
        let (found, fault) = notes_of(note.repeat(3_000).as_bytes());
        assert_eq!((found.len(), fault), (3_000, None));
        for (n, (text, offset, last)) in found.iter().enumerate() {
            assert_eq!((text.as_str(), *offset, *last), (&note[..note.len() - 1], (n * note.len()) as u64, false));
        }
    }

    #[test]
    fn a_note_has_a_longest_length_and_a_file_a_number_of_scraps() {
        let whole = format!("{}\n\nb\n\n", "t".repeat(MAX_CHECKPOINT_BYTES - 4));
        assert_eq!(notes_of(whole.as_bytes()).0.len(), 1);
        let longer = format!("x{whole}");
        assert_eq!(notes_of(longer.as_bytes()), (Vec::new(), Some(0)));
        assert_eq!(notes_of(&vec![b'x'; MAX_CHECKPOINT_BYTES + 1]), (Vec::new(), Some(0)));
        let (found, fault) = notes_of(&vec![b'\n'; 50_000_000]);
        assert_eq!((found.len(), fault), (MAX_SCRAPS, Some(4 * MAX_SCRAPS as u64)));
    }
}
