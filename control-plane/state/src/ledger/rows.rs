//! The stored form: one row for each thing, so that an exchange writes what it touched.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    AccountKey, Ledger, QuotaId,
    account::{Account, Book, Lease, NodeRecord},
    clock::Elapsed,
};

/// Which row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LedgerRowKey {
    /// Clocks and counters.
    Meta,
    /// What is known of a quota's time.
    Book(QuotaId),
    /// An account.
    Account(Arc<AccountKey>),
    /// A lease.
    Lease(u64),
    /// A node's last exchange.
    Node(Arc<str>),
}

/// The key under which the row is stored.
impl fmt::Display for LedgerRowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerRowKey::Meta => f.write_str("meta"),
            LedgerRowKey::Book(id) => write!(f, "book/{id}"),
            LedgerRowKey::Account(key) => write!(f, "account/{key}"),
            LedgerRowKey::Lease(id) => write!(f, "lease/{id:016x}"),
            LedgerRowKey::Node(name) => write!(f, "node/{name}"),
        }
    }
}

/// One row, opaque but for serde. Fields may be added with defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LedgerRow(Row);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Row {
    Meta { elapsed: Elapsed, last_lease: u64 },
    Book { quota: QuotaId, floor_ns: u64 },
    Account { key: Arc<AccountKey>, settled: u64 },
    Lease { id: u64, lease: Lease },
    Node { name: Arc<str>, record: NodeRecord },
}

/// The whole ledger as it stands in snapshots.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Stored {
    rows: Vec<LedgerRow>,
}

impl From<Stored> for Ledger {
    fn from(stored: Stored) -> Self {
        Ledger::from_rows(stored.rows)
    }
}

impl From<Ledger> for Stored {
    fn from(ledger: Ledger) -> Self {
        Stored { rows: ledger.rows().map(|(_, row)| row).collect() }
    }
}

impl Ledger {
    /// A ledger from all its rows, in any order.
    pub fn from_rows(rows: impl IntoIterator<Item = LedgerRow>) -> Self {
        let mut ledger = Ledger::default();
        let mut leases = Vec::new();
        for LedgerRow(row) in rows {
            match row {
                Row::Meta { elapsed, last_lease } => (ledger.elapsed, ledger.last_lease) = (elapsed, last_lease),
                Row::Book { quota, floor_ns } => ledger.books.entry(quota).or_default().floor_ns = floor_ns,
                Row::Account { key, settled } => {
                    ledger.books.entry(key.quota.clone()).or_default().accounts += 1;
                    ledger.insert_account(key, Account { settled, leased: 0 });
                }
                Row::Lease { id, lease } => leases.push((id, lease)),
                Row::Node { name, record } => drop(ledger.nodes.insert(name, record)),
            }
        }
        // Their units are part of their accounts' sums, so accounts come first.
        for (id, mut lease) in leases {
            if let Some((key, _)) = ledger.accounts.get_key_value(&lease.account) {
                lease.account = key.clone();
            }
            ledger.insert_lease(id, lease);
        }
        ledger
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = (LedgerRowKey, LedgerRow)> {
        let keys = std::iter::once(LedgerRowKey::Meta)
            .chain(self.books.keys().cloned().map(LedgerRowKey::Book))
            .chain(self.accounts.keys().cloned().map(LedgerRowKey::Account))
            .chain(self.leases.keys().copied().map(LedgerRowKey::Lease))
            .chain(self.nodes.keys().cloned().map(LedgerRowKey::Node));
        keys.filter_map(|key| self.row(&key).map(|row| (key, row)))
    }

    /// One row; `None` if it is gone.
    pub fn row(&self, key: &LedgerRowKey) -> Option<LedgerRow> {
        let row = match key {
            LedgerRowKey::Meta => Row::Meta { elapsed: self.elapsed.clone(), last_lease: self.last_lease },
            LedgerRowKey::Book(id) => {
                let Book { floor_ns, .. } = *self.books.get(id)?;
                Row::Book { quota: id.clone(), floor_ns }
            }
            LedgerRowKey::Account(key) => Row::Account { key: key.clone(), settled: self.accounts.get(key)?.settled },
            LedgerRowKey::Lease(id) => Row::Lease { id: *id, lease: self.leases.get(id)?.clone() },
            LedgerRowKey::Node(name) => Row::Node { name: name.clone(), record: self.nodes.get(name)?.clone() },
        };
        Some(LedgerRow(row))
    }

    /// The rows that the last command changed, made or removed.
    pub fn touched(&self) -> impl Iterator<Item = &LedgerRowKey> {
        self.touched.iter()
    }
}
