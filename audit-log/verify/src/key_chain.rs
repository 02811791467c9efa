//! Which keys may sign a log, and from which size on.
//!
//! A key takes over from the one before it by a record in the cluster's log (event `audit.key`) and by
//! checkpoints that both signed, one in each log. From the first such checkpoint on, the older key
//! signs nothing any more: whoever stole it can sign no larger size. `cluster/keys` lists the keys and
//! is trusted in nothing: every line but the first must be borne out by its record.
//! Left out: revocation without a successor (give the new key with `--key`).

use std::{io, path::Path};

use provost_audit_core::{
    BLOCK_RECORDS, Checkpoint, CheckpointError, LogId, NoteError, Record, SEGMENT_LEAVES, SignedNote, VerifierKey,
};
use provost_types::Phase;

use crate::{
    anchor::Unread,
    ed25519::Ed25519,
    layout::{HISTORY_FILE, KEYS_FILE, LogLayout},
    notes::read_notes,
    read::LogReader,
    regular::{self, MAX_KEYS_BYTES},
};

/// The event that names a new key.
const KEY_EVENT: &str = "audit.key";
/// Keys that are followed.
const MAX_KEYS: usize = 1_000;

/// The keys of a cluster, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyChain {
    keys: Vec<[u8; 32]>,
    /// There may be earlier keys that cannot be followed from here (the folder of one log).
    pub partial: bool,
}

/// The first and the last key of the chain that signed a checkpoint.
pub(crate) type Signers = (usize, usize);

impl KeyChain {
    /// The chain of the audit directory `top`; without one (the folder of one log), or without a
    /// chain, the one key that is trusted or lies beside the log.
    pub(crate) fn read(top: Option<&Path>, own: [u8; 32], trusted: Option<[u8; 32]>) -> Result<Self, Unread> {
        let alone = |key| Self { keys: vec![key], partial: top.is_none() };
        let Some(top) = top else { return Ok(alone(trusted.unwrap_or(own))) };
        let keys = listed(&top.join(LogId::CLUSTER.folder()))?;
        let has = |key: &[u8; 32]| keys.contains(key);
        Ok(match trusted {
            Some(trusted) if has(&trusted) => Self { keys, partial: false },
            Some(trusted) => alone(trusted),
            None if has(&own) => Self { keys, partial: false },
            None => alone(own),
        })
    }

    /// How many keys may have signed.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Reads a note: the checkpoint, and who signed it.
    pub(crate) fn check(&self, note: &str, origin: &str) -> Result<(Checkpoint, Signers), CheckpointError> {
        let checkpoint = Checkpoint::parse_unchecked(note)?;
        let parsed = SignedNote::parse(note)?;
        let mut signers: Option<Signers> = None;
        for (n, public_key) in self.keys.iter().enumerate() {
            let key = VerifierKey { name: origin.to_owned(), public_key: *public_key };
            let id = key.id();
            if parsed.signatures().any(|(name, found, _)| name == origin && found == id) {
                let forged = CheckpointError::Malformed("a signature of the log's key does not verify");
                parsed.check(&key, &Ed25519).map_err(|_| forged)?;
                signers = Some((signers.map_or(n, |(first, _)| first), n));
            }
        }
        match signers {
            Some(signers) => Ok((checkpoint, signers)),
            None => Err(NoteError::Unsigned(origin.to_owned()).into()),
        }
    }
}

/// Follows one log's checkpoints, which come by size and then by their first signer.
#[derive(Debug, Default)]
pub(crate) struct Succession {
    current: Option<usize>,
}

impl Succession {
    /// Why the next checkpoint may not be signed by these keys.
    pub(crate) fn follow(&mut self, (first, last): Signers) -> Result<(), &'static str> {
        match self.current {
            Some(current) if last < current => {
                Err("it is signed by a key that another one had replaced at a smaller size: a stolen old key")
            }
            Some(current) if first > current => {
                Err("its key did not take over from the one before it: no checkpoint is signed by both")
            }
            _ => {
                self.current = Some(last);
                Ok(())
            }
        }
    }
}

/// The keys that `cluster/keys` lists, as far as the cluster's records bear them out.
fn listed(cluster: &Path) -> Result<Vec<[u8; 32]>, Unread> {
    let file = cluster.join(KEYS_FILE);
    let text = match regular::read(&file, MAX_KEYS_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Unread::new(file, &e)),
    };
    let mut keys: Vec<[u8; 32]> = Vec::new();
    for line in text.lines().take(MAX_KEYS) {
        let Some((record, vkey)) = line.split_once(' ') else { break };
        let Ok(key) = VerifierKey::parse(vkey) else { break };
        let borne_out = match (keys.last(), record.parse()) {
            (None, _) => true,
            (Some(before), Ok(record)) => names(cluster, record, vkey) && switched(cluster, before, &key, record),
            (Some(_), Err(_)) => false,
        };
        if !borne_out {
            break;
        }
        keys.push(key.public_key);
    }
    Ok(keys)
}

/// Whether both keys signed one checkpoint of the cluster's log that covers the record.
fn switched(cluster: &Path, before: &[u8; 32], key: &VerifierKey, record: u64) -> bool {
    let Ok(notes) = read_notes(&cluster.join(HISTORY_FILE)) else { return false };
    let before = VerifierKey { name: key.name.clone(), public_key: *before };
    // Two lines of the log's own name are rare: only those are verified.
    let line = format!("\u{2014} {} ", key.name);
    let mut whole = notes.map_while(Result::ok);
    whole.any(|note| {
        if note.text.matches(&line).count() < 2 {
            return false;
        }
        let Ok(parsed) = SignedNote::parse(&note.text) else { return false };
        let covers = Checkpoint::parse_unchecked(&note.text).is_ok_and(|c| c.size > record && c.origin == key.name);
        covers && parsed.check(&before, &Ed25519).is_ok() && parsed.check(key, &Ed25519).is_ok()
    })
}

/// Whether the record at `index` is the event that names this key.
fn names(cluster: &Path, index: u64, vkey: &str) -> bool {
    let block = index - index % BLOCK_RECORDS;
    let mut reader = LogReader::from_segment(LogLayout::new(cluster), index - index % SEGMENT_LEAVES)
        .with_filter(Box::new(move |header| header.first_index == block));
    while let Ok(Some(chunk)) = reader.next() {
        if let Some((_, leaf)) = chunk.iter().find(|(at, _)| *at == index) {
            let Ok(record) = Record::decode(leaf) else { return false };
            let named = record.event_objects.first().is_some_and(|object| object == vkey);
            return record.phase == Phase::Event && record.event.as_deref() == Some(KEY_EVENT) && named;
        }
    }
    false
}
