//! Which quotas cover a call, precompiled for one revision.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, OnceLock},
};

use provost_types::{Kind, Name, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Resource, Snapshot, Spec};

use super::{LeaseBook, Slot};
use crate::RunModel;

/// Divides the principal from the conversation in an account's name.
const WORKFLOW_MARK: &str = "~";
/// Divides the quota from what it counts by, in an account's name.
const SUBJECT_MARK: &str = "#";

/// A call as quotas see it.
#[derive(Clone, Copy, Debug)]
pub struct QuotaCall<'a> {
    /// Who calls.
    pub tenant: &'a Name,
    /// Who calls.
    pub principal: &'a Name,
    /// The full name of what is called, if it is a tool or a model.
    pub tool: Option<&'a str>,
    /// The model that runs, under a tool or by itself.
    pub model: Option<RunModel<'a>>,
    /// The conversation, in a form of bounded length; empty: none.
    pub workflow: &'a str,
    /// The most tokens that the call can use; 0: it runs no model.
    pub tokens: u64,
    /// The most it can cost; 0: nothing here has a price.
    pub cost_micro: u64,
}

/// Exact names and prefixes; none at all covers everything.
#[derive(Debug, Default)]
struct Patterns {
    exact: HashSet<Box<str>>,
    prefixes: Vec<Box<str>>,
}

impl Patterns {
    fn compile(patterns: &BTreeSet<String>) -> Option<Self> {
        let mut compiled = Self::default();
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some(prefix) => compiled.prefixes.push(prefix.into()),
                None => drop(compiled.exact.insert(pattern.as_str().into())),
            }
        }
        (!patterns.is_empty()).then_some(compiled)
    }

    fn covers(&self, name: &str) -> bool {
        self.exact.contains(name) || self.prefixes.iter().any(|p| name.starts_with(&**p))
    }
}

/// A quota ready to be taken from.
#[derive(Debug)]
pub struct CompiledQuota {
    /// `TENANT/QUOTA`.
    pub name: Box<str>,
    /// The most in one window.
    pub limit: u64,
    /// What is counted.
    pub unit: QuotaUnit,
    /// In what.
    pub window: Option<QuotaWindow>,
    per: QuotaPer,
    tools: Option<Patterns>,
    /// What makes its counts other than those of a quota of the same name: made anew, or counting
    /// something else.
    making: Box<str>,
    /// The one account of a quota that counts all together.
    slot: OnceLock<Arc<Slot>>,
}

impl CompiledQuota {
    fn compile(tenant: &Name, resource: &Resource, spec: &QuotaSpec) -> Self {
        let window = spec.window.map_or("", QuotaWindow::as_str);
        Self {
            name: format!("{tenant}/{}", resource.metadata.name).into(),
            limit: spec.limit,
            unit: spec.unit,
            window: spec.window,
            per: spec.per,
            tools: Patterns::compile(&spec.tools),
            making: format!("@{}/{}/{window}", resource.created, spec.unit.as_str()).into(),
            slot: OnceLock::new(),
        }
    }

    fn covers(&self, call: &QuotaCall<'_>) -> bool {
        let Some(patterns) = &self.tools else { return true };
        let models = call.model.into_iter().flat_map(RunModel::names);
        call.tool.into_iter().chain(models).any(|name| patterns.covers(name))
    }

    /// The most units that the call can use; 0: it is not counted here.
    pub fn units(&self, call: &QuotaCall<'_>) -> u64 {
        match self.unit {
            QuotaUnit::Calls | QuotaUnit::Concurrent => 1,
            QuotaUnit::Tokens => call.tokens,
            QuotaUnit::CostMicro => call.cost_micro,
        }
    }

    /// Whether it is a rate: a quota whose share comes back by time.
    pub fn is_rate(&self) -> bool {
        self.window == Some(QuotaWindow::Second) && self.unit != QuotaUnit::Concurrent
    }

