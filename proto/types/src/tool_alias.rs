//! A public name for a tool, whose versions come and go behind it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A tool that may stand behind an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AliasTarget {
    /// The tool, `plugin.tool`.
    pub tool: String,
    /// Its share of the callers, against the weights of the others. 0: nobody's.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// From when on a name should not be used, and until when it can be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Deprecation {
    /// RFC 3339 time from which callers are warned. None: from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// RFC 3339 time from which calls are refused. None: they never are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// What to use instead.
    pub message: String,
}

/// A public name on the merged route, and the tool versions behind it. A caller sees one version and keeps
/// it; policy and quotas look at the version, the record names both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ToolAliasSpec {
    /// What the alias is for; people only.
    #[serde(default)]
    pub description: String,
    /// The versions. A caller's share follows from its name, so that it stays with one.
    pub targets: Vec<AliasTarget>,
    /// The name goes out of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<Deprecation>,
}
