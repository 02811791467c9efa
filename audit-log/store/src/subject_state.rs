//! The keys of subjects: a deterministic part that is equal on every node, and the keys
//! themselves, which a node has as far as it could unwrap them.
//!
//! Invariants: an entry is applied once (entries up to `applied` are passed over, because the
//! file of this state may be newer than the machine's); destroying keys replaces the log key in
//! the same step, so that no entry which is still in a Raft log leads to a destroyed key; a key's
//! name is never used again.

use std::collections::BTreeMap;

use provost_audit_core::LogId;
use provost_types::{KeyId, Month, Pseudonym, SubjectKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    subject_entry::{Erasure, KeyCommand, KeyReply, MAX_REASON, Slot},
    subject_names::{Identity, read_pseudonym},
    subject_secret::Secret,
};

/// Keys that are held at once. One is about 150 bytes in memory and on disk.
pub(crate) const MAX_SUBJECT_KEYS: usize = 1_000_000;
/// How the next log key follows from the last.
const NEXT_LOG_KEY: &[u8] = b"provost audit next log key 1\n";
/// The longest name of a subject.
const MAX_SUBJECT: usize = 256;

/// The state, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubjectState {
    /// Index of the last entry about keys that is in here.
    pub applied: Option<u64>,
    /// Counts how often keys were destroyed.
    pub generation: u64,
    /// What keys in entries are wrapped under; `None`: this node was not given it.
    pub log_key: Option<Secret>,
    /// Each tenant's key of pseudonyms, where this node could unwrap it.
    pseudonyms: BTreeMap<LogId, Option<Secret>>,
    slots: BTreeMap<Slot, Held>,
    /// Names of destroyed keys.
    erased: BTreeMap<KeyId, u64>,
    /// Erasures whose record is not known to be in the log.
    pub pending: BTreeMap<u128, (Erasure, Vec<KeyId>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    id: KeyId,
    /// `None`: this node could not unwrap it.
    open: Option<Opened>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Opened {
    key: Secret,
    subject: String,
}

/// What is known of a key by its name.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Here it is, and the subject's name.
    Here(SubjectKey, String),
    /// It was destroyed at this time.
    Erased(u64),
    /// This node does not hold it.
    NotHere,
}

/// What is known of the key for a slot.
pub(crate) enum Found {
    /// Here it is.
    Key(SubjectKey),
    /// It has to be made; the tenant may have no key of pseudonyms yet.
    Absent(Option<Slot>),
    /// It exists, and this node does not hold it.
    NotHere,
}

impl SubjectState {
    /// Applies one entry; `true`: keys were destroyed, which must be durable before it is answered.
    pub(crate) fn apply(&mut self, index: u64, command: KeyCommand) -> (KeyReply, bool) {
        if self.applied.is_some_and(|applied| index <= applied) {
            return (KeyReply::Done, false);
        }
        self.applied = Some(index);
        match command {
            KeyCommand::Pseudonyms { log, generation, wrapped } => {
                if generation != self.generation {
                    return (KeyReply::Stale { generation: self.generation }, false);
                }
                if !self.pseudonyms.contains_key(&log) {
                    let key = self.unwrap(&pseudonyms_context(&log, generation), &wrapped);
                    self.pseudonyms.insert(log, key.and_then(|k| Secret::from_slice(&k)));
                }
                (KeyReply::Done, false)
            }
            KeyCommand::Make { slot, id, generation, wrapped } => (self.make(slot, id, generation, &wrapped), false),
            KeyCommand::Erase(erasure) => self.erase(erasure),
            KeyCommand::Recorded(erasure) => {
                self.pending.remove(&erasure);
                (KeyReply::Done, false)
            }
        }
    }

    fn make(&mut self, slot: Slot, id: KeyId, generation: u64, wrapped: &[u8]) -> KeyReply {
        if let Some(held) = self.slots.get(&slot) {
            return KeyReply::Key(held.id);
        }
        if generation != self.generation {
            return KeyReply::Stale { generation: self.generation };
        }
        if self.slots.len() >= MAX_SUBJECT_KEYS || self.erased.contains_key(&id) {
            return KeyReply::Full;
        }
        let open = self.unwrap(&slot_context(&slot, id, generation), wrapped).and_then(|plain| {
            let (key, name) = plain.split_at_checked(crate::subject_secret::KEY_BYTES)?;
            Some(Opened { key: Secret::from_slice(key)?, subject: String::from_utf8(name.to_vec()).ok()? })
        });
        self.slots.insert(slot, Held { id, open });
        KeyReply::Key(id)
    }

    fn erase(&mut self, erasure: Erasure) -> (KeyReply, bool) {
        if let Some((_, ids)) = self.pending.get(&erasure.id) {
            return (KeyReply::Erased(ids.clone()), false);
        }
        let hit = |slot: &Slot| {
            slot.log == erasure.log
                && slot.subject == erasure.subject
                && erasure.before.is_none_or(|before| slot.month < before)
        };
        let slots: Vec<Slot> = self.slots.keys().filter(|slot| hit(slot)).cloned().collect();
        let ids: Vec<KeyId> = slots.iter().filter_map(|slot| self.slots.remove(slot)).map(|held| held.id).collect();
        if ids.is_empty() || erasure.reason.len() > MAX_REASON {
            return (KeyReply::Erased(Vec::new()), false);
        }
        self.erased.extend(ids.iter().map(|id| (*id, erasure.time_ns)));
        // What is wrapped under the old key is lost with it.
        self.log_key = self.log_key.take().map(|key| key.derive(NEXT_LOG_KEY));
        self.generation += 1;
        self.pending.insert(erasure.id, (erasure, ids.clone()));
        (KeyReply::Erased(ids), true)
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.log_key.as_ref()?.open(context, wrapped)
    }

