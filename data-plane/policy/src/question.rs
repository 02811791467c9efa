//! A call as Cedar is asked about it.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

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

/// Scenes of one tenant that are kept beside what its policies come to, of about 2 KiB each; more are made anew for each call.
const MAX_SCENES: usize = 4_096;

/// The parts of one question to Cedar.
pub(crate) struct Question<'a> {
    pub(crate) request: Request,
    pub(crate) entities: Cow<'a, Entities>,
}

impl Question<'_> {
    /// Whether the call has no arguments.
    pub(crate) fn is_bare(&self) -> bool {
        matches!(self.entities, Cow::Borrowed(_))
    }
}

/// Room for the scenes of one tenant that are kept.
#[derive(Debug, Default)]
pub(crate) struct Room(Arc<AtomicUsize>);

/// The place of a scene that is kept, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Kept(Arc<AtomicUsize>);

impl Room {
    /// A place; `None`: as many are kept as may be.
    pub(crate) fn take(&self) -> Option<Kept> {
        let more = |n: usize| (n < MAX_SCENES).then_some(n + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Kept(self.0.clone()))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Caller and object as entities: of all calls of one caller on one object, within a phase, the same.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    principal: EntityUid,
    resource: EntityUid,
    action: EntityUid,
    plugin: Option<EntityUid>,
    /// The caller and the object.
    entities: Entities,
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
            entities: base.clone().add_entities([object], None).ok()?,
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
        &self,
        v: &Vocabulary,
        request: &AccessRequest<'_>,
        needs: ContextNeeds,
        now_ns: u64,
    ) -> Result<Question<'_>, Unaskable> {
        let mut added = Vec::new();
        let context = context(v, request.facts, needs, now_ns, &mut added)?;
        let (principal, action, resource) = (self.principal.clone(), self.action.clone(), self.resource.clone());
        let request = Request::new(principal, action, resource, context, None).map_err(|_| INTERNAL)?;
        let entities = if added.is_empty() {
            Cow::Borrowed(&self.entities)
        } else {
            // At once: each addition goes through all that is there.
            Cow::Owned(self.entities.clone().add_entities(added, None).map_err(|_| INTERNAL)?)
        };
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
        add_arguments(v, tables, entities)?;
        if needs == ContextNeeds::ARGUMENTS {
            // Says where the arguments are, and nothing of what they are.
            return Ok(v.of_arguments.clone());
        }
        pairs.extend(v.argument_pairs());
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

/// Adds the entities that hold the arguments. One that is not there has no tags either, so empty ones are left out.
fn add_arguments(v: &Vocabulary, tables: ArgumentTables, entities: &mut Vec<Entity>) -> Result<(), Unaskable> {
    use RestrictedExpression as E;
    let ArgumentTables { texts, integers, booleans, lists } = tables;
    let [of_texts, of_integers, of_booleans, of_lists] = &v.arguments;
    let parts: [(&EntityUid, Vec<(String, E)>); 4] = [
        (of_texts, texts.into_iter().map(|(k, s)| (k, E::new_string(s))).collect()),
        (of_integers, integers.into_iter().map(|(k, n)| (k, E::new_long(n))).collect()),
        (of_booleans, booleans.into_iter().map(|(k, b)| (k, E::new_bool(b))).collect()),
        (of_lists, lists.into_iter().map(|(k, l)| (k, list_expression(l))).collect()),
    ];
    for (uid, tags) in parts {
        if !tags.is_empty() {
            let bag = Entity::new_with_tags(uid.clone(), [], [], tags)
                .map_err(|_| Unaskable("the arguments could not be put to the policies"))?;
            entities.push(bag);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_that_are_kept_have_a_bound_and_give_their_places_back() {
        let room = Room::default();
        let mut kept: Vec<Kept> = (0..MAX_SCENES).filter_map(|_| room.take()).collect();
        assert_eq!(kept.len(), MAX_SCENES);
        assert!(room.take().is_none(), "one more is made anew each time");
        kept.truncate(MAX_SCENES - 1);
        assert!(room.take().is_some(), "what is forgotten makes room");
    }
}
