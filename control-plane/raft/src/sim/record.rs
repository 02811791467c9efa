//! What clients, machines and logs of one run saw.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use serde::{Deserialize, Serialize};

use crate::raft_types::LogEntry;

/// What a client asked of one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Action {
    /// Sets it to the operation's id, which no other operation has.
    Write,
    /// Sets it to the operation's id if it holds this value.
    Swap { expected: u64 },
    /// Asks for its value.
    Read,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing yet, or that the outcome is unknown: it may take effect at any time or never.
    Unknown,
    /// That it did not happen and will not.
    Refused,
    Written {
        index: u64,
    },
    /// The value that the swap found; it took place if that is the expected one.
    Swapped {
        index: u64,
        found: u64,
    },
    Value(u64),
}

#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// From 1; also the value that it writes.
    pub(super) id: u64,
    #[allow(dead_code, reason = "for people who read a failing history")]
    pub(super) node: u64,
    pub(super) register: u8,
    pub(super) action: Action,
    /// Position of the call and of the answer among all calls and answers of the run.
    pub(super) called: u64,
    pub(super) returned: Option<u64>,
    pub(super) outcome: Outcome,
}

impl Operation {
    /// The index of its log entry, where the client was told.
    pub(super) fn index(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Written { index } | Outcome::Swapped { index, .. } => Some(index),
            _ => None,
        }
    }
}

/// What one node held when the run was over and everything had been healed.
#[derive(Clone, Debug, Default)]
pub(super) struct Final {
    pub(super) applied: Option<u64>,
    /// Index and operation of every command in the machine's history.
    pub(super) done: Vec<(u64, u64)>,
    pub(super) values: BTreeMap<u8, u64>,
    pub(super) log: Vec<LogEntry>,
}

#[derive(Default)]
pub(super) struct Record {
    pub(super) operations: Vec<Operation>,
    /// What each machine was given at an index, the first time that any was.
    applied: BTreeMap<u64, Vec<u8>>,
    /// Machines that were given something else.
    pub(super) disagreements: Vec<String>,
    /// What would have ended a process: panics of Raft's core, failed writes.
    pub(super) fatal: Vec<String>,
    /// (term, node): who said that it led, in the order in which it was seen.
    pub(super) leaders: Vec<(u64, u64)>,
    pub(super) finals: BTreeMap<u64, Final>,
    /// What the driver did, for people.
    pub(super) faults: Vec<String>,
    clock: u64,
}

impl Record {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(super) fn called(&mut self, node: u64, register: u8, action: Action) -> u64 {
        let called = self.tick();
        let id = self.operations.len() as u64 + 1;
        let outcome = Outcome::Unknown;
        self.operations.push(Operation { id, node, register, action, called, returned: None, outcome });
        id
    }

    pub(super) fn returned(&mut self, id: u64, outcome: Outcome) {
        let now = self.tick();
        let operation = &mut self.operations[id as usize - 1];
        (operation.returned, operation.outcome) = (Some(now), outcome);
    }

    pub(super) fn applied(&mut self, node: u64, index: u64, payload: &[u8]) {
        let first = self.applied.entry(index).or_insert_with(|| payload.to_vec());
        if first.as_slice() != payload {
            self.disagreements.push(format!("node {node} applied another command at index {index}"));
        }
    }

    pub(super) fn leads(&mut self, term: u64, node: u64) {
        if !self.leaders.contains(&(term, node)) {
            self.leaders.push((term, node));
        }
    }

    /// The same for the same seed: everything that was recorded.
    pub(super) fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        format!("{:?}{:?}{:?}{:?}", self.operations, self.applied, self.leaders, self.faults).hash(&mut hasher);
        hasher.finish()
    }
}

#[derive(Clone, Default)]
pub(super) struct SharedRecord(Arc<Mutex<Record>>);

impl SharedRecord {
    pub(super) fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap()
    }

    pub(super) fn take(&self) -> Record {
        std::mem::take(&mut *self.lock())
    }
}
