//! How plugins are told apart, and when one is another.

use std::sync::Arc;

use provost_types::{FileDigest, Kind, Name, PluginSource, PluginSpec, Resource, ResourceKey, Snapshot, Spec};
use sha2::{Digest, Sha256};

use super::wasm::publishers;
use crate::secrets::secrets_of;

/// The package that a plugin runs.
pub(super) fn package_of(spec: &PluginSpec) -> Option<FileDigest> {
    match &spec.source {
        PluginSource::Wasm(wasm) => wasm.package,
        _ => None,
    }
}

/// What the audit log names as `plugin_digest`, hexadecimal: the SHA-256 of the package that a plugin runs, else that of
/// its typed spec as JSON.
pub fn recorded_digest(resource: &Resource) -> Arc<str> {
    if let Spec::Plugin(spec) = &resource.spec
        && let Some(package) = package_of(spec)
    {
        return hex::encode(package.as_bytes()).into();
    }
    hex::encode(Sha256::digest(serde_json::to_vec(&resource.spec).unwrap_or_default())).into()
}

/// SHA-256 of a plugin's spec as JSON, hexadecimal: how nodes know that they run the same.
pub fn spec_digest(spec: &PluginSpec) -> Arc<str> {
    hex::encode(Sha256::digest(spec_bytes(spec))).into()
}

pub(super) fn spec_bytes(spec: &PluginSpec) -> Vec<u8> {
    // A spec is plain data with text keys, which always serialises.
    serde_json::to_vec(spec).unwrap_or_default()
}

/// The spec, the versions of the secrets that it uses, and of a package the keys that may have signed it.
pub(super) fn fingerprint(snapshot: &Snapshot, tenant: &Name, spec: &PluginSpec, spec_hash: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(spec_hash);
    for secret in secrets_of(spec) {
        let key = ResourceKey { kind: Kind::Secret, tenant: Some(tenant.clone()), name: secret };
        let version = match snapshot.get(&key).map(|r| &r.spec) {
            Some(Spec::Secret(secret)) => secret.sealed.as_ref().map_or(0, |s| s.version),
            _ => 0,
        };
        hash.update(version.to_be_bytes());
    }
    if package_of(spec).is_some() {
        for (publisher, keys) in publishers(snapshot, tenant) {
            hash.update(publisher.as_str());
            keys.iter().for_each(|key| hash.update(key.as_bytes()));
        }
    }
    hash.finalize().into()
}
