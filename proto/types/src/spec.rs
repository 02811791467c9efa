//! The typed bodies of resources. Doc comments here are what `provost explain` prints, so each
//! says what the field means to the person who writes it.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConnectionSpec, GuardSpec, IdentityProviderSpec, KillSwitchSpec, Kind, ModelSpec, Name, PluginSpec, PolicyMode,
    Priority, PublisherSpec, ToolAliasSpec, ToolPinsSpec,
};

/// A typed spec; the variant is the kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Spec {
    Tenant(TenantSpec),
    Principal(PrincipalSpec),
    ApiKey(ApiKeySpec),
    Role(RoleSpec),
    RoleBinding(RoleBindingSpec),
    Policy(PolicySpec),
    Plugin(PluginSpec),
    Secret(SecretSpec),
    Quota(QuotaSpec),
    NodeGroup(NodeGroupSpec),
    Price(PriceSpec),
    Guard(GuardSpec),
    KillSwitch(KillSwitchSpec),
    IdentityProvider(IdentityProviderSpec),
    ToolPins(ToolPinsSpec),
    ToolAlias(ToolAliasSpec),
    Connection(ConnectionSpec),
    Publisher(PublisherSpec),
    Model(ModelSpec),
}

impl Spec {
    /// The kind of resource that this is the body of.
    pub fn kind(&self) -> Kind {
        match self {
            Spec::Tenant(_) => Kind::Tenant,
            Spec::Principal(_) => Kind::Principal,
            Spec::ApiKey(_) => Kind::ApiKey,
            Spec::Role(_) => Kind::Role,
            Spec::RoleBinding(_) => Kind::RoleBinding,
            Spec::Policy(_) => Kind::Policy,
            Spec::Plugin(_) => Kind::Plugin,
            Spec::Secret(_) => Kind::Secret,
            Spec::Quota(_) => Kind::Quota,
            Spec::NodeGroup(_) => Kind::NodeGroup,
            Spec::Price(_) => Kind::Price,
            Spec::Guard(_) => Kind::Guard,
            Spec::KillSwitch(_) => Kind::KillSwitch,
            Spec::IdentityProvider(_) => Kind::IdentityProvider,
            Spec::ToolPins(_) => Kind::ToolPins,
            Spec::ToolAlias(_) => Kind::ToolAlias,
            Spec::Connection(_) => Kind::Connection,
            Spec::Publisher(_) => Kind::Publisher,
            Spec::Model(_) => Kind::Model,
        }
    }

    /// The first wire version whose control-plane nodes can read it: its kind, and every field that it has.
    pub fn since_version(&self) -> u32 {
        let fields = match self {
            Spec::Principal(spec) if !spec.priority.is_normal() || !spec.certificates.is_empty() => 2,
            Spec::Guard(spec) if spec.external.as_ref().is_some_and(|external| external.auth.is_some()) => 4,
            Spec::Guard(spec) if spec.reveal.is_some() || spec.external.is_some() || spec.tokenises() => 3,
            Spec::Plugin(spec) => spec.since_version(),
            _ => 1,
        };
        self.kind().since_version().max(fields)
    }
}

/// An organisation or team: principals, plugins and policies belong to exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TenantSpec {
    /// The name shown to people.
    pub display_name: String,
}

/// What a principal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalType {
    /// A person.
    User,
    /// An AI agent.
    #[default]
    Agent,
    /// A program.
    Service,
}

/// A person, agent or service that calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct PrincipalSpec {
    /// Person, agent or service.
    #[serde(rename = "type")]
    pub principal_type: PrincipalType,
    /// The name shown to people.
    pub display_name: String,
    /// Facts for policies, read in Cedar as `principal.attributes.getTag("region")`.
    pub attributes: BTreeMap<String, String>,
    /// `admin: true` lets the principal's keys use the admin API of this tenant.
    pub admin: bool,
    /// A disabled principal is refused at authentication.
    pub disabled: bool,
    /// Whose calls a node that has too many refuses first: `low`, `normal` or `high`.
    #[serde(skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// Subject alternative names of client certificates that authenticate this principal, exactly:
    /// `uri:spiffe://…`, `dns:…` or `email:…`. A name belongs to one principal of the cluster.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub certificates: BTreeSet<String>,
}

