//! Plugins that are WebAssembly components, as a source of tools.
//!
//! Purpose: between a plugin's document and the engine that runs it. A [`Component`] is made ready (read, checked,
//! compiled, asked for its tools) beside the calls; until then what it replaces serves, if that has no more than it.
//! Invariants: nothing is run but what the document names by its hash, and a package only if a publisher that the tenant
//! trusts signed it; a request of a guest goes where the document lets it, with credentials that the guest never sees; a
//! guest calls other tools by [`crate::OtherTools`] alone.
//! Left out: the way to the control plane's packages (a port), and how a call of another tool is decided, limited and
//! recorded.

mod call;
mod door;
mod engine;
mod files;
mod given;
mod origin;
mod store;

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use provost_data_wasm::{
    ComponentSource, Engine, Grants, PluginError, PluginItem, PluginLimits, PluginSettings, WasmPlugin,
};
use provost_mcp::{RawJson, RpcError};
use provost_types::{Name, WasmPlugin as WasmSpec};
use tokio::sync::watch;

pub(crate) use door::{Credential, Door};
pub(crate) use engine::Engines;
use given::Given;
use origin::Missing;
pub(crate) use origin::{Origin, PackageOrigin, Publishers};
pub(crate) use store::Store;

use crate::{Definition, Definitions, Unready, UpstreamError, upstream::ListKind};

/// Between two tries of what may end better: first and longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long calls and lists wait for a plugin that is not ready: it may be on its way through a compiler, and whoever
/// lists hears when it is there.
const READY_WAIT: Duration = Duration::from_secs(2);

/// How a component stands.
#[derive(Clone)]
enum Standing {
    Coming,
    Ready(Offer),
    /// It is not this node's to run; said to every call. `again`: it is tried again.
    Failed {
        cause: UpstreamError,
        again: bool,
    },
}

/// What a component offers.
#[derive(Clone)]
struct Offer {
    tools: Definitions,
    prompts: Definitions,
    resources: Definitions,
    templates: Definitions,
}

impl Offer {
    /// As the component says when it is loaded.
    async fn of(plugin: &WasmPlugin) -> Result<Self, PluginError> {
        let tools = plugin.tools().await?;
        let tools = tools.iter().map(|t| Definition { name: t.name.clone(), raw: t.definition.clone() });
        let tools: Definitions = Arc::new(tools.collect());
        let offer = plugin.offer().await?;
        Ok(Self {
            tools,
            prompts: definitions(&offer.prompts),
            resources: definitions(&offer.resources),
            templates: definitions(&offer.templates),
        })
    }

    fn list(&self, kind: ListKind) -> &Definitions {
        match kind {
            ListKind::Tools => &self.tools,
            ListKind::Prompts => &self.prompts,
            ListKind::Resources => &self.resources,
            ListKind::Templates => &self.templates,
        }
    }
}

fn definitions(items: &[PluginItem]) -> Definitions {
    let items = items.iter().map(|item| Definition { name: item.key.clone(), raw: item.definition.clone() });
    Arc::new(items.collect())
}

/// What a component is made of.
pub(crate) struct Parts<'a> {
    pub tenant: &'a Name,
    pub name: &'a Name,
    pub spec: &'a WasmSpec,
    pub origin: Origin,
    pub door: Option<Door>,
    pub store: Arc<Store>,
}

/// One component, of one document.
pub(crate) struct Component {
    tenant: Name,
    name: Name,
    /// There once it is known what runs.
    plugin: OnceLock<WasmPlugin>,
    door: Option<Door>,
    /// The tools that its guest may call.
    granted: Arc<BTreeSet<String>>,
    given: Given,
    store: Arc<Store>,
    standing: watch::Sender<Standing>,
}

/// What it takes to make a component ready.
struct Making {
    origin: Origin,
    engine: Arc<Engine>,
    settings: PluginSettings,
}

/// Why it is not ready.
enum Trouble {
    /// There is nothing to run.
    Missing(Missing),
    /// What there is does not run.
    Plugin(PluginError),
}

impl Component {
    /// Makes it, and begins to make it ready. `changed` is called when that has ended. Needs a runtime.
    pub(crate) fn start(
        parts: Parts<'_>,
        engines: &Engines,
        changed: impl Fn() + Send + 'static,
    ) -> Result<Arc<Self>, UpstreamError> {
        let Parts { tenant, name, spec, origin, door, store } = parts;
        let engine = engines.get()?;
        let config = (!spec.config.is_empty()).then(|| RawJson::from(serde_json::Value::Object(spec.config.clone())));
        let mut limits = PluginLimits::default();
        if spec.memory_mib > 0 {
            limits.memory_bytes = (spec.memory_mib as usize) << 20;
        }
        if spec.compute_ms > 0 {
            limits.compute = Duration::from_millis(spec.compute_ms.into());
        }
        let grants = Grants { http: door.is_some() };
        let settings = PluginSettings { tenant: Some(tenant.clone()), config, grants, limits };
        let making = Making { origin, engine, settings };
        let component = Arc::new(Self {
            tenant: tenant.clone(),
            name: name.clone(),
            plugin: OnceLock::new(),
            door,
            granted: Arc::new(spec.tools.clone()),
            given: Given::by(spec),
            store,
            standing: watch::Sender::new(Standing::Coming),
        });
        tokio::spawn(make_ready(Arc::downgrade(&component), making, changed));
        Ok(component)
    }

