//! What a node and the ledger say to each other, without its form on the wire.

/// What was used and what is wanted. It is sent again, unchanged, until it is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseExchange {
    /// Counts exchanges, from 1.
    pub seq: u64,
    /// What became of leased units.
    pub reports: Vec<LeaseReport>,
    /// What is wanted.
    pub wants: Vec<LeaseWant>,
}

/// What became of units of a lease since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseReport {
    /// Which lease.
    pub lease: u64,
    /// Units used.
    pub settled: u64,
    /// Units given back.
    pub returned: u64,
    /// The lease ends.
    pub closed: bool,
}

/// Units wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWant {
    /// `TENANT/QUOTA`, with `#SUBJECT` where the quota counts each for itself.
    pub account: String,
    /// Units that waiting calls need; for a rate: units a second that could be used.
    pub units: u64,
}

/// The answer to an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseAnswer {
    /// One for each want, in their order.
    pub grants: Vec<LeaseGrant>,
    /// Another process runs under this node's name and began later: nothing may be spent.
    pub fenced: bool,
}

/// Units granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseGrant {
    /// As in the want.
    pub account: String,
    /// The node's lease; 0: it has none.
    pub lease: u64,
    /// Units added; for a rate: the whole share from now on.
    pub units: u64,
    /// Units that nobody holds.
    pub remaining: u64,
    /// The quota's limit; 0: the ledger knows no such count.
    pub limit: u64,
    /// The window's end, nanoseconds since the Unix epoch; 0: none.
    pub window_end_ns: u64,
    /// The lease ends this long after the exchange was first sent.
    pub ttl_ms: u64,
    /// Rates: units a second, in thousandths.
    pub rate_milli: u64,
    /// Rates: units at once.
    pub burst: u64,
}
