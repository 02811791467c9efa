//! Decisions.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use cedar_policy::Authorizer;
use provost_types::{Action, Decision, Effect, Kind, Name, ResourceKey, Revision, Snapshot, TokenFacts};

use crate::{
    Facts, PolicyProblem,
    decision_cache::{DecisionCache, Key},
    entities::PrincipalState,
    policy_slice::{Narrowed, Verdict},
    question::{INTERNAL, Scene, Unaskable},
    schema::Vocabulary,
    tenant::{KINDS, TenantState, changed, sources},
    visibility::ContextNeeds,
};

/// A call to be decided.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// The caller's tenant; the object is of the same tenant.
    pub tenant: &'a Name,
    /// The caller.
    pub principal: &'a Name,
    /// What the caller's token says beside the name, where it came with one of an identity provider.
    pub token: Option<&'a TokenFacts>,
    /// What is to be done.
    pub action: Action,
    /// The plugin that serves the object, if one does.
    pub plugin: Option<&'a str>,
    /// Full tool, prompt or model name (`plugin.tool`), or a resource's URI as its upstream has it.
    pub target: &'a str,
    /// What else is known.
    pub facts: &'a Facts<'a>,
}

/// The policy of every tenant at one revision. Immutable; share it behind an `Arc`.
pub struct PolicyEngine {
    /// What this was compiled from; shared with it.
    compiled: Snapshot,
    pub(crate) vocabulary: &'static Vocabulary,
    pub(crate) authorizer: Authorizer,
    tenants: imbl::HashMap<Name, Arc<TenantState>>,
    cache: Arc<DecisionCache>,
}

impl std::fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyEngine")
            .field("revision", &self.compiled.revision)
            .field("tenants", &self.tenants.keys().collect::<BTreeSet<_>>())
            .finish_non_exhaustive()
    }
}

impl PolicyEngine {
    /// Compiles a snapshot. On failure every problem of every tenant is returned, in key order and
    /// then in order of place.
    pub fn compile(snapshot: &Snapshot) -> Result<Self, Vec<PolicyProblem>> {
        let vocabulary = Vocabulary::get().map_err(|message| {
            let keys = snapshot.resources.keys().take(1).cloned();
            keys.map(|k| PolicyProblem::new(k, message.to_owned(), None)).collect::<Vec<_>>()
        })?;
        let nothing = Snapshot::default();
        let (authorizer, cache) = (Authorizer::new(), Arc::default());
        Self { compiled: nothing, vocabulary, authorizer, tenants: imbl::HashMap::new(), cache }.recompile(snapshot)
    }

    /// Compiles a later snapshot. Tenants whose principals, roles, bindings and policies are as
    /// they were are taken over: a change costs no more than the tenants it touches.
    pub fn recompile(&self, snapshot: &Snapshot) -> Result<Self, Vec<PolicyProblem>> {
        let vocabulary = self.vocabulary;
        let mut problems = Vec::new();
        let mut tenants = self.tenants.clone();
        let changed = changed(&self.compiled.resources, &snapshot.resources);
        // What is remembered belongs to these tenants' states: one that changed must not be asked by it.
        let cache = if changed.is_empty() { self.cache.clone() } else { Arc::default() };
        for name in changed {
            let key = ResourceKey { kind: Kind::Tenant, tenant: None, name: name.clone() };
            if snapshot.get(&key).is_some() {
                let sources = sources(snapshot, &name);
                let before = self.tenants.get(&name).map(|before| &**before);
                let state = TenantState::compile(&name, &sources, before, vocabulary, &mut problems);
                tenants.insert(name, Arc::new(state));
            } else {
                tenants.remove(&name);
            }
        }
        if problems.is_empty() {
            let compiled = snapshot.clone();
            return Ok(Self { compiled, vocabulary, authorizer: Authorizer::new(), tenants, cache });
        }
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        Err(problems)
    }

    /// Whether decisions depend on resources of this kind, and so whether one of them can fail to compile.
    pub fn reads(kind: Kind) -> bool {
        KINDS.contains(&kind)
    }