/// A bearer credential. Only a hash is stored; `provost token create` makes one and shows it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ApiKeySpec {
    /// The principal that a caller with this key is.
    pub principal: Name,
    /// BLAKE3 of the whole token, 64 hexadecimal digits.
    pub hash: String,
    /// RFC 3339 time after which the key is refused. None: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// One permission of a role: these actions on these objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RoleRule {
    /// Tool names as clients see them (`plugin.tool`); `*` ends a prefix (`sql.*`, `*`).
    pub tools: BTreeSet<String>,
    /// Prompt names, likewise.
    pub prompts: BTreeSet<String>,
    /// Resource URIs as their upstreams have them, likewise.
    pub resources: BTreeSet<String>,
    /// Model names, likewise.
    pub models: BTreeSet<String>,
}

/// A named set of permissions; nothing is allowed that no role or policy permits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RoleSpec {
    /// What the role is for.
    pub description: String,
    /// The permissions; their union holds.
    pub rules: Vec<RoleRule>,
}

/// Gives a role to principals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RoleBindingSpec {
    /// The role, of the same tenant.
    pub role: Name,
    /// The principals, of the same tenant.
    pub principals: BTreeSet<Name>,
    /// RFC 3339 time after which the binding gives nothing. None: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// Cedar policies of a tenant. A `forbid` wins over every grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicySpec {
    /// What the policy is for.
    #[serde(default)]
    pub description: String,
    /// Cedar text: one or more policies, each with an `@id("…")` if it is to be named in answers.
    pub cedar: String,
    /// `enforce` decides; `observe` only records what it would have decided.
    #[serde(default)]
    pub mode: PolicyMode,
}

/// A value from a `Secret` of the same tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SecretRef {
    /// The secret's name.
    pub secret: Name,
    /// Text put before the value, such as `Bearer `.
    #[serde(default)]
    pub prefix: String,
}

/// A secret value. `provost secret set NAME` seals it; no command reads it back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SecretSpec {
    /// What the secret is for.
    pub description: String,
    /// The sealed value; written by `provost secret set`, not by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedSecret>,
}

/// An AEAD-sealed value (AES-256-GCM). AAD = `CLUSTER|Secret|TENANT|NAME|VERSION|TERM`; of values
/// sealed before data keys named their cluster, `Secret|TENANT|NAME|VERSION`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SealedSecret {
    /// Counts the values set under this name, from 1.
    pub version: u64,
    /// Which data key sealed it.
    pub key_term: u64,
    /// Nonce and ciphertext with tag, base64.
    pub ciphertext: String,
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaUnit {
    /// Calls of tools, prompts, resources and models.
    Calls,
    /// Model tokens, in and out.
    Tokens,
    /// Money in millionths of the currency of the tenant's prices. Counted where a `Price` names the
    /// tool or the model; what has none costs nothing.
    CostMicro,
    /// Calls running at once.
    Concurrent,
}

impl QuotaUnit {
    /// The name as in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            QuotaUnit::Calls => "calls",
            QuotaUnit::Tokens => "tokens",
            QuotaUnit::CostMicro => "cost-micro",
            QuotaUnit::Concurrent => "concurrent",
        }
    }
}

/// For whom a quota counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QuotaPer {
    /// One count for all whom the quota covers together.
    #[default]
    Tenant,
    /// A count of its own for each principal.
    Principal,
    /// A count of its own for each conversation (workflow id) of each principal. Calls without a
    /// workflow id share one count for their principal.
    Workflow,
}

/// The window that a quota is counted in. All but `second` are calendar windows (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum QuotaWindow {
    /// A rate: never more than the limit in any second, wherever that second begins. Calls are
    /// spread over it, with small bursts.
    Second,
    Minute,
    Hour,
    Day,
    Month,
}

