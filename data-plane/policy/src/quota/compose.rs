//! What an account says in an exchange, and what the answer changes.

use std::sync::{Arc, atomic::Ordering};

use provost_types::QuotaUnit;

use super::{LeaseExchange, LeaseGrant, LeaseReport, LeaseWant, Slot, slot::Cold};

const MS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000 * MS;
/// Units used are reported at least this often.
const REPORT_NS: u64 = 2 * SECOND_NS;
/// Shares are renewed this often: after their time to live, by this.
const RENEWALS_PER_TTL: u64 = 3;
/// Demand for a rate is what was tried since the last exchange, of at most so long ago.
const LONGEST_LOOK_NS: u64 = 3 * SECOND_NS;
/// An account that is not used for so long gives back what it has; sooner where the ledger has no
/// more, since others wait for it.
const IDLE_NS: u64 = 5 * SECOND_NS;
const SCARCE_IDLE_NS: u64 = SECOND_NS;
/// A share that was made smaller counts as the larger for the span of the rate, and a little.
const RATE_SPAN_NS: u64 = SECOND_NS + 50 * MS;
/// A share of a rate that is too small is asked about this often.
const ASK_AGAIN_NS: u64 = 500 * MS;
/// The wait after the ledger had no more, at first and at most.
const FIRST_EMPTY_NS: u64 = 250 * MS;
const MAX_EMPTY_NS: u64 = 4 * SECOND_NS;
/// The last of a window, `limit / this`, is not asked for ahead: the ledger would not give it.
const SYNC_FRACTION: u64 = 50;

impl Slot {
    /// Whether it has something to say without being asked.
    pub(super) fn is_due(&self, now_ns: u64, is_closing: bool) -> bool {
        let cold = self.cold();
        if cold.lease == 0 {
            return false;
        }
        if cold.returning > 0 {
            return true;
        }
        let since = now_ns.saturating_sub(cold.exchanged_ns);
        if is_closing || self.is_rate() || self.unit() == QuotaUnit::Concurrent {
            return is_closing || since >= cold.renew_ns || self.can_return_rate(&cold, now_ns);
        }
        let ended = now_ns >= self.balance().expires_ns();
        let has_news = self.balance().has_spent() || self.balance().free() > 0 || cold.booked == 0;
        let pause = if cold.empty_streak > 0 { SCARCE_IDLE_NS } else { REPORT_NS };
        ended || (since >= pause && has_news)
    }

    pub(super) fn is_forgettable(&self) -> bool {
        self.cold().lease == 0 && !self.has_waiting()
    }

    fn can_return_rate(&self, cold: &Cold, now_ns: u64) -> bool {
        self.is_rate() && cold.booked > cold.level && now_ns.saturating_sub(cold.lowered_ns) >= RATE_SPAN_NS
    }

    /// Adds this account's reports and wants.
    pub(super) fn compose(self: &Arc<Self>, now_ns: u64, is_closing: bool, exchange: &mut LeaseExchange) {
        let mut cold = self.cold();
        if is_closing {
            self.compose_close(&mut cold, now_ns, exchange);
        } else if self.is_rate() {
            self.compose_rate(&mut cold, now_ns, exchange);
        } else {
            self.compose_balance(&mut cold, now_ns, exchange);
        }
        cold.exchanged_ns = now_ns;
    }

    /// What nobody can take any more is returned; what is still in use counts as used.
    fn compose_close(&self, cold: &mut Cold, now_ns: u64, exchange: &mut LeaseExchange) {
        if cold.lease == 0 {
            return;
        }
        let returned = if self.is_rate() {
            let returned = if self.can_return_rate(cold, now_ns) { cold.booked - cold.level } else { 0 };
            self.share().set_expiry(0);
            returned
        } else {
            self.balance().end_lease().saturating_add(std::mem::take(&mut cold.returning))
        };
        let settled = self.balance().take_spent();
        exchange.reports.push(LeaseReport { lease: cold.lease, settled, returned, closed: true });
        cold.lease = 0;
    }

