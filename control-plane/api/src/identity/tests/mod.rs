//! Joining, renewal and membership over real TLS, with the replicated facts in memory.

mod agents;
mod certificates;
mod joining;
mod membership;
mod renewal;
mod world;
