//! Decisions.

use std::{collections::BTreeSet, sync::Arc};

use cedar_policy::{Authorizer, Context, Entities, Entity, Request, RestrictedExpression};
use provost_types::{Action, Decision, Effect, Kind, Name, ResourceKey, Revision, Snapshot, TokenFacts};
use time::OffsetDateTime;

use crate::{
    Facts, PolicyProblem,
    arguments::{ArgumentTables, list_expression},
    entities::{self, PrincipalState},
    policy_slice::Verdict,
    schema::{Vocabulary, action_index},
    tenant::{TenantState, changed, sources},
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
    /// Full tool, prompt or model name (`plugin.tool`), or resource URI.
    pub target: &'a str,
    /// What else is known.
    pub facts: &'a Facts<'a>,
}

/// The policy of every tenant at one revision. Immutable; share it behind an `Arc`.
pub struct PolicyEngine {
    /// What this was compiled from; shared with it.
    compiled: Snapshot,
    vocabulary: &'static Vocabulary,
    authorizer: Authorizer,
    tenants: imbl::HashMap<Name, Arc<TenantState>>,
}

impl std::fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyEngine")
            .field("revision", &self.compiled.revision)
            .field("tenants", &self.tenants.keys().collect::<BTreeSet<_>>())
            .finish_non_exhaustive()
    }
}

