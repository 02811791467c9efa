//! What the ledger keeps: accounts, leases, nodes.

use std::{fmt, sync::Arc};

use provost_types::{Kind, Name, QuotaPer, QuotaSpec, QuotaUnit, Resource, ResourceKey, Resources, Revision, Spec};
use serde::{Deserialize, Serialize};

use super::{LeaseGrant, span::Span};

/// Bytes of the part of an account's name that tells whose count it is.
pub(super) const MAX_SUBJECT_BYTES: usize = 256;
/// Divides the principal from the conversation in a subject.
pub(super) const WORKFLOW_MARK: char = '~';

/// One making of a quota: deleted and applied again it is another, with counts of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuotaId {
    /// The tenant.
    pub tenant: Name,
    /// The quota.
    pub name: Name,
    /// The revision that made it.
    pub created: Revision,
}

/// Which count: one quota, one span of time, one subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountKey {
    /// The quota.
    pub quota: QuotaId,
    /// What is counted.
    pub unit: QuotaUnit,
    /// When.
    pub span: Span,
    /// Whose; empty: all together.
    pub subject: Arc<str>,
}

impl fmt::Display for QuotaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.tenant, self.name, self.created)
    }
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}#{}", self.quota, self.unit.as_str(), self.span, self.subject)
    }
}

/// The units of one account. Invariant: `settled + leased <= limit`, but for a limit that was
/// lowered below what was out already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Used for good. Always 0 for shares.
    pub(super) settled: u64,
    /// The sum of its leases' units.
    pub(super) leased: u64,
}

impl Account {
    pub(super) fn available(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.settled.saturating_add(self.leased))
    }
}

/// Units that one start of one node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) account: Arc<AccountKey>,
    pub(super) node: Arc<str>,
    pub(super) epoch: u64,
    /// Held and not yet reported as used or returned.
    pub(super) units: u64,
    /// When the node last reported, by the proposer's wall clock: the base of its pace.
    pub(super) since_ns: u64,
    /// Units a second that it used lately; for a rate: what it could use.
    pub(super) pace: u64,
    /// Shares: the elapsed time at which the units are free again if the node stays silent; 0:
    /// never.
    pub(super) expires_ns: u64,
    /// Its node is gone: only waits for its time.
    pub(super) orphan: bool,
}

/// What is known of a quota's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Book {
    /// The start of its latest window: earlier ones are closed for good.
    pub(super) floor_ns: u64,
    /// How many accounts it has.
    pub(super) accounts: usize,
}

/// The last exchange of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) seen_ns: u64,
    pub(super) answer: Vec<LeaseGrant>,
}

/// A quota as a want names it.
pub(super) struct Wanted<'a> {
    pub(super) id: QuotaId,
    pub(super) spec: &'a QuotaSpec,
    pub(super) subject: &'a str,
}

/// Finds the quota of an account's name; `None` if there is none that counts this subject.
pub(super) fn find<'a>(resources: &'a Resources, account: &'a str) -> Option<Wanted<'a>> {
    let (path, subject) = account.split_once('#').unwrap_or((account, ""));
    let (tenant, name) = path.split_once('/')?;
    let (tenant, name) = (Name::new(tenant).ok()?, Name::new(name).ok()?);
    let key = ResourceKey { kind: Kind::Quota, tenant: Some(tenant.clone()), name: name.clone() };
    let resource: &Resource = resources.get(&key)?;
    let Spec::Quota(spec) = &resource.spec else { return None };
    let counted = match spec.per {
        QuotaPer::Tenant => subject.is_empty(),
        QuotaPer::Principal => !subject.is_empty() && !subject.contains(WORKFLOW_MARK),
        QuotaPer::Workflow => subject.contains(WORKFLOW_MARK),
    };
    let wanted = Wanted { id: QuotaId { tenant, name, created: resource.created }, spec, subject };
    (counted && subject.len() <= MAX_SUBJECT_BYTES).then_some(wanted)
}