    /// The account that the call counts in; `None`: the node keeps as many as it can.
    pub fn slot(&self, book: &LeaseBook, call: &QuotaCall<'_>) -> Option<Arc<Slot>> {
        // On the way of every call: one allocation for the account's name and the key that begins with it.
        let find = |subject: &[&str]| {
            let account = self.name.len() + subject.iter().map(|part| part.len()).sum::<usize>();
            let mut key = String::with_capacity(account + self.making.len());
            key.push_str(&self.name);
            subject.iter().for_each(|part| key.push_str(part));
            key.push_str(&self.making);
            book.slot(key, account, self.unit, self.is_rate())
        };
        match self.per {
            QuotaPer::Tenant => {
                if let Some(slot) = self.slot.get() {
                    return Some(slot.clone());
                }
                let slot = find(&[])?;
                Some(self.slot.get_or_init(|| slot).clone())
            }
            QuotaPer::Principal => find(&[SUBJECT_MARK, call.principal.as_str()]),
            QuotaPer::Workflow => find(&[SUBJECT_MARK, call.principal.as_str(), WORKFLOW_MARK, call.workflow]),
        }
    }
}

/// A tenant's quotas.
#[derive(Debug, Default)]
struct TenantQuotas {
    for_all: Vec<CompiledQuota>,
    by_principal: HashMap<Name, Vec<Arc<CompiledQuota>>>,
}

/// All quotas of one revision by tenant: one that has none is not in it.
#[derive(Debug, Default)]
pub struct QuotaIndex {
    tenants: HashMap<Name, TenantQuotas>,
}

impl QuotaIndex {
    /// Compiles the quotas of a snapshot.
    pub fn compile(snapshot: &Snapshot) -> Self {
        let mut index = Self::default();
        for resource in snapshot.of_kind(Kind::Quota) {
            let (Some(tenant), Spec::Quota(spec)) = (&resource.metadata.tenant, &resource.spec) else { continue };
            let quota = CompiledQuota::compile(tenant, resource, spec);
            let of_tenant = index.tenants.entry(tenant.clone()).or_default();
            if spec.principals.is_empty() {
                of_tenant.for_all.push(quota);
                continue;
            }
            let quota = Arc::new(quota);
            for principal in &spec.principals {
                of_tenant.by_principal.entry(principal.clone()).or_default().push(quota.clone());
            }
        }
        index
    }

    /// Whether the tenant has any quota: one lookup, and none at all where nobody has one.
    pub fn has_any(&self, tenant: &Name) -> bool {
        !self.tenants.is_empty() && self.tenants.contains_key(tenant)
    }

    /// The quotas whose limit was another one in `before`, as `TENANT/QUOTA`, with their limit.
    pub fn changed_since(&self, before: &Self) -> HashMap<&str, u64> {
        let limits: HashMap<&str, u64> = before.all().map(|quota| (&*quota.name, quota.limit)).collect();
        let changed = |quota: &&CompiledQuota| limits.get(&*quota.name).is_some_and(|limit| *limit != quota.limit);
        self.all().filter(changed).map(|quota| (&*quota.name, quota.limit)).collect()
    }

    /// Those of several principals come once for each.
    fn all(&self) -> impl Iterator<Item = &CompiledQuota> {
        self.tenants.values().flat_map(|tenant| {
            let of_principals = tenant.by_principal.values().flatten();
            tenant.for_all.iter().chain(of_principals.map(|quota| &**quota))
        })
    }

    /// The quotas that cover a call.
    pub fn matching<'a>(&'a self, call: &'a QuotaCall<'a>) -> impl Iterator<Item = &'a CompiledQuota> {
        let of_tenant = if self.tenants.is_empty() { None } else { self.tenants.get(call.tenant) };
        of_tenant
            .into_iter()
            .flat_map(|t| {
                let own = t.by_principal.get(call.principal).into_iter().flatten();
                t.for_all.iter().chain(own.map(|quota| &**quota))
            })
            .filter(|quota| quota.covers(call))
    }
}
