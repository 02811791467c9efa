//! WebAssembly components: where they come from, and what they are given.

use std::{collections::BTreeMap, sync::Arc};

use provost_types::{HostPattern, Kind, Name, PluginSpec, Resource, Snapshot, Spec, WasmPlugin, WasmSource};
use secrecy::ExposeSecret;

use super::{
    Toolbox,
    given::{header_name, header_value},
};
use crate::{
    Plugin, UpstreamError,
    component::{Component, Credential, Door, Origin, PackageOrigin, Parts, Publishers},
};

impl Toolbox {
    /// Where the component of a plugin comes from.
    pub(super) fn origin(
        &self,
        snapshot: &Snapshot,
        tenant: &Name,
        spec: &WasmPlugin,
    ) -> Result<Origin, UpstreamError> {
        match spec.source() {
            Some(WasmSource::File { name, digest }) => Ok(Origin::File { path: self.engines.file(name), digest }),
            Some(WasmSource::Package(digest)) => Ok(Origin::Package(PackageOrigin {
                tenant: tenant.clone(),
                digest,
                publishers: publishers(snapshot, tenant),
                port: self.deps.packages.clone(),
                files: self.engines.packages(),
            })),
            None => {
                let text = "it names neither a `package` nor a `file` with its `digest`";
                Err(UpstreamError::Config(text.to_owned()))
            }
        }
    }

    pub(super) fn component(
        &self,
        (tenant, name): (&Name, &Name),
        plugin: &PluginSpec,
        (spec, origin): (&WasmPlugin, Origin),
        before: Option<&Arc<Plugin>>,
    ) -> Result<Arc<Component>, UpstreamError> {
        let mut credentials = BTreeMap::new();
        for (alias, credential) in &spec.credentials {
            let header = header_name(&credential.header)?;
            let mut value = header_value(&credential.header, self.secret(tenant, &credential.value)?.expose_secret())?;
            value.set_sensitive(true);
            let hosts = credential.hosts.iter().map(|host| host.parse::<HostPattern>()).collect::<Result<_, _>>();
            let hosts = hosts.map_err(|cause| UpstreamError::Config(cause.to_string()))?;
            credentials.insert(alias.clone(), Credential { header, value, hosts });
        }
        let door = match spec.egress.as_deref().filter(|egress| !egress.allow_hosts.is_empty()) {
            Some(egress) => {
                let (client, redactor) = (self.client(Some(egress))?, self.redactor(tenant, plugin));
                Some(Door { client, credentials, redactor })
            }
            None => None,
        };
        let store = before.and_then(|before| before.as_component()).map(|c| c.store().clone()).unwrap_or_default();
        let changes = self.changes.clone();
        let changed = move || changes.send_modify(|n| *n += 1);
        Component::start(Parts { tenant, name, spec, origin, door, store }, &self.engines, changed)
    }
}

/// Whom a tenant trusts.
pub(super) fn publishers(snapshot: &Snapshot, tenant: &Name) -> Publishers {
    let of = |resource: &Arc<Resource>| match &resource.spec {
        Spec::Publisher(spec) => Some((resource.metadata.name.clone(), spec.keys.iter().copied().collect())),
        _ => None,
    };
    snapshot.of_tenant(Kind::Publisher, tenant).filter_map(of).collect()
}
