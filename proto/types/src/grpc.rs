//! What a document says of a plugin whose tools are the methods of gRPC services.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{EgressSpec, SecretRef, UpstreamAuth};

/// gRPC services of one address: each method that answers one request is a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct GrpcPlugin {
    /// Where the services are, `https://host:port`; `http://` only on loopback. It has no path.
    pub url: String,
    /// The descriptors of the services: a `FileDescriptorSet` in Base64, as `protoc --include_imports --include_source_info
    /// --descriptor_set_out` writes it. Not given: the address is asked for them by server reflection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<String>,
    /// The services that become tools, by their full names such as `tickets.v1.Tickets`. Empty: all, but for those of
    /// gRPC itself (reflection, health, channelz).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub services: BTreeSet<String>,
    /// Which of their methods become tools: by name of the tool, such as `Tickets_List`, or of the method, such as
    /// `tickets.v1.Tickets/List`; `*` ends a prefix. Empty: all.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub include: BTreeSet<String>,
    /// Which do not, likewise; it wins over `include`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<String>,
    /// Metadata with a value from a secret, injected at call time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_headers: BTreeMap<String, SecretRef>,
    /// Metadata with a plain value. Of a key that ends in `-bin` the value is Base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Access tokens of an authorization server, in place of an `authorization` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Box<UpstreamAuth>>,
    /// Where it may connect to. Not given: public addresses by `https`, and this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Box<EgressSpec>>,
    /// `true` leaves the schemas of answers out of the tools.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hide_output_schemas: bool,
}
