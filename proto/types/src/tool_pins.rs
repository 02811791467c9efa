//! Which definitions of a plugin's tools are approved.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of a tool's definition that nobody has approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DefinitionPolicy {
    /// It is served; what changes is recorded.
    #[default]
    Trust,
    /// The first one that a node sees is approved; one that differs from it is quarantined until
    /// `provost plugin approve`.
    Pin,
    /// It is quarantined until `provost plugin approve`, the first one too.
    Approve,
}

/// Somebody took something out of use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Quarantine {
    /// Why.
    pub reason: String,
    /// Who.
    #[serde(default)]
    pub by: String,
    /// RFC 3339 time since when.
    #[serde(default)]
    pub since: String,
}

/// A definition as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PinnedDefinition {
    /// SHA-256 over its canonical form, 64 hexadecimal digits.
    pub hash: String,
    /// RFC 3339 time when it was first seen, or approved.
    #[serde(default)]
    pub since: String,
    /// Which node saw it, or who approved it.
    #[serde(default)]
    pub by: String,
    /// Its canonical form; empty where it is too large to be kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub definition: String,
    /// What is suspicious about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What is known of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ToolPin {
    /// The definition that is served. None: none is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<PinnedDefinition>,
    /// One that was seen and waits to be approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<PinnedDefinition>,
    /// The tool was taken out of use, whatever its definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<Quarantine>,
}

/// The tools of the plugin of the same name, and which of their definitions are approved. Made by nodes that
/// see them and by `provost plugin approve` and `quarantine`, never by a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ToolPinsSpec {
    /// All tools of the plugin were taken out of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<Quarantine>,
    /// The tools, by the plugin's own names.
    #[serde(default)]
    pub tools: BTreeMap<String, ToolPin>,
}