    /// What this was compiled from.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.compiled
    }

    /// The revision of the snapshot that this was compiled from.
    pub fn revision(&self) -> Revision {
        self.compiled.revision
    }

    /// Whether the call may run at `now_ns` (nanoseconds since the Unix epoch), and why.
    pub fn decide(&self, request: &AccessRequest<'_>, now_ns: u64) -> Decision {
        let (tenant, principal) = match self.caller(request) {
            Ok(caller) => caller,
            Err(denied) => return denied,
        };
        let principal = &*principal;
        let slice = tenant.slice(request.action);
        if slice.is_empty() {
            return self.conclude(request, tenant.granting(principal, request, now_ns), &Verdict::default());
        }
        match self.narrowed(tenant, principal, request, now_ns) {
            Some(narrowed) => self.settle((tenant, principal), request, &narrowed, now_ns),
            None => self.deny(INTERNAL.0.to_owned()),
        }
    }

    /// Whether the object belongs in the caller's lists: false only where every call would be
    /// denied, whatever its arguments, time of day or way in.
    pub fn may_see(
        &self,
        tenant: &Name,
        principal: &Name,
        action: Action,
        plugin: Option<&str>,
        target: &str,
        now_ns: u64,
    ) -> bool {
        let facts = Facts::default();
        let request = AccessRequest { tenant, principal, token: None, action, plugin, target, facts: &facts };
        self.may_see_object(&request, now_ns)
    }

    /// The same of a whole request; its facts do not matter.
    pub fn may_see_object(&self, request: &AccessRequest<'_>, now_ns: u64) -> bool {
        let Ok((tenant, caller)) = self.caller(request) else { return false };
        let granted = || tenant.is_granted(&caller, request, now_ns);
        if tenant.slice(request.action).is_empty() {
            return granted();
        }
        match self.narrowed(tenant, &caller, request, now_ns) {
            Some(narrowed) => narrowed.may_be_permitted || (narrowed.enforced.forbids.is_empty() && granted()),
            None => false,
        }
    }

    /// Forgets what is remembered of callers and objects, unless `next` goes on with it: to be called when `next` takes this
    /// one's place. Calls that run for hours hold the state that they came under, and would hold its memory, too.
    pub fn give_way(&self, next: &Self) {
        if !Arc::ptr_eq(&self.cache, &next.cache) {
            self.cache.clear();
        }
    }

    /// Callers and objects whose policies are remembered.
    pub fn remembered(&self) -> usize {
        self.cache.len()
    }

    /// The tenant and caller, or why every call of this caller is denied.
    pub(crate) fn caller<'a>(
        &'a self,
        request: &AccessRequest<'_>,
    ) -> Result<(&'a TenantState, Cow<'a, PrincipalState>), Decision> {
        let (tenant, who) = (request.tenant, request.principal);
        let Some(found) = self.tenants.get(tenant) else {
            return Err(self.deny(format!("there is no tenant {tenant}")));
        };
        match found.caller(who, request.token) {
            Some(principal) if !principal.disabled => Ok((found, principal)),
            Some(_) => Err(self.deny(format!("principal {who} of tenant {} is disabled", found.name))),
            None => Err(self.deny(format!("tenant {} has no principal {who}", found.name))),
        }
    }

    pub(crate) fn narrowed(
        &self,
        tenant: &TenantState,
        principal: &PrincipalState,
        request: &AccessRequest<'_>,
        now_ns: u64,
    ) -> Option<Arc<Narrowed>> {
        let key = Key {
            tenant: request.tenant,
            principal: request.principal,
            phase: principal.phase(now_ns),
            action: request.action,
            plugin: request.plugin,
            target: request.target,
            token: request.token,
        };
        self.cache.get_or(key, || self.narrow(tenant, principal, request, now_ns))
    }

    pub(crate) fn narrow(
        &self,
        tenant: &TenantState,
        principal: &PrincipalState,
        request: &AccessRequest<'_>,
        now_ns: u64,
    ) -> Option<Narrowed> {
        let scene = Scene::new(self.vocabulary, tenant, principal, request, now_ns)?;
        let place = scene.place(principal, now_ns);
        let asked = scene.ask(self.vocabulary, request, ContextNeeds::default(), now_ns).ok()?;
        Some(tenant.slice(request.action).narrow(&place, &self.authorizer, &asked.request, &asked.entities))
    }

    /// The decision: what the policies come to, the open ones asked with what is known of the call.
    pub(crate) fn settle(
        &self,
        (tenant, principal): (&TenantState, &PrincipalState),
        request: &AccessRequest<'_>,
        narrowed: &Narrowed,
        now_ns: u64,
    ) -> Decision {
        let roles = tenant.granting(principal, request, now_ns);
        let (mut enforced, mut observed) = (narrowed.enforced.clone(), narrowed.observed.clone());
        if let Some(open) = &narrowed.open {
            let make = || Scene::new(self.vocabulary, tenant, principal, request, now_ns);
            let Some(scene) = narrowed.scene(&tenant.room, make) else { return self.deny(INTERNAL.0.to_owned()) };
            let ask = |needs| scene.ask(self.vocabulary, request, needs, now_ns);
            let (asked, all_known) = match ask(open.needs) {
                Ok(asked) => (Ok(asked), true),
                Err(_) => (ask(open.needs_of_enforced), false),
            };
            let asked = match asked {
                Ok(asked) => asked,
                Err(Unaskable(why)) => return self.deny(why.to_owned()),
            };
            let answered = || {
                let of_enforced = open.enforced(&self.authorizer, &asked.request, &asked.entities);
                let asks_observers = all_known && open.has_observers();
                let of_observers =
                    asks_observers.then(|| open.observed(&self.authorizer, &asked.request, &asked.entities));
                (of_enforced, of_observers.unwrap_or_default())
            };
            // Such a question has nothing of the call in it.
            let is_same = all_known && open.needs == ContextNeeds::ARGUMENTS && asked.is_bare();
            let (of_enforced, of_observers) =
                if is_same { narrowed.bare.get_or_init(answered).clone() } else { answered() };
            (enforced, observed) = (enforced.join(of_enforced), observed.join(of_observers));
        }
        let mut decision = self.conclude(request, roles, &enforced);
        decision.observed = dissent(&decision, &enforced, observed);
        decision
    }

    pub(crate) fn deny(&self, reason: String) -> Decision {
        Decision {
            effect: Effect::Deny,
            policies: Vec::new(),
            observed: Vec::new(),
            reason,
            revision: self.compiled.revision,
        }
    }

    /// A forbid wins; else a grant or permit allows; else the default denies.
    pub(crate) fn conclude(&self, request: &AccessRequest<'_>, roles: BTreeSet<&Name>, verdict: &Verdict) -> Decision {
        let AccessRequest { tenant, principal, target, .. } = request;
        let what = [principal.as_str(), " to ", verb(request.action), " ", *target].concat();
        if let Some(first) = verdict.forbids.first() {
            let reason = match verdict.broken.first() {
                Some(broken) if verdict.broken.len() == verdict.forbids.len() => {
                    format!("policy {broken} of tenant {tenant} could not be evaluated, which forbids principal {what}")
                }
                _ => format!("policy {first} of tenant {tenant} forbids principal {what}"),
            };
            return Decision { policies: verdict.forbids.clone(), ..self.deny(reason) };
        }
        // Joined and not formatted, which costs several times as much: every call that is permitted comes by here.
        let mut policies: Vec<String> = roles.iter().map(|role| ["role:", role.as_str()].concat()).collect();
        policies.extend(verdict.permits.iter().cloned());
        match policies.first() {
            None => self.deny(format!("no role or policy of tenant {tenant} permits principal {what}")),
            Some(first) => {
                let (kind, name) = cause(first);
                let reason =
                    [kind, name, " of tenant ", tenant.as_str(), " permits principal ", what.as_str()].concat();
                Decision { effect: Effect::Allow, policies, ..self.deny(reason) }
            }
        }
    }
}

/// The observing policies that would have changed the decision.
pub(crate) fn dissent(decision: &Decision, enforced: &Verdict, would: Verdict) -> Vec<String> {
    match decision.effect {
        Effect::Allow => would.forbids,
        Effect::Deny if enforced.forbids.is_empty() => would.permits,
        Effect::Deny => Vec::new(),
    }
}

pub(crate) fn verb(action: Action) -> &'static str {
    match action {
        Action::CallTool => "call tool",
        Action::GetPrompt => "get prompt",
        Action::ReadResource => "read resource",
        Action::UseModel => "use model",
    }
}

/// What a policy is, and its name.
fn cause(policy: &str) -> (&'static str, &str) {
    match policy.strip_prefix("role:") {
        Some(role) => ("role ", role),
        None => ("policy ", policy),
    }
}
