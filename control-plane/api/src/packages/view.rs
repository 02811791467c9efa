//! A package as administrators see it.

use provost_control_state::{PackageKey, State, StoredPackage};
use provost_types::{FileDigest, Kind, Name, PluginSource, Resource, ResourceKey, Spec};
use provost_wire::packages as wire;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The package that a plugin runs.
pub(super) fn package_of(resource: &Resource) -> Option<FileDigest> {
    match &resource.spec {
        Spec::Plugin(spec) => match &spec.source {
            PluginSource::Wasm(wasm) => wasm.package,
            _ => None,
        },
        _ => None,
    }
}

/// The tenant's plugins that run a package.
fn plugins_of(state: &State, key: &PackageKey) -> Vec<String> {
    let from = ResourceKey { kind: Kind::Plugin, tenant: Some(key.tenant.clone()), name: Name::smallest() };
    let own = state.resources().range(from..);
    let own = own.take_while(|(at, _)| at.kind == Kind::Plugin && at.tenant.as_ref() == Some(&key.tenant));
    let running = own.filter(|(_, resource)| package_of(resource) == Some(key.digest));
    running.map(|(at, _)| at.name.to_string()).collect()
}

pub(super) fn view(state: &State, key: &PackageKey, package: &StoredPackage) -> wire::PackageView {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(package.time_ns)).ok();
    let time = time.and_then(|time| time.replace_nanosecond(0).ok()?.format(&Rfc3339).ok());
    let facts = &package.facts;
    wire::PackageView {
        tenant: key.tenant.to_string(),
        digest: key.digest.to_string(),
        name: facts.name.to_string(),
        version: facts.version.clone(),
        publisher: facts.publisher.to_string(),
        key: facts.key.to_string(),
        bytes: facts.bytes,
        stored: time.unwrap_or_default(),
        by: package.by.clone(),
        plugins: plugins_of(state, key),
        was_stored: false,
    }
}