impl QuotaWindow {
    /// The name as in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            QuotaWindow::Second => "second",
            QuotaWindow::Minute => "minute",
            QuotaWindow::Hour => "hour",
            QuotaWindow::Day => "day",
            QuotaWindow::Month => "month",
        }
    }
}

/// A limit on use that is never exceeded, whatever fails: nodes spend units that the control plane
/// has leased to them, and deny when they have none. A call counts under every quota that covers
/// it. Lists are not counted. Deleting a quota and applying it again begins its counts anew;
/// changing its limit does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct QuotaSpec {
    /// The most that may be used in one window.
    pub limit: u64,
    /// What is counted.
    pub unit: QuotaUnit,
    /// For whom: `tenant` (all together), `principal` (each for itself) or `workflow`.
    #[serde(default)]
    pub per: QuotaPer,
    /// The window; none for `concurrent`, which counts calls running now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<QuotaWindow>,
    /// Only calls by these principals; empty: all.
    #[serde(default)]
    pub principals: BTreeSet<Name>,
    /// Only calls of these tools or models (`*` ends a prefix); empty: all, and prompts and
    /// resources too.
    #[serde(default)]
    pub tools: BTreeSet<String>,
}

/// The canary: data-plane nodes that take each change first. The other nodes get it once these have
/// run it for a while without refusing it and without a rise of denied or failed calls; otherwise
/// it is halted, and these nodes go back to what the others run. There is at most one; without one
/// every node gets every change at once. It delays every change, also those that take access away
/// while something else is held back; `provost cluster release` ends the wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NodeGroupSpec {
    /// What the group is for.
    pub description: String,
    /// Names of nodes; `*` ends a prefix (`canary-*`).
    pub nodes: BTreeSet<String>,
    /// Also the nodes that have one of these roles, such as `gpu-node`.
    pub roles: BTreeSet<String>,
    /// Seconds for which all connected nodes of the group must run a change well before the others
    /// get it.
    pub hold_s: u64,
    /// How much the share of denied calls may grow, in thousandths of all calls.
    pub max_denial_rise_permille: u64,
    /// How much the share of failed calls may grow, in thousandths of all calls.
    pub max_error_rise_permille: u64,
    /// Calls before and after a change below which shares say nothing.
    pub min_calls: u64,
}

impl Default for NodeGroupSpec {
    fn default() -> Self {
        Self {
            description: String::new(),
            nodes: BTreeSet::new(),
            roles: BTreeSet::new(),
            hold_s: 60,
            max_denial_rise_permille: 50,
            max_error_rise_permille: 20,
            min_calls: 100,
        }
    }
}

impl NodeGroupSpec {
    /// Whether a node belongs to the group. `roles` as its certificate names them: `a.b`.
    pub fn selects(&self, node: &str, roles: &str) -> bool {
        let named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => node.starts_with(prefix),
            None => node == pattern,
        };
        self.nodes.iter().any(named) || roles.split('.').any(|role| self.roles.contains(role))
    }
}

