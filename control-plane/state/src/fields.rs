//! The rules that the fields of one resource keep by themselves. Every broken rule is reported.

use std::collections::HashMap;

use provost_types::{
    ApiKeySpec, BuiltinPlugin, HttpPlugin, Kind, Name, NodeGroupSpec, PluginSource, PluginSpec, PolicySpec, QuotaSpec,
    QuotaUnit, Resource, ResourceKey, RoleSpec, Spec, StdioPlugin,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::{Host, Url};

use crate::{Problem, Resources, upstreams::Reached};

const CODE: &str = "PV-RES-FIELD";
/// Labels of one resource.
const MAX_LABELS: usize = 64;
/// Bytes of a label's key or value.
const MAX_LABEL_BYTES: usize = 256;
/// Bytes of the Cedar text of one policy.
const MAX_CEDAR_BYTES: usize = 256 << 10;
/// The longest time for one call of a plugin: one hour.
pub(crate) const MAX_TIMEOUT_MS: u64 = 3_600_000;
/// The most calls at once on one node of a plugin.
pub(crate) const MAX_CONCURRENCY: u32 = 65_536;
/// The longest hold of a staged change.
const MAX_HOLD_S: u64 = 7 * 24 * 3_600;
/// Headers that the gateway writes itself.
const RESERVED_HEADERS: [&str; 9] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "accept",
    "mcp-session-id",
    "mcp-protocol-version",
    "upgrade",
];

pub(crate) struct Check<'a> {
    key: ResourceKey,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    pub(crate) fn require(&mut self, holds: bool, field: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(Problem::of_field(&self.key, field, CODE, message()));
        }
    }

    /// Where something of others is reached: encrypted, or on this machine. Says `credentials` of an address that
    /// holds some. The address as it was read, if it is one.
    pub(crate) fn address(&mut self, field: &str, text: &str, credentials: &str) -> Option<Url> {
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(cause) => {
                self.require(false, field, || format!("`{text}` is not a URL: {cause}"));
                return None;
            }
        };
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        let encrypted = url.scheme() == "https" || (url.scheme() == "http" && loopback);
        self.require(encrypted, field, || {
            "must be `https://…`; `http://` only to this machine (localhost, 127.0.0.1, [::1])".into()
        });
        let bare = url.username().is_empty() && url.password().is_none();
        self.require(bare, field, || credentials.to_owned());
        Some(url)
    }

    fn expiry(&mut self, expires: Option<&String>) {
        if let Some(text) = expires {
            let valid = OffsetDateTime::parse(text, &Rfc3339).is_ok();
            self.require(valid, "spec.expires", || {
                format!("`{text}` is not an RFC 3339 time such as 2027-01-31T12:00:00Z")
            });
        }
    }

    /// `*` matches any rest, so it stands only at the end.
    pub(crate) fn patterns<'p>(&mut self, field: &str, patterns: impl IntoIterator<Item = &'p String>) {
        for pattern in patterns {
            self.require(!pattern.is_empty(), field, || "an empty pattern matches nothing".into());
            let inner = pattern.strip_suffix('*').unwrap_or(pattern);
            self.require(!inner.contains('*'), field, || {
                format!("`{pattern}`: `*` may only end a pattern, as in `sql.*`")
            });
        }
    }
}

