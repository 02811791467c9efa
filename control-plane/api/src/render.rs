//! Resources as people see them. Sealed values never appear.

use provost_types::{GuardSpec, ModelFiles, ModelSpec, PluginSource, Resource, Spec};
use serde_json::{Value, json};

use crate::documents::API_VERSION;

/// The document that would make this resource again.
pub fn document_json(resource: &Resource) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": resource.spec.kind().as_str(),
        "metadata": resource.metadata,
        "spec": spec_json(&resource.spec),
    })
}

/// The document as YAML.
pub fn document_yaml(resource: &Resource) -> String {
    // Plain maps, lists and scalars: the serializer has no case to refuse.
    serde_saphyr::to_string(&document_json(resource)).unwrap_or_default()
}

/// The part of a document that a change can touch: labels and spec.
pub(crate) fn comparable(resource: &Resource) -> Value {
    json!({ "metadata": { "labels": resource.metadata.labels }, "spec": comparable_spec(&resource.spec) })
}

fn comparable_spec(spec: &Spec) -> Value {
    let mut value = spec_json(spec);
    if let (Spec::Secret(_) | Spec::Connection(_), Some(fields)) = (spec, value.as_object_mut()) {
        let version = provost_control_state::sealed(spec).map_or(0, |s| s.version);
        fields.insert("valueVersion".to_owned(), version.into());
    }
    value
}

fn spec_json(spec: &Spec) -> Value {
    let value = match spec {
        Spec::Tenant(s) => serde_json::to_value(s),
        Spec::Principal(s) => serde_json::to_value(s),
        Spec::ApiKey(s) => serde_json::to_value(s),
        Spec::Role(s) => serde_json::to_value(s),
        Spec::RoleBinding(s) => serde_json::to_value(s),
        Spec::Policy(s) => serde_json::to_value(s),
        Spec::Plugin(s) => serde_json::to_value(s),
        Spec::Secret(s) => {
            let mut shown = s.clone();
            shown.sealed = None;
            serde_json::to_value(shown)
        }
        Spec::Quota(s) => serde_json::to_value(s),
        Spec::NodeGroup(s) => serde_json::to_value(s),
        Spec::Price(s) => serde_json::to_value(s),
        Spec::Guard(s) => serde_json::to_value(s),
        Spec::KillSwitch(s) => serde_json::to_value(s),
        Spec::IdentityProvider(s) => serde_json::to_value(s),
        Spec::ToolPins(s) => serde_json::to_value(s),
        Spec::ToolAlias(s) => serde_json::to_value(s),
        Spec::Publisher(s) => serde_json::to_value(s),
        Spec::Model(s) => serde_json::to_value(s),
        Spec::Connection(s) => {
            let mut shown = s.clone();
            shown.sealed = None;
            serde_json::to_value(shown)
        }
    };
    // Maps with text keys and plain scalars only: this cannot fail.
    value.unwrap_or_default()
}

fn guard_summary(spec: &GuardSpec) -> String {
    let counted = [(spec.rules.len(), "rules"), (spec.dictionaries.len(), "dictionaries"), (spec.paths.len(), "paths")];
    let parts = counted.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
    let parts: Vec<String> = parts.chain(spec.external.as_ref().map(|external| external.url.clone())).collect();
    let ways: Vec<String> = spec.directions.iter().map(|d| format!("{d:?}").to_lowercase()).collect();
    format!("{}, {}, {}", format!("{:?}", spec.mode).to_lowercase(), ways.join(" and "), parts.join(", "))
}

fn model_summary(spec: &ModelSpec) -> String {
    let source = match &spec.source {
        ModelFiles::Blob(digest) => digest.to_string(),
        ModelFiles::Path(path) => path.clone(),
    };
    let priority = format!("{:?}", spec.priority).to_lowercase();
    let pinned = if spec.pinned { ", pinned" } else { "" };
    let tenants: Vec<&str> = spec.tenants.iter().map(|tenant| tenant.as_str()).collect();
    let of = if tenants.is_empty() { String::new() } else { format!(", of {}", tenants.join(", ")) };
    format!("{source}, {priority}{pinned}{of}")
}

