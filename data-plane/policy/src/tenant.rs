//! One tenant, compiled: its principals, roles, grants and policies.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use cedar_policy::{EntityUid, Validator};
use imbl::ordmap::DiffItem;
use provost_types::{Action, Kind, Name, Resource, ResourceKey, Resources, RoleSpec, Snapshot, Spec, TokenFacts};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    AccessRequest, PolicyProblem,
    cedar_text::{self, Rule},
    entities::PrincipalState,
    grants::{GrantIndex, RoleIndex},
    policy_slice::PolicySlice,
    question::Room,
    schema::{ACTIONS, Vocabulary, action_index},
};

/// Everything that decisions on one tenant's calls need.
#[derive(Debug)]
pub(crate) struct TenantState {
    pub(crate) name: Name,
    pub(crate) principals: HashMap<Name, PrincipalState>,
    /// Role names by index.
    pub(crate) roles: Vec<Name>,
    /// The roles that some policy names.
    named: HashMap<RoleIndex, EntityUid>,
    /// By action, in the order of `ACTIONS`.
    pub(crate) grants: [GrantIndex; ACTIONS.len()],
    /// By action, in the order of `ACTIONS`.
    pub(crate) slices: [PolicySlice; ACTIONS.len()],
    /// For what is kept of callers and objects that were decided on.
    pub(crate) room: Room,
    texts: Texts,
}

/// The policies of each `Policy` resource without problems, with the document that they were read from.
type Texts = HashMap<Name, (Arc<Resource>, Arc<[Rule]>)>;

impl TenantState {
    /// Compiles a tenant from its resources in key order; problems are added to `problems`, and
    /// what has none is still compiled. Policies that `before` was compiled from too are not read again: that
    /// takes a fifth of a millisecond each, and a tenant may have thousands.
    pub(crate) fn compile(
        name: &Name,
        sources: &[&Arc<Resource>],
        before: Option<&Self>,
        vocabulary: &Vocabulary,
        problems: &mut Vec<PolicyProblem>,
    ) -> Self {
        let mut tenant = Self {
            name: name.clone(),
            principals: principals(sources),
            roles: Vec::new(),
            named: HashMap::new(),
            grants: Default::default(),
            slices: Default::default(),
            room: Room::default(),
            texts: Texts::new(),
        };
        let indices = tenant.add_roles(sources, problems);
        tenant.bind_roles(sources, &indices, problems);
        let (texts, rules) = rules(sources, before.map(|before| &before.texts), &vocabulary.validator, problems);
        tenant.texts = texts;
        let named = named_roles(&rules, &indices, vocabulary);
        for principal in tenant.principals.values_mut() {
            principal.seal(&named);
        }
        tenant.named = named;
        tenant.slices = ACTIONS.map(|a| PolicySlice::new(&rules, vocabulary.action(a)));
        tenant
    }

    /// The policies that can apply to an action.
    pub(crate) fn slice(&self, action: Action) -> &PolicySlice {
        &self.slices[action_index(action)]
    }

    /// The roles that the caller holds and that grant the object.
    pub(crate) fn granting(
        &self,
        principal: &PrincipalState,
        request: &AccessRequest<'_>,
        now_ns: u64,
    ) -> BTreeSet<&Name> {
        let held = self.grants[action_index(request.action)].roles(request.target);
        let held = held.filter(|role| principal.holds(*role, now_ns));
        held.filter_map(|role| self.roles.get(role as usize)).collect()
    }

    /// The roles that grant the object, whoever holds them.
    pub(crate) fn all_granting(&self, request: &AccessRequest<'_>) -> BTreeSet<&Name> {
        let roles = self.grants[action_index(request.action)].roles(request.target);
        roles.filter_map(|role| self.roles.get(role as usize)).collect()
    }

    /// Whether the caller holds the role now.
    pub(crate) fn holds(&self, principal: &PrincipalState, role: &Name, now_ns: u64) -> bool {
        // Roles stand in order of name.
        self.roles.binary_search(role).is_ok_and(|role| principal.holds(role as RoleIndex, now_ns))
    }

    /// Whether a role that the caller holds grants the object.
    pub(crate) fn is_granted(&self, principal: &PrincipalState, request: &AccessRequest<'_>, now_ns: u64) -> bool {
        let mut roles = self.grants[action_index(request.action)].roles(request.target);
        roles.any(|role| principal.holds(role, now_ns))
    }

