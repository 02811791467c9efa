//! A call as Cedar is asked about it.

use cedar_policy::{Context, Entities, Entity, EntityUid, Request, RestrictedExpression};
use time::OffsetDateTime;

use crate::{
    AccessRequest, Facts,
    arguments::{ArgumentTables, list_expression},
    entities::{self, PrincipalState},
    schema::Vocabulary,
    scope::Place,
    tenant::TenantState,
    visibility::ContextNeeds,
};

/// Why a call cannot even be put to Cedar; it is denied.
pub(crate) struct Unaskable(pub(crate) &'static str);

/// A cause that is ours and not the caller's.
pub(crate) const INTERNAL: Unaskable = Unaskable("the call could not be put to the policies");

/// The parts of one question to Cedar.
pub(crate) struct Question {
    pub(crate) request: Request,
    pub(crate) entities: Entities,
}

/// Caller and object as entities.
pub(crate) struct Scene {
    principal: EntityUid,
    resource: EntityUid,
    action: EntityUid,
    plugin: Option<EntityUid>,
    /// The caller.
    base: Entities,
    object: Entity,
}

impl Scene {
    pub(crate) fn new(
        v: &Vocabulary,
        tenant: &TenantState,
        principal: &PrincipalState,
        request: &AccessRequest<'_>,
        now_ns: u64,
    ) -> Option<Self> {
        let base = principal.entities(v, &tenant.name, request.principal, now_ns)?;
        let AccessRequest { action, plugin, target, .. } = *request;
        let object = entities::object(v, &tenant.name, action, plugin, target)?;
        Some(Self {
            principal: Vocabulary::uid(&v.principal, request.principal.as_str()),
            resource: object.uid(),
            action: v.action(action).clone(),
            plugin: plugin.map(|plugin| Vocabulary::uid(&v.plugin, plugin)),
            base: base.clone(),
            object,
        })
    }

    /// As scopes name it.
    pub(crate) fn place(&self, principal: &PrincipalState, now_ns: u64) -> Place {
        Place {
            principal: self.principal.clone(),
            roles: principal.named_now(now_ns),
            resource: self.resource.clone(),
            plugin: self.plugin.clone(),
        }
    }

    /// The question, with the parts of `context` that `needs` names: the others are not read.
    pub(crate) fn ask(
        self,
        v: &Vocabulary,
        request: &AccessRequest<'_>,
        needs: ContextNeeds,
        now_ns: u64,
    ) -> Result<Question, Unaskable> {
        let Self { principal, resource, action, base, object, .. } = self;
        let mut added = vec![object];
        let context = context(v, request.facts, needs, now_ns, &mut added)?;
        let request = Request::new(principal, action, resource, context, None).map_err(|_| INTERNAL)?;
        // At once: each addition goes through all that is there.
        let entities = base.add_entities(added, None).map_err(|_| INTERNAL)?;
        Ok(Question { request, entities })
    }
}

fn context(
    v: &Vocabulary,
    facts: &Facts<'_>,
    needs: ContextNeeds,
    now_ns: u64,
    entities: &mut Vec<Entity>,
) -> Result<Context, Unaskable> {
    let mut pairs: Vec<(String, RestrictedExpression)> = Vec::new();
    if needs.arguments {
        let tables = ArgumentTables::read(facts.arguments).map_err(|e| Unaskable(e.sentence()))?;
        add_arguments(v, tables, &mut pairs, entities)?;
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
    v: &Vocabulary,
    tables: ArgumentTables,
    pairs: &mut Vec<(String, RestrictedExpression)>,
    entities: &mut Vec<Entity>,
) -> Result<(), Unaskable> {
    use RestrictedExpression as E;
    let ArgumentTables { texts, integers, booleans, lists } = tables;
    let parts: [(_, _, Vec<(String, E)>); 4] = [
        ("args", &v.texts, texts.into_iter().map(|(k, s)| (k, E::new_string(s))).collect()),
        ("ints", &v.integers, integers.into_iter().map(|(k, n)| (k, E::new_long(n))).collect()),
        ("bools", &v.booleans, booleans.into_iter().map(|(k, b)| (k, E::new_bool(b))).collect()),
        ("lists", &v.lists, lists.into_iter().map(|(k, l)| (k, list_expression(l))).collect()),
    ];
    for (name, kind, tags) in parts {
        let uid = Vocabulary::uid(kind, "call");
        // An entity that is not there has no tags either.
        if !tags.is_empty() {
            let bag = Entity::new_with_tags(uid.clone(), [], [], tags)
                .map_err(|_| Unaskable("the arguments could not be put to the policies"))?;
            entities.push(bag);
        }
        pairs.push((name.to_owned(), E::new_entity_uid(uid)));
    }
    Ok(())
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
