//! Whether a plugin may run the package that it names.

use provost_types::{
    FileDigest, Kind, PluginSource, PublisherSpec, Resource, ResourceKey, Resources, Spec, WasmSource,
};

use super::{PackageFacts, PackageKey, Packages};
use crate::{ChangeKind, Problem, fields::Check, wasm::BASE};

/// Keys of one publisher.
const MAX_KEYS: usize = 16;
/// Bytes of a publisher's description.
const MAX_DESCRIPTION_BYTES: usize = 4_096;

/// Checks a publisher by itself.
pub(crate) fn check_publisher(check: &mut Check<'_>, spec: &PublisherSpec) {
    let count = spec.keys.len();
    check.require((1..=MAX_KEYS).contains(&count), "spec.keys", || {
        format!("has {count} keys; a publisher has 1 to {MAX_KEYS}: `provost plugin sign` prints them")
    });
    let bytes = spec.description.len();
    check.require(bytes <= MAX_DESCRIPTION_BYTES, "spec.description", || {
        format!("has {bytes} bytes; at most {MAX_DESCRIPTION_BYTES}")
    });
}

fn package_of(resource: &Resource) -> Option<FileDigest> {
    let Spec::Plugin(spec) = &resource.spec else { return None };
    let PluginSource::Wasm(wasm) = &spec.source else { return None };
    match wasm.source()? {
        WasmSource::Package(digest) => Some(digest),
        WasmSource::File { .. } => None,
    }
}

/// Each plugin that is changed to another package: it is stored, and signed by whom the tenant trusts then. A plugin
/// that keeps its package can be changed whoever is trusted: to take something from it cannot wait for a signature.
pub(crate) fn check_plugins(
    packages: &Packages,
    before: &Resources,
    report: &[(ResourceKey, ChangeKind)],
    after: &Resources,
    problems: &mut Vec<Problem>,
) {
    for (key, _) in report
        .iter()
        .filter(|(key, kind)| key.kind == Kind::Plugin && matches!(kind, ChangeKind::Created | ChangeKind::Updated))
    {
        let (Some(tenant), Some(digest)) = (&key.tenant, after.get(key).and_then(|r| package_of(r))) else { continue };
        if before.get(key).and_then(|r| package_of(r)) == Some(digest) {
            continue;
        }
        let field = format!("{BASE}.package");
        let Some(package) = packages.get(&PackageKey { tenant: tenant.clone(), digest }) else {
            let text = format!("the package {digest} is not stored for tenant {tenant}");
            let hint = "`provost plugin install FILE` stores a package; `provost plugin packages` lists those that are";
            problems.push(Problem::of_field(key, field, "PV-PACKAGE-MISSING", text).hint(hint));
            continue;
        };
        if let Some(why) = distrust(&package.facts, key, after) {
            let hint = "if you trust the key, apply a Publisher with it";
            problems.push(Problem::of_field(key, field, "PV-PACKAGE-PUBLISHER", why).hint(hint));
        }
    }
}

/// Why a package is not to be used; `None`: it may be.
fn distrust(facts: &PackageFacts, plugin: &ResourceKey, all: &Resources) -> Option<String> {
    let publisher = ResourceKey { kind: Kind::Publisher, tenant: plugin.tenant.clone(), name: facts.publisher.clone() };
    let title = format!("package {} {}", facts.name, facts.version);
    match all.get(&publisher).map(|resource| &resource.spec) {
        Some(Spec::Publisher(spec)) if spec.keys.contains(&facts.key) => None,
        Some(_) => Some(format!("{title} is signed by {}, which is no key of {publisher}", facts.key)),
        None => Some(format!("{title} is of {publisher}, which does not exist; {} signed it", facts.key)),
    }
}
