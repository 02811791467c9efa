//! What nodes say to the ledger and what it answers; the stored form of both.

use serde::{Deserialize, Serialize};

use super::ClockReading;

/// A change of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum LedgerCommand {
    /// A node tells what it used and what it wants. Repeating it with the same `(node, epoch,
    /// seq)` changes nothing and gives the same answer.
    Exchange {
        /// The node's name, unique in the cluster.
        node: String,
        /// Grows with each start of the node.
        epoch: u64,
        /// Counts the exchanges of this epoch, from 1. A node has one exchange in flight.
        seq: u64,
        /// When it was proposed, nanoseconds since the Unix epoch, by the proposer's clock.
        now_ns: u64,
        /// The same by the proposer's monotonic clock.
        clock: ClockReading,
        /// What became of leased units.
        reports: Vec<LeaseReport>,
        /// What is wanted.
        wants: Vec<LeaseWant>,
    },
}

/// What became of units of a lease since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReport {
    /// Which lease.
    pub lease: u64,
    /// Units used: they are gone.
    pub settled: u64,
    /// Units given back.
    pub returned: u64,
    /// The lease ends; what is neither settled nor returned counts as used.
    pub closed: bool,
}

/// Units wanted for an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseWant {
    /// `TENANT/QUOTA`, with `#SUBJECT` where the quota counts each for itself.
    pub account: String,
    /// Units that waiting calls need; 0: none waits, and the balance is low. How much is granted
    /// ahead is decided here. For a rate: units a second that the node could use.
    pub units: u64,
}

/// What was granted; one for each want, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// As in the want.
    pub account: String,
    /// The node's lease of this account; 0: it has none.
    pub lease: u64,
    /// Units added to the lease. For a rate: the whole share from now on, which may be less than
    /// before; the node reports the difference as returned once it no longer counts.
    pub units: u64,
    /// Units left after this grant that nobody holds.
    pub remaining: u64,
    /// The quota's limit; 0: there is no such quota, or it does not count this subject.
    pub limit: u64,
    /// The window's end, nanoseconds since the Unix epoch; 0: not a calendar window.
    pub window_end_ns: u64,
    /// The lease ends this long after the exchange was first sent, by the holder's own clock.
    pub ttl_ms: u64,
    /// Rates: units a second, in thousandths.
    pub rate_milli: u64,
    /// Rates: units at once.
    pub burst: u64,
}

/// What a [`LedgerCommand`] answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum LedgerReply {
    /// The exchange was made.
    Exchanged {
        /// One for each want.
        grants: Vec<LeaseGrant>,
    },
    /// A later epoch of the node is known: this one must spend nothing more.
    Fenced,
    /// A later exchange of this epoch was made already: nobody waits for this answer.
    Stale,
}
