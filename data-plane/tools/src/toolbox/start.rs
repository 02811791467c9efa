//! A plugin of its document.

use std::sync::Arc;

use provost_types::{Instances, Name, PluginSource, PluginSpec, Resource, Snapshot, UpstreamAuth};

use super::{Toolbox, recorded_digest, spec_digest};
use crate::{
    Plugin,
    plugin::Identity,
    rag::Rag,
    siblings::{Kin, PluginId},
};

impl Toolbox {
    /// Starts what serves a plugin's calls. What cannot be started is a plugin too, which says why.
    pub(super) fn start(
        &self,
        snapshot: &Snapshot,
        tenant: &Name,
        resource: &Resource,
        spec: &PluginSpec,
        before: Option<&Arc<Plugin>>,
    ) -> Plugin {
        let name = &resource.metadata.name;
        let id = || {
            let digests = (spec_digest(spec), recorded_digest(resource));
            Identity::new(tenant.clone(), name.clone(), digests, spec)
        };
        let started = match &spec.source {
            PluginSource::McpHttp(http) => self.http(tenant, name, spec, http).map(|u| Plugin::mcp(id(), u)),
            PluginSource::McpStdio(stdio) => self.stdio(tenant, name, spec, stdio).map(|u| Plugin::mcp(id(), u)),
            PluginSource::Builtin(builtin) => self.builtin(tenant, builtin).map(|b| Plugin::builtin(id(), b)),
            PluginSource::Wasm(wasm) => {
                let origin = self.origin(snapshot, tenant, wasm);
                let component =
                    origin.and_then(|origin| self.component((tenant, name), spec, (&**wasm, origin), before));
                component.map(|c| Plugin::component(id(), c, before))
            }
            PluginSource::OpenApi(api) => self.openapi(tenant, name, spec, api).map(|api| Plugin::openapi(id(), api)),
            PluginSource::Grpc(grpc) => self.grpc(tenant, name, spec, grpc).map(|grpc| Plugin::grpc(id(), grpc)),
            PluginSource::Rag(rag) => {
                let (deps, pause) = (&self.deps, self.deps.limits.corpus_pause);
                let rag = Rag::start((tenant, name), rag, &deps.inference, &self.indexes, pause);
                Ok(Plugin::rag(id(), rag))
            }
        };
        started.unwrap_or_else(|cause| Plugin::broken(id(), cause))
    }

    /// Its place among the nodes. With its callers' rights a plugin has none: their tokens stay on the node that took
    /// the call.
    pub(super) fn kin(&self, tenant: &Name, name: &Name, spec: &PluginSpec) -> Option<Kin> {
        let nodes = self.deps.siblings.clone()?;
        let is_single = match &spec.source {
            PluginSource::McpHttp(http) => match http.auth.as_deref() {
                Some(UpstreamAuth::TokenExchange(_) | UpstreamAuth::PerUser(_)) => return None,
                _ => false,
            },
            PluginSource::McpStdio(stdio) => stdio.instances == Instances::One,
            PluginSource::Builtin(_)
            | PluginSource::OpenApi(_)
            | PluginSource::Grpc(_)
            | PluginSource::Wasm(_)
            | PluginSource::Rag(_) => false,
        };
        let plugin = PluginId { tenant: tenant.clone(), name: name.clone(), digest: spec_digest(spec) };
        Some(Kin { plugin, nodes, is_single })
    }
}
