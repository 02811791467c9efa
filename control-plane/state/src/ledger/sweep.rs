//! Forgetting: ended windows and shares whose holders are gone.

use std::sync::Arc;

use provost_types::{Kind, ResourceKey, Resources};

use super::{AccountKey, Ledger, LedgerRowKey, QuotaId, exchange::SECOND_NS};

/// What one command forgets at most, of each; more than one command can make.
const SWEEP_PER_COMMAND: usize = 512;
/// An ended window is kept so long for late reports.
const WINDOW_GRACE_NS: u64 = 60 * SECOND_NS;

impl Ledger {
    pub(super) fn sweep(&mut self, resources: &Resources, now_ns: u64) {
        for _ in 0..SWEEP_PER_COMMAND {
            match self.index.expiring.get_min() {
                Some((at, id)) if *at <= self.elapsed.now_ns() => {
                    let id = *id;
                    let account = self.leases.get(&id).map(|l| l.account.clone());
                    self.remove_lease(id);
                    if let Some(key) = account {
                        self.forget_if_unused(resources, &key);
                    }
                }
                _ => break,
            }
        }
        for _ in 0..SWEEP_PER_COMMAND {
            match self.index.ending.get_min() {
                Some((end, _)) if end.saturating_add(WINDOW_GRACE_NS) <= now_ns => {
                    let Some((end_ns, key)) = self.index.ending.remove_min() else { break };
                    self.end_window(resources, end_ns, &key);
                }
                _ => break,
            }
        }
    }

    /// The window is closed before its account is forgotten, so that a clock that goes back cannot
    /// open it afresh.
    fn end_window(&mut self, resources: &Resources, end_ns: u64, key: &Arc<AccountKey>) {
        if let Some(book) = self.books.get_mut(&key.quota)
            && book.floor_ns < end_ns
        {
            book.floor_ns = end_ns;
            self.touch(LedgerRowKey::Book(key.quota.clone()));
        }
        self.remove_account(key);
        self.forget_book(resources, &key.quota);
    }

    /// An account of shares without a lease says nothing.
    pub(super) fn forget_if_unused(&mut self, resources: &Resources, key: &Arc<AccountKey>) {
        if key.span.end_ns().is_none() && !self.index.holders.contains_key(key) {
            self.remove_account(key);
            self.forget_book(resources, &key.quota);
        }
    }

    /// A quota that is no more, or was made anew, needs no floor.
    fn forget_book(&mut self, resources: &Resources, id: &QuotaId) {
        let key = ResourceKey { kind: Kind::Quota, tenant: Some(id.tenant.clone()), name: id.name.clone() };
        let lives = resources.get(&key).is_some_and(|r| r.created == id.created);
        if !lives && self.books.get(id).is_some_and(|b| b.accounts == 0) {
            self.books.remove(id);
            self.touch(LedgerRowKey::Book(id.clone()));
        }
    }
}