    /// The pseudonym of a subject; `None`: the tenant has none yet, or this node cannot make them.
    pub(crate) fn pseudonym(&self, log: &LogId, subject: &str) -> Option<Pseudonym> {
        let key = self.pseudonyms.get(log)?.as_ref()?;
        let full = provost_sealed::mac(key.bytes(), &[b"provost audit pseudonym 1\n", subject.as_bytes()]);
        full.first_chunk().copied().map(Pseudonym)
    }

    /// Whether a key of this subject is held.
    pub(crate) fn knows(&self, log: &LogId, subject: Pseudonym) -> bool {
        let slot = |month| Slot { log: log.clone(), subject, month };
        self.slots.range(slot(0)..=slot(u32::MAX)).next().is_some()
    }

    /// Whom an administrator means: a pseudonym as records show it, if it is one of a subject whose keys are
    /// held, else a name.
    pub(crate) fn meant(&self, log: &LogId, text: &str) -> Option<Pseudonym> {
        let shown = read_pseudonym(text).filter(|subject| self.knows(log, *subject));
        shown.or_else(|| self.pseudonym(log, text))
    }

    /// The key for a subject and month.
    pub(crate) fn find(&self, log: &LogId, subject: &str, month: Month) -> Found {
        if self.log_key.is_none() && self.applied.is_some() {
            return Found::NotHere;
        }
        let Some(pseudonym) = self.pseudonym(log, subject) else { return Found::Absent(None) };
        let slot = Slot { log: log.clone(), subject: pseudonym, month: month.number() };
        match self.slots.get(&slot) {
            None => Found::Absent(Some(slot)),
            Some(Held { id, open: Some(open) }) => Found::Key(SubjectKey::new(*id, pseudonym, *open.key.bytes())),
            Some(_) => Found::NotHere,
        }
    }

    /// A key by its name.
    pub(crate) fn lookup(&self, id: KeyId) -> Lookup {
        if let Some(time_ns) = self.erased.get(&id) {
            return Lookup::Erased(*time_ns);
        }
        let found = self.slots.iter().find(|(_, held)| held.id == id);
        match found.and_then(|(slot, held)| Some((slot, held.open.as_ref()?))) {
            Some((slot, open)) => {
                Lookup::Here(SubjectKey::new(id, slot.subject, *open.key.bytes()), open.subject.clone())
            }
            None => Lookup::NotHere,
        }
    }

    /// Whom pseudonyms stand for, as far as keys of theirs are held.
    pub(crate) fn identities(&self) -> Vec<Identity> {
        let known = self.slots.iter().filter_map(|(slot, held)| {
            let name = held.open.as_ref()?.subject.clone();
            Some(Identity { log: slot.log.clone(), pseudonym: slot.subject, name })
        });
        let mut known: Vec<Identity> = known.collect();
        // Slots are in the order of log and subject: the months of one stand together.
        known.dedup();
        known
    }

    /// The entry that makes a tenant's key of pseudonyms.
    pub(crate) fn propose_pseudonyms(&self, log: &LogId) -> std::io::Result<KeyCommand> {
        let context = pseudonyms_context(log, self.generation);
        let wrapped = self.wrapping()?.seal(&context, Secret::random()?.bytes())?;
        Ok(KeyCommand::Pseudonyms { log: log.clone(), generation: self.generation, wrapped })
    }

    /// The entry that makes a subject's key.
    pub(crate) fn propose_key(&self, slot: Slot, subject: &str) -> std::io::Result<KeyCommand> {
        if subject.len() > MAX_SUBJECT {
            return Err(std::io::Error::other("the subject's name is too long"));
        }
        let id = KeyId(Secret::random()?.bytes().first_chunk().copied().unwrap_or_default());
        let plain = Zeroizing::new([Secret::random()?.bytes().as_slice(), subject.as_bytes()].concat());
        let wrapped = self.wrapping()?.seal(&slot_context(&slot, id, self.generation), &plain)?;
        Ok(KeyCommand::Make { slot, id, generation: self.generation, wrapped })
    }

    fn wrapping(&self) -> std::io::Result<&Secret> {
        self.log_key.as_ref().ok_or_else(|| std::io::Error::other("this node was not given the audit keys"))
    }
}

fn pseudonyms_context(log: &LogId, generation: u64) -> Vec<u8> {
    [b"provost audit pseudonym key 1\n", log.tenant().as_bytes(), b"\n", &generation.to_le_bytes()].concat()
}

pub(crate) fn slot_context(slot: &Slot, id: KeyId, generation: u64) -> Vec<u8> {
    let mut out = [b"provost audit subject key 1\n", slot.log.tenant().as_bytes(), b"\n"].concat();
    out.extend_from_slice(&slot.subject.0);
    out.extend_from_slice(&slot.month.to_le_bytes());
    out.extend_from_slice(&id.0);
    out.extend_from_slice(&generation.to_le_bytes());
    out
}
