//! Quotas on a node: which ones cover a call, and the local balances that calls are taken from.
//!
//! Purpose: decide on this node alone, with one compare-and-swap a quota, whether a call may run.
//! A node spends only units that the ledger of the control plane has leased to it ([`LeaseBook`]
//! keeps the leases and says what to exchange), so that no limit is exceeded whatever fails.
//! Invariants: a unit is spent at most once; units of a lease are spent before it ends by this
//! node's monotonic clock, counted from when its exchange was first sent; what was taken and not
//! used goes back, and what may have been used counts as used; only units that nobody can spend
//! any more are reported as returned.
//! Left out: the exchange itself, waiting with a time limit and what callers are told
//! (`provost-data-serve`). Time is an argument everywhere: nanoseconds of one monotonic clock.

mod balance;
mod book;
mod compose;
mod exchange;
mod held;
mod index;
mod share;
mod slot;

pub use book::{LeaseBook, MAX_SLOTS, MAX_SLOTS_PER_QUOTA};
pub use exchange::{LeaseAnswer, LeaseExchange, LeaseGrant, LeaseReport, LeaseWant};
pub use held::{Actual, Held};
pub use index::{CompiledQuota, QuotaCall, QuotaIndex};
pub use slot::{Slot, SlotFacts, Waiting, Wanting};