/// Why a call cannot even be put to Cedar; it is denied.
struct Unaskable(&'static str);

/// The parts of one question to Cedar.
struct Question {
    request: Request,
    entities: Entities,
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
        Self { compiled: nothing, vocabulary, authorizer: Authorizer::new(), tenants: imbl::HashMap::new() }
            .recompile(snapshot)
    }

    /// Compiles a later snapshot. Tenants whose principals, roles, bindings and policies are as
    /// they were are taken over: a change costs no more than the tenants it touches.
    pub fn recompile(&self, snapshot: &Snapshot) -> Result<Self, Vec<PolicyProblem>> {
        let vocabulary = self.vocabulary;
        let mut problems = Vec::new();
        let mut tenants = self.tenants.clone();
        for name in changed(&self.compiled.resources, &snapshot.resources) {
            let key = ResourceKey { kind: Kind::Tenant, tenant: None, name: name.clone() };
            if snapshot.get(&key).is_some() {
                let sources = sources(snapshot, &name);
                let state = TenantState::compile(&name, &sources, vocabulary, &mut problems);
                tenants.insert(name, Arc::new(state));
            } else {
                tenants.remove(&name);
            }
        }
        if problems.is_empty() {
            return Ok(Self { compiled: snapshot.clone(), vocabulary, authorizer: Authorizer::new(), tenants });
        }
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        Err(problems)
    }

    /// The revision of the snapshot that this was compiled from.
    pub fn revision(&self) -> Revision {
        self.compiled.revision
    }

    /// Whether the call may run at `now_ns` (nanoseconds since the Unix epoch), and why.
    pub fn decide(&self, request: &AccessRequest<'_>, now_ns: u64) -> Decision {
        let Some(tenant) = self.tenants.get(request.tenant) else {
            return self.deny(format!("there is no tenant {}", request.tenant));
        };
        let caller = tenant.caller(request.principal, request.token);
        let principal = match &caller {
            Some(principal) if !principal.disabled => &**principal,
            Some(_) => {
                let who = request.principal;
                return self.deny(format!("principal {who} of tenant {} is disabled", tenant.name));
            }
            None => {
                let who = request.principal;
                return self.deny(format!("tenant {} has no principal {who}", tenant.name));
            }
        };
        let roles = granting_roles(tenant, principal, request, now_ns);
        let slice = &tenant.slices[action_index(request.action)];
        if slice.is_empty() {
            return self.conclude(request, roles, &Verdict::default());
        }
        let question = match self.ask(tenant, principal, request, slice.needs, now_ns) {
            Ok(question) => question,
            Err(Unaskable(why)) => return self.deny(why.to_owned()),
        };
        let Question { request: cedar, entities } = &question;
        let verdict = slice.enforced(&self.authorizer, cedar, entities);
        let mut decision = self.conclude(request, roles, &verdict);
        if slice.has_observers() {
            let would = slice.observed(&self.authorizer, cedar, entities);
            decision.observed = dissent(&decision, &verdict, would);
        }
        decision
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
        let Some(tenant_state) = self.tenants.get(request.tenant) else { return false };
        let Some(caller) = tenant_state.caller(request.principal, request.token) else { return false };
        if caller.disabled {
            return false;
        }
        let granted = is_granted(tenant_state, &caller, request, now_ns);
        let slice = &tenant_state.slices[action_index(request.action)];
        if !slice.has_listing() {
            return granted;
        }
        let needs = ContextNeeds::default();
        match self.ask(tenant_state, &caller, request, needs, now_ns) {
            Ok(q) => slice.may_be_permitted(granted, &self.authorizer, &q.request, &q.entities),
            Err(_) => false,
        }
    }

    fn deny(&self, reason: String) -> Decision {
        Decision {
            effect: Effect::Deny,
            policies: Vec::new(),
            observed: Vec::new(),
            reason,
            revision: self.compiled.revision,
        }
    }

    /// A forbid wins; else a grant or permit allows; else the default denies.
    fn conclude(&self, request: &AccessRequest<'_>, roles: BTreeSet<&Name>, verdict: &Verdict) -> Decision {
        let AccessRequest { tenant, principal, target, .. } = request;
        let what = format!("principal {principal} to {} {target}", verb(request.action));
        if let Some(first) = verdict.forbids.first() {
            let reason = match verdict.broken.first() {
                Some(broken) if verdict.broken.len() == verdict.forbids.len() => {
                    format!("policy {broken} of tenant {tenant} could not be evaluated, which forbids {what}")
                }
                _ => format!("policy {first} of tenant {tenant} forbids {what}"),
            };
            return Decision { policies: verdict.forbids.clone(), ..self.deny(reason) };
        }
        let mut policies: Vec<String> = roles.iter().map(|r| format!("role:{r}")).collect();
        policies.extend(verdict.permits.iter().cloned());
        match policies.first() {
            None => self.deny(format!("no role or policy of tenant {tenant} permits {what}")),
            Some(first) => {
                let reason = format!("{} of tenant {tenant} permits {what}", cause(first));
                Decision { effect: Effect::Allow, policies, ..self.deny(reason) }
            }
        }
    }

    fn ask(
        &self,
        tenant: &TenantState,
        principal: &PrincipalState,
        request: &AccessRequest<'_>,
        needs: ContextNeeds,
        now_ns: u64,
    ) -> Result<Question, Unaskable> {
        const INTERNAL: Unaskable = Unaskable("the call could not be put to the policies");
        let v = self.vocabulary;
        let base = principal.entities(v, &tenant.name, request.principal, now_ns).ok_or(INTERNAL)?;
        let AccessRequest { action, plugin, target, .. } = *request;
        let object = entities::object(v, &tenant.name, action, plugin, target).ok_or(INTERNAL)?;
        let resource = object.uid();
        let mut added = vec![object];
        let context = self.context(request.facts, needs, now_ns, &mut added)?;
        let entities = base.clone().add_entities(added, None).map_err(|_| INTERNAL)?;
        let request = Request::new(
            Vocabulary::uid(&v.principal, request.principal.as_str()),
            v.action(action).clone(),
            resource,
            context,
            None,
        )
        .map_err(|_| INTERNAL)?;
        Ok(Question { request, entities })
    }

    /// The parts of `context` that the policies asked read; the others cannot matter.
    fn context(
        &self,
        facts: &Facts<'_>,
        needs: ContextNeeds,
        now_ns: u64,
        entities: &mut Vec<Entity>,
    ) -> Result<Context, Unaskable> {
        let mut pairs: Vec<(String, RestrictedExpression)> = Vec::new();
        if needs.arguments {
            let tables = ArgumentTables::read(facts.arguments).map_err(|e| Unaskable(e.sentence()))?;
            self.add_arguments(tables, &mut pairs, entities)?;
        }
        if needs.sql
            && let Some(sql) = facts.sql
        {
            let sql = sql.to_expression().ok_or(Unaskable("the SQL facts are malformed"))?;
            pairs.push(("sql".to_owned(), sql));
        }
        if needs.time {
            pairs.push(("time".to_owned(), RestrictedExpression::new_datetime(stamp(now_ns))));
        }
        if needs.caller {
            let transport = RestrictedExpression::new_string(facts.transport.to_owned());
            pairs.push(("transport".to_owned(), transport));
            if let Some(address) = facts.client_address {
                let address = RestrictedExpression::new_ip(address.to_canonical().to_string());
                pairs.push(("client_address".to_owned(), address));
            }
        }
        Context::from_pairs(pairs).map_err(|_| Unaskable("the call's facts are malformed"))
    }

    fn add_arguments(
        &self,
        tables: ArgumentTables,
        pairs: &mut Vec<(String, RestrictedExpression)>,
        entities: &mut Vec<Entity>,
    ) -> Result<(), Unaskable> {
        use RestrictedExpression as E;
        let v = self.vocabulary;
        let ArgumentTables { texts, integers, booleans, lists } = tables;
        let parts: [(_, _, Vec<(String, E)>); 4] = [
            ("args", &v.texts, texts.into_iter().map(|(k, s)| (k, E::new_string(s))).collect()),
            ("ints", &v.integers, integers.into_iter().map(|(k, n)| (k, E::new_long(n))).collect()),
            ("bools", &v.booleans, booleans.into_iter().map(|(k, b)| (k, E::new_bool(b))).collect()),
            ("lists", &v.lists, lists.into_iter().map(|(k, l)| (k, list_expression(l))).collect()),
        ];
        for (name, kind, tags) in parts {
            let uid = Vocabulary::uid(kind, "call");
            let bag = Entity::new_with_tags(uid.clone(), [], [], tags)
                .map_err(|_| Unaskable("the arguments could not be put to the policies"))?;
            entities.push(bag);
            pairs.push((name.to_owned(), E::new_entity_uid(uid)));
        }
        Ok(())
    }
}

