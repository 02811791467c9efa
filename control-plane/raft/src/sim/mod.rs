//! Deterministic simulation of a group: network, clocks, disks and faults follow a seed.
//!
//! [`world`] runs one seed and gives back a [`record::Record`] of what clients, machines and logs
//! saw; each invariant is one file with a check of that record and a test that the check finds a
//! violation. Real: everything of this crate but RocksDB and gRPC. Simulated: the network
//! (datagrams that are late, lost, reordered, cut), the clocks, the log's disk
//! ([`disk`]: a crash takes what was not synced), the machine's disk (falls back to an older
//! state). Snapshot files are real and survive crashes.
//!
//! `PROVOST_SIM_SEEDS=N` runs N seeds, `PROVOST_SIM_SEED=K` only seed K.

mod acked_once;
mod client;
mod disk;
mod faults;
mod leaders;
mod linearizable;
mod logs_agree;
mod machine;
mod network;
mod random;
mod record;
mod runtime;
mod seeds;
mod watch;
mod world;

pub(crate) use runtime::{SeededRuntime, is_simulated, note_fatal, seeded};
