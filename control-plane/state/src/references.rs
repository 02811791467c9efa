//! Which resource points at which, and that nothing points at nothing.

use std::collections::BTreeSet;

use provost_types::{GuardAuth, Kind, Metadata, Name, PluginSource, Resource, ResourceKey, Spec};

use crate::{Problem, Resources, upstreams::Reached};

/// The fields of a resource that name another, with what they name.
pub(crate) fn of(metadata: &Metadata, spec: &Spec) -> Vec<(String, ResourceKey)> {
    let tenant = metadata.tenant.as_ref();
    let mut found = Vec::new();
    // A switch may be on for what does not exist yet, and hinders nobody in deleting it.
    let tenant = tenant.filter(|_| !matches!(spec, Spec::KillSwitch(_)));
    if let Some(tenant) = tenant {
        let key = ResourceKey { kind: Kind::Tenant, tenant: None, name: tenant.clone() };
        found.push(("metadata.tenant".to_owned(), key));
    }
    let mut sibling = |field: String, kind: Kind, name: &Name| {
        found.push((field, ResourceKey { kind, tenant: tenant.cloned(), name: name.clone() }));
    };
    match spec {
        Spec::ApiKey(spec) => sibling("spec.principal".to_owned(), Kind::Principal, &spec.principal),
        Spec::RoleBinding(spec) => {
            sibling("spec.role".to_owned(), Kind::Role, &spec.role);
            for (i, name) in spec.principals.iter().enumerate() {
                sibling(format!("spec.principals[{i}]"), Kind::Principal, name);
            }
        }
        Spec::Quota(spec) => {
            for (i, name) in spec.principals.iter().enumerate() {
                sibling(format!("spec.principals[{i}]"), Kind::Principal, name);
            }
        }
        Spec::Guard(spec) => {
            for (i, name) in spec.principals.iter().enumerate() {
                sibling(format!("spec.principals[{i}]"), Kind::Principal, name);
            }
            let reveal = spec.reveal.as_ref();
            for (i, name) in reveal.iter().flat_map(|r| &r.principals).enumerate() {
                sibling(format!("spec.reveal.principals[{i}]"), Kind::Principal, name);
            }
            for (i, name) in reveal.iter().flat_map(|r| &r.roles).enumerate() {
                sibling(format!("spec.reveal.roles[{i}]"), Kind::Role, name);
            }
            let auth = spec.external.iter().filter_map(|external| external.auth.as_ref());
            for (field, reference) in auth.flat_map(GuardAuth::secrets) {
                sibling(format!("spec.external.auth.{field}.secret"), Kind::Secret, &reference.secret);
            }
        }
        Spec::IdentityProvider(spec) => {
            for (field, name) in crate::identity::roles(spec) {
                sibling(field, Kind::Role, name);
            }
        }
        Spec::Plugin(spec) => match &spec.source {
            PluginSource::McpHttp(http) => {
                for (field, reference) in Reached::from(http).secrets() {
                    sibling(format!("{field}.secret"), Kind::Secret, &reference.secret);
                }
            }
            PluginSource::OpenApi(api) => {
                for (field, reference) in Reached::from(&**api).secrets() {
                    sibling(format!("{field}.secret"), Kind::Secret, &reference.secret);
                }
            }
            PluginSource::Grpc(grpc) => {
                for (field, reference) in Reached::from(&**grpc).secrets() {
                    sibling(format!("{field}.secret"), Kind::Secret, &reference.secret);
                }
            }
            PluginSource::McpStdio(stdio) => {
                for (variable, reference) in &stdio.secret_env {
                    let field = format!("spec.source.mcp-stdio.secretEnv.{variable}.secret");
                    sibling(field, Kind::Secret, &reference.secret);
                }
            }
            PluginSource::Wasm(wasm) => {
                for (alias, credential) in &wasm.credentials {
                    let field = format!("{}.credentials.{alias}.value.secret", crate::wasm::BASE);
                    sibling(field, Kind::Secret, &credential.value.secret);
                }
            }
            PluginSource::Builtin(_) | PluginSource::Rag(_) => {}
        },
        Spec::ToolPins(_) => sibling("metadata.name".to_owned(), Kind::Plugin, &metadata.name),
        // Its principal may be one that an identity provider vouches for, and no resource.
        Spec::Connection(spec) => sibling("spec.plugin".to_owned(), Kind::Plugin, &spec.plugin),
        Spec::Model(spec) => {
            for (i, name) in spec.tenants.iter().enumerate() {
                let key = ResourceKey { kind: Kind::Tenant, tenant: None, name: name.clone() };
                found.push((format!("spec.tenants[{i}]"), key));
            }
        }
        // Its tools may come later: which ones a plugin has is for its upstream to say.
        Spec::ToolAlias(_) => {}
        Spec::Tenant(_)
        | Spec::Principal(_)
        | Spec::Role(_)
        | Spec::Policy(_)
        | Spec::Secret(_)
        | Spec::NodeGroup(_)
        | Spec::Price(_)
        | Spec::Publisher(_)
        | Spec::KillSwitch(_) => {}
    }
    found
}

/// Everything that a resource names must exist.
pub(crate) fn check_targets(resource: &Resource, all: &Resources, problems: &mut Vec<Problem>) {
    for (field, target) in of(&resource.metadata, &resource.spec) {
        if !all.contains_key(&target) {
            let hint = match target.kind {
                Kind::Secret => format!("set it first: `provost secret set {}`", target.name),
                kind => format!("apply that {kind} too, in the same transaction or before"),
            };
            problems.push(
                Problem::of_field(&resource.key(), field, "PV-RES-REFERENCE", format!("{target} does not exist"))
                    .hint(hint),
            );
        }
    }
}

/// Nothing that stays may name what is deleted.
pub(crate) fn check_unused(deleted: &BTreeSet<&ResourceKey>, all: &Resources, problems: &mut Vec<Problem>) {
    if deleted.is_empty() {
        return;
    }
    for resource in all.values() {
        for (field, target) in of(&resource.metadata, &resource.spec) {
            if deleted.contains(&target) {
                let text = format!("is still used by {} ({field})", resource.key());
                problems.push(
                    Problem::of_field(&target, "", "PV-RES-IN-USE", text)
                        .hint("delete or change that first, or in the same transaction"),
                );
            }
        }
    }
}
