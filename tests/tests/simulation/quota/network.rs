//! From the nodes' form of an exchange to the ledger's, as the wire does it.

use provost_control_state::{ClockReading, LeaseReport, LeaseWant, Ledger, LedgerCommand, LedgerReply};
use provost_data_policy::quota::{LeaseAnswer, LeaseExchange, LeaseGrant};
use provost_types::{Resources, Revision};

/// One exchange on its way.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Which process.
    pub node: usize,
    /// Under which name.
    pub name: usize,
    pub epoch: u64,
    pub exchange: LeaseExchange,
}

/// Applies an exchange; `None`: it came too late for anybody to wait for an answer.
pub fn apply(
    ledger: &mut Ledger,
    resources: &Resources,
    sent: &Sent,
    now_ns: u64,
    clock: ClockReading,
) -> Option<LeaseAnswer> {
    let LeaseExchange { seq, reports, wants } = &sent.exchange;
    let command = LedgerCommand::Exchange {
        node: format!("node-{}", sent.name),
        epoch: sent.epoch,
        seq: *seq,
        now_ns,
        clock,
        reports: reports
            .iter()
            .map(|r| LeaseReport { lease: r.lease, settled: r.settled, returned: r.returned, closed: r.closed })
            .collect(),
        wants: wants.iter().map(|w| LeaseWant { account: w.account.clone(), units: w.units }).collect(),
    };
    match ledger.apply(Revision(1), resources, command) {
        LedgerReply::Fenced => Some(LeaseAnswer { grants: Vec::new(), fenced: true }),
        LedgerReply::Stale => None,
        LedgerReply::Exchanged { grants } => {
            let grants = grants
                .into_iter()
                .map(|g| LeaseGrant {
                    account: g.account,
                    lease: g.lease,
                    units: g.units,
                    remaining: g.remaining,
                    limit: g.limit,
                    window_end_ns: g.window_end_ns,
                    ttl_ms: g.ttl_ms,
                    rate_milli: g.rate_milli,
                    burst: g.burst,
                })
                .collect();
            Some(LeaseAnswer { grants, fenced: false })
        }
    }
}
