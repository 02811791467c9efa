//! Why one call is decided as it is.
//!
//! Slow next to a decision, and only asked by people: each policy that may apply is evaluated by itself,
//! and of one that does not hold the first condition that fails is looked for.

use cedar_policy::{Decision as CedarDecision, Effect as CedarEffect, Policy, PolicySet};
use provost_types::{Decision, Effect, Kind, Name, PolicyMode, ResourceKey, Snapshot, Spec};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    AccessRequest, PolicyEngine,
    engine::verb,
    policy_slice::SliceRule,
    problem::position,
    question::{Question, Scene},
    tenant::{TenantState, end_ns},
    visibility::{ContextNeeds, conditions_of},
};

/// Policies that came near and are named.
const MAX_NEAR: usize = 20;
/// Roles that would grant it and are named.
const MAX_ROLES: usize = 50;

/// A decision and what led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// What was asked, as a sentence: `principal ana to call tool sql.query`.
    pub asked: String,
    /// Roles that the caller holds and that grant it.
    pub roles: Vec<HeldRole>,
    /// Policies that hold or cannot be evaluated; also observing ones.
    pub policies: Vec<PolicyWord>,
    /// For what is denied because nothing permits it: permits that would if a condition held.
    pub near_policies: Vec<PolicyWord>,
    /// Likewise: roles that would grant it.
    pub near_roles: Vec<NearRole>,
}

/// A role that the caller holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldRole {
    /// The role.
    pub role: Name,
    /// What of it names the object, such as `sql.*`.
    pub grants: Vec<String>,
    /// The bindings by which the caller holds it now.
    pub bindings: Vec<Held>,
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The `RoleBinding`.
    pub binding: Name,
    /// When it ends, RFC 3339; `None`: not.
    pub expires: Option<String>,
}

/// A role that would grant the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NearRole {
    /// The role.
    pub role: Name,
    /// Bindings by which the caller held it, and that have ended; none: it was never bound to the caller.
    pub ended: Vec<Held>,
}

/// What one policy says of the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyWord {
    /// `RESOURCE/ID`, as decisions and records name it.
    pub id: String,
    /// Allow for `permit`, deny for `forbid`.
    pub effect: Effect,
    /// Whether it only observes.
    pub mode: PolicyMode,
    /// Line of its text in the `Policy` resource, from 1; `None` if it is not found there.
    pub line: Option<u32>,
    /// Its text.
    pub text: String,
    /// Why it could not be evaluated.
    pub error: Option<String>,
    /// The first of its conditions that does not hold.
    pub missing: Option<String>,
}

impl PolicyEngine {
    /// Explains the decision on a call at `now_ns`.
    pub fn explain(&self, request: &AccessRequest<'_>, now_ns: u64) -> Explanation {
        let decision = self.decide_anew(request, now_ns);
        let asked = format!("principal {} to {} {}", request.principal, verb(request.action), request.target);
        let mut told = Explanation {
            decision,
            asked,
            roles: Vec::new(),
            policies: Vec::new(),
            near_policies: Vec::new(),
            near_roles: Vec::new(),
        };
        let Ok((tenant, principal)) = self.caller(request) else { return told };
        let principal = &*principal;
        let held = tenant.granting(principal, request, now_ns);
        for role in &held {
            let (running, _) = self.bindings(request, role, now_ns);
            let grants = self.patterns(request, role);
            told.roles.push(HeldRole { role: (*role).clone(), grants, bindings: running });
        }
        let nothing_permits = !told.decision.is_allow() && told.decision.policies.is_empty();
        if nothing_permits {
            let granting = tenant.all_granting(request).into_iter().filter(|role| !held.contains(role));
            told.near_roles = granting
                .take(MAX_ROLES)
                .map(|role| NearRole { role: role.clone(), ended: self.bindings(request, role, now_ns).1 })
                .collect();
        }
        let scene = Scene::new(self.vocabulary, tenant, principal, request, now_ns);
        let Some(scene) = scene else { return told };
        let place = scene.place(principal, now_ns);
        let rules = tenant.slice(request.action).in_scope(&place);
        let needs = rules.iter().map(|rule| rule.needs).fold(ContextNeeds::default(), ContextNeeds::union);
        let Ok(question) = scene.ask(self.vocabulary, request, needs, now_ns) else { return told };
        for rule in rules {
            let word = self.word(rule, tenant, &question);
            match (&word.missing, &word.error) {
                (None, _) | (_, Some(_)) => told.policies.push(word),
                (Some(_), None) => {
                    let permits = word.effect == Effect::Allow && word.mode == PolicyMode::Enforce;
                    if nothing_permits && permits && told.near_policies.len() < MAX_NEAR {
                        told.near_policies.push(word);
                    }
                }
            }
        }
        told
    }

