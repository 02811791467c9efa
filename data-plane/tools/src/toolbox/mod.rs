//! All plugins of all tenants, kept in step with the snapshot.
//!
//! - `deps`: what plugins need of the node.
//! - `lookup`: what others find out about the plugins that run, and ask of them.
//! - `start`: a plugin of its document; `mcp`, `services`, `wasm`, `builtin`: what starts each kind of source.
//! - `given`: what plugins are given of their tenant: secrets, headers, clients, what proves who they are.
//! - `ended`: consents of users that somebody else ended.
//! - `digests`: how plugins are told apart, and when one is another.

mod builtin;
mod deps;
mod digests;
mod ended;
mod given;
mod lookup;
mod mcp;
mod services;
mod start;
mod wasm;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
pub use deps::{SecretSource, ToolboxDeps};
use digests::{fingerprint, package_of, spec_bytes};
pub use digests::{recorded_digest, spec_digest};
use parking_lot::Mutex;
use provost_types::{FileDigest, Kind, Name, PluginSource, PluginSpec, Resource, Revision, Snapshot, Spec};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{Plugin, component::Engines, rag::Indexes, secrets::secrets_of};

/// By tenant, then by name: a call looks some up several times, and makes no key for it.
type Plugins = HashMap<Name, BTreeMap<Name, Running>>;

#[derive(Clone)]
struct Running {
    /// What it was made of.
    resource: Arc<Resource>,
    /// SHA-256 of the spec: a document in it may be large, and is hashed once.
    spec_hash: [u8; 32],
    /// Changes when the spec does, or a secret that it uses, or whom its tenant trusts if it is of a package.
    fingerprint: [u8; 32],
    plugin: Arc<Plugin>,
}

impl Running {
    /// Whether it is the plugin of this document still, for sure: nothing needs to be compared then.
    fn is_of(&self, resource: &Arc<Resource>, spec: &PluginSpec) -> bool {
        Arc::ptr_eq(&self.resource, resource) && secrets_of(spec).is_empty() && package_of(spec).is_none()
    }
}

/// The running plugins.
pub struct Toolbox {
    deps: ToolboxDeps,
    plugins: ArcSwap<Plugins>,
    /// One reconciliation at a time.
    reconciling: Mutex<()>,
    engines: Engines,
    indexes: Indexes,
    /// Counts what changed of the plugins, or of what serves in their names.
    changes: watch::Sender<u64>,
}

impl Toolbox {
    /// A toolbox without plugins.
    pub fn new(deps: ToolboxDeps) -> Arc<Self> {
        let (engines, indexes) = (Engines::new(&deps.data_dir), Indexes::new(&deps.data_dir));
        let (plugins, changes) = (ArcSwap::from_pointee(Plugins::new()), watch::Sender::new(0));
        Arc::new(Self { deps, plugins, reconciling: Mutex::new(()), engines, indexes, changes })
    }

    /// Starts, keeps, replaces and stops plugins so that they are the snapshot's. Connects to
    /// nothing: that happens at a plugin's first use. Must be called within a tokio runtime.
    pub fn reconcile(&self, snapshot: &Snapshot) {
        let _one = self.reconciling.lock();
        let ended = self.deps.connections.as_ref().map(|connections| connections.renew(snapshot));
        let old = self.plugins.load_full();
        let mut new = Plugins::new();
        for resource in snapshot.of_kind(Kind::Plugin) {
            let (Some(tenant), Spec::Plugin(spec)) = (&resource.metadata.tenant, &resource.spec) else {
                continue;
            };
            let name = &resource.metadata.name;
            let before = old.get(tenant).and_then(|plugins| plugins.get(name));
            let running = match before {
                Some(running) if running.is_of(resource, spec) => running.clone(),
                _ => {
                    let same = before.filter(|running| Arc::ptr_eq(&running.resource, resource));
                    let spec_hash = same.map_or_else(|| Sha256::digest(spec_bytes(spec)).into(), |r| r.spec_hash);
                    let fingerprint = fingerprint(snapshot, tenant, spec, &spec_hash);
                    let kept = before.filter(|running| running.fingerprint == fingerprint);
                    let plugin = kept.map(|running| running.plugin.clone());
                    let replaced = before.map(|running| &running.plugin);
                    let plugin =
                        plugin.unwrap_or_else(|| Arc::new(self.start(snapshot, tenant, resource, spec, replaced)));
                    Running { resource: resource.clone(), spec_hash, fingerprint, plugin }
                }
            };
            new.entry(tenant.clone()).or_default().insert(name.clone(), running);
        }
        let new = Arc::new(new);
        self.plugins.store(new.clone());
        for (tenant, plugins) in old.iter() {
            let now = new.get(tenant);
            for (name, running) in plugins {
                let now = now.and_then(|plugins| plugins.get(name));
                if now.is_none_or(|now| !Arc::ptr_eq(&now.plugin, &running.plugin)) {
                    running.plugin.retire();
                }
            }
        }
        // A node that stops has no connections either: nobody ended them.
        if let Some(ended) = ended.filter(|ended| !ended.is_empty() && snapshot.revision != Revision::default()) {
            let find = |all: &Plugins, tenant: &Name, name: &Name| Some(all.get(tenant)?.get(name)?.plugin.clone());
            self.tell_of_ends(ended, |tenant, name| find(&new, tenant, name).or_else(|| find(&old, tenant, name)));
        }
        self.sweep(snapshot);
        let plugins_of =
            |all: &Plugins| all.values().flat_map(BTreeMap::values).map(|r| Arc::as_ptr(&r.plugin)).collect();
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (plugins_of(&old), plugins_of(&new));
        if old != new {
            self.changes.send_modify(|n| *n += 1);
            self.prune_packages(snapshot);
        }
    }

    /// Removes the packages that no plugin names any more, beside everything else.
    fn prune_packages(&self, snapshot: &Snapshot) {
        // A node that stops, or has no state that it could run, says nothing of what it will need.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if snapshot.resources.is_empty() {
            return;
        }
        let of = |resource: &Arc<Resource>| match &resource.spec {
            Spec::Plugin(spec) => package_of(spec),
            _ => None,
        };
        let wanted: BTreeSet<FileDigest> = snapshot.of_kind(Kind::Plugin).filter_map(of).collect();
        let files = self.engines.packages();
        runtime.spawn_blocking(move || files.prune(&wanted));
    }

    /// Removes indexes of documents whose plugin is gone. A node that stops has no plugins, and keeps them.
    fn sweep(&self, snapshot: &Snapshot) {
        let is_rag =
            |spec: &Spec| matches!(spec, Spec::Plugin(plugin) if matches!(plugin.source, PluginSource::Rag(_)));
        let plugins = snapshot.of_kind(Kind::Plugin);
        let kept = plugins.filter(|resource| is_rag(&resource.spec));
        let kept = kept.filter_map(|r| Some((r.metadata.tenant.clone()?, r.metadata.name.clone()))).collect();
        if snapshot.revision != Revision::default() {
            self.indexes.sweep(kept);
        }
    }

    /// Stops every plugin; calls under way finish.
    pub fn stop(&self) {
        self.reconcile(&Snapshot::default());
    }
}