/// Checks one resource by itself.
pub(crate) fn check(resource: &Resource, problems: &mut Vec<Problem>) {
    let mut check = Check { key: resource.key(), problems };
    metadata(&mut check, resource);
    match &resource.spec {
        Spec::ApiKey(spec) => api_key(&mut check, spec),
        Spec::Role(spec) => role(&mut check, spec),
        Spec::RoleBinding(spec) => check.expiry(spec.expires.as_ref()),
        Spec::Policy(spec) => policy(&mut check, spec),
        Spec::Plugin(spec) => plugin(&mut check, spec),
        Spec::Quota(spec) => quota(&mut check, spec),
        Spec::NodeGroup(spec) => node_group(&mut check, spec),
        Spec::Price(spec) => crate::prices::check(&mut check, spec),
        Spec::Guard(spec) => crate::guards::check(&mut check, spec),
        Spec::KillSwitch(spec) => crate::kill_switches::check(&mut check, spec),
        Spec::IdentityProvider(spec) => crate::identity::check(&mut check, spec),
        Spec::ToolPins(spec) => crate::tool_pins::check(&mut check, spec),
        Spec::Connection(spec) => crate::connections::check(&mut check, spec),
        Spec::Publisher(spec) => crate::packages::check_publisher(&mut check, spec),
        Spec::Model(spec) => crate::models::check(&mut check, spec),
        Spec::ToolAlias(spec) => crate::tool_aliases::check(&mut check, spec),
        Spec::Principal(spec) => crate::identity::check_certificates(&mut check, spec),
        Spec::Tenant(_) | Spec::Secret(_) => {}
    }
}

fn metadata(check: &mut Check<'_>, resource: &Resource) {
    let kind = resource.spec.kind();
    let metadata = &resource.metadata;
    if kind.is_tenanted() {
        check.require(metadata.tenant.is_some(), "metadata.tenant", || {
            format!("a {kind} belongs to a tenant: name it in metadata.tenant")
        });
    } else if !kind.may_be_tenanted() {
        check.require(metadata.tenant.is_none(), "metadata.tenant", || {
            format!("a {kind} belongs to no tenant: remove metadata.tenant")
        });
    }
    check.require(metadata.labels.len() <= MAX_LABELS, "metadata.labels", || format!("more than {MAX_LABELS} labels"));
    for (label, value) in &metadata.labels {
        let fits = !label.is_empty() && label.len() <= MAX_LABEL_BYTES && value.len() <= MAX_LABEL_BYTES;
        check.require(fits, &format!("metadata.labels.{label}"), || {
            format!("a label has a key, and key and value have at most {MAX_LABEL_BYTES} bytes each")
        });
    }
}

fn api_key(check: &mut Check<'_>, spec: &ApiKeySpec) {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let valid = spec.hash.len() == 64 && spec.hash.bytes().all(hex);
    check.require(valid, "spec.hash", || {
        "is not the BLAKE3 of a token (64 lower-case hexadecimal digits); \
         `provost token create` makes a token and its key"
            .into()
    });
    check.expiry(spec.expires.as_ref());
}

fn role(check: &mut Check<'_>, spec: &RoleSpec) {
    for (i, rule) in spec.rules.iter().enumerate() {
        check.patterns(&format!("spec.rules[{i}].tools"), &rule.tools);
        check.patterns(&format!("spec.rules[{i}].prompts"), &rule.prompts);
        check.patterns(&format!("spec.rules[{i}].resources"), &rule.resources);
        check.patterns(&format!("spec.rules[{i}].models"), &rule.models);
    }
}

fn policy(check: &mut Check<'_>, spec: &PolicySpec) {
    check.require(!spec.cedar.trim().is_empty(), "spec.cedar", || "holds no policy".into());
    check.require(spec.cedar.len() <= MAX_CEDAR_BYTES, "spec.cedar", || {
        format!("has more than {MAX_CEDAR_BYTES} bytes; split it into several policies")
    });
}

fn quota(check: &mut Check<'_>, spec: &QuotaSpec) {
    check.require(spec.limit > 0, "spec.limit", || "is 0; to forbid use, write a Cedar `forbid`".into());
    match (spec.unit, spec.window) {
        (QuotaUnit::Concurrent, Some(_)) => {
            check.require(false, "spec.window", || "`concurrent` counts calls running now and has no window".into())
        }
        (QuotaUnit::Calls | QuotaUnit::Tokens | QuotaUnit::CostMicro, None) => {
            check.require(false, "spec.window", || "is missing: second, minute, hour, day or month".into());
        }
        _ => {}
    }
    check.patterns("spec.tools", &spec.tools);
}