    fn compose_balance(self: &Arc<Self>, cold: &mut Cold, now_ns: u64, exchange: &mut LeaseExchange) {
        let is_slots = self.unit() == QuotaUnit::Concurrent;
        let balance = self.balance();
        let need = self.need.load(Ordering::Acquire);
        if cold.trace != balance.trace() {
            (cold.trace, cold.used_ns) = (balance.trace(), now_ns);
        }
        if cold.lease != 0 && !is_slots && now_ns >= balance.expires_ns() {
            // The window is over: nothing of it can be used or given back for another.
            let returned = balance.end_lease().saturating_add(std::mem::take(&mut cold.returning));
            let settled = balance.take_spent();
            exchange.reports.push(LeaseReport { lease: cold.lease, settled, returned, closed: true });
            (cold.lease, cold.booked, cold.empty_streak) = (0, 0, 0);
            self.empty_until_ns.store(0, Ordering::Release);
        }
        if cold.lease != 0 {
            let settled = balance.take_spent();
            let patience = if cold.empty_streak > 0 { SCARCE_IDLE_NS } else { IDLE_NS };
            let is_idle = need == 0 && now_ns.saturating_sub(cold.used_ns) >= patience;
            let returned = match (is_idle, is_slots) {
                (true, _) => balance.withdraw(|free| free),
                // Slots that are free at a renewal are worth more where calls wait.
                (false, true) if need == 0 && now_ns.saturating_sub(cold.exchanged_ns) >= cold.renew_ns => {
                    balance.withdraw(|free| free / 2)
                }
                _ => 0,
            };
            let returned = returned.saturating_add(std::mem::take(&mut cold.returning));
            cold.booked = cold.booked.saturating_sub(settled).saturating_sub(returned);
            cold.trace = balance.trace();
            let closed = is_idle && cold.booked == 0;
            if settled > 0 || returned > 0 || closed {
                exchange.reports.push(LeaseReport { lease: cold.lease, settled, returned, closed });
            }
            if closed {
                // Nothing is in use; were there, it must not come back to what nobody holds.
                balance.end_lease();
                cold.lease = 0;
            }
        }
        let is_low = cold.lease != 0 && balance.free() < self.low.load(Ordering::Acquire);
        let renews = is_slots && cold.lease != 0;
        if need > 0 || is_low || renews {
            exchange.wants.push(LeaseWant { account: self.account.to_string(), units: need });
        }
    }

    fn compose_rate(self: &Arc<Self>, cold: &mut Cold, now_ns: u64, exchange: &mut LeaseExchange) {
        let need = self.need.load(Ordering::Acquire);
        let attempts = self.attempts.swap(0, Ordering::AcqRel);
        let passed = now_ns.saturating_sub(cold.exchanged_ns).clamp(100 * MS, LONGEST_LOOK_NS);
        if attempts > 0 || need > 0 {
            cold.used_ns = now_ns;
        }
        let a_second = u128::from(attempts) * u128::from(SECOND_NS) / u128::from(passed);
        let a_second = u64::try_from(a_second).unwrap_or(u64::MAX).max(need);
        // Half more than was tried: a share that is too small makes callers wait. A short look says
        // that there is more, not that there is less.
        let tried = a_second.saturating_add(a_second.div_ceil(2));
        cold.demand = if passed < SECOND_NS { tried.max(cold.demand) } else { tried };
        let is_idle = now_ns.saturating_sub(cold.used_ns) >= IDLE_NS;
        if is_idle && cold.lease != 0 && cold.level > 0 {
            self.share().set(0, 0, now_ns);
            (cold.level, cold.lowered_ns) = (0, now_ns);
        }
        if cold.lease != 0 && self.can_return_rate(cold, now_ns) {
            let returned = cold.booked - cold.level;
            cold.booked = cold.level;
            let closed = cold.level == 0 && is_idle;
            exchange.reports.push(LeaseReport { lease: cold.lease, settled: 0, returned, closed });
            if closed {
                cold.lease = 0;
            }
        }
        self.low.store(now_ns.saturating_add(ASK_AGAIN_NS), Ordering::Release);
        let wants = need > 0 || (cold.lease != 0 && !is_idle);
        if wants {
            let units = cold.demand.max(1);
            exchange.wants.push(LeaseWant { account: self.account.to_string(), units });
        }
    }

