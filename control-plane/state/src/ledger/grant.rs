//! How much a node gets.

use std::sync::Arc;

use provost_types::{QuotaUnit, Resources};

use super::{
    AccountKey, LeaseGrant, LeaseWant, Ledger, LedgerRowKey, SHARE_TTL_MS, Span,
    account::{Wanted, find},
    exchange::Exchange,
};

/// The last of a window, `limit / this`, is granted only to calls that wait for it: nothing of it
/// lies unused on a node while another denies.
pub const SYNC_FRACTION: u64 = 50;
/// A lease lasts so many seconds at the node's recent pace.
const LEASE_SECONDS: u64 = 2;
/// Units of a first lease, when no pace is known.
const FIRST_UNITS: u64 = 16;
/// Calls that wait now are followed by as many.
const AHEAD_OF_NEED: u64 = 2;
/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

impl Ledger {
    /// Grants what a want asks for, as far as the account has it.
    pub(super) fn grant(&mut self, resources: &Resources, ex: &Exchange, want: &LeaseWant) -> LeaseGrant {
        let Some(wanted) = find(resources, &want.account) else {
            return LeaseGrant { account: want.account.clone(), ..LeaseGrant::default() };
        };
        let (key, now_ns) = self.account_of(&wanted, ex.now_ns);
        let held = self.index.held.get(&ex.node).and_then(|h| h.get(&key)).copied();
        let grant = LeaseGrant {
            account: want.account.clone(),
            lease: held.unwrap_or(0),
            limit: wanted.spec.limit,
            ..LeaseGrant::default()
        };
        match key.span {
            Span::Window { .. } => self.grant_units(ex, want, &key, now_ns, grant),
            Span::Slots => self.grant_slots(ex, want, &key, grant),
            Span::Rate => self.grant_rate(ex, want, &key, wanted.spec.unit, grant),
        }
    }

