//! The body of a `Plugin`: where its tools come from, and what is done around calls of them. As in `spec`, doc comments
//! here are what `provost explain` prints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    DefinitionPolicy, EgressSpec, GrpcPlugin, IsolationSpec, OpenApiPlugin, RagPlugin, ResilienceSpec, SecretRef,
    UpstreamAuth, WasmPlugin,
};

/// Which era of MCP an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// Try 2026-07-28 first, fall back to `initialize`.
    #[default]
    Auto,
    /// 2026-07-28 and later: stateless.
    Modern,
    /// 2025-11-25 and earlier: sessions.
    Legacy,
}

/// An upstream MCP server over Streamable HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpPlugin {
    /// The endpoint, `https://…/mcp`; `http://` only on loopback.
    pub url: String,
    /// Further endpoints of the same server, equal to the first: each has the same tools. A call goes to one of
    /// them, and one that fails is left out for a while (`resilience.outliers`). At most 15.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_urls: Vec<String>,
    /// Headers with a value from a secret, injected at call time.
    #[serde(default)]
    pub secret_headers: BTreeMap<String, SecretRef>,
    /// Headers with a plain value.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Query parameters with a value from a secret, for servers that take no header.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_query: BTreeMap<String, SecretRef>,
    /// Access tokens of an authorization server, in place of an `authorization` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Box<UpstreamAuth>>,
    /// Where it may connect to. Not given: public addresses by `https`, and this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Box<EgressSpec>>,
    /// The era; found out if not given.
    #[serde(default)]
    pub era: Era,
}

impl HttpPlugin {
    fn since_version(&self) -> u32 {
        if !self.more_urls.is_empty() || matches!(self.auth.as_deref(), Some(UpstreamAuth::PerUser(_))) {
            3
        } else if !self.secret_query.is_empty() || self.auth.is_some() || self.egress.is_some() {
            2
        } else {
            1
        }
    }
}

/// An upstream MCP server as a supervised child process on stdin and stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StdioPlugin {
    /// The program, found on PATH.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment; nothing is inherited but PATH, LANG and, if it is not isolated, HOME.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Environment variables with a value from a secret.
    #[serde(default)]
    pub secret_env: BTreeMap<String, SecretRef>,
    /// Its working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The era; found out if not given.
    #[serde(default)]
    pub era: Era,
    /// How many of the nodes that serve calls run it.
    #[serde(default, skip_serializing_if = "Instances::is_default")]
    pub instances: Instances,
    /// The walls around its process. Left out: those of `isolation: {}` for a plugin that is new, and none for one that
    /// was stored before there was a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Box<IsolationSpec>>,
}

/// Where the processes of a stdio plugin run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Instances {
    /// On one node, which the others ask: what a process remembers is the same for every client,
    /// whichever node it uses. When that node goes, another one starts it anew.
    #[default]
    One,
    /// On each node: no call goes over another node, and processes know nothing of each other. For
    /// servers that remember nothing, or only on a disk that all nodes share.
    EveryNode,
}

impl Instances {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A source of tools that is part of Provost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuiltinPlugin {
    /// Which: `echo`, `time`, `sql` or `inference`.
    pub name: String,
    /// Its settings; `provost explain Plugin` lists them for each built-in.
    /// For `sql`: `url` (`sqlite:PATH` or `postgres://…`), `maxRows`, `timeoutMs`.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

/// Where a plugin's tools come from: exactly one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PluginSource {
    /// An MCP server over Streamable HTTP.
    McpHttp(HttpPlugin),
    /// An MCP server as a child process.
    McpStdio(StdioPlugin),
    /// Part of Provost.
    Builtin(BuiltinPlugin),
    /// A WebAssembly component.
    Wasm(Box<WasmPlugin>),
    /// An HTTP service that an OpenAPI document describes.
    #[serde(rename = "openapi")]
    OpenApi(Box<OpenApiPlugin>),
    /// gRPC services, by their descriptors or by server reflection.
    Grpc(Box<GrpcPlugin>),
    /// Documents of the tenant, to be searched.
    Rag(Box<RagPlugin>),
}

impl PluginSource {
    /// Whether its tools are defined by Provost itself: nobody else can change what they say.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Builtin(_) | Self::Rag(_))
    }
}

/// A source of tools, prompts and resources. Clients see them as `plugin.tool`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PluginSpec {
    /// What the plugin is for.
    #[serde(default)]
    pub description: String,
    /// Where its tools come from.
    pub source: PluginSource,
    /// Longest time for one call, in milliseconds; progress does not extend it. 0: the default, 60000.
    #[serde(default)]
    pub timeout_ms: u64,
    /// Calls at once on one node. 0: the default, 256.
    #[serde(default)]
    pub max_concurrency: u32,
    /// What is done about slow, failing and busy upstreams; what is not given has its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resilience: Option<Box<ResilienceSpec>>,
    /// What becomes of a tool's definition that nobody has approved: `trust`, `pin` or `approve`. Left out: `pin` for
    /// a plugin that is new, and for one that was stored before there was a choice `trust`. Built-ins and documents are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions: Option<DefinitionPolicy>,
    /// Counted up by `provost plugin reload`: with another number every node starts the plugin anew, its processes and
    /// connections too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reloads: u32,
}

impl PluginSpec {
    /// The first wire version whose control-plane nodes can read it.
    pub(crate) fn since_version(&self) -> u32 {
        let source = match &self.source {
            PluginSource::McpHttp(http) => http.since_version(),
            PluginSource::McpStdio(stdio) if stdio.isolation.is_some() => 5,
            PluginSource::McpStdio(stdio) if !stdio.instances.is_default() => 2,
            PluginSource::McpStdio(_) | PluginSource::Builtin(_) => 1,
            PluginSource::OpenApi(_) => 4,
            PluginSource::Wasm(wasm) => wasm.since_version(),
            PluginSource::Grpc(_) | PluginSource::Rag(_) => 5,
        };
        let reloads = if self.reloads > 0 { 5 } else { 1 };
        let around = match &self.resilience {
            Some(resilience) if resilience.outliers.is_some() => 3,
            Some(_) => 2,
            None if self.definitions.is_some() => 2,
            None => 1,
        };
        source.max(around).max(reloads)
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}
