//! The node's end of `Push`: configuration as it changes, and the last good one when nobody is there.
//!
//! Purpose: a [`PushClient`] keeps a stream to one control-plane node, rebuilds the pushed state
//! and checks its hash, publishes it as an immutable [`Pushed`], reports what the node made of it,
//! and keeps the last state that the node ran on disk.
//! Invariants: a state is published whole and checked, or not at all; only a state that the node
//! made active is kept, so a start without a control plane runs what ran before; a state older
//! than the one at hand is never taken, whichever control-plane node offers it, but for one that
//! takes back a change that was halted; how old the state may be ([`Staleness`]) counts from the
//! last moment at which a quorum confirmed it *and* the node ran it, never from a mere sign of life.
//! Left out: how to reach a control-plane node ([`Dial`]), making a state active ([`Activate`]),
//! opening secrets.
//!
//! A state or delta may come in parts: every part but the last has an empty hash.

mod activation;
mod answers;
mod backoff;
mod client;
mod config;
mod contact;
mod dial;
mod keeper;
mod last_good;
mod mirror;
mod session;
mod staleness;
mod whole;

pub use activation::{Activate, Activation};
pub(crate) use backoff::Backoff;
pub use client::PushClient;
pub use config::{HealthCounts, PluginsReader, PushConfig};
pub use contact::StalenessReader;
pub use dial::{Dial, DialError};
pub use last_good::StoreError;
pub use mirror::Pushed;
pub use provost_wire::node::{NackProblem, PluginsStanding};
pub use staleness::{Freshness, Staleness, StalenessLimits, verdict};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
