//! One installed plugin.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use provost_mcp::RawJson;
use provost_types::{BoxFuture, Name};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use wasmtime::component::Component;

use crate::{
    ComponentDigest, ComponentSource, Engine, Grants, MAX_DEPTH, PluginAnswer, PluginCall, PluginError, PluginHost,
    PluginLimits, PluginOffer, PluginTool,
    call::{Instance, in_time, until},
    config,
    imports::json_limits,
    limits::LOAD_TIME,
    link::Tied,
    offer::{prompts_of, resources_of, templates_of},
    quiet::QuietHost,
    shares::TenantShare,
    state::CallState,
    tool::tools_of,
};

/// How a plugin is installed.
#[derive(Clone, Debug, Default)]
pub struct PluginSettings {
    /// Whose it is: the calls of one tenant's plugins share a part of the engine, and so do their loads. `None`: nobody's,
    /// who may have all of it.
    pub tenant: Option<Name>,
    /// Its configuration; `None`: it is not asked to take one.
    pub config: Option<RawJson>,
    /// What it may do beyond computing.
    pub grants: Grants,
    /// How much it may use.
    pub limits: PluginLimits,
}

/// An installed plugin. To make one costs nothing; its component is loaded, or compiled, when it is needed first.
pub struct WasmPlugin {
    /// Shared with its calls, which may go on elsewhere than they began.
    installed: Arc<Installed>,
}

struct Installed {
    engine: Arc<Engine>,
    digest: ComponentDigest,
    source: ComponentSource,
    settings: PluginSettings,
    places: Semaphore,
    /// Of its tenant; `None`: it has none.
    share: Option<Arc<TenantShare>>,
    /// An error in here is final.
    loaded: OnceCell<Result<Loaded, PluginError>>,
}

/// What is known once the component is there.
struct Loaded {
    /// Held, so that other plugins of the same component find it.
    _component: Arc<Component>,
    tied: Arc<Tied>,
    tools: Arc<[PluginTool]>,
    offer: PluginOffer,
    config_schema: Option<RawJson>,
}

/// Places that a call has until it ends: of its plugin, of its tenant, of the engine.
type Places<'a> = [Option<SemaphorePermit<'a>>; 3];

fn closed() -> PluginError {
    PluginError::Unavailable("the engine is closed".to_owned())
}

/// What is wanted of an instance.
#[derive(Clone, Copy)]
enum Wanted {
    Tool,
    Prompt,
    Resource,
}

impl WasmPlugin {
    /// A plugin whose component has this digest.
    pub fn new(
        engine: Arc<Engine>,
        digest: ComponentDigest,
        source: ComponentSource,
        mut settings: PluginSettings,
    ) -> Self {
        let limits = &mut settings.limits;
        limits.memory_bytes = limits.memory_bytes.min(engine.max_memory_bytes);
        let places = Semaphore::new(limits.concurrency.clamp(1, Semaphore::MAX_PERMITS));
        let share = settings.tenant.as_ref().map(|tenant| engine.shares.of_tenant(tenant));
        let loaded = OnceCell::new();
        Self { installed: Arc::new(Installed { engine, digest, source, settings, places, share, loaded }) }
    }

    /// Which component it is.
    pub fn digest(&self) -> &ComponentDigest {
        &self.installed.digest
    }

    /// Its tools. The first time this loads the component; an error that cannot go away is remembered.
    pub async fn tools(&self) -> Result<Arc<[PluginTool]>, PluginError> {
        Ok(self.installed.loaded().await?.tools.clone())
    }

    /// The tools, if it is loaded.
    pub fn tools_at_hand(&self) -> Option<Arc<[PluginTool]>> {
        self.installed.loaded.get()?.as_ref().ok().map(|loaded| loaded.tools.clone())
    }

    /// Its prompts and resources, likewise.
    pub async fn offer(&self) -> Result<PluginOffer, PluginError> {
        Ok(self.installed.loaded().await?.offer.clone())
    }

    /// JSON Schema of its configuration, if it takes one.
    pub async fn config_schema(&self) -> Result<Option<RawJson>, PluginError> {
        Ok(self.installed.loaded().await?.config_schema.clone())
    }

    /// Calls a tool, in an instance that nobody used before and nobody will use again. Ends at the call's deadline at
    /// the latest. To drop the future ends the guest as well, wherever it is: by its next interruption.
    ///
    /// A guest that computes for long goes on at a low priority, on a thread of the engine; what it asks of the host is
    /// polled there then, in the context of the runtime that this is called in.
    pub async fn call(&self, call: &PluginCall, host: Arc<dyn PluginHost>) -> Result<PluginAnswer, PluginError> {
        self.bounded(Wanted::Tool, call, host).await
    }

    /// Makes a prompt, as [`WasmPlugin::call`] calls a tool: the result of `prompts/get`.
    pub async fn get_prompt(&self, call: &PluginCall, host: Arc<dyn PluginHost>) -> Result<PluginAnswer, PluginError> {
        self.bounded(Wanted::Prompt, call, host).await
    }

    /// Reads a resource, as [`WasmPlugin::call`] calls a tool: the result of `resources/read`.
    pub async fn read_resource(
        &self,
        call: &PluginCall,
        host: Arc<dyn PluginHost>,
    ) -> Result<PluginAnswer, PluginError> {
        self.bounded(Wanted::Resource, call, host).await
    }