    /// What a policy whose scope takes the call says of it.
    fn word(&self, rule: &SliceRule, tenant: &TenantState, question: &Question<'_>) -> PolicyWord {
        let (holds, error) = self.evaluate(&rule.policy, question);
        let missing = match holds || error.is_some() {
            true => None,
            false => Some(self.first_missing(&rule.policy, question).unwrap_or_else(|| "its scope".to_owned())),
        };
        let (id, text) = (rule.policy.id().to_string(), rule.policy.to_string());
        let resource = id.split('/').next().unwrap_or_default();
        let line = Name::new(resource).ok().and_then(|name| line_of(self.snapshot(), &tenant.name, name, &text));
        let effect = match rule.policy.effect() {
            CedarEffect::Permit => Effect::Allow,
            CedarEffect::Forbid => Effect::Deny,
        };
        PolicyWord { id, effect, mode: rule.mode, line, text, error, missing }
    }

    /// Whether a policy holds, or why it cannot be evaluated.
    fn evaluate(&self, policy: &Policy, question: &Question<'_>) -> (bool, Option<String>) {
        let mut alone = PolicySet::new();
        if alone.add(policy.clone()).is_err() {
            return (false, None);
        }
        let response = self.authorizer.is_authorized(&question.request, &alone, &question.entities);
        let error = response.diagnostics().errors().next().map(ToString::to_string);
        let wanted = match policy.effect() {
            CedarEffect::Permit => CedarDecision::Allow,
            CedarEffect::Forbid => CedarDecision::Deny,
        };
        let holds = response.decision() == wanted && response.diagnostics().reason().next().is_some();
        (holds, error)
    }

    /// The first condition that does not hold, as Cedar text.
    fn first_missing(&self, policy: &Policy, question: &Question<'_>) -> Option<String> {
        for condition in conditions_of(policy)? {
            let alone = json!({
                "effect": "permit", "principal": {"op": "All"}, "action": {"op": "All"}, "resource": {"op": "All"},
                "conditions": [{"kind": "when", "body": condition}],
            });
            let alone = Policy::from_json(None, alone).ok()?;
            if !self.evaluate(&alone, question).0 {
                let text = alone.to_string();
                let inner = text.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
                let inner = inner.map_or(text.as_str(), |(inner, _)| inner);
                return Some(inner.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        None
    }

    /// The caller's bindings of a role: those that hold now, and those that have ended.
    fn bindings(&self, request: &AccessRequest<'_>, role: &Name, now_ns: u64) -> (Vec<Held>, Vec<Held>) {
        let (mut running, mut ended) = (Vec::new(), Vec::new());
        for resource in self.snapshot().of_tenant(Kind::RoleBinding, request.tenant) {
            let Spec::RoleBinding(spec) = &resource.spec else { continue };
            if spec.role != *role || !spec.principals.contains(request.principal) {
                continue;
            }
            let held = Held { binding: resource.metadata.name.clone(), expires: spec.expires.clone() };
            let runs = spec.expires.as_deref().is_none_or(|end| end_ns(end).is_ok_and(|end| now_ns < end));
            if runs { running.push(held) } else { ended.push(held) }
        }
        (running, ended)
    }

    /// What of a role names the object.
    fn patterns(&self, request: &AccessRequest<'_>, role: &Name) -> Vec<String> {
        use provost_types::Action;
        let key = ResourceKey { kind: Kind::Role, tenant: Some(request.tenant.clone()), name: role.clone() };
        let Some(Spec::Role(spec)) = self.snapshot().get(&key).map(|r| &r.spec) else { return Vec::new() };
        let of = spec.rules.iter().flat_map(|rule| match request.action {
            Action::CallTool => &rule.tools,
            Action::GetPrompt => &rule.prompts,
            Action::ReadResource => &rule.resources,
            Action::UseModel => &rule.models,
        });
        let takes = |pattern: &&String| match pattern.strip_suffix('*') {
            Some(prefix) => request.target.starts_with(prefix),
            None => pattern.as_str() == request.target,
        };
        of.filter(takes).cloned().collect()
    }
}

/// Where a policy's text stands in its resource.
fn line_of(snapshot: &Snapshot, tenant: &Name, resource: Name, text: &str) -> Option<u32> {
    let key = ResourceKey { kind: Kind::Policy, tenant: Some(tenant.clone()), name: resource };
    match &snapshot.get(&key)?.spec {
        Spec::Policy(spec) => Some(position(&spec.cedar, spec.cedar.find(text)?).0),
        _ => None,
    }
}
