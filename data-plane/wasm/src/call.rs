//! One call: an instance of its own, from the pool to the answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use provost_mcp::RawJson;
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use crate::{
    Engine, PluginAnswer, PluginError, PluginHost,
    answer::{answer_of, contents_bytes, contents_of, outcome_bytes, prompt_bytes, prompt_of},
    bindings::{
        ToolPlugin, ToolPluginPre,
        prompts::exports::provost::plugin::prompts::{self, Guest as Prompts},
        provost::plugin::types,
        resources::exports::provost::plugin::resources::{self, Guest as Resources},
    },
    imports::cut,
    lane::{ask_to_move, step_aside, step_aside_for},
    limits::{CANCEL_GRACE, SLICES_AT_HOME},
    link::Tied,
    state::CallState,
    ticker::TICK,
};

/// A call of one tool, or a look at one prompt or resource.
#[derive(Clone, Debug)]
pub struct PluginCall {
    /// The plugin's own name of it; of a resource its URI.
    pub tool: String,
    /// An object; it fits the tool's schema, or the plugin says that it does not. Resources take none.
    pub arguments: RawJson,
    /// What else the plugin learns.
    pub context: CallContext,
    /// When to give up.
    pub deadline: Instant,
    /// How many plugins called each other to get here: 0 for a caller's own call.
    pub depth: u8,
}

/// What a plugin learns of a call beside its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallContext {
    /// For logs.
    pub request_id: String,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Who calls, where the plugin may know.
    pub principal: Option<String>,
    /// The answers to what the plugin asked for before.
    pub input_responses: Option<RawJson>,
    /// What the plugin wanted back with them.
    pub request_state: Option<String>,
}

/// Why a guest is stopped from outside.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Stop {
    #[error("the deadline is over")]
    Deadline,
    #[error("the call is cancelled")]
    Cancelled,
    #[error("it computed for too long")]
    Compute,
}

/// An instance, ready to be asked.
pub(crate) struct Instance {
    store: Store<CallState>,
    plugin: ToolPlugin,
    /// Only of one that was started whole, as the next.
    prompts: Option<Prompts>,
    resources: Option<Resources>,
}

impl Instance {
    /// Makes one. It computes until `deadline` and no longer, and no more than its plugin may; to wait no longer is for the
    /// caller to see to.
    pub(crate) async fn start(
        engine: &Engine,
        pre: &ToolPluginPre<CallState>,
        state: CallState,
        deadline: Instant,
    ) -> Result<Self, PluginError> {
        let mut store = store_of(engine, state, deadline);
        match pre.instantiate_async(&mut store).await {
            Ok(plugin) => {
                begin(&mut store).await;
                Ok(Self { store, plugin, prompts: None, resources: None })
            }
            Err(cause) => Err(explain(&cause, store.data())),
        }
    }

    /// The same with all that it exports: for those who want more than tools.
    pub(crate) async fn start_whole(
        engine: &Engine,
        tied: &Tied,
        state: CallState,
        deadline: Instant,
    ) -> Result<Self, PluginError> {
        let mut store = store_of(engine, state, deadline);
        let instance = match tied.pre.instance_pre().instantiate_async(&mut store).await {
            Ok(instance) => instance,
            Err(cause) => return Err(explain(&cause, store.data())),
        };
        begin(&mut store).await;
        // What is not of the right types is found here.
        let unfit = |cause: wasmtime::Error| PluginError::Imports(format!("{cause:#}"));
        let plugin = ToolPlugin::new(&mut store, &instance).map_err(unfit)?;
        let prompts = match &tied.prompts {
            Some(indices) => Some(indices.load(&mut store, &instance).map_err(unfit)?),
            None => None,
        };
        let resources = match &tied.resources {
            Some(indices) => Some(indices.load(&mut store, &instance).map_err(unfit)?),
            None => None,
        };
        Ok(Self { store, plugin, prompts, resources })
    }

    /// The schema of its configuration.
    pub(crate) async fn config_schema(&mut self) -> Result<Option<String>, PluginError> {
        let said = self.plugin.provost_plugin_tools().call_config_schema(&mut self.store).await;
        self.explained(said)
    }

