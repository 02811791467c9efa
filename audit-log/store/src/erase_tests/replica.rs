//! A replica whose Raft log is a file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use provost_audit_core::{Hash, Place, encode_record, leaf_hash};
use provost_types::{AuditEvent, KeptBody, KeyId, SubjectKey};

use super::{acme, erasure, month};
use crate::{Append, AppendRecord, AuditMachine, Command, KeyCommand, KeyReply, Reply, subject_state::Found};

/// A replica without Raft: the entries stand in a file, which is its Raft log.
pub(super) struct Replica {
    pub(super) dir: PathBuf,
    pub(super) machine: Option<AuditMachine>,
    pub(super) entries: Vec<Bytes>,
}

impl Replica {
    pub(super) fn open(dir: &Path, entries: &[Bytes]) -> Self {
        let machine = AuditMachine::open(&dir.join("audit"), "provost", [7; 32]).unwrap();
        let mut replica = Self { dir: dir.to_owned(), machine: Some(machine), entries: entries.to_vec() };
        let applied = replica.machine().last_applied().map_or(0, |i| i as usize + 1);
        for (index, entry) in entries.iter().enumerate().skip(applied) {
            replica.machine().apply(index as u64, entry).unwrap();
        }
        replica
    }

    pub(super) fn machine(&mut self) -> &mut AuditMachine {
        self.machine.as_mut().unwrap()
    }

    pub(super) fn apply(&mut self, command: &Command) -> Reply {
        let entry = Bytes::from(command.encode());
        let index = self.entries.len() as u64;
        self.entries.push(entry.clone());
        // The Raft log is durable before an entry is applied.
        let mut raft = Vec::new();
        for entry in &self.entries {
            raft.extend_from_slice(&(entry.len() as u32).to_le_bytes());
            raft.extend_from_slice(entry);
        }
        fs::write(self.dir.join("raft"), raft).unwrap();
        Reply::decode(&self.machine().apply(index, &entry).unwrap()).unwrap()
    }

    pub(super) fn keys(&mut self, command: KeyCommand) -> KeyReply {
        match self.apply(&Command::Keys(command)) {
            Reply::Keys(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn key(&mut self, subject: &str) -> SubjectKey {
        self.machine().keys.begin().unwrap();
        loop {
            let command = match self.machine().keys.state.find(&acme(), subject, month()) {
                Found::Key(key) => return key,
                Found::NotHere => panic!("not here"),
                Found::Absent(None) => self.machine().keys.state.propose_pseudonyms(&acme()),
                Found::Absent(Some(slot)) => self.machine().keys.state.propose_key(slot, subject),
            };
            self.keys(command.unwrap());
        }
    }

    pub(super) fn record(&mut self, event: &AuditEvent, seq: u64, prev: Hash) -> Hash {
        let place = Place { writer_id: "n", epoch: 1, seq, prev };
        let leaf = Bytes::from(encode_record(event, &place).unwrap());
        let KeptBody::Sealed(sealed) = &event.body.as_ref().unwrap().kept else { panic!("not kept") };
        let hash = leaf_hash(&leaf);
        let records = vec![AppendRecord { log: acme(), leaf, body: Some(sealed.bytes.clone()) }];
        let append = Append { writer: "n".to_owned(), epoch: 1, batch: seq - 1, records };
        assert!(matches!(self.apply(&Command::Append(append)), Reply::Appended(_)));
        hash
    }

    pub(super) fn erase(&mut self, id: u128, subject: &str) -> Vec<KeyId> {
        let subject = self.machine().keys.state.pseudonym(&acme(), subject).unwrap();
        match self.keys(KeyCommand::Erase(erasure(id, subject))) {
            KeyReply::Erased(keys) => keys,
            other => panic!("{other:?}"),
        }
    }

    /// Everything durable, and the process gone.
    pub(super) fn stop(mut self) -> Vec<Bytes> {
        self.machine().persist().unwrap();
        self.machine = None;
        self.entries
    }
}