    /// The account that a want counts in now. A quota's windows never go back: units of a window
    /// that was left are gone.
    fn account_of(&mut self, wanted: &Wanted<'_>, now_ns: u64) -> (Arc<AccountKey>, u64) {
        let floor_ns = self.books.get(&wanted.id).map_or(0, |b| b.floor_ns);
        let now_ns = now_ns.max(floor_ns);
        let span = Span::of(wanted.spec, now_ns);
        if let Some(start_ns) = span.start_ns()
            && (start_ns > floor_ns || !self.books.contains_key(&wanted.id))
        {
            self.books.entry(wanted.id.clone()).or_default().floor_ns = start_ns;
            self.touch(LedgerRowKey::Book(wanted.id.clone()));
        }
        let key = AccountKey { quota: wanted.id.clone(), unit: wanted.spec.unit, span, subject: wanted.subject.into() };
        let key = self.accounts.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| known.clone());
        (key, now_ns)
    }

    fn available(&self, key: &Arc<AccountKey>, limit: u64) -> u64 {
        self.accounts.get(key).copied().unwrap_or_default().available(limit)
    }

    /// Adds units to the node's lease, which is made if it has none. `None`: no room for the
    /// account.
    fn add(&mut self, ex: &Exchange, key: &Arc<AccountKey>, lease: u64, units: u64) -> Option<u64> {
        if !self.open_account(key) {
            return None;
        }
        let id = if lease == 0 { self.new_lease(key, ex) } else { lease };
        self.add_units(id, units);
        Some(id)
    }

    fn grant_units(
        &mut self,
        ex: &Exchange,
        want: &LeaseWant,
        key: &Arc<AccountKey>,
        now_ns: u64,
        mut grant: LeaseGrant,
    ) -> LeaseGrant {
        let end_ns = key.span.end_ns().unwrap_or(u64::MAX);
        grant.window_end_ns = end_ns;
        grant.ttl_ms = end_ns.saturating_sub(now_ns) / MS;
        let available = self.available(key, grant.limit);
        let nodes = self.leases_of(key).count() as u64 + u64::from(grant.lease == 0);
        let fair = (available / (2 * nodes.max(1))).max(1);
        let pace = self.leases.get(&grant.lease).map_or(0, |l| l.pace);
        let foreseen =
            pace.saturating_mul(LEASE_SECONDS).max(FIRST_UNITS).max(want.units.saturating_mul(AHEAD_OF_NEED));
        let ahead = foreseen.min(fair).min(available.saturating_sub(grant.limit / SYNC_FRACTION));
        let units = want.units.max(ahead).min(available);
        grant.remaining = available;
        if units > 0
            && let Some(id) = self.add(ex, key, grant.lease, units)
        {
            grant.lease = id;
            grant.units = units;
            grant.remaining = available - units;
        }
        grant
    }

    fn grant_slots(
        &mut self,
        ex: &Exchange,
        want: &LeaseWant,
        key: &Arc<AccountKey>,
        mut grant: LeaseGrant,
    ) -> LeaseGrant {
        grant.ttl_ms = SHARE_TTL_MS;
        let available = self.available(key, grant.limit);
        let nodes = self.leases_of(key).count() as u64 + u64::from(grant.lease == 0);
        let fair = available / (2 * nodes.max(1));
        let ahead = want.units.saturating_mul(AHEAD_OF_NEED).min(fair);
        let units = want.units.max(ahead).min(available);
        grant.remaining = available;
        if units > 0
            && let Some(id) = self.add(ex, key, grant.lease, units)
        {
            grant.lease = id;
            grant.units = units;
            grant.remaining = available - units;
        }
        if grant.lease != 0 {
            self.renew(grant.lease, Span::Slots);
        }
        grant
    }

    /// Sets the node's share. It grows at once, from what nobody holds; it shrinks when the node
    /// reports the rest as returned, after it has kept to less for the span of the rate.
    fn grant_rate(
        &mut self,
        ex: &Exchange,
        want: &LeaseWant,
        key: &Arc<AccountKey>,
        unit: QuotaUnit,
        mut grant: LeaseGrant,
    ) -> LeaseGrant {
        grant.ttl_ms = SHARE_TTL_MS;
        let target = self.rate_target(key, grant.lease, want.units, grant.limit);
        let held = self.leases.get(&grant.lease).map_or(0, |l| l.units);
        let available = self.available(key, grant.limit);
        let more = target.saturating_sub(held).min(available);
        grant.remaining = available - more;
        grant.units = target.min(held + more);
        // A node that gets nothing yet is counted too: the others' shares shrink for it.
        if (grant.lease != 0 || want.units > 0)
            && let Some(id) = self.add(ex, key, grant.lease, more)
        {
            grant.lease = id;
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.pace = want.units;
            }
            self.renew(id, Span::Rate);
        } else {
            grant.units = 0;
        }
        (grant.rate_milli, grant.burst) = rate(grant.units, unit);
        grant
    }

    /// Max-min fairness: each node what it could use up to an equal part, and what is left over to
    /// those that could use more.
    fn rate_target(&self, key: &Arc<AccountKey>, lease: u64, wanted: u64, limit: u64) -> u64 {
        let others: Vec<u64> = {
            let ids = self.index.holders.get(key).into_iter().flatten().filter(|id| **id != lease);
            ids.filter_map(|id| self.leases.get(id)).filter(|l| !l.orphan).map(|l| l.pace).collect()
        };
        let nodes = others.len() as u64 + 1;
        let fair = limit / nodes;
        let taken: u64 = others.iter().map(|w| (*w).min(fair)).sum::<u64>() + wanted.min(fair);
        let hungry = others.iter().filter(|w| **w > fair).count() as u64 + u64::from(wanted > fair);
        let over = limit.saturating_sub(taken) / hungry.max(1);
        wanted.min(fair + if wanted > fair { over } else { 0 }).max(1).min(limit)
    }
}

/// The rate and the burst of a share: together never more than the share in any second. Calls come
/// at random, so their burst is the square root of the share; a single call may use many tokens,
/// so half of a share of tokens or money may go at once.
fn rate(share: u64, unit: QuotaUnit) -> (u64, u64) {
    let burst = match (share, unit) {
        (0, _) => return (0, 0),
        (1, _) => return (1_000, 1),
        (_, QuotaUnit::Calls) => share.isqrt(),
        _ => share / 2,
    };
    ((share - burst).saturating_mul(1_000), burst)
}