    /// Its tools.
    pub(crate) async fn list_tools(&mut self) -> Result<Vec<types::Tool>, PluginError> {
        let said = self.plugin.provost_plugin_tools().call_list_tools(&mut self.store).await;
        self.explained(said)
    }

    /// Its prompts.
    pub(crate) async fn list_prompts(&mut self) -> Result<Vec<prompts::Prompt>, PluginError> {
        let Some(guest) = &self.prompts else { return Ok(Vec::new()) };
        let said = guest.call_list_prompts(&mut self.store).await;
        self.explained(said)
    }

    /// Its resources.
    pub(crate) async fn list_resources(&mut self) -> Result<Vec<resources::ResourceInfo>, PluginError> {
        let Some(guest) = &self.resources else { return Ok(Vec::new()) };
        let said = guest.call_list_resources(&mut self.store).await;
        self.explained(said)
    }

    /// Its templates of resources.
    pub(crate) async fn list_templates(&mut self) -> Result<Vec<resources::TemplateInfo>, PluginError> {
        let Some(guest) = &self.resources else { return Ok(Vec::new()) };
        let said = guest.call_list_templates(&mut self.store).await;
        self.explained(said)
    }

    /// Makes a prompt.
    pub(crate) async fn get_prompt(&mut self, call: PluginCall) -> Result<PluginAnswer, PluginError> {
        let (context, prompt, arguments) = asked(call);
        let unknown = || PluginError::UnknownPrompt(prompt.clone());
        let Some(guest) = &self.prompts else { return Err(unknown()) };
        let ended = guest.call_get_prompt(&mut self.store, &context, &prompt, &arguments).await;
        match self.explained(ended)? {
            Ok(result) => {
                step_aside_for(prompt_bytes(&result)).await;
                prompt_of(result, self.store.data().limits.answer_bytes)
            }
            Err(why) => Err(refused(why, unknown)),
        }
    }

    /// Reads a resource.
    pub(crate) async fn read_resource(&mut self, call: PluginCall) -> Result<PluginAnswer, PluginError> {
        let (context, uri, _) = asked(call);
        let unknown = || PluginError::UnknownResource(uri.clone());
        let Some(guest) = &self.resources else { return Err(unknown()) };
        let ended = guest.call_read_resource(&mut self.store, &context, &uri).await;
        match self.explained(ended)? {
            Ok(contents) => {
                step_aside_for(contents_bytes(&contents)).await;
                contents_of(contents, self.store.data().limits.answer_bytes)
            }
            Err(why) => Err(refused(why, unknown)),
        }
    }

    /// Gives it its configuration.
    pub(crate) async fn configure(&mut self, config: Option<&RawJson>) -> Result<(), PluginError> {
        let Some(config) = config else { return Ok(()) };
        let config = config.as_str().to_owned();
        let taken = self.plugin.provost_plugin_tools().call_configure(&mut self.store, &config).await;
        self.explained(taken)?.map_err(|why| PluginError::Config(cut(&why).to_owned()))
    }

    /// Calls a tool.
    pub(crate) async fn call(&mut self, call: PluginCall) -> Result<PluginAnswer, PluginError> {
        let (context, tool, arguments) = asked(call);
        let guest = self.plugin.provost_plugin_tools();
        let ended = guest.call_call_tool(&mut self.store, &context, &tool, &arguments).await;
        match self.explained(ended)? {
            Ok(outcome) => {
                step_aside_for(outcome_bytes(&outcome)).await;
                answer_of(outcome, self.store.data().limits.answer_bytes)
            }
            Err(why) => Err(refused(why, || PluginError::UnknownTool(tool))),
        }
    }

    fn explained<T>(&self, ended: wasmtime::Result<T>) -> Result<T, PluginError> {
        ended.map_err(|cause| explain(&cause, self.store.data()))
    }
}

