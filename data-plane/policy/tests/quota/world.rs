//! Quotas and calls in few words.

use std::{collections::BTreeMap, sync::Arc};

use provost_data_policy::quota::{LeaseBook, QuotaCall, QuotaIndex, Slot};
use provost_types::{Metadata, Name, QuotaSpec, Resource, Revision, Snapshot, Spec};
use serde_json::{Value, json};

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Quotas by `tenant/name` with their specs.
pub fn index(quotas: &[(&str, Value)]) -> QuotaIndex {
    let mut snapshot = Snapshot::default();
    for (path, spec) in quotas {
        let (tenant, own) = path.split_once('/').unwrap();
        let metadata = Metadata { name: name(own), tenant: Some(name(tenant)), labels: BTreeMap::new() };
        let spec: QuotaSpec = serde_json::from_value(spec.clone()).unwrap();
        let quota = Resource { metadata, spec: Spec::Quota(spec), created: Revision(1), modified: Revision(1) };
        snapshot.resources.insert(quota.key(), Arc::new(quota));
    }
    QuotaIndex::compile(&snapshot)
}

/// Who calls what.
pub struct Caller {
    pub tenant: Name,
    pub principal: Name,
}

impl Caller {
    pub fn new(tenant: &str, principal: &str) -> Self {
        Self { tenant: name(tenant), principal: name(principal) }
    }

    pub fn tool<'a>(&'a self, tool: &'a str) -> QuotaCall<'a> {
        QuotaCall {
            tenant: &self.tenant,
            principal: &self.principal,
            tool: Some(tool),
            model: None,
            workflow: "",
            tokens: 0,
            cost_micro: 0,
        }
    }
}

/// The one account of a quota of 100.
pub fn account(unit: &str, window: Option<&str>) -> (LeaseBook, Arc<Slot>) {
    let mut spec = json!({"limit": 100, "unit": unit});
    if let Some(window) = window {
        spec["window"] = json!(window);
    }
    let (index, book, ann) = (index(&[("acme/q", spec)]), LeaseBook::default(), Caller::new("acme", "ann"));
    let call = ann.tool("t");
    let slot = index.matching(&call).next().unwrap().slot(&book, &call).unwrap();
    (book, slot)
}
