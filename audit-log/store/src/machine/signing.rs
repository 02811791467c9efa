//! Heads are sealed, and signed checkpoints taken; which key signs, and what witnesses cosigned.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use provost_audit_core::{Checkpoint, CheckpointError, LogId, SignedNote, VerifierKey};
use provost_audit_verify::{KEY_FILE, KEYS_FILE};

use super::AuditMachine;
use crate::{
    entry::{Reply, Rotated},
    persist::{Job, PublishJob},
    state::{SealedHead, Signed},
};

impl AuditMachine {
    pub(super) fn signed_size(&self, log: &LogId) -> u64 {
        self.state.checkpoints.get(log).map_or(0, |signed| signed.head.size)
    }

    /// Whether any log has grown since its last checkpoint.
    pub(crate) fn is_dirty(&self) -> bool {
        self.logs.iter().any(|(log, files)| files.head.size() != self.signed_size(log))
    }

    pub(crate) fn cosigned_size(&self, log: &LogId) -> u64 {
        self.state.cosigned.get(log).map_or(0, |(size, _)| *size)
    }

    /// The checkpoint held in consensus.
    pub(crate) fn checkpoint(&self, log: &LogId) -> Option<&Signed> {
        self.state.checkpoints.get(log)
    }

    pub(super) fn seal(&mut self, all: bool) -> Reply {
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
    pub(super) fn take_signed(&mut self, notes: Vec<String>) -> Reply {
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
    pub(super) fn rotated(&mut self, rotated: Rotated) -> Reply {
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

    /// Publishes a checkpoint with cosignatures. An older one than is published, or one beyond what was
    /// signed here, is passed over. Whoever proposes has checked the signatures.
    pub(super) fn take_cosigned(&mut self, note: String) -> Reply {
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
    pub(super) fn publish(&self, logs: &BTreeSet<LogId>) -> io::Result<()> {
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
    signers(note, origin).contains(&VerifierKey { name: origin.to_owned(), public_key }.id())
}

/// The ids of a log's keys that a note's signatures name.
pub(super) fn signers(note: &str, origin: &str) -> Vec<[u8; 4]> {
    let Ok(note) = SignedNote::parse(note) else { return Vec::new() };
    note.signatures().filter(|(name, _, _)| *name == origin).map(|(_, id, _)| id).collect()
}