/// What calls of tools and models cost, in millionths of a currency: quotas of the unit `cost-micro`
/// count it, and the audit log records it. A call costs what its tool costs and what the model costs
/// that runs for it. Of several prices the one that names the tool or model exactly holds, else the one
/// with the longest prefix; one pattern has one price. What no price names costs nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PriceSpec {
    /// The currency, three letters of ISO 4217 such as `EUR`. All prices of a tenant have the same.
    pub currency: String,
    /// Tool names as clients see them (`plugin.tool`); `*` ends a prefix (`sql.*`, `*`).
    #[serde(default)]
    pub tools: BTreeSet<String>,
    /// Model names, likewise.
    #[serde(default)]
    pub models: BTreeSet<String>,
    /// For each call that runs, however it ends, in millionths. 0: calls themselves are free.
    #[serde(default)]
    pub per_call_micro: u64,
    /// For a million tokens that a model reads, in millionths.
    #[serde(default)]
    pub per_million_input_tokens_micro: u64,
    /// For a million tokens that a model makes, in millionths.
    #[serde(default)]
    pub per_million_output_tokens_micro: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_came_later_waits_for_nodes_that_read_it() {
        let wasm = |more: &str| {
            let digest = "00".repeat(32);
            format!(r#"{{"Plugin":{{"source":{{"wasm":{{"file":"a.wasm","digest":"sha256:{digest}"{more}}}}}}}}}"#)
        };
        let (alone, calling) = (wasm(""), wasm(r#","tools":["crm.*"]"#));
        let computing = wasm(r#","tools":["crm.*"],"computeMs":100"#);
        for (text, version) in [
            (alone.as_str(), 4),
            (calling.as_str(), 5),
            (computing.as_str(), 7),
            (r#"{"Principal":{"type":"user"}}"#, 1),
            (r#"{"Principal":{"type":"user","priority":"high"}}"#, 2),
            (r#"{"Principal":{"type":"user","certificates":["dns:a.example"]}}"#, 2),
            (r#"{"Plugin":{"source":{"mcp-http":{"url":"https://a.example/mcp"}}}}"#, 1),
            (r#"{"Plugin":{"source":{"mcp-http":{"url":"https://a.example/mcp"}},"resilience":{}}}"#, 2),
            (r#"{"Plugin":{"source":{"mcp-http":{"url":"https://a.example/mcp","egress":{}}}}}"#, 2),
            (r#"{"Plugin":{"source":{"mcp-http":{"url":"https://a.example/mcp"}},"definitions":"pin"}}"#, 2),
            (
                r#"{"Plugin":{"source":{"mcp-http":{"url":"https://a.example/mcp","moreUrls":["https://b.example/mcp"]}}}}"#,
                3,
            ),
            (r#"{"Plugin":{"source":{"mcp-http":{"url":"https://a.example/mcp"}},"resilience":{"outliers":{}}}}"#, 3),
            (r#"{"Plugin":{"source":{"mcp-http":{"url":"https://a.example/mcp","auth":{"tokenExchange":{}}}}}}"#, 2),
            (r#"{"Plugin":{"source":{"mcp-http":{"url":"https://a.example/mcp","auth":{"perUser":{}}}}}}"#, 3),
            (r#"{"Plugin":{"source":{"mcp-stdio":{"command":"a"}}}}"#, 1),
            (r#"{"Plugin":{"source":{"mcp-stdio":{"command":"a","instances":"everyNode"}}}}"#, 2),
            (r#"{"Plugin":{"source":{"mcp-stdio":{"command":"a","isolation":{}}}}}"#, 5),
            (r#"{"Plugin":{"source":{"openapi":{"document":{"openapi":"3.1.0"}}}}}"#, 4),
            (r#"{"Plugin":{"source":{"grpc":{"url":"https://a.example"}}}}"#, 5),
            (r#"{"Plugin":{"source":{"wasm":{"file":"a","digest":"sha256:D"}}}}"#, 4),
            (r#"{"Plugin":{"source":{"wasm":{"package":"sha256:D"}}}}"#, 5),
            (r#"{"Plugin":{"source":{"builtin":{"name":"echo"}},"reloads":1}}"#, 5),
            (r#"{"Publisher":{"keys":["ed25519:D"]}}"#, 5),
            (r#"{"Model":{"source":{"blob":"sha256:D"}}}"#, 6),
            (r#"{"Plugin":{"source":{"rag":{"folder":"handbook","model":"minilm"}}}}"#, 5),
            (r#"{"Guard":{"rules":[{"kinds":["card"],"action":"mask"}]}}"#, 1),
            (r#"{"Guard":{"rules":[{"kinds":["card"],"action":"tokenise"}]}}"#, 3),
            (r#"{"Guard":{"external":{"url":"https://dlp.example"}}}"#, 3),
        ] {
            let text = text.replace(":D\"", &format!(":{}\"", "0".repeat(64)));
            let spec: Spec = serde_json::from_str(&text).unwrap();
            assert_eq!(spec.since_version(), version, "{text}");
        }
    }
}