/// A store that computes until `deadline`, within the bounds of the state's plugin.
fn store_of(engine: &Engine, state: CallState, deadline: Instant) -> Store<CallState> {
    let mut store = Store::new(&engine.wasmtime, state);
    store.limiter_async(|state| &mut state.memory);
    let transfer = store.data().limits.transfer_bytes();
    store.set_hostcall_fuel(transfer);
    store.set_epoch_deadline(1);
    let mut clock = Clock { deadline, cancelled_since: None, slices: 0 };
    store.epoch_deadline_callback(move |context| clock.tick(&context));
    store
}

/// An instance is there: one with much memory goes on at a low priority. (Not before, while places for it are taken.)
async fn begin(store: &mut Store<CallState>) {
    if store.data_mut().memory.begin() {
        step_aside().await;
    }
}

/// What the guest says of why there is no answer.
fn refused(why: types::CallError, unknown: impl FnOnce() -> PluginError) -> PluginError {
    match why {
        types::CallError::UnknownTool => unknown(),
        types::CallError::InvalidParams(why) => PluginError::InvalidParams(cut(&why).to_owned()),
        types::CallError::Cancelled => PluginError::Cancelled,
        types::CallError::Failed(why) => PluginError::Failed(cut(&why).to_owned()),
    }
}

/// What the guest learns, what is asked for, and with what.
fn asked(call: PluginCall) -> (types::CallContext, String, String) {
    let PluginCall { tool, arguments, context, deadline, depth: _ } = call;
    let left = deadline.saturating_duration_since(Instant::now());
    let context = types::CallContext {
        request_id: context.request_id,
        deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        traceparent: context.traceparent,
        principal: context.principal,
        input_responses: context.input_responses.map(|json| json.as_str().to_owned()),
        request_state: context.request_state,
    };
    (context, tool, arguments.as_str().to_owned())
}

/// What a store's epoch is for: whether its guest may go on, and where.
struct Clock {
    deadline: Instant,
    cancelled_since: Option<Instant>,
    /// How often the guest was interrupted: about its own computing time, in ticks.
    slices: u32,
}

impl Clock {
    /// Every tick that the guest computes: goes on after everybody else had a turn, or ends.
    fn tick(&mut self, context: &StoreContextMut<'_, CallState>) -> wasmtime::Result<UpdateDeadline> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(Stop::Deadline.into());
        }
        let state = context.data();
        if state.host.is_cancelled() {
            let since = *self.cancelled_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= CANCEL_GRACE {
                return Err(Stop::Cancelled.into());
            }
        }
        self.slices = self.slices.saturating_add(1);
        if TICK.saturating_mul(self.slices) > state.limits.compute {
            return Err(Stop::Compute.into());
        }
        if self.slices >= SLICES_AT_HOME {
            ask_to_move();
        }
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    }
}

/// Why an instance ended without an answer.
fn explain(cause: &wasmtime::Error, state: &CallState) -> PluginError {
    match cause.downcast_ref() {
        Some(Stop::Deadline) => return PluginError::Deadline,
        Some(Stop::Cancelled) => return PluginError::Cancelled,
        Some(Stop::Compute) => return PluginError::Compute(state.limits.compute),
        None => {}
    }
    // First of all: who gets no memory crashes, in one way or another.
    if let Some(limit) = state.memory.refused() {
        return PluginError::Memory(limit);
    }
    if let Some(trap) = cause.downcast_ref::<wasmtime::Trap>() {
        let why = trap.to_string();
        return PluginError::Trap(why.strip_prefix("wasm trap: ").unwrap_or(&why).to_owned());
    }
    let root = cause.root_cause().to_string();
    // The engine has no public type for it; `tests/wasm/hostile.rs` sees that it still says so.
    if root.contains("fuel allocated for hostcalls") {
        return PluginError::TooLarge(state.limits.transfer_bytes());
    }
    PluginError::Trap(root)
}

/// Waits for `work` until `deadline`, at most.
pub(crate) async fn until<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, PluginError>>,
) -> Result<T, PluginError> {
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or(Err(PluginError::Deadline))
}

/// A point in time that is always there.
pub(crate) fn in_time(duration: Duration) -> Instant {
    Instant::now() + duration
}

impl PluginCall {
    pub(crate) fn state(&self, host: Arc<dyn PluginHost>, limits: crate::PluginLimits) -> CallState {
        CallState::new(host, limits, self.depth)
    }
}
