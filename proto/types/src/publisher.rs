//! Whose plugin packages a tenant takes.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::PublisherKey;

/// Somebody whose plugin packages the tenant trusts. A package names its publisher, and runs only if one of these keys
/// signed it. Plugins whose key is taken out go on as they are; nodes start no version of them any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PublisherSpec {
    /// Who it is, and how their keys were come by.
    #[serde(default)]
    pub description: String,
    /// Their Ed25519 keys, `ed25519:` and 64 hexadecimal digits, as `provost plugin sign` prints them: 1 to 16.
    pub keys: BTreeSet<PublisherKey>,
}
