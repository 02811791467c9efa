//! Groups on real RocksDB, alone, in one process, and over gRPC on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod forwarding;
mod lanes;
mod members;
mod partitions;
mod single;
mod store;

use std::{
    io::{self, Read},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{AppliedState, Entry, GroupConfig, Machine, Retention, SnapshotWriter, Timings};

const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the commands in memory: after a restart it knows nothing, which is the hardest case of
/// a machine that lost its unsynced tail.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<JournalState>>);

#[derive(Default)]
struct JournalState {
    applied: Option<AppliedState>,
    commands: Vec<Vec<u8>>,
    installs: usize,
}

impl Journal {
    fn commands(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().commands.clone()
    }

    fn installs(&self) -> usize {
        self.0.lock().unwrap().installs
    }
}

impl Machine for Journal {
    fn last_applied(&self) -> io::Result<Option<AppliedState>> {
        Ok(self.0.lock().unwrap().applied.clone())
    }

    fn apply(&mut self, batch: Vec<Entry>) -> io::Result<Vec<Vec<u8>>> {
        let mut state = self.0.lock().unwrap();
        let mut replies = Vec::new();
        for entry in batch {
            state.applied = Some(entry.applied);
            let reply = match entry.payload {
                None => Vec::new(),
                Some(command) => {
                    state.commands.push(command.to_vec());
                    entry.index.to_string().into_bytes()
                }
            };
            replies.push(reply);
        }
        Ok(replies)
    }

    fn snapshot(&self) -> io::Result<SnapshotWriter> {
        let commands = self.commands();
        Ok(Box::new(move |out| out.write_all(&postcard::to_stdvec(&commands).map_err(io::Error::other)?)))
    }

    fn install(&mut self, applied: AppliedState, data: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes)?;
        let mut state = self.0.lock().unwrap();
        state.commands = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
        state.applied = Some(applied);
        state.installs += 1;
        Ok(())
    }
}

fn config(node_id: u64) -> GroupConfig {
    GroupConfig::new(node_id, "test", "control")
}

/// Elects as fast as it may where a disk or a core is busy for a while, waits long for callers, and purges
/// early enough for a test to see it.
fn quick(node_id: u64) -> GroupConfig {
    let mut config = config(node_id);
    config.timings = Timings {
        heartbeat_ms: 100,
        election_min_ms: 1_000,
        election_max_ms: 2_000,
        quorum_loss_probe_ms: 4_000,
        ..Timings::default()
    };
    config.retention = Retention { snapshot_every_entries: 100, keep_entries: 10, ..Retention::default() };
    config.forwarding.leader_wait_ms = 20_000;
    config.forwarding.commit_wait_ms = 30_000;
    config.membership.change_wait_ms = 30_000;
    config
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|n| n.to_be_bytes().to_vec()).collect()
}
