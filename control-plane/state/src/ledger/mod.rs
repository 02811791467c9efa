//! The quota ledger: who holds units of which limit, so that no limit is ever exceeded.
//!
//! Purpose: escrow. Units leave an account's pool when a grant is applied, and only then may a
//! node spend them, so that no partition, crash or repeated message can admit more than the limit.
//! Three kinds of account, by the quota's span:
//! - **calendar windows**: units are used up. A lease ends with its window; units of an ended
//!   window are never charged to another. A lease is never taken back by a timeout: what a dead
//!   node did not report counts as used.
//! - **rates** (`second`) and **slots** (`concurrent`): shares that come back. A share of a node
//!   that fell silent is free again [`SHARE_REUSE_NS`] after it was last heard, which is longer
//!   than the holder's own [`SHARE_TTL_MS`]; slots also outlive the longest call.
//!
//! Invariants: for each account `settled + leases <= limit` at the time of each grant, so that a
//! limit lowered under what is out admits nothing new until enough has come back; an exchange is
//! made once for its `(node, epoch, seq)`; an epoch that was followed by another gets nothing.
//! Time comes in with each command, twice. Windows follow the wall clock, per quota, and never go
//! back: if a clock was far ahead, the quota stays in that window until time gets there, or until
//! it is deleted and made anew. Waiting for a share follows the proposers' monotonic clocks, so
//! that a clock that is set cannot free a share that is still used; see [`clock`].
//! Left out: the proposer's clock and certificates (`provost-control-api`), spending
//! (`provost-data-policy`).

mod account;
mod book;
mod clock;
mod command;
mod exchange;
mod grant;
mod rows;
mod span;
mod sweep;
mod view;

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdMap;
use provost_types::{Resources, Revision};
use serde::{Deserialize, Serialize};

use account::{Account, Book, Lease, NodeRecord};
use book::Index;
use clock::Elapsed;

pub use account::{AccountKey, QuotaId};
pub use clock::ClockReading;
pub use command::{LeaseGrant, LeaseReport, LeaseWant, LedgerCommand, LedgerReply};
pub use rows::{LedgerRow, LedgerRowKey};
pub use span::Span;
pub use view::{AccountView, LeaseView};

/// Wants of one exchange.
pub const MAX_WANTS: usize = 256;
/// Reports of one exchange.
pub const MAX_REPORTS: usize = 1_024;
/// Accounts of one quota at a time: principals or conversations that are counted each for itself.
pub const MAX_ACCOUNTS_PER_QUOTA: usize = 65_536;
/// Nodes that are remembered.
pub const MAX_NODES: usize = 10_000;
/// How long a holder may use a share after it sent the exchange that renewed it.
pub const SHARE_TTL_MS: u64 = 5_000;
/// How long a share stays with a node that is silent: its TTL, and twice as much again for what
/// [`clock`] may count too much, proposals that were long on their way and clocks that drift.
pub const SHARE_REUSE_NS: u64 = 15_000_000_000;
/// The longest a call runs: its slot stays taken as long.
pub const LONGEST_CALL_NS: u64 = 3_600_000_000_000;

/// Every account with its balance and leases. Persistent maps: a clone shares everything, so that
/// readers get each state and a command still costs only what it touches.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "rows::Stored", into = "rows::Stored")]
pub struct Ledger {
    /// Counts towards freeing shares.
    elapsed: Elapsed,
    /// The last lease that was made.
    last_lease: u64,
    books: OrdMap<QuotaId, Book>,
    accounts: OrdMap<Arc<AccountKey>, Account>,
    leases: OrdMap<u64, Lease>,
    nodes: OrdMap<Arc<str>, NodeRecord>,
    /// Follows from the above.
    index: Index,
    /// Rows that the last command changed; no part of the state.
    touched: BTreeSet<LedgerRowKey>,
}

impl PartialEq for Ledger {
    fn eq(&self, other: &Self) -> bool {
        self.elapsed == other.elapsed
            && self.last_lease == other.last_lease
            && self.books == other.books
            && self.accounts == other.accounts
            && self.leases == other.leases
            && self.nodes == other.nodes
    }
}

impl Ledger {
    /// Applies a command at a log index, under the quotas among `resources`.
    pub fn apply(&mut self, _revision: Revision, resources: &Resources, command: LedgerCommand) -> LedgerReply {
        self.touched.clear();
        match command {
            LedgerCommand::Exchange { node, epoch, seq, now_ns, clock, reports, wants } => {
                let node = node.into();
                self.exchange(resources, exchange::Exchange { node, epoch, seq, now_ns, clock, reports, wants })
            }
        }
    }
}
