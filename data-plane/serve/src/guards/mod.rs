//! Guards at work: what `provost-data-guards` finds, applied to the parts of a call.
//!
//! Purpose: the stages *guard in* and *guard out* of a node, and what watches a call between them.
//! Invariants: whatever goes to an executor, to the log or to the client as content has passed the
//! guards that cover the call, built-in ones first and then external ones; nothing here keeps or logs a value; a call that no guard covers is not
//! looked at and not copied.
//! Left out: lists (they hold names and descriptions of what is served, not contents of calls), and
//! embeddings (numbers).

mod calls;
mod chat;
mod counts;
mod external;
mod layouts;
mod stages;
mod vault;
mod watch;

pub(crate) use counts::GuardCounts;
pub(crate) use external::ExternalClients;
pub(crate) use stages::{Asking, Revealing, guard_in, guard_refused, ways};
pub(crate) use vault::{TenantVault, pseudonym};
pub(crate) use watch::Ways;
