//! Checkpoints to compare a log with: its own, and the auditor's.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use provost_audit_core::{Checkpoint, CheckpointError, NoteError};

use crate::{
    key_chain::{KeyChain, Signers, Succession},
    layout::{CHECKPOINT_FILE, COSIGNED_FILE, HISTORY_FILE},
    notes::{Note, NotesFault, read_notes},
    witness::Witnesses,
};

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

/// A file without which a log cannot be judged.
#[derive(Clone, Debug)]
pub(crate) struct Unread {
    pub file: PathBuf,
    pub why: String,
    /// Whether it is not there, or nothing that can be read, rather than something else than it should be.
    pub missing: bool,
}

impl Unread {
    pub(crate) fn new(file: PathBuf, e: &io::Error) -> Self {
        Self { file, why: e.to_string(), missing: e.kind() != io::ErrorKind::FileTooLarge }
    }
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
    ) -> Result<(), Unread> {
        let history: Arc<Path> = Arc::from(log_dir.join(HISTORY_FILE));
        self.each(&history, |own, note| {
            if note.last && is_cut(&note.text) {
                let text = "the history of checkpoints ends in a cut one (a crash while it was written)";
                own.notes.push(text.to_owned());
                return;
            }
            own.take(&history, note, origin, keys, false);
        })?;
        for latest in [CHECKPOINT_FILE, COSIGNED_FILE].map(|name| Arc::from(log_dir.join(name))) {
            self.each(&latest, |own, note| own.take(&latest, note, origin, keys, false))?;
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
    ) -> Result<(), Unread> {
        let file: Arc<Path> = Arc::from(path);
        self.each(&file, |own, note| {
            let first = note.text.lines().next().unwrap_or_default();
            if first == origin {
                own.take(&file, note, origin, keys, external);
            }
        })
    }

    /// The notes of a file; where it goes on as no file of notes, that is refused and the rest is left.
    fn each(&mut self, file: &Arc<Path>, mut take: impl FnMut(&mut Self, &Note)) -> Result<(), Unread> {
        let unread = |why: io::Error| Unread::new(file.to_path_buf(), &why);
        for note in read_notes(file).map_err(unread)? {
            match note {
                Ok(note) => take(self, &note),
                Err(NotesFault::Garbage { offset, why }) => self.refuse(file, offset, why.to_owned()),
                Err(NotesFault::Io(e)) => return Err(unread(e)),
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
                    Some(Err(why)) => return self.refuse(file, note.offset, why),
                };
                self.known.push(Known { checkpoint, external, signers, file: file.clone(), offset: note.offset });
            }
            Ok((checkpoint, _)) => {
                self.refuse(file, note.offset, format!("it is of another log, {}", checkpoint.origin));
            }
            Err(CheckpointError::Malformed(why)) => self.refuse(file, note.offset, why.to_owned()),
            Err(CheckpointError::Note(NoteError::Unsigned(_))) if keys.partial => self.unfollowed(file, note),
            Err(CheckpointError::Note(e)) => self.refuse(file, note.offset, e.to_string()),
        }
    }

    fn refuse(&mut self, file: &Arc<Path>, offset: u64, why: String) {
        if self.refused.is_none() {
            self.refused = Some(Refused { file: file.clone(), offset, why });
        }
    }
}
