//! Calls of what a change brings that is on its way.
//!
//! Purpose: who has just applied a plugin calls it at once. While this node makes the new state ready, a call that names
//! a plugin or an alias of it that the present state lacks waits for it, in place of being told that there is none.
//! Invariants: only names that the coming state has are waited for, of the caller's own tenant, and a bounded time; the
//! call then begins under the new state, as if it had come later.
//! Left out: changes that have not reached this node, of which it knows nothing.

use std::{sync::Arc, time::Duration};

use provost_data_pipeline::{Operation, Request, Route};
use provost_data_tools::{callers_time, names};
use provost_types::{Kind, Name, ResourceKey, Snapshot};
use tokio::sync::watch;

use super::plane::Node;

/// The longest wait for a state that is being made ready.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(2);

/// The state that is being made ready, if one is.
#[derive(Debug, Default)]
pub(super) struct Coming(watch::Sender<Option<Arc<Snapshot>>>);

/// A state is on its way for as long as this lives.
#[derive(Debug)]
pub struct Announced<'a>(&'a Coming);

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.0.send_replace(None);
    }
}

impl Node {
    /// Says that a state is being made ready. Kept until it is active, or left out.
    pub fn announce(&self, snapshot: Arc<Snapshot>) -> Announced<'_> {
        self.coming.0.send_replace(Some(snapshot));
        Announced(&self.coming)
    }

    /// Waits until the state that has what the request names is active; nearly always at once.
    pub(super) async fn wait_for_coming(&self, request: &Request) {
        let Some(coming) = self.coming.0.borrow().clone() else { return };
        let (Operation::CallTool(name) | Operation::GetPrompt(name)) = &request.operation else { return };
        let present = self.compiled();
        let Ok(caller) = self.caller(&present, &request.credential, &request.route) else { return };
        let tenant = &caller.principal.tenant;
        if !brings(&coming, tenant, &request.route, name) || brings(&present.snapshot, tenant, &request.route, name) {
            return;
        }
        let mut state = self.coming.0.subscribe();
        let limit = callers_time(&request.params).map_or(CATCH_UP_LIMIT, |time| time.min(CATCH_UP_LIMIT));
        let over = state.wait_for(|now| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, &coming)));
        // In vain: the call is answered by the state that there is.
        let _ = Box::pin(tokio::time::timeout(limit, over)).await;
    }
}

/// Whether the state has the plugin, or the alias, that a tool or prompt is named by.
fn brings(snapshot: &Snapshot, tenant: &Name, route: &Route, name: &str) -> bool {
    let has = |kind: Kind, name: &str| {
        Name::new(name)
            .is_ok_and(|name| snapshot.get(&ResourceKey { kind, tenant: Some(tenant.clone()), name }).is_some())
    };
    match route {
        Route::Plugin(plugin) => has(Kind::Plugin, plugin.as_str()),
        Route::Merged => names::split(name, |plugin| has(Kind::Plugin, plugin)).is_some() || has(Kind::ToolAlias, name),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use provost_types::{BuiltinPlugin, Metadata, PluginSource, PluginSpec, Resource, Revision, Spec, ToolAliasSpec};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_state_brings_what_it_has_to_its_own_tenant() {
        let plugin = Spec::Plugin(PluginSpec {
            description: String::new(),
            source: PluginSource::Builtin(BuiltinPlugin { name: "echo".into(), config: BTreeMap::new() }),
            timeout_ms: 0,
            max_concurrency: 0,
            resilience: None,
            definitions: None,
            reloads: 0,
        });
        let alias: ToolAliasSpec = serde_json::from_str(r#"{"targets":[{"tool":"up.echo"}]}"#).unwrap();
        let resource = |of: &str, spec: Spec| Resource {
            metadata: Metadata { name: name(of), tenant: Some(name("acme")), labels: BTreeMap::new() },
            spec,
            created: Revision(1),
            modified: Revision(1),
        };
        let all = [resource("up", plugin), resource("short", Spec::ToolAlias(alias))];
        let resources: BTreeMap<_, _> = all.into_iter().map(|r| (r.key(), Arc::new(r))).collect();
        let snapshot = Snapshot { revision: Revision(1), resources: resources.into() };
        for (tenant, route, named, expect) in [
            ("acme", None, "up.echo", true),
            ("acme", None, "up.any.thing", true),
            ("acme", None, "short", true),
            ("acme", None, "other.echo", false),
            ("acme", None, "up", false),
            ("acme", None, "", false),
            ("umbra", None, "up.echo", false),
            ("acme", Some("up"), "echo", true),
            ("acme", Some("other"), "up.echo", false),
            ("umbra", Some("up"), "echo", false),
        ] {
            let route = route.map_or(Route::Merged, |plugin| Route::Plugin(name(plugin)));
            assert_eq!(brings(&snapshot, &name(tenant), &route, named), expect, "{tenant} {route:?} {named}");
        }
    }
}
