//! Seeded simulations of parts that must hold together whatever the network does. One invariant a
//! file. `PROVOST_SIM_SEEDS=N` runs N seeds of each, `PROVOST_SIM_SEED=N` runs one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod quota;
mod seeds;
