//! Builds snapshots for tests, and asks them.

use std::{collections::BTreeMap, sync::Arc};

use provost_data_policy::{AccessRequest, Facts, PolicyEngine, PolicyProblem};
use provost_types::{
    Action, Decision, Metadata, Name, PolicyMode, PolicySpec, PrincipalSpec, Resource, Revision, RoleBindingSpec,
    RoleRule, RoleSpec, Snapshot, Spec, TenantSpec,
};

/// 2026-11-21T00:00:00Z.
pub const NOW: u64 = 1_795_219_200_000_000_000;
pub const HOUR: u64 = 3_600_000_000_000;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[derive(Clone, Debug, Default)]
pub struct World(pub Snapshot);

impl World {
    /// Tenant `acme` with the principals `ana` (region eu) and `sam`.
    pub fn acme() -> Self {
        Self::default().tenant("acme").principal("acme", "ana", &[("region", "eu")]).principal("acme", "sam", &[])
    }

    pub fn add(mut self, tenant: Option<&str>, id: &str, spec: Spec) -> Self {
        let metadata = Metadata { name: name(id), tenant: tenant.map(name), labels: BTreeMap::new() };
        let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
        self.0.revision = Revision(7);
        self.0.resources.insert(resource.key(), Arc::new(resource));
        self
    }

    pub fn tenant(self, id: &str) -> Self {
        self.add(None, id, Spec::Tenant(TenantSpec::default()))
    }

    pub fn principal(self, tenant: &str, id: &str, attributes: &[(&str, &str)]) -> Self {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let spec = PrincipalSpec { attributes, ..PrincipalSpec::default() };
        self.add(Some(tenant), id, Spec::Principal(spec))
    }

    /// A role over `tools`, bound to `who` until `expires`.
    pub fn role(self, tenant: &str, id: &str, tools: &[&str], who: &[&str], expires: Option<&str>) -> Self {
        let tools = tools.iter().map(|t| (*t).to_owned()).collect();
        let rules = vec![RoleRule { tools, ..RoleRule::default() }];
        let role = RoleSpec { description: String::new(), rules };
        let binding = RoleBindingSpec {
            role: name(id),
            principals: who.iter().map(|w| name(w)).collect(),
            expires: expires.map(str::to_owned),
        };
        self.add(Some(tenant), id, Spec::Role(role)).add(Some(tenant), id, Spec::RoleBinding(binding))
    }

    pub fn policy(self, tenant: &str, id: &str, cedar: &str) -> Self {
        self.policy_in_mode(tenant, id, cedar, PolicyMode::Enforce)
    }

    pub fn observe(self, tenant: &str, id: &str, cedar: &str) -> Self {
        self.policy_in_mode(tenant, id, cedar, PolicyMode::Observe)
    }

    fn policy_in_mode(self, tenant: &str, id: &str, cedar: &str, mode: PolicyMode) -> Self {
        let spec = PolicySpec { description: String::new(), cedar: cedar.to_owned(), mode };
        self.add(Some(tenant), id, Spec::Policy(spec))
    }

    pub fn problems(&self) -> Vec<PolicyProblem> {
        PolicyEngine::compile(&self.0).expect_err("the snapshot has problems")
    }

    pub fn engine(&self) -> PolicyEngine {
        PolicyEngine::compile(&self.0).unwrap_or_else(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", lines.join("\n"))
        })
    }
}

/// `who` of acme calls `tool`.
pub fn call(engine: &PolicyEngine, who: &str, tool: &str) -> Decision {
    call_with(engine, who, tool, &Facts::default())
}

pub fn call_with(engine: &PolicyEngine, who: &str, tool: &str, facts: &Facts<'_>) -> Decision {
    decide(engine, "acme", who, tool, facts, NOW)
}

pub fn decide(engine: &PolicyEngine, tenant: &str, who: &str, tool: &str, facts: &Facts<'_>, now_ns: u64) -> Decision {
    let (tenant, principal) = (name(tenant), name(who));
    let request = AccessRequest {
        token: None,
        tenant: &tenant,
        principal: &principal,
        action: Action::CallTool,
        plugin: tool.split_once('.').map(|(plugin, _)| plugin),
        target: tool,
        facts,
    };
    engine.decide(&request, now_ns)
}

/// Facts that hold arguments.
pub fn arguments(json: &str) -> Facts<'_> {
    Facts { arguments: Some(json), transport: "http", ..Facts::default() }
}
