//! What would appear in lists, and what would disappear from them.

use std::collections::BTreeSet;

use provost_types::{Action, Kind, Name, Snapshot};
use provost_wire::admin::{SimulateEnd, VisibilityChange};

use super::{
    page::word,
    states::{Judges, of_tenant},
};

/// Objects that are compared: of those that were called, the first so many.
pub const MAX_OBJECTS: usize = 10_000;
/// Pairs of a principal and an object that are compared.
const MAX_PAIRS: usize = 200_000;
/// Changes that are named.
const MAX_CHANGES: usize = 10_000;

/// An object that was called: action, plugin, full name.
pub type Object = (Action, Option<String>, String);

/// Compares what each principal of a tenant sees of these objects now.
pub fn compare(
    tenant: &Name,
    (current, candidate): (&Snapshot, &Snapshot),
    judges: &Judges,
    objects: &BTreeSet<Object>,
    now_ns: u64,
    end: &mut SimulateEnd,
) {
    let named = |snapshot: &Snapshot| of_tenant(snapshot, Kind::Principal, tenant);
    let principals = named(current).into_iter().chain(named(candidate));
    let principals: BTreeSet<Name> = principals.map(|r| r.metadata.name.clone()).collect();
    let mut pairs = 0;
    for principal in &principals {
        for (action, plugin, target) in objects {
            pairs += 1;
            if pairs > MAX_PAIRS || end.visibility.len() >= MAX_CHANGES {
                end.visibility_cut = true;
                return;
            }
            let seen = |judge: &provost_data_serve::node::Judge| {
                judge.engine().may_see(tenant, principal, *action, plugin.as_deref(), target, now_ns)
            };
            let before = seen(&judges.before);
            if before != seen(&judges.after) {
                end.visibility.push(VisibilityChange {
                    tenant: tenant.to_string(),
                    principal: principal.to_string(),
                    action: word(*action),
                    target: target.clone(),
                    before,
                });
            }
        }
    }
}
