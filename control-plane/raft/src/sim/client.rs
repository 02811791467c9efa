//! A client beside a node: one operation after another, each recorded.

use super::{
    machine::{Command, MachineDisk},
    random::Random,
    record::{Action, Outcome, SharedRecord},
    world::Phase,
};
use crate::{Group, GroupError};

const REGISTERS: u64 = 3;

pub(super) struct Client {
    pub(super) node: u64,
    pub(super) group: Group,
    pub(super) machine: MachineDisk,
    pub(super) record: SharedRecord,
    pub(super) random: Random,
    pub(super) phase: Phase,
}

impl Client {
    pub(super) async fn run(mut self) {
        while self.phase.clients_run() {
            tokio::time::sleep(self.random.millis(1..80)).await;
            let register = self.random.below(REGISTERS) as u8;
            let action = match self.random.below(10) {
                0..4 => Action::Read,
                4..8 => Action::Write,
                // Expects what this node last saw: often right, often just overtaken.
                _ => Action::Swap { expected: self.value(register) },
            };
            let id = self.record.lock().called(self.node, register, action);
            let outcome = match action {
                Action::Read => self.read(register).await,
                _ => self.change(Command { operation: id, register, action }).await,
            };
            self.record.lock().returned(id, outcome);
        }
    }

    fn value(&self, register: u8) -> u64 {
        self.machine.live.lock().unwrap().registers.values.get(&register).copied().unwrap_or_default()
    }

    async fn read(&self, register: u8) -> Outcome {
        match self.group.read_barrier().await {
            Ok(_) => Outcome::Value(self.value(register)),
            Err(_) => Outcome::Refused,
        }
    }

    async fn change(&self, command: Command) -> Outcome {
        let bytes = postcard::to_stdvec(&command).expect("commands encode");
        match self.group.propose(bytes).await {
            Ok(done) => {
                let found = u64::from_be_bytes(done.reply.as_slice().try_into().expect("eight bytes"));
                match command.action {
                    Action::Swap { .. } => Outcome::Swapped { index: done.index, found },
                    _ => Outcome::Written { index: done.index },
                }
            }
            Err(e @ (GroupError::OutcomeUnknown | GroupError::Timeout { .. })) => {
                assert!(!e.not_logged());
                Outcome::Unknown
            }
            Err(e) if e.not_logged() => Outcome::Refused,
            Err(e) => panic!("unexpected: {e}"),
        }
    }
}
