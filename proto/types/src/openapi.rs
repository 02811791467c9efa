//! What a document says of a plugin whose tools are the operations of an HTTP service.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{EgressSpec, SecretRef, UpstreamAuth};

/// An HTTP service that an OpenAPI document (3.0 or 3.1) describes: each operation is a tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct OpenApiPlugin {
    /// The OpenAPI document itself. Give this or `documentUrl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Map<String, Value>>,
    /// Where the document is fetched from, as JSON. It needs `server`: where credentials go is not for the service
    /// to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_url: Option<String>,
    /// The address that paths are added to, `https://…`; `http://` only on loopback. Default: the document's first
    /// server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Which operations become tools: ids, or tags written `tag:NAME`; `*` ends a prefix. Empty: all.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub include: BTreeSet<String>,
    /// Which do not, likewise; it wins over `include`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<String>,
    /// Headers with a value from a secret, injected at call time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_headers: BTreeMap<String, SecretRef>,
    /// Headers with a plain value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Query parameters with a value from a secret.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_query: BTreeMap<String, SecretRef>,
    /// Access tokens of an authorization server, in place of an `authorization` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Box<UpstreamAuth>>,
    /// Where it may connect to. Not given: public addresses by `https`, and this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Box<EgressSpec>>,
    /// `true` leaves the schemas of answers out of the tools: for a service whose answers do not fit its own
    /// document, which clients that check them would refuse.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hide_output_schemas: bool,
}

impl OpenApiPlugin {
    /// The address that paths are added to: `server`, or the first one of the document.
    pub fn server_url(&self) -> Option<&str> {
        self.server.as_deref().or_else(|| {
            let servers = self.document.as_ref()?.get("servers")?;
            servers.get(0)?.get("url")?.as_str()
        })
    }
}
