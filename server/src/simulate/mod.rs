//! What a change of policy would do to calls that were recorded, before it is made.
//!
//! Purpose: the admin listener makes the candidate state as `apply --dry-run` does; a node of the audit
//! log, which holds the keys of bodies, decides the recorded calls under both states and hands out what
//! changed, never a body. `states` is what the one gives the other, `recorded` makes questions of
//! records, `page` walks the log, `service` is the call.
//! Invariants: both states are compiled by the compiler that nodes run; what is not known of a call is
//! never guessed; a body is opened only where the decision depends on it, and that it was is in the log
//! before anything is answered; memory does not grow with the log.
//! Left out: quotas, guards and schemas: a call that policy allows can still be refused by them.

mod page;
mod recorded;
mod service;
mod states;
mod visibility;
mod why;

pub use page::page;
pub use service::routes;
pub use states::{JudgeCache, MAX_STATES_BYTES};
pub use why::Answer;
