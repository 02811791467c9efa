//! Whether any call can fit all that a kill switch names: each name may be known, and a call that has them all be none.

use std::collections::BTreeSet;

use provost_control_state::State;
use provost_types::{Kind, Name, ResourceKey, Spec};

use super::Selector;

/// A tool as a switch names it: a name, or a prefix of names.
struct Tool<'a> {
    name: &'a str,
    prefix: Option<&'a str>,
}

impl<'a> Tool<'a> {
    fn new(name: &'a str) -> Self {
        Self { name, prefix: name.strip_suffix('*') }
    }

    /// Whether it may be a tool of the plugin.
    fn is_of(&self, plugin: &str) -> bool {
        let own = format!("{plugin}.");
        self.name.starts_with(&own) || self.prefix.is_some_and(|prefix| own.starts_with(prefix))
    }

    /// Whether it takes a name as a whole.
    fn takes(&self, name: &str) -> bool {
        name == self.name || self.prefix.is_some_and(|prefix| name.starts_with(prefix))
    }
}

/// Why no call fits the selector; `None`: one may. Its names are known one by one.
pub(super) fn stops_nothing(selector: &Selector, state: &State) -> Option<String> {
    let tool = selector.tool.as_deref().map(Tool::new);
    if let (Some(plugin), Some(tool)) = (&selector.plugin, &tool) {
        let behind_alias = || aliases(state, tool).any(|(_, target)| Tool::new(target).is_of(plugin.as_str()));
        if !tool.is_of(plugin.as_str()) && !behind_alias() {
            return Some(format!("plugin {plugin} serves no call of tool {}", tool.name));
        }
    }
    if selector.tenant.is_some() {
        return None;
    }
    let named = |kind: Kind, name: &Option<Name>| {
        name.as_ref().map(|name| tenants(state, |key| key.kind == kind && key.name == *name))
    };
    let of_tool = tool.map(|tool| {
        let mut found = tenants(state, |key| key.kind == Kind::Plugin && tool.is_of(key.name.as_str()));
        found.extend(aliases(state, &tool).map(|(tenant, _)| tenant));
        found
    });
    let sets = [named(Kind::Plugin, &selector.plugin), of_tool, named(Kind::Principal, &selector.principal)];
    let common = sets.into_iter().flatten().reduce(|a, b| a.intersection(&b).copied().collect());
    let is_none = common.is_some_and(|tenants| tenants.is_empty());
    is_none.then(|| "no tenant has all that is named".to_owned())
}

fn tenants(state: &State, fits: impl Fn(&ResourceKey) -> bool) -> BTreeSet<Option<&Name>> {
    state.resources().keys().filter(|key| fits(key)).map(|key| key.tenant.as_ref()).collect()
}

/// The aliases that a tool's name may mean: their tenant, and each tool behind them.
fn aliases<'a>(state: &'a State, tool: &Tool<'_>) -> impl Iterator<Item = (Option<&'a Name>, &'a str)> {
    let meant =
        state.resources().iter().filter(|(key, _)| key.kind == Kind::ToolAlias && tool.takes(key.name.as_str()));
    let meant: Vec<_> = meant
        .filter_map(|(key, resource)| match &resource.spec {
            Spec::ToolAlias(spec) => Some((key.tenant.as_ref(), spec)),
            _ => None,
        })
        .collect();
    meant.into_iter().flat_map(|(tenant, spec)| spec.targets.iter().map(move |target| (tenant, target.tool.as_str())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use provost_types::{Resource, Revision};
    use serde_json::{Value, json};

    use super::*;

    fn resource(kind: &str, tenant: &str, name: &str, spec: Value) -> Resource {
        Resource {
            metadata: serde_json::from_value(json!({ "name": name, "tenant": tenant })).unwrap(),
            spec: serde_json::from_value(json!({ kind: spec })).unwrap(),
            created: Revision(1),
            modified: Revision(1),
        }
    }

    /// acme has the plugins `files` and `sql`, ana, and `greet` for a tool of `files`; beta has `mail` and bob.
    fn state() -> State {
        let echo = || json!({ "source": { "builtin": { "name": "echo" } } });
        let resources = [
            resource("Plugin", "acme", "files", echo()),
            resource("Plugin", "acme", "sql", echo()),
            resource("Principal", "acme", "ana", json!({})),
            resource("ToolAlias", "acme", "greet", json!({ "targets": [{ "tool": "files.greet" }] })),
            resource("Plugin", "beta", "mail", echo()),
            resource("Principal", "beta", "bob", json!({})),
        ];
        State::from_parts(Revision(1), resources, [], Revision(0), BTreeMap::new())
    }

    #[test]
    fn a_switch_that_fits_no_call_is_found() {
        let state = state();
        for (tenant, plugin, tool, principal, is_nothing) in [
            ("", "files", "files.read", "", false),
            ("", "files", "files.*", "ana", false),
            ("", "files", "f*", "", false),
            ("", "files", "*", "", false),
            ("", "files", "greet", "", false),
            ("", "sql", "greet", "", true),
            ("", "sql", "files.read", "", true),
            ("acme", "sql", "files.*", "", true),
            ("", "files", "", "bob", true),
            ("", "", "mail.send", "ana", true),
            ("", "", "greet", "bob", true),
            ("", "", "*", "bob", false),
            ("", "mail", "", "bob", false),
            ("acme", "", "", "ana", false),
        ] {
            let some = |text: &str| (!text.is_empty()).then(|| Name::new(text).unwrap());
            let selector = Selector {
                tenant: some(tenant),
                plugin: some(plugin),
                tool: (!tool.is_empty()).then(|| tool.to_owned()),
                principal: some(principal),
            };
            let found = stops_nothing(&selector, &state);
            assert_eq!(found.is_some(), is_nothing, "{selector:?}: {found:?}");
        }
    }
}
