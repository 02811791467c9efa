//! The one place where accounts and leases change: sums, index and touched rows stay in step.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::{
    AccountKey, Ledger, LedgerRowKey, MAX_ACCOUNTS_PER_QUOTA, account::Account, account::Lease, exchange::Exchange,
};

/// Ways to find leases and accounts; follows from them.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// All leases of an account.
    pub(super) holders: OrdMap<Arc<AccountKey>, OrdSet<u64>>,
    /// The lease of a living node in an account.
    pub(super) held: OrdMap<Arc<str>, OrdMap<Arc<AccountKey>, u64>>,
    /// Accounts of calendar windows by their end.
    pub(super) ending: OrdSet<(u64, Arc<AccountKey>)>,
    /// Leases of shares by the elapsed time at which they are free.
    pub(super) expiring: OrdSet<(u64, u64)>,
}

impl Ledger {
    pub(super) fn touch(&mut self, row: LedgerRowKey) {
        self.touched.insert(row);
    }

    /// The account's key if there is room for it; makes the account if needed.
    pub(super) fn open_account(&mut self, key: &Arc<AccountKey>) -> bool {
        if self.accounts.contains_key(key) {
            return true;
        }
        let book = self.books.entry(key.quota.clone()).or_default();
        if book.accounts >= MAX_ACCOUNTS_PER_QUOTA {
            return false;
        }
        book.accounts += 1;
        self.insert_account(key.clone(), Account::default());
        self.touch(LedgerRowKey::Account(key.clone()));
        self.touch(LedgerRowKey::Book(key.quota.clone()));
        true
    }

    /// Without counting it in its book.
    pub(super) fn insert_account(&mut self, key: Arc<AccountKey>, account: Account) {
        if let Some(end_ns) = key.span.end_ns() {
            self.index.ending.insert((end_ns, key.clone()));
        }
        self.accounts.insert(key, account);
    }

    /// With all its leases.
    pub(super) fn remove_account(&mut self, key: &Arc<AccountKey>) {
        for id in self.index.holders.get(key).cloned().unwrap_or_default() {
            self.remove_lease(id);
        }
        if let Some(end_ns) = key.span.end_ns() {
            self.index.ending.remove(&(end_ns, key.clone()));
        }
        if self.accounts.remove(key).is_some()
            && let Some(book) = self.books.get_mut(&key.quota)
        {
            book.accounts = book.accounts.saturating_sub(1);
        }
        self.touch(LedgerRowKey::Account(key.clone()));
    }

    pub(super) fn new_lease(&mut self, account: &Arc<AccountKey>, ex: &Exchange) -> u64 {
        self.last_lease += 1;
        let id = self.last_lease;
        let lease = Lease {
            account: account.clone(),
            node: ex.node.clone(),
            epoch: ex.epoch,
            units: 0,
            since_ns: ex.now_ns,
            pace: 0,
            expires_ns: 0,
            orphan: false,
        };
        self.insert_lease(id, lease);
        self.touch(LedgerRowKey::Lease(id));
        id
    }

    /// With its units in its account's sum.
    pub(super) fn insert_lease(&mut self, id: u64, lease: Lease) {
        self.index.holders.entry(lease.account.clone()).or_default().insert(id);
        if !lease.orphan {
            self.index.held.entry(lease.node.clone()).or_default().insert(lease.account.clone(), id);
        }
        if lease.expires_ns > 0 {
            self.index.expiring.insert((lease.expires_ns, id));
        }
        if let Some(account) = self.accounts.get_mut(&lease.account) {
            account.leased = account.leased.saturating_add(lease.units);
        }
        self.leases.insert(id, lease);
    }

    /// Its units leave the account's sum: returned, unless they were settled before.
    pub(super) fn remove_lease(&mut self, id: u64) {
        let Some(lease) = self.leases.remove(&id) else { return };
        if let Some(account) = self.accounts.get_mut(&lease.account) {
            account.leased = account.leased.saturating_sub(lease.units);
        }
        self.touch(LedgerRowKey::Lease(id));
        self.touch(LedgerRowKey::Account(lease.account.clone()));
        self.index.expiring.remove(&(lease.expires_ns, id));
        if !lease.orphan {
            self.unhold(&lease);
        }
        if let Some(holders) = self.index.holders.get_mut(&lease.account) {
            holders.remove(&id);
            if holders.is_empty() {
                self.index.holders.remove(&lease.account);
            }
        }
    }

    fn unhold(&mut self, lease: &Lease) {
        if let Some(held) = self.index.held.get_mut(&lease.node) {
            held.remove(&lease.account);
            if held.is_empty() {
                self.index.held.remove(&lease.node);
            }
        }
    }

    pub(super) fn add_units(&mut self, id: u64, units: u64) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.units = lease.units.saturating_add(units);
        let key = lease.account.clone();
        if let Some(account) = self.accounts.get_mut(&key) {
            account.leased = account.leased.saturating_add(units);
        }
        self.touch(LedgerRowKey::Lease(id));
        self.touch(LedgerRowKey::Account(key));
    }

    /// Takes units off a lease, at most those it has; `settle`: they are used up, else they are
    /// free again. Returns how many.
    pub(super) fn take_units(&mut self, id: u64, units: u64, settle: bool) -> u64 {
        let Some(lease) = self.leases.get_mut(&id) else { return 0 };
        let units = units.min(lease.units);
        if units == 0 {
            return 0;
        }
        lease.units -= units;
        let key = lease.account.clone();
        if let Some(account) = self.accounts.get_mut(&key) {
            account.leased = account.leased.saturating_sub(units);
            if settle {
                account.settled = account.settled.saturating_add(units);
            }
        }
        self.touch(LedgerRowKey::Lease(id));
        self.touch(LedgerRowKey::Account(key));
        units
    }

    /// Shares: when the units are free again.
    pub(super) fn set_expiry(&mut self, id: u64, expires_ns: u64) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        self.index.expiring.remove(&(lease.expires_ns, id));
        lease.expires_ns = expires_ns;
        self.index.expiring.insert((expires_ns, id));
        self.touch(LedgerRowKey::Lease(id));
    }

    /// Shares: the node is gone, the units wait for their time.
    pub(super) fn orphan(&mut self, id: u64, expires_ns: u64) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.orphan = true;
        let lease = lease.clone();
        self.unhold(&lease);
        self.set_expiry(id, expires_ns);
    }

    pub(super) fn leases_of(&self, key: &Arc<AccountKey>) -> impl Iterator<Item = &Lease> {
        let ids = self.index.holders.get(key).into_iter().flatten();
        ids.filter_map(|id| self.leases.get(id)).filter(|lease| !lease.orphan)
    }
}
