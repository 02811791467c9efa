//! What can be read of the ledger, for people and for tests.

use super::{AccountKey, Ledger};

/// An account as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountView<'a> {
    /// Which.
    pub key: &'a AccountKey,
    /// Units used for good.
    pub settled: u64,
    /// Units that nodes hold.
    pub leased: u64,
}

/// A lease as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView<'a> {
    /// Its id.
    pub id: u64,
    /// Of which account.
    pub account: &'a AccountKey,
    /// Who holds it.
    pub node: &'a str,
    /// In which of its starts.
    pub epoch: u64,
    /// Units held, neither reported as used nor returned.
    pub units: u64,
}

impl Ledger {
    /// Every account, in order of tenant and quota.
    pub fn accounts(&self) -> impl Iterator<Item = AccountView<'_>> {
        self.accounts.iter().map(|(key, account)| AccountView { key, settled: account.settled, leased: account.leased })
    }

    /// Every lease.
    pub fn leases(&self) -> impl Iterator<Item = LeaseView<'_>> {
        self.leases.iter().map(|(id, lease)| LeaseView {
            id: *id,
            account: &lease.account,
            node: &lease.node,
            epoch: lease.epoch,
            units: lease.units,
        })
    }
}
