//! Plugins of packages: installed, put back, and started anew. Each is a change of one document.

use provost_control_state::{ChangeKind, Draft, Event, PackageKey, State};
use provost_types::{FileDigest, Kind, Metadata, Name, PluginSource, PluginSpec, ResourceKey, Spec, WasmPlugin};
use provost_wire::packages as wire;

use super::view::{package_of, view};
use crate::{
    Caller, ControlError, ControlNode, ErrorKind, Unread,
    change::Wanted,
    operations::{choose_definitions, metadata_of},
};

type Config = serde_json::Map<String, serde_json::Value>;

/// What is to be installed, and as what.
#[derive(Clone, Debug)]
pub struct InstallPlugin {
    /// The plugin's tenant.
    pub tenant: Name,
    /// The plugin.
    pub name: Name,
    /// The package.
    pub package: FileDigest,
    /// Its configuration; `None`: as it was.
    pub config: Option<Config>,
    /// Why.
    pub reason: String,
}

fn key_of(tenant: &Name, name: &Name) -> ResourceKey {
    ResourceKey { kind: Kind::Plugin, tenant: Some(tenant.clone()), name: name.clone() }
}

/// A plugin as it is; an error where there is none.
fn plugin_of(state: &State, key: &ResourceKey) -> Result<(Metadata, PluginSpec), ControlError> {
    match state.resources().get(key).map(|r| (&r.metadata, &r.spec)) {
        Some((metadata, Spec::Plugin(spec))) => Ok((metadata.clone(), spec.clone())),
        _ => {
            let hint = "`provost plugin list` lists what exists";
            Err(ControlError::new(ErrorKind::NotFound, "PV-RES-NOT-FOUND", format!("{key} does not exist"), hint))
        }
    }
}

/// A plugin that nobody has yet: it is given nothing but what is said.
fn new_plugin() -> PluginSpec {
    PluginSpec {
        description: String::new(),
        source: PluginSource::Wasm(Box::default()),
        timeout_ms: 0,
        max_concurrency: 0,
        resilience: None,
        definitions: None,
        reloads: 0,
    }
}

/// Names another package, and another configuration if there is one. What the plugin is granted stays.
fn change_to(
    spec: &mut PluginSpec,
    key: &ResourceKey,
    package: FileDigest,
    config: Option<Config>,
) -> Result<(), ControlError> {
    let PluginSource::Wasm(wasm) = &mut spec.source else {
        let text = format!("{key} is no component, and a package has one");
        let hint = "install it under another name: --name NAME";
        return Err(ControlError::new(ErrorKind::Refused, "PV-PACKAGE-PLUGIN", text, hint));
    };
    (wasm.package, wasm.file, wasm.digest) = (Some(package), None, None);
    if let Some(config) = config {
        wasm.config = config;
    }
    Ok(())
}

/// The package that a plugin had before the present one, with its configuration.
fn before(state: &State, key: &ResourceKey) -> Result<(FileDigest, Config), ControlError> {
    let now = state.resources().get(key).and_then(|r| package_of(r));
    let changes = state.history().iter().rev().flat_map(|entry| entry.changes.iter().rev());
    let olds = changes.filter(|change| change.key == *key).filter_map(|change| change.old.as_ref());
    for old in olds {
        let Spec::Plugin(PluginSpec { source: PluginSource::Wasm(wasm), .. }) = &old.spec else { continue };
        let WasmPlugin { package: Some(package), config, .. } = &**wasm else { continue };
        if Some(*package) != now {
            return Ok((*package, config.clone()));
        }
    }
    let text = format!("the history has no other package of {key}");
    let hint = "`provost plugin packages` lists those that are stored; `provost plugin install DIGEST` runs one";
    Err(ControlError::new(ErrorKind::NotFound, "PV-PACKAGE-NONE-BEFORE", text, hint))
}

fn with_reason(what: String, reason: &str) -> String {
    match reason.trim() {
        "" => what,
        reason => format!("{what}: {reason}"),
    }
}

impl ControlNode {
    /// Makes a plugin of a stored package, or changes one to it.
    pub async fn plugin_install(
        &self,
        caller: &Caller,
        wanted: InstallPlugin,
    ) -> Result<wire::InstalledPluginResponse, ControlError> {
        let InstallPlugin { tenant, name, package, config, reason } = wanted;
        let key = key_of(&tenant, &name);
        let message = with_reason(format!("plugin {name}: install {package}"), &reason);
        self.change_plugin(caller, &key, &message, |state| {
            let (metadata, mut spec) = if state.resources().contains_key(&key) {
                plugin_of(state, &key)?
            } else {
                (metadata_of(&key), new_plugin())
            };
            change_to(&mut spec, &key, package, config.clone())?;
            Ok((metadata, spec))
        })
        .await
    }

    /// Changes a plugin to the package that it had before, with the configuration that it had then.
    pub async fn plugin_rollback(
        &self,
        caller: &Caller,
        (tenant, name): (&Name, &Name),
        reason: &str,
    ) -> Result<wire::InstalledPluginResponse, ControlError> {
        let key = key_of(tenant, name);
        let message = with_reason(format!("plugin {name}: back to the package before"), reason);
        self.change_plugin(caller, &key, &message, |state| {
            let (metadata, mut spec) = plugin_of(state, &key)?;
            let (package, config) = before(state, &key)?;
            change_to(&mut spec, &key, package, Some(config))?;
            Ok((metadata, spec))
        })
        .await
    }

    /// Has every node start a plugin anew.
    pub async fn plugin_reload(
        &self,
        caller: &Caller,
        (tenant, name): (&Name, &Name),
        reason: &str,
    ) -> Result<wire::InstalledPluginResponse, ControlError> {
        let key = key_of(tenant, name);
        let message = with_reason(format!("plugin {name}: reload"), reason);
        self.change_plugin(caller, &key, &message, |state| {
            let (metadata, mut spec) = plugin_of(state, &key)?;
            spec.reloads = spec.reloads.checked_add(1).unwrap_or(1);
            Ok((metadata, spec))
        })
        .await
    }

    async fn change_plugin(
        &self,
        caller: &Caller,
        key: &ResourceKey,
        message: &str,
        make: impl Fn(&State) -> Result<(Metadata, PluginSpec), ControlError>,
    ) -> Result<wire::InstalledPluginResponse, ControlError> {
        self.inner.group.read_barrier().await?;
        let unread = Unread::default();
        let wanted = Wanted { caller, event: Event::Apply, message, dry_run: false, files: &[], unread };
        let empty = wanted.transaction();
        let report = self
            .change(wanted, |state| {
                let (metadata, spec) = make(state)?;
                let mut draft = Draft { metadata, spec: Spec::Plugin(spec) };
                choose_definitions(state, &mut draft);
                let mut transaction = empty.clone();
                transaction.puts = vec![draft];
                Ok(transaction)
            })
            .await?;
        let kind = report.diffs.iter().find(|diff| diff.key == *key).map(|diff| diff.kind);
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        Ok(wire::InstalledPluginResponse {
            revision: report.revision.0,
            changed: kind.is_some_and(|kind| kind != ChangeKind::Unchanged),
            created: kind == Some(ChangeKind::Created),
            package: installed(&state, key),
        })
    }
}

fn installed(state: &State, key: &ResourceKey) -> Option<wire::PackageView> {
    let digest = package_of(state.resources().get(key)?)?;
    let package = PackageKey { tenant: key.tenant.clone()?, digest };
    Some(view(state, &package, state.packages().get(&package)?))
}