    /// Takes in a grant.
    pub(super) fn granted(self: &Arc<Self>, want: &LeaseWant, grant: &LeaseGrant, sent_ns: u64, now_ns: u64) {
        let asks_again = {
            let mut cold = self.cold();
            // Asked for before the limit became another one.
            let is_stale = sent_ns <= cold.recalled_ns;
            if !is_stale {
                if grant.limit < cold.limit && !self.is_rate() {
                    // It fell before this node runs the change: what was leased before goes back.
                    cold.returning = cold.returning.saturating_add(self.balance().recall());
                }
                cold.limit = grant.limit;
            }
            cold.remaining = grant.remaining;
            cold.window_end_ns = grant.window_end_ns;
            cold.renew_ns = grant.ttl_ms.saturating_mul(MS) / RENEWALS_PER_TTL;
            let expires_ns = sent_ns.saturating_add(grant.ttl_ms.saturating_mul(MS));
            if self.is_rate() {
                self.granted_rate(&mut cold, grant, expires_ns, now_ns);
            } else if is_stale {
                // Never to be taken: it goes back as it came.
                self.granted_units(&mut cold, &LeaseGrant { units: 0, ..grant.clone() }, expires_ns);
                cold.booked = cold.booked.saturating_add(grant.units);
                cold.returning = cold.returning.saturating_add(grant.units);
            } else {
                self.granted_units(&mut cold, grant, expires_ns);
            }
            let has_too_little =
                if self.is_rate() { grant.units == 0 } else { want.units > 0 && grant.units < want.units };
            let until = if has_too_little && !is_stale {
                let wait = FIRST_EMPTY_NS.saturating_mul(1 << cold.empty_streak.min(8)).min(MAX_EMPTY_NS);
                cold.empty_streak = cold.empty_streak.saturating_add(1);
                // A window that ends sooner begins afresh.
                let end = if grant.window_end_ns > 0 { expires_ns } else { u64::MAX };
                now_ns.saturating_add(wait).min(end)
            } else {
                cold.empty_streak = 0;
                0
            };
            self.empty_until_ns.store(until, Ordering::Release);
            is_stale || cold.returning > 0
        };
        if asks_again {
            self.ask();
        }
        self.changed();
    }

    fn granted_units(&self, cold: &mut Cold, grant: &LeaseGrant, expires_ns: u64) {
        let balance = self.balance();
        if grant.lease == cold.lease && grant.lease != 0 {
            balance.add(grant.units);
            cold.booked = cold.booked.saturating_add(grant.units);
            balance.set_expiry(balance.expires_ns().max(expires_ns));
        } else if grant.lease != 0 {
            balance.begin_lease(grant.units);
            (cold.booked, cold.returning) = (grant.units, 0);
            balance.set_expiry(expires_ns);
        } else {
            balance.end_lease();
            (cold.booked, cold.returning) = (0, 0);
        }
        cold.lease = grant.lease;
        let in_reserve = grant.remaining <= grant.limit / SYNC_FRACTION;
        let low = if in_reserve || self.unit() == QuotaUnit::Concurrent { 0 } else { balance.free() / 2 };
        self.low.store(low, Ordering::Release);
    }

    fn granted_rate(&self, cold: &mut Cold, grant: &LeaseGrant, expires_ns: u64, now_ns: u64) {
        let same = grant.lease == cold.lease;
        if grant.units < cold.level {
            cold.lowered_ns = now_ns;
        }
        self.share().set(grant.rate_milli / 1_000, grant.burst, now_ns);
        cold.level = grant.units;
        cold.booked = if same { cold.booked.max(grant.units) } else { grant.units };
        cold.lease = grant.lease;
        self.share().set_expiry(if grant.lease == 0 { 0 } else { expires_ns });
    }

    /// Nothing may be spent any more.
    pub(super) fn stop(&self) {
        self.balance().end_lease();
        self.share().set_expiry(0);
        self.changed();
    }
}