    /// Whether it takes calls.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Ready(_))
    }

    /// Why it does not take calls; `None`: it does.
    pub(crate) fn unready(&self) -> Option<Unready> {
        match &*self.standing.borrow() {
            Standing::Ready(_) => None,
            Standing::Coming => Some(Unready::default()),
            Standing::Failed { cause, again } => Some(Unready::by(cause, &self.name, !*again)),
        }
    }

    /// Whether its guest may call any other tool.
    pub(crate) fn calls_others(&self) -> bool {
        !self.granted.is_empty()
    }

    /// Whether all that it may reach is given to the other too.
    pub(crate) fn has_no_more_than(&self, other: &Self) -> bool {
        self.given.is_within(&other.given)
    }

    /// What its guest keeps.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// A list of its as far as it is known.
    pub(crate) fn at_hand(&self, kind: ListKind) -> Option<Definitions> {
        match &*self.standing.borrow() {
            Standing::Ready(offer) => Some(offer.list(kind).clone()),
            Standing::Coming | Standing::Failed { .. } => None,
        }
    }

    /// A list of its; waits a bounded time until it is ready.
    pub(crate) async fn list(&self, kind: ListKind) -> Result<Definitions, UpstreamError> {
        let mut standing = self.standing.subscribe();
        let settled = standing.wait_for(|now| !matches!(now, Standing::Coming));
        let settled = tokio::time::timeout(READY_WAIT, settled).await;
        let busy = || Err(UpstreamError::Busy("it is still being made ready".to_owned()));
        let Ok(Ok(settled)) = settled else { return busy() };
        match &*settled {
            Standing::Ready(offer) => Ok(offer.list(kind).clone()),
            Standing::Failed { cause, .. } => Err(cause.clone()),
            Standing::Coming => busy(),
        }
    }

    /// Looks for the component, has it compiled, and asks it what it offers. What was found before and is gone is looked
    /// for again: the files of a node may go.
    async fn load(&self, making: &Making) -> Result<Offer, Trouble> {
        let (digest, path) = making.origin.find().await.map_err(Trouble::Missing)?;
        let (engine, settings) = (making.engine.clone(), making.settings.clone());
        let plugin = self.plugin.get_or_init(|| WasmPlugin::new(engine, digest, ComponentSource::File(path), settings));
        Offer::of(plugin).await.map_err(Trouble::Plugin)
    }

    /// What the caller is told of a failure.
    fn failed(&self, cause: &PluginError) -> UpstreamError {
        let number = match cause {
            PluginError::Deadline => return UpstreamError::Deadline,
            PluginError::Busy => return UpstreamError::Busy("no instance is free".to_owned()),
            PluginError::UnknownTool(_)
            | PluginError::UnknownPrompt(_)
            | PluginError::UnknownResource(_)
            | PluginError::InvalidParams(_) => RpcError::INVALID_PARAMS,
            _ => RpcError::UPSTREAM_FAILED,
        };
        let code = cause.code();
        let text = cause.to_string();
        let text = text.strip_prefix(code).and_then(|text| text.strip_prefix(": ")).unwrap_or(&text);
        UpstreamError::Rpc(RpcError::with_code(number, code, format!("plugin `{}`: {text}", self.name)))
    }
}

/// Tries until the component is ready, cannot be, or is not wanted any more.
async fn make_ready(component: Weak<Component>, making: Making, changed: impl Fn()) {
    let mut pause = RETRY.0;
    while let Some(this) = component.upgrade() {
        let (standing, again) = match this.load(&making).await {
            Ok(offer) => (Standing::Ready(offer), false),
            Err(Trouble::Missing(cause)) => {
                let (plugin, tenant) = (&this.name, &this.tenant);
                tracing::warn!(%plugin, %tenant, %cause, "a plugin cannot be made ready");
                (Standing::Failed { cause: cause.told(&this.name), again: cause.again }, cause.again)
            }
            Err(Trouble::Plugin(cause)) => {
                let (plugin, tenant) = (&this.name, &this.tenant);
                tracing::warn!(%plugin, %tenant, %cause, "a plugin cannot be made ready");
                let again = matches!(cause, PluginError::Unavailable(_) | PluginError::Deadline | PluginError::Busy);
                (Standing::Failed { cause: this.failed(&cause), again }, again)
            }
        };
        this.standing.send_replace(standing);
        drop(this);
        changed();
        if !again {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}
