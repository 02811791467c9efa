//! Principals and objects as Cedar entities.
//!
//! A principal's entities are built once a snapshot and phase (the time between two expiries of
//! its bindings), on first use. Only roles that a policy of the tenant names become parents: the
//! others cannot change a verdict, and a principal may hold many.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::OnceLock,
};

use cedar_policy::{Entities, Entity, EntityUid, RestrictedExpression};
use provost_types::{Action, Name, PrincipalSpec, PrincipalType};

use crate::{grants::RoleIndex, schema::Vocabulary};

/// A principal with the roles bound to it.
#[derive(Clone, Debug)]
pub(crate) struct PrincipalState {
    pub(crate) disabled: bool,
    kind: &'static str,
    attributes: BTreeMap<String, String>,
    /// The roles and when each ends (nanoseconds since the Unix epoch); `None`: no end.
    roles: HashMap<RoleIndex, Option<u64>>,
    /// Roles that policies name, with their ends.
    named_roles: Vec<(EntityUid, Option<u64>)>,
    /// When the phases end, ascending; the last phase has no end.
    phase_ends: Vec<u64>,
    /// Entities by phase; `None` inside: they could not be built, and every call is denied.
    phases: Vec<OnceLock<Option<Entities>>>,
}

impl PrincipalState {
    pub(crate) fn new(spec: &PrincipalSpec) -> Self {
        Self {
            disabled: spec.disabled,
            kind: match spec.principal_type {
                PrincipalType::User => "user",
                PrincipalType::Agent => "agent",
                PrincipalType::Service => "service",
            },
            attributes: spec.attributes.clone(),
            roles: HashMap::new(),
            named_roles: Vec::new(),
            phase_ends: Vec::new(),
            phases: vec![OnceLock::new()],
        }
    }

    /// The same with other facts and the same bindings. Who is disabled stays so.
    pub(crate) fn with(&self, spec: &PrincipalSpec) -> Self {
        Self { disabled: self.disabled || spec.disabled, roles: self.roles.clone(), ..Self::new(spec) }
    }

    /// Binds a role until `end`. Of several bindings of a role the one that lasts longest counts.
    pub(crate) fn bind(&mut self, role: RoleIndex, end: Option<u64>) {
        self.roles
            .entry(role)
            .and_modify(|known| {
                *known = match (*known, end) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    _ => None,
                }
            })
            .or_insert(end);
    }

    /// Fixes the phases, after the last `bind`: `named` are the roles that policies name.
    pub(crate) fn seal(&mut self, named: &HashMap<RoleIndex, EntityUid>) {
        self.named_roles = named.iter().filter_map(|(role, uid)| Some((uid.clone(), *self.roles.get(role)?))).collect();
        self.phase_ends = self.named_roles.iter().filter_map(|(_, end)| *end).collect();
        self.phase_ends.sort_unstable();
        self.phase_ends.dedup();
        self.phases = (0..=self.phase_ends.len()).map(|_| OnceLock::new()).collect();
    }

    /// Whether the role is bound now.
    pub(crate) fn holds(&self, role: RoleIndex, now_ns: u64) -> bool {
        self.roles.get(&role).is_some_and(|end| is_running(*end, now_ns))
    }

    /// The phase at `now_ns`: within one the roles that policies name do not change.
    pub(crate) fn phase(&self, now_ns: u64) -> usize {
        self.phase_ends.partition_point(|end| *end <= now_ns)
    }

    /// The roles that policies name and that hold now.
    pub(crate) fn named_now(&self, now_ns: u64) -> Vec<EntityUid> {
        self.named_roles.iter().filter(|(_, end)| is_running(*end, now_ns)).map(|(uid, _)| uid.clone()).collect()
    }

    /// The entities of this principal at `now_ns`.
    pub(crate) fn entities(
        &self,
        vocabulary: &Vocabulary,
        tenant: &Name,
        name: &Name,
        now_ns: u64,
    ) -> Option<&Entities> {
        let cell = self.phases.get(self.phase(now_ns))?;
        cell.get_or_init(|| self.build(vocabulary, tenant, name, now_ns)).as_ref()
    }

    fn build(&self, v: &Vocabulary, tenant: &Name, name: &Name, now_ns: u64) -> Option<Entities> {
        let attributes = Vocabulary::uid(&v.attributes, name.as_str());
        let tags = self.attributes.iter().map(|(k, value)| (k.clone(), text(value)));
        let bag = Entity::new_with_tags(attributes.clone(), [], [], tags).ok()?;
        let fields = [
            ("name", text(name.as_str())),
            ("tenant", text(tenant.as_str())),
            ("type", text(self.kind)),
            ("attributes", RestrictedExpression::new_entity_uid(attributes)),
        ];
        let parents = self.named_roles.iter().filter(|(_, end)| is_running(*end, now_ns));
        let principal = Entity::new_with_tags(
            Vocabulary::uid(&v.principal, name.as_str()),
            fields.map(|(k, value)| (k.to_owned(), value)),
            parents.map(|(uid, _)| uid.clone()),
            [],
        )
        .ok()?;
        Entities::from_entities([principal, bag], None).ok()
    }
}

fn is_running(end: Option<u64>, now_ns: u64) -> bool {
    end.is_none_or(|end| now_ns < end)
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

/// The object of a call: a tool, prompt, resource or model.
pub(crate) fn object(
    vocabulary: &Vocabulary,
    tenant: &Name,
    action: Action,
    plugin: Option<&str>,
    target: &str,
) -> Option<Entity> {
    let mut fields =
        vec![("name", text(target)), ("plugin", text(plugin.unwrap_or_default())), ("tenant", text(tenant.as_str()))];
    if action == Action::ReadResource {
        fields.push(("uri", text(target)));
    }
    let parents: HashSet<EntityUid> = plugin.map(|p| Vocabulary::uid(&vocabulary.plugin, p)).into_iter().collect();
    Entity::new_with_tags(
        Vocabulary::uid(vocabulary.resource(action), target),
        fields.into_iter().map(|(k, value)| (k.to_owned(), value)),
        parents,
        [],
    )
    .ok()
}
