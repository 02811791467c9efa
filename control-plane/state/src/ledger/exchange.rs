//! One exchange: made once, whatever is lost, repeated or late.

use std::sync::Arc;

use provost_types::Resources;

use super::{
    ClockReading, LONGEST_CALL_NS, LeaseReport, LeaseWant, Ledger, LedgerReply, LedgerRowKey, MAX_NODES,
    SHARE_REUSE_NS, Span, account::NodeRecord,
};

/// Nanoseconds of a second.
pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// Shares of a rate that a node closed stay taken for the span of the rate and a margin.
const CLOSED_RATE_NS: u64 = 3 * SECOND_NS;
/// Reports closer together than this say nothing about a node's pace.
const MIN_PACE_NS: u64 = 10_000_000;

/// The command in the ledger's own form.
pub(super) struct Exchange {
    pub(super) node: Arc<str>,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) now_ns: u64,
    pub(super) clock: ClockReading,
    pub(super) reports: Vec<LeaseReport>,
    pub(super) wants: Vec<LeaseWant>,
}

impl Ledger {
    pub(super) fn exchange(&mut self, resources: &Resources, ex: Exchange) -> LedgerReply {
        match self.nodes.get(&ex.node) {
            Some(known) if ex.epoch < known.epoch => return LedgerReply::Fenced,
            Some(known) if ex.epoch == known.epoch && ex.seq == known.seq => {
                return LedgerReply::Exchanged { grants: known.answer.clone() };
            }
            Some(known) if ex.epoch == known.epoch && ex.seq < known.seq => return LedgerReply::Stale,
            Some(known) if ex.epoch == known.epoch => {}
            Some(_) => self.fence(&ex.node),
            None => {
                // After a restore from a backup leases may be known whose node is not.
                self.fence(&ex.node);
                self.make_room_for_a_node();
            }
        }
        self.elapsed.advance(ex.clock);
        self.touch(LedgerRowKey::Meta);
        for report in &ex.reports {
            self.book(resources, &ex, report);
        }
        self.sweep(resources, ex.now_ns);
        let mut grants = Vec::with_capacity(ex.wants.len());
        for want in &ex.wants {
            grants.push(self.grant(resources, &ex, want));
        }
        let record =
            NodeRecord { epoch: ex.epoch, seq: ex.seq, seen_ns: self.elapsed.now_ns(), answer: grants.clone() };
        self.touch(LedgerRowKey::Node(ex.node.clone()));
        self.nodes.insert(ex.node, record);
        LedgerReply::Exchanged { grants }
    }

    /// Closes what the node's last epoch held. Nobody knows how much of it was used, so all of it
    /// was; shares wait until their holder has surely stopped.
    fn fence(&mut self, node: &Arc<str>) {
        let held: Vec<u64> = self.index.held.get(node).into_iter().flat_map(|h| h.values().copied()).collect();
        for id in held {
            let Some(lease) = self.leases.get(&id) else { continue };
            match lease.account.span {
                Span::Window { .. } => {
                    self.take_units(id, u64::MAX, true);
                    self.remove_lease(id);
                }
                Span::Rate | Span::Slots => self.orphan(id, self.elapsed.now_ns().saturating_add(SHARE_REUSE_NS)),
            }
        }
    }

    /// A report counts only for a lease of this very epoch; others are closed already.
    fn book(&mut self, resources: &Resources, ex: &Exchange, report: &LeaseReport) {
        let id = report.lease;
        let Some(lease) = self.leases.get(&id) else { return };
        if lease.node != ex.node || lease.epoch != ex.epoch || lease.orphan {
            return;
        }
        let key = lease.account.clone();
        let span = key.span;
        let is_window = matches!(span, Span::Window { .. });
        if is_window {
            self.take_units(id, report.settled, true);
            self.note_pace(id, report.settled, ex.now_ns);
        }
        self.take_units(id, report.returned, false);
        match (report.closed, span) {
            (true, Span::Window { .. }) => {
                self.take_units(id, u64::MAX, true);
                self.remove_lease(id);
            }
            (true, Span::Rate) => self.orphan(id, self.elapsed.now_ns().saturating_add(CLOSED_RATE_NS)),
            (true, Span::Slots) => self.orphan(id, self.elapsed.now_ns().saturating_add(SHARE_REUSE_NS)),
            (false, Span::Window { .. }) => {}
            (false, _) => self.renew(id, span),
        }
        if !is_window && self.leases.get(&id).is_some_and(|l| l.orphan && l.units == 0) {
            self.remove_lease(id);
            self.forget_if_unused(resources, &key);
        }
    }

    /// The holder lives: its share stays its own for another while.
    pub(super) fn renew(&mut self, id: u64, span: Span) {
        let silence = match span {
            // A call that began before the holder fell silent may still run.
            Span::Slots => SHARE_REUSE_NS + LONGEST_CALL_NS,
            Span::Rate | Span::Window { .. } => SHARE_REUSE_NS,
        };
        self.set_expiry(id, self.elapsed.now_ns().saturating_add(silence));
    }

    /// Half what it was, half what it is. By the wall clock: a wrong pace makes a lease larger or
    /// smaller than need be, and nothing else.
    fn note_pace(&mut self, id: u64, settled: u64, now_ns: u64) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let passed = now_ns.saturating_sub(lease.since_ns);
        if passed < MIN_PACE_NS && lease.pace > 0 {
            // Of a clock that was set back.
            lease.since_ns = lease.since_ns.min(now_ns);
            self.touch(LedgerRowKey::Lease(id));
            return;
        }
        let a_second = u128::from(settled) * u128::from(SECOND_NS) / u128::from(passed.max(MIN_PACE_NS));
        let a_second = u64::try_from(a_second).unwrap_or(u64::MAX);
        lease.pace = lease.pace / 2 + a_second / 2 + (lease.pace & a_second & 1);
        lease.since_ns = now_ns;
        self.touch(LedgerRowKey::Lease(id));
    }

    /// The node that was silent longest and holds nothing is forgotten. Were it to come back with
    /// an old exchange, that could only lease units which nobody spends.
    fn make_room_for_a_node(&mut self) {
        if self.nodes.len() < MAX_NODES {
            return;
        }
        let idle = self.nodes.iter().filter(|(name, _)| !self.index.held.contains_key(*name));
        let oldest = idle.min_by_key(|(name, record)| (record.seen_ns, (*name).clone())).map(|(name, _)| name.clone());
        if let Some(name) = oldest {
            self.nodes.remove(&name);
            self.touch(LedgerRowKey::Node(name));
        }
    }
}
