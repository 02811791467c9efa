//! What a user let a plugin do in their name at an upstream.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Name, SealedSecret};

/// Tokens of one principal for one plugin with `auth.perUser`. Made when the principal consents in a browser,
/// kept fresh by nodes, ended by `provost connections revoke`; never by a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConnectionSpec {
    /// Whose.
    pub principal: Name,
    /// For which plugin.
    pub plugin: Name,
    /// What the tokens are of, as SHA-256: upstream, authorization server, client and resource. Where a plugin's
    /// document says otherwise later, they are not used for it.
    pub authority: String,
    /// The scopes that were given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// RFC 3339 time of the consent.
    pub since: String,
    /// When the flow that gave it began, nanoseconds since the Unix epoch: no older one takes its place.
    pub began_ns: u64,
    /// A node that asks for new tokens; nobody else does until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ConnectionClaim>,
    /// The tokens. AAD as of secrets, with `Connection` in the place of `Secret`. In the history there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedSecret>,
}

/// The right to ask for new tokens of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConnectionClaim {
    /// The node.
    pub node: String,
    /// Nanoseconds since the Unix epoch, by the clock of who gave it.
    pub until_ns: u64,
}