fn granting_roles<'t>(
    tenant: &'t TenantState,
    principal: &PrincipalState,
    request: &AccessRequest<'_>,
    now_ns: u64,
) -> BTreeSet<&'t Name> {
    tenant.grants[action_index(request.action)]
        .roles(request.target)
        .filter(|role| principal.holds(*role, now_ns))
        .filter_map(|role| tenant.roles.get(role as usize))
        .collect()
}

fn is_granted(tenant: &TenantState, principal: &PrincipalState, request: &AccessRequest<'_>, now_ns: u64) -> bool {
    tenant.grants[action_index(request.action)].roles(request.target).any(|role| principal.holds(role, now_ns))
}

/// The observing policies that would have changed the decision.
fn dissent(decision: &Decision, enforced: &Verdict, would: Verdict) -> Vec<String> {
    match decision.effect {
        Effect::Allow => would.forbids,
        Effect::Deny if enforced.forbids.is_empty() => would.permits,
        Effect::Deny => Vec::new(),
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::CallTool => "call tool",
        Action::GetPrompt => "get prompt",
        Action::ReadResource => "read resource",
        Action::UseModel => "use model",
    }
}

fn cause(policy: &str) -> String {
    match policy.strip_prefix("role:") {
        Some(role) => format!("role {role}"),
        None => format!("policy {policy}"),
    }
}

/// A time as Cedar's `datetime` reads it, to the millisecond.
fn stamp(now_ns: u64) -> String {
    let t = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now_ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.millisecond()
    )
}
