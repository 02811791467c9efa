//! Checkpoints to compare a log with: its own, and the auditor's.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use provost_audit_core::{Checkpoint, CheckpointError, NoteError};

use crate::{
    key_chain::{KeyChain, Signers, Succession},
    layout::{CHECKPOINT_FILE, COSIGNED_FILE, HISTORY_FILE},
    witness::Witnesses,
};

/// The largest checkpoint file that is read.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A checkpoint whose signature holds.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub checkpoint: Checkpoint,
    /// Whether it came from outside of the directory.
    pub external: bool,
    /// Which keys signed it.
    pub signers: Signers,
    pub file: Arc<Path>,
    /// Where its note stands in the file.
    pub offset: u64,
}

/// A checkpoint that cannot be accepted.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub file: Arc<Path>,
    pub offset: u64,
    pub why: String,
}

/// All checkpoints of one log, by size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpoints<'a> {
    /// The auditor's policy, if there is one.
    pub witnesses: Option<&'a Witnesses>,
    pub known: Vec<Known>,
    pub refused: Option<Refused>,
    pub notes: Vec<String>,
    pub(crate) unfollowed: Option<(u64, Refused)>,
}

/// One note of a file.
pub(crate) struct Note {
    pub text: String,
    pub offset: u64,
    /// Whether it is the file's last: a crash may have cut it.
    pub last: bool,
}

/// The notes of a file, or none when there is no such file.
pub(crate) fn read_notes(path: &Path) -> io::Result<Vec<Note>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    let mut notes: Vec<Note> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        // By bytes, so that offsets are right where a file holds anything but text.
        let rest = bytes.get(at..).unwrap_or_default();
        let body = memchr::memmem::find(rest, b"\n\n").map(|body| body + 2);
        let end = body.and_then(|body| Some(body + memchr::memmem::find(rest.get(body..)?, b"\n\n")? + 1));
        let piece = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let text = String::from_utf8_lossy(piece).into_owned();
        notes.push(Note { text, offset: at as u64, last: false });
        at += piece.len() + 1;
    }
    if let Some(last) = notes.last_mut() {
        last.last = true;
    }
    Ok(notes)
}

/// Whether a crash may have cut it: it has no whole signature line.
fn is_cut(note: &str) -> bool {
    note.split_once("\n\n").is_none_or(|(_, signatures)| !signatures.ends_with('\n'))
}

impl Checkpoints<'_> {
    /// Reads the log's own checkpoints: its history, its latest one, and its entry in the file
    /// at the top.
    pub(crate) fn read_own(
        &mut self,
        log_dir: &Path,
        top: Option<&Path>,
        origin: &str,
        keys: &KeyChain,
    ) -> io::Result<()> {
        let history: Arc<Path> = Arc::from(log_dir.join(HISTORY_FILE));
        for note in read_notes(&history)? {
            let cut = note.last && is_cut(&note.text);
            if cut {
                let text = "the history of checkpoints ends in a cut one (a crash while it was written)";
                self.notes.push(text.to_owned());
                continue;
            }
            self.take(&history, &note, origin, keys, false);
        }
        for latest in [CHECKPOINT_FILE, COSIGNED_FILE].map(|name| Arc::from(log_dir.join(name))) {
            for note in read_notes(&latest)? {
                self.take(&latest, &note, origin, keys, false);
            }
        }
        if let Some(top) = top {
            self.read_matching(&top.join(CHECKPOINT_FILE), origin, keys, false)?;
        }
        Ok(())
    }

    /// Takes those notes of a file that are of this log.
    pub(crate) fn read_matching(
        &mut self,
        path: &Path,
        origin: &str,
        keys: &KeyChain,
        external: bool,
    ) -> io::Result<()> {
        let file: Arc<Path> = Arc::from(path);
        for note in read_notes(path)? {
            let first = note.text.lines().next().unwrap_or_default();
            if first == origin {
                self.take(&file, &note, origin, keys, external);
            }
        }
        Ok(())
    }

    /// A checkpoint of a key that cannot be followed from here. It may be an earlier key's, so it is no
    /// evidence of anything; one that is newer than all others is refused.
    fn unfollowed(&mut self, file: &Arc<Path>, note: &Note) {
        let size = Checkpoint::parse_unchecked(&note.text).map_or(u64::MAX, |c| c.size);
        if self.unfollowed.as_ref().is_none_or(|(largest, _)| *largest < size) {
            let why = "it is not signed by the log's key".to_owned();
            self.unfollowed = Some((size, Refused { file: file.clone(), offset: note.offset, why }));
        }
    }

    /// Sorted by size; of equal ones only one is kept, two that differ are a fork.
    pub(crate) fn settle(&mut self) {
        self.follow_keys();
        self.known.sort_by_key(|k| (k.checkpoint.size, !k.external));
        let mut fork = None;
        self.known.dedup_by(|later, first| {
            let (a, b) = (&later.checkpoint, &first.checkpoint);
            if a.size == b.size && (a.root != b.root || a.chain != b.chain) {
                fork.get_or_insert(Refused {
                    file: later.file.clone(),
                    offset: later.offset,
                    why: format!("two signed checkpoints of {} records differ: a split view", a.size),
                });
            }
            a.size == b.size
        });
        if self.refused.is_none() {
            self.refused = fork;
        }
    }

    /// Each key must have taken over from the one before it.
    fn follow_keys(&mut self) {
        self.known.sort_by_key(|k| (k.checkpoint.size, k.signers));
        let mut succession = Succession::default();
        for known in &self.known {
            if let Err(why) = succession.follow(known.signers) {
                let size = known.checkpoint.size;
                let why = format!("of {size} records: {why}");
                self.refused.get_or_insert(Refused { file: known.file.clone(), offset: known.offset, why });
            }
        }
        let largest = self.known.last().map_or(0, |k| k.checkpoint.size);
        match self.unfollowed.take() {
            Some((size, refused)) if size >= largest => drop(self.refused.get_or_insert(refused)),
            Some((size, _)) => {
                let text = "checkpoints of earlier keys are passed over; verify the whole directory to follow them";
                self.notes.push(format!("up to {size} records: {text}"));
            }
            None => {}
        }
    }

    fn take(&mut self, file: &Arc<Path>, note: &Note, origin: &str, keys: &KeyChain, external: bool) {
        match keys.check(&note.text, origin) {
            Ok((checkpoint, signers)) if checkpoint.origin == origin => {
                let external = match self.witnesses.map(|witnesses| witnesses.judge(&note.text)) {
                    None => external,
                    Some(Ok((enough, by))) => {
                        if !enough && !by.is_empty() {
                            let text = "cosigned, by fewer witnesses than the policy asks for";
                            self.notes.push(format!("{} records: {text} ({})", checkpoint.size, by.join(", ")));
                        }
                        external || enough
                    }
                    Some(Err(why)) => return self.refuse(file, note, why),
                };
                self.known.push(Known { checkpoint, external, signers, file: file.clone(), offset: note.offset });
            }
            Ok((checkpoint, _)) => {
                self.refuse(file, note, format!("it is of another log, {}", checkpoint.origin));
            }
            Err(CheckpointError::Malformed(why)) => self.refuse(file, note, why.to_owned()),
            Err(CheckpointError::Note(NoteError::Unsigned(_))) if keys.partial => self.unfollowed(file, note),
            Err(CheckpointError::Note(e)) => self.refuse(file, note, e.to_string()),
        }
    }

    fn refuse(&mut self, file: &Arc<Path>, note: &Note, why: String) {
        if self.refused.is_none() {
            self.refused = Some(Refused { file: file.clone(), offset: note.offset, why });
        }
    }
}