fn node_group(check: &mut Check<'_>, spec: &NodeGroupSpec) {
    let selects = !spec.nodes.is_empty() || !spec.roles.is_empty();
    check.require(selects, "spec.nodes", || "selects no node: name nodes, or roles in `roles`".into());
    check.patterns("spec.nodes", &spec.nodes);
    check.require(spec.hold_s <= MAX_HOLD_S, "spec.holdS", || format!("is more than {MAX_HOLD_S} (a week)"));
    for (field, share) in [
        ("spec.maxDenialRisePermille", spec.max_denial_rise_permille),
        ("spec.maxErrorRisePermille", spec.max_error_rise_permille),
    ] {
        check.require(share <= 1_000, field, || "is in thousandths, at most 1000".into());
    }
}

/// Changes wait for one group; a second one would be a second opinion on what is released.
pub(crate) fn check_one_group(all: &Resources, problems: &mut Vec<Problem>) {
    let from = ResourceKey { kind: Kind::NodeGroup, tenant: None, name: Name::smallest() };
    // No further: each change comes here, and what follows may be thousands of resources.
    let mut groups = all.range(from..).map(|(key, _)| key).take_while(|key| key.kind == Kind::NodeGroup);
    let first = groups.next();
    let Some(first) = first else { return };
    for key in groups {
        let text = format!("{first} exists already; a cluster has one NodeGroup");
        problems.push(Problem::of_field(key, "metadata.name", CODE, text).hint("change or delete that one"));
    }
}

fn plugin(check: &mut Check<'_>, spec: &PluginSpec) {
    let name = check.key.name.clone();
    check.require(!name.as_str().contains('.'), "metadata.name", || {
        format!("`{name}`: tools are called `plugin.tool`, so a plugin's name has no `.`")
    });
    check.require(spec.timeout_ms <= MAX_TIMEOUT_MS, "spec.timeoutMs", || {
        format!("is more than {MAX_TIMEOUT_MS} (one hour)")
    });
    check.require(spec.max_concurrency <= MAX_CONCURRENCY, "spec.maxConcurrency", || {
        format!("is more than {MAX_CONCURRENCY}")
    });
    if let Some(resilience) = &spec.resilience {
        crate::resilience::check(check, resilience);
    }
    match &spec.source {
        PluginSource::McpHttp(http) => http_plugin(check, http),
        PluginSource::McpStdio(stdio) => stdio_plugin(check, stdio),
        PluginSource::Builtin(builtin) => builtin_plugin(check, builtin),
        PluginSource::Wasm(wasm) => crate::wasm::check(check, wasm),
        PluginSource::OpenApi(api) => crate::openapi::check(check, api),
        PluginSource::Grpc(grpc) => crate::grpc::check(check, grpc),
        PluginSource::Rag(rag) => crate::rag::check(check, rag),
    }
}

fn http_plugin(check: &mut Check<'_>, http: &HttpPlugin) {
    let field = "spec.source.mcp-http.url";
    check.address(field, &http.url, "carries a user name or password; use `secretHeaders` instead");
    reached(check, &Reached::from(http));
    crate::upstreams::check_more_urls(check, http);
}

/// What is the same for everything that is reached over HTTP.
pub(crate) fn reached(check: &mut Check<'_>, to: &Reached<'_>) {
    let names = to.headers.keys().map(|h| ("headers", h));
    for (group, name) in names.chain(to.secret_headers.keys().map(|h| ("secretHeaders", h))) {
        let field = format!("{}.{group}.{name}", to.base);
        header_name(check, &field, name);
    }
    for (name, value) in to.headers {
        let printable = value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
        check.require(printable, &format!("{}.headers.{name}", to.base), || {
            "has a line break or a character that headers cannot carry".into()
        });
    }
    to.check(check);
}