/// One line for tables: what matters most of this kind.
pub fn summary(resource: &Resource) -> String {
    match &resource.spec {
        Spec::Tenant(s) => s.display_name.clone(),
        Spec::Principal(s) => {
            let mut words = vec![format!("{:?}", s.principal_type).to_lowercase()];
            words.extend(s.admin.then(|| "admin".to_owned()));
            words.extend(s.disabled.then(|| "disabled".to_owned()));
            words.join(", ")
        }
        Spec::ApiKey(s) => match &s.expires {
            Some(expires) => format!("of {}, until {expires}", s.principal),
            None => format!("of {}", s.principal),
        },
        Spec::Role(s) => format!("{} rules", s.rules.len()),
        Spec::RoleBinding(s) => {
            let names: Vec<&str> = s.principals.iter().map(|p| p.as_str()).collect();
            let until = s.expires.as_ref().map_or(String::new(), |e| format!(", until {e}"));
            format!("{} to {}{until}", s.role, names.join(", "))
        }
        Spec::Policy(s) => format!("{:?}, {} bytes", s.mode, s.cedar.len()).to_lowercase(),
        Spec::Plugin(s) => match &s.source {
            PluginSource::McpHttp(http) => http.url.clone(),
            PluginSource::McpStdio(stdio) => format!("runs {}", stdio.command),
            PluginSource::Builtin(builtin) => format!("built-in {}", builtin.name),
            PluginSource::Wasm(wasm) => match (&wasm.package, &wasm.file) {
                (Some(package), _) => format!("package {package}"),
                (None, file) => format!("component {}", file.as_deref().unwrap_or_default()),
            },
            PluginSource::Rag(rag) => format!("documents of {}", rag.folder),
            PluginSource::OpenApi(api) => {
                format!("OpenAPI, {}", api.server_url().or(api.document_url.as_deref()).unwrap_or_default())
            }
            PluginSource::Grpc(grpc) => format!("gRPC, {}", grpc.url),
        },
        Spec::Secret(s) => match &s.sealed {
            Some(sealed) => format!("value set (version {})", sealed.version),
            None => "no value".to_owned(),
        },
        Spec::Quota(s) => format!("{} {:?}", s.limit, s.unit).to_lowercase(),
        Spec::NodeGroup(s) => {
            let names: Vec<&str> = s.nodes.iter().chain(&s.roles).map(String::as_str).collect();
            format!("{} first, for {} s", names.join(", "), s.hold_s)
        }
        Spec::Price(s) => {
            let names: Vec<&str> = s.tools.iter().chain(&s.models).map(String::as_str).collect();
            format!("{} for {}", s.currency, names.join(", "))
        }
        Spec::Guard(s) => guard_summary(s),
        Spec::KillSwitch(s) => format!("{}: {}", s.scope(resource.metadata.tenant.as_ref()), s.reason),
        Spec::IdentityProvider(s) => format!("{}, {:?} principals", s.issuer, s.principals).to_lowercase(),
        Spec::ToolPins(s) => {
            let waits = s.tools.values().filter(|pin| pin.changed.is_some()).count();
            format!("{} tools, {waits} wait for approval", s.tools.len())
        }
        Spec::Publisher(s) => format!("{} keys", s.keys.len()),
        Spec::Model(s) => model_summary(s),
        Spec::Connection(s) => format!("{} with {}, since {}", s.principal, s.plugin, s.since),
        Spec::ToolAlias(s) => {
            let targets: Vec<String> = s.targets.iter().map(|t| format!("{} ({})", t.tool, t.weight)).collect();
            targets.join(", ")
        }
    }
}
