//! A switch that stops calls at once.
//!
//! The tenant is in the metadata: a switch without one reaches into every tenant. Nothing here decides; a
//! node compiles its switches (`provost-data-policy`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Name;

/// Stops calls. Made by `provost kill-switch on` and removed by `provost kill-switch off`, never by a
/// document. It covers the calls that fit everything it names; one that names nothing covers all calls (of
/// its tenant, or of every tenant).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KillSwitchSpec {
    /// Only calls that this plugin would serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Name>,
    /// Only calls of this tool, `plugin.tool`; `*` ends a prefix (`sql.*`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Only calls by this principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Name>,
    /// Why. Callers are told.
    pub reason: String,
    /// Who switched it on.
    #[serde(default)]
    pub by: String,
    /// RFC 3339 time since when.
    #[serde(default)]
    pub since: String,
    /// An administrator of the cluster switched it on: one of a tenant cannot switch it off.
    #[serde(default)]
    pub by_cluster: bool,
}

impl KillSwitchSpec {
    /// What it covers, for people: `tenant acme, plugin files`, or `everything`.
    pub fn scope(&self, tenant: Option<&Name>) -> String {
        let parts: Vec<String> = [
            tenant.map(|name| format!("tenant {name}")),
            self.plugin.as_ref().map(|name| format!("plugin {name}")),
            self.tool.as_ref().map(|name| format!("tool {name}")),
            self.principal.as_ref().map(|name| format!("principal {name}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
    }

    /// Whether both name the same, whatever their reasons.
    pub fn covers_same(&self, other: &Self) -> bool {
        (&self.plugin, &self.tool, &self.principal) == (&other.plugin, &other.tool, &other.principal)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_says_all_that_it_names() {
        let name = |text: &str| Some(Name::new(text).unwrap());
        let mut spec = KillSwitchSpec::default();
        assert_eq!(spec.scope(None), "everything");
        assert_eq!(spec.scope(name("acme").as_ref()), "tenant acme");
        (spec.plugin, spec.principal, spec.tool) = (name("files"), name("ana"), Some("files.*".into()));
        assert_eq!(spec.scope(None), "plugin files, tool files.*, principal ana");
    }
}