    /// The caller of that name: one of the tenant's principals, or one whose token gives more, or makes
    /// it. `None`: there is nobody.
    pub(crate) fn caller(&self, name: &Name, token: Option<&TokenFacts>) -> Option<Cow<'_, PrincipalState>> {
        let listed = self.principals.get(name);
        let Some(token) = token else { return listed.map(Cow::Borrowed) };
        let mut state = match listed {
            Some(listed) => listed.with(&token.principal),
            None if token.is_made => PrincipalState::new(&token.principal),
            None => return None,
        };
        for role in &token.roles {
            // Roles stand in order of name.
            if let Ok(role) = self.roles.binary_search(role) {
                state.bind(role as RoleIndex, None);
            }
        }
        state.seal(&self.named);
        Some(Cow::Owned(state))
    }

    fn add_roles(&mut self, sources: &[&Arc<Resource>], problems: &mut Vec<PolicyProblem>) -> HashMap<Name, RoleIndex> {
        let mut indices = HashMap::new();
        for resource in sources {
            let Spec::Role(spec) = &resource.spec else { continue };
            let index = self.roles.len() as RoleIndex;
            self.roles.push(resource.metadata.name.clone());
            indices.insert(resource.metadata.name.clone(), index);
            self.add_grants(&resource.key(), spec, index, problems);
        }
        indices
    }

    fn add_grants(&mut self, key: &ResourceKey, spec: &RoleSpec, role: RoleIndex, problems: &mut Vec<PolicyProblem>) {
        for rule in &spec.rules {
            let lists = [&rule.tools, &rule.prompts, &rule.resources, &rule.models];
            for (index, patterns) in self.grants.iter_mut().zip(lists) {
                for pattern in patterns {
                    if index.add(pattern, role).is_err() {
                        let message = format!("`{pattern}` is not a name or a prefix");
                        let hint = "`*` may only stand at the end: `sql.*`, `*`".to_owned();
                        problems.push(PolicyProblem::new(key.clone(), message, Some(hint)));
                    }
                }
            }
        }
    }

    fn bind_roles(
        &mut self,
        sources: &[&Arc<Resource>],
        indices: &HashMap<Name, RoleIndex>,
        problems: &mut Vec<PolicyProblem>,
    ) {
        for resource in sources {
            let Spec::RoleBinding(spec) = &resource.spec else { continue };
            let Ok(end) = spec.expires.as_deref().map(end_ns).transpose() else {
                let message =
                    format!("`expires: {}` is not an RFC 3339 time", spec.expires.as_deref().unwrap_or_default());
                let hint = Some("write it like 2027-01-31T18:00:00Z".to_owned());
                problems.push(PolicyProblem::new(resource.key(), message, hint));
                continue;
            };
            // A binding to a role or principal that is not there gives nothing; the control plane
            // reports it where it is written.
            let Some(role) = indices.get(&spec.role) else { continue };
            for name in &spec.principals {
                if let Some(principal) = self.principals.get_mut(name) {
                    principal.bind(*role, end);
                }
            }
        }
    }
}

/// The kinds that decisions depend on.
pub(crate) const KINDS: [Kind; 5] = [Kind::Tenant, Kind::Principal, Kind::Role, Kind::RoleBinding, Kind::Policy];

/// The resources that decisions on a tenant's calls depend on, in key order.
pub(crate) fn sources<'a>(snapshot: &'a Snapshot, tenant: &'a Name) -> Vec<&'a Arc<Resource>> {
    KINDS.into_iter().flat_map(|kind| snapshot.of_tenant(kind, tenant)).collect()
}

/// The tenants whose decisions may differ between two versions, in order of name.
pub(crate) fn changed(old: &Resources, new: &Resources) -> BTreeSet<Name> {
    let keys = old.diff(new).filter_map(|item| match item {
        // Of a tenant itself decisions read the name alone.
        DiffItem::Update { new: (key, _), .. } => (key.kind != Kind::Tenant).then_some(key),
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => Some(key),
    });
    keys.filter(|k| KINDS.contains(&k.kind)).map(|k| k.tenant.as_ref().unwrap_or(&k.name).clone()).collect()
}

fn principals(sources: &[&Arc<Resource>]) -> HashMap<Name, PrincipalState> {
    sources
        .iter()
        .filter_map(|r| match &r.spec {
            Spec::Principal(spec) => Some((r.metadata.name.clone(), PrincipalState::new(spec))),
            _ => None,
        })
        .collect()
}

fn rules(
    sources: &[&Arc<Resource>],
    before: Option<&Texts>,
    validator: &Validator,
    problems: &mut Vec<PolicyProblem>,
) -> (Texts, Vec<Rule>) {
    let (mut texts, mut rules) = (Texts::new(), Vec::new());
    for &resource in sources {
        let Spec::Policy(spec) = &resource.spec else { continue };
        let name = &resource.metadata.name;
        let kept = before.and_then(|texts| texts.get(name)).filter(|(read, _)| Arc::ptr_eq(read, resource));
        let read = match kept {
            Some((_, rules)) => rules.clone(),
            None => match cedar_text::read(&resource.key(), spec, validator) {
                Ok(rules) => rules.into(),
                Err(some) => {
                    problems.extend(some);
                    continue;
                }
            },
        };
        rules.extend_from_slice(&read);
        texts.insert(name.clone(), (resource.clone(), read));
    }
    (texts, rules)
}

/// The roles that some policy names.
fn named_roles(
    rules: &[Rule],
    indices: &HashMap<Name, RoleIndex>,
    vocabulary: &Vocabulary,
) -> HashMap<RoleIndex, EntityUid> {
    let literals = rules.iter().flat_map(|r| r.policy.entity_literals());
    literals
        .filter(|uid| uid.type_name() == &vocabulary.role)
        .filter_map(|uid| Some((*indices.get(uid.id().unescaped())?, uid)))
        .collect()
}

/// Nanoseconds since the Unix epoch; times before it are 0.
pub(crate) fn end_ns(text: &str) -> Result<u64, time::error::Parse> {
    let end = OffsetDateTime::parse(text, &Rfc3339)?.unix_timestamp_nanos();
    Ok(u64::try_from(end.max(0)).unwrap_or(u64::MAX))
}