/// Checks the name of a header that the document gives.
pub(crate) fn header_name(check: &mut Check<'_>, field: &str, name: &str) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let valid = !name.is_empty() && name.bytes().all(token);
    check.require(valid, field, || format!("`{name}` is not a header name"));
    let reserved = RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str());
    check.require(!reserved, field, || format!("`{name}` is written by the gateway itself"));
}

fn stdio_plugin(check: &mut Check<'_>, stdio: &StdioPlugin) {
    let base = "spec.source.mcp-stdio";
    let clean = |text: &str| !text.contains('\0');
    let command = !stdio.command.trim().is_empty() && clean(&stdio.command);
    check.require(command, &format!("{base}.command"), || "names no program".into());
    for (i, arg) in stdio.args.iter().enumerate() {
        check.require(clean(arg), &format!("{base}.args[{i}]"), || "has a NUL character".into());
    }
    let names = stdio.env.keys().map(|n| ("env", n));
    for (group, name) in names.chain(stdio.secret_env.keys().map(|n| ("secretEnv", n))) {
        let valid = !name.is_empty() && clean(name) && !name.contains('=');
        check.require(valid, &format!("{base}.{group}.{name}"), || {
            format!("`{name}` is not the name of an environment variable")
        });
    }
    for (name, value) in &stdio.env {
        let field = format!("{base}.env.{name}");
        check.require(clean(value), &field, || "has a NUL character".into());
        check.require(!stdio.secret_env.contains_key(name), &field, || "is set in `secretEnv` too; keep one".into());
    }
    if let Some(cwd) = &stdio.cwd {
        check.require(!cwd.is_empty() && clean(cwd), &format!("{base}.cwd"), || "names no folder".into());
    }
    if let Some(isolation) = &stdio.isolation {
        crate::isolation::check(check, isolation);
    }
}

fn builtin_plugin(check: &mut Check<'_>, builtin: &BuiltinPlugin) {
    let base = "spec.source.builtin";
    let known: &[&str] = match builtin.name.as_str() {
        "echo" | "time" | "inference" => &[],
        "sql" => &["url", "maxRows", "timeoutMs"],
        other => {
            let text = format!("`{other}` is no built-in: use echo, time, sql or inference");
            return check.require(false, &format!("{base}.name"), || text);
        }
    };
    for setting in builtin.config.keys() {
        check.require(known.contains(&setting.as_str()), &format!("{base}.config.{setting}"), || {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("`{}` has no such setting; it has: {known}", builtin.name)
        });
    }
    if builtin.name == "sql" {
        let url = builtin.config.get("url").map_or("", String::as_str);
        let scheme = ["sqlite:", "postgres://", "postgresql://"].iter().any(|s| url.starts_with(s));
        check.require(scheme, &format!("{base}.config.url"), || "is needed: `sqlite:PATH` or `postgres://…`".into());
        for setting in ["maxRows", "timeoutMs"] {
            if let Some(value) = builtin.config.get(setting) {
                let valid = value.parse::<u64>().is_ok_and(|n| n > 0);
                check.require(valid, &format!("{base}.config.{setting}"), || {
                    format!("`{value}` is not a number above 0")
                });
            }
        }
    }
}

/// A token must lead to one key only.
pub(crate) fn check_unique_hashes(all: &Resources, problems: &mut Vec<Problem>) {
    let mut first: HashMap<&str, &ResourceKey> = HashMap::new();
    for (key, resource) in all.iter().filter(|(key, _)| key.kind == Kind::ApiKey) {
        if let Spec::ApiKey(spec) = &resource.spec
            && let Some(other) = first.insert(&spec.hash, key)
        {
            let text = format!("is the hash of {other} already; a token belongs to one key");
            problems.push(Problem::of_field(key, "spec.hash", CODE, text));
        }
    }
}
