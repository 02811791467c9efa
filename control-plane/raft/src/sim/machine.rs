//! A few registers, and the history of what was done to them. After a crash the machine is as it
//! was some entries ago, like one that does not fsync.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};

use super::{
    random::Random,
    record::{Action, SharedRecord},
};
use crate::{AppliedState, Entry, Machine, SnapshotWriter};

/// The state is written back once in about this many batches.
const BATCHES_PER_WRITE_BACK: u64 = 10;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Command {
    pub(super) operation: u64,
    pub(super) register: u8,
    pub(super) action: Action,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Registers {
    pub(super) values: BTreeMap<u8, u64>,
    /// Index and operation of every command.
    pub(super) done: Vec<(u64, u64)>,
}

#[derive(Clone, Default)]
pub(super) struct State {
    applied: Option<AppliedState>,
    pub(super) registers: Registers,
}

/// What a crash leaves of a machine, and what clients of the running one read.
#[derive(Clone, Default)]
pub(super) struct MachineDisk {
    durable: Arc<Mutex<State>>,
    pub(super) live: Arc<Mutex<State>>,
}

pub(super) struct Registry {
    pub(super) node: u64,
    disk: MachineDisk,
    random: Random,
    record: SharedRecord,
}

impl Registry {
    /// A machine that starts with what its disk holds.
    pub(super) fn open(node: u64, disk: MachineDisk, random: Random, record: SharedRecord) -> Self {
        let durable = disk.durable.lock().unwrap().clone();
        *disk.live.lock().unwrap() = durable;
        Self { node, disk, random, record }
    }
}

impl Machine for Registry {
    fn last_applied(&self) -> io::Result<Option<AppliedState>> {
        Ok(self.disk.live.lock().unwrap().applied.clone())
    }

    fn apply(&mut self, batch: Vec<Entry>) -> io::Result<Vec<Vec<u8>>> {
        let mut state = self.disk.live.lock().unwrap();
        let mut replies = Vec::new();
        for entry in batch {
            let payload = entry.payload.unwrap_or_default();
            self.record.lock().applied(self.node, entry.index, &payload);
            state.applied = Some(entry.applied);
            if payload.is_empty() {
                replies.push(Vec::new());
                continue;
            }
            let command: Command = postcard::from_bytes(&payload).map_err(io::Error::other)?;
            let value = state.registers.values.entry(command.register).or_default();
            let found = *value;
            let takes = match command.action {
                Action::Write => true,
                Action::Swap { expected } => found == expected,
                Action::Read => false,
            };
            if takes {
                *value = command.operation;
            }
            state.registers.done.push((entry.index, command.operation));
            replies.push(found.to_be_bytes().to_vec());
        }
        if self.random.below(BATCHES_PER_WRITE_BACK) == 0 {
            *self.disk.durable.lock().unwrap() = state.clone();
        }
        Ok(replies)
    }

    fn snapshot(&self) -> io::Result<SnapshotWriter> {
        let registers = self.disk.live.lock().unwrap().registers.clone();
        Ok(Box::new(move |out| out.write_all(&postcard::to_stdvec(&registers).map_err(io::Error::other)?)))
    }

    fn install(&mut self, applied: AppliedState, data: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes)?;
        let registers = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
        let state = State { applied: Some(applied), registers };
        *self.disk.live.lock().unwrap() = state.clone();
        *self.disk.durable.lock().unwrap() = state;
        Ok(())
    }
}