    async fn bounded(
        &self,
        wanted: Wanted,
        call: &PluginCall,
        host: Arc<dyn PluginHost>,
    ) -> Result<PluginAnswer, PluginError> {
        if call.depth > MAX_DEPTH {
            return Err(PluginError::TooDeep(MAX_DEPTH));
        }
        let (deadline, call, installed) = (call.deadline, call.clone(), self.installed.clone());
        let running: BoxFuture<'static, Result<PluginAnswer, PluginError>> =
            Box::pin(async move { installed.run(wanted, call, host).await });
        let whose = self.installed.settings.tenant.clone();
        until(deadline, self.installed.engine.lane.run(whose, running)).await
    }
}

impl Installed {
    async fn run(
        &self,
        wanted: Wanted,
        call: PluginCall,
        host: Arc<dyn PluginHost>,
    ) -> Result<PluginAnswer, PluginError> {
        let loaded = self.loaded().await?;
        let _places = self.take_places(call.depth > 0).await?;
        let _running = self.engine.ticker.enter();
        let state = call.state(host, self.settings.limits);
        let mut instance = match wanted {
            Wanted::Tool => Instance::start(&self.engine, &loaded.tied.pre, state, call.deadline).await?,
            Wanted::Prompt | Wanted::Resource => {
                Instance::start_whole(&self.engine, &loaded.tied, state, call.deadline).await?
            }
        };
        instance.configure(self.settings.config.as_ref()).await?;
        match wanted {
            Wanted::Tool => instance.call(call).await,
            Wanted::Prompt => instance.get_prompt(call).await,
            Wanted::Resource => instance.read_resource(call).await,
        }
    }

    /// A place of this plugin, then one of its tenant's, then one of the engine. Who stands in a call already does not
    /// wait: those who have the places may be waiting for it.
    async fn take_places(&self, is_nested: bool) -> Result<Places<'_>, PluginError> {
        let of_tenant = self.share.as_ref().map(|share| &share.calls);
        let all = [Some(&self.places), of_tenant, Some(&self.engine.places)];
        let mut taken = [None, None, None];
        for (place, semaphore) in taken.iter_mut().zip(all) {
            let Some(semaphore) = semaphore else { continue };
            *place = Some(match is_nested {
                true => semaphore.try_acquire().map_err(|_| PluginError::Busy)?,
                false => semaphore.acquire().await.map_err(|_| closed())?,
            });
        }
        Ok(taken)
    }

    async fn loaded(&self) -> Result<&Loaded, PluginError> {
        let loaded = self.loaded.get_or_try_init(|| async {
            match Box::pin(self.load()).await {
                Err(error) if !error.is_final() => Err(error),
                ended => Ok(ended),
            }
        });
        loaded.await?.as_ref().map_err(Clone::clone)
    }

    /// The component, tied to its imports, and what it says of itself.
    async fn load(&self) -> Result<Loaded, PluginError> {
        let component = self.engine.component(self.digest, &self.source).await?;
        let tied = Arc::new(self.engine.links.tie(&component, self.settings.grants)?);
        let deadline = in_time(LOAD_TIME);
        let introduced: BoxFuture<'static, Result<Introduced, PluginError>> =
            Box::pin(introduce(self.engine.clone(), self.share.clone(), tied.clone(), self.settings.clone(), deadline));
        let (config_schema, tools, offer) =
            until(deadline, self.engine.lane.run(self.settings.tenant.clone(), introduced)).await?;
        Ok(Loaded { _component: component, tied, tools, offer, config_schema })
    }
}

/// What a component says of itself, with this configuration.
async fn introduce(
    engine: Arc<Engine>,
    share: Option<Arc<TenantShare>>,
    tied: Arc<Tied>,
    settings: PluginSettings,
    deadline: Instant,
) -> Result<Introduced, PluginError> {
    // Nobody's call: the time for it is the bound.
    let limits = PluginLimits { compute: Duration::MAX, ..settings.limits };
    // Not a place of the plugin's own, or of its tenant's calls: those may all be waiting for it to be loaded. But one
    // of its loads: a tenant with many plugins that never end to say what they have would have all of the engine.
    let _of_tenant = match &share {
        Some(share) => Some(share.loads.acquire().await.map_err(|_| closed())?),
        None => None,
    };
    let place = engine.places.acquire().await;
    let _place = place.map_err(|_| closed())?;
    let _running = engine.ticker.enter();
    let state = CallState::new(Arc::new(QuietHost), limits, 0);
    let mut instance = match tied.has_more() {
        true => Instance::start_whole(&engine, &tied, state, deadline).await?,
        false => Instance::start(&engine, &tied.pre, state, deadline).await?,
    };
    let schema = instance.config_schema().await?;
    let schema = schema.map(|text| schema_of(text, limits.answer_bytes)).transpose()?;
    instance.configure(settings.config.as_ref()).await?;
    // The plugin first: it knows better what is wrong. One that takes whatever comes is held to what it says.
    if let (Some(schema), Some(config)) = (&schema, &settings.config) {
        config::check(schema, config)?;
    }
    let tools = tools_of(instance.list_tools().await?)?.into();
    let offer = PluginOffer {
        prompts: prompts_of(instance.list_prompts().await?)?.into(),
        resources: resources_of(instance.list_resources().await?)?.into(),
        templates: templates_of(instance.list_templates().await?)?.into(),
    };
    Ok((schema, tools, offer))
}

/// The schema of its configuration, its tools, and what it has beside.
type Introduced = (Option<RawJson>, Arc<[PluginTool]>, PluginOffer);

fn schema_of(text: String, max_bytes: usize) -> Result<RawJson, PluginError> {
    let schema = RawJson::check(Bytes::from(text), &json_limits(max_bytes));
    schema.map_err(|fault| PluginError::json("the schema of its configuration", &fault))
}
