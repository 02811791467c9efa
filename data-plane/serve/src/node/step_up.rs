//! The scopes that a denied caller could ask for (RFC 6750, `insufficient_scope`).
//!
//! Invariants: decided by the same engine with the same facts as the call; what no scope would permit names none,
//! so that a client is not sent to its authorization server in vain. Bounded by the scopes of one provider.

use std::collections::BTreeSet;

use provost_data_pipeline::{Call, Caller, Plane, Resolved};
use provost_types::Action;

use super::{Compiled, Node};
use crate::identity::Scope;

/// Whether the caller could see the object with all scopes of its provider.
pub(super) fn could_see(
    node: &Node,
    compiled: &Compiled,
    caller: &Caller,
    object: (Action, Option<&str>, &str),
) -> bool {
    let beyond = beyond(compiled, caller);
    !beyond.is_empty() && node.may_see(compiled, &supposed(caller, &beyond), object)
}

/// The scopes of the caller's provider that its token does not have; none for a caller without token.
fn beyond<'a>(compiled: &'a Compiled, caller: &Caller) -> Vec<Scope<'a>> {
    let Some(token) = &caller.token else { return Vec::new() };
    let Some(provider) = &token.provider else { return Vec::new() };
    compiled.tokens.scopes_beyond(&caller.principal.tenant, provider, &token.scopes)
}

/// The caller with the roles of further scopes.
fn supposed(caller: &Caller, scopes: &[Scope<'_>]) -> Caller {
    let mut facts = caller.token.as_deref().cloned().unwrap_or_default();
    facts.roles.extend(scopes.iter().flat_map(|scope| scope.roles).cloned());
    Caller { token: Some(facts.into()), ..caller.clone() }
}

/// All scopes that the call needs, those of the caller's token included: with the one that gives the fewest
/// roles, or, where no single one is enough, with as few as it takes.
pub(super) fn scopes_needed(node: &Node, compiled: &Compiled, call: &Call<Resolved>) -> Vec<String> {
    let caller = call.caller();
    let Some(token) = &caller.token else { return Vec::new() };
    let mut beyond = beyond(compiled, caller);
    if beyond.is_empty() {
        return Vec::new();
    }
    beyond.sort_by_key(|scope| (scope.roles.len(), scope.name));
    let permits = |scopes: &[Scope<'_>]| node.authorise(compiled, &call.supposing(supposed(caller, scopes))).is_allow();
    let needed = match beyond.iter().find(|scope| permits(&[**scope])) {
        Some(one) => vec![*one],
        None if permits(&beyond) => fewest(beyond, permits),
        None => return Vec::new(),
    };
    let needed: BTreeSet<String> = needed.iter().map(|scope| scope.name.to_owned()).collect();
    token.scopes.union(&needed).cloned().collect()
}

/// Leaves out what is not needed, those with the most roles first.
fn fewest<'a>(mut scopes: Vec<Scope<'a>>, permits: impl Fn(&[Scope<'a>]) -> bool) -> Vec<Scope<'a>> {
    for at in (0..scopes.len()).rev() {
        let left_out = scopes.remove(at);
        if !permits(&scopes) {
            scopes.insert(at, left_out);
        }
    }
    scopes
}
