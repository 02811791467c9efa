//! The handler: routes each request to the module that knows it.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rmcp::{
    ErrorData, Peer, RoleServer, ServerHandler,
    model::*,
    service::{RequestContext, SubscriptionContext, SubscriptionSink},
    task_manager::TaskManager,
};
use serde_json::json;
use tokio::sync::Mutex;

use super::{ask::is_modern, definitions, prompts, resources, result, tools};

/// Which eras the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EraChoice {
    /// 2026-07-28 only.
    Modern,
    /// Up to 2025-11-25 only.
    Legacy,
    /// Both.
    Dual,
}

impl std::str::FromStr for EraChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "modern" => Ok(Self::Modern),
            "legacy" => Ok(Self::Legacy),
            "dual" => Ok(Self::Dual),
            other => Err(format!("`{other}` is none of modern, legacy, dual")),
        }
    }
}

/// Signs the `requestState`; a test server has no secrets.
const STATE_KEY: &[u8; 32] = b"everything-server-state-key-0001";

/// What all requests and sessions share.
pub(super) struct Shared {
    pub(super) state_codec: RequestStateCodec,
    pub(super) tasks: TaskManager,
    pub(super) begun: AtomicU64,
    pub(super) cancelled: AtomicU64,
    /// How often calls of `slow` have begun that gave an id.
    by_id: std::sync::Mutex<HashMap<String, u32>>,
    streams: Mutex<HashMap<u64, SubscriptionSink>>,
    next_stream: AtomicU64,
    /// Tools beyond its own.
    more_tools: Vec<Tool>,
}

/// The server; clones share their state, one clone serves one session.
#[derive(Clone)]
pub struct Everything {
    era: EraChoice,
    pub(super) shared: Arc<Shared>,
    /// What the legacy session of this clone subscribed to.
    watched: Arc<Mutex<HashSet<String>>>,
    /// Calls of `count_in_session` in this session.
    pub(super) counted: Arc<AtomicU64>,
}

impl Everything {
    /// A server of these eras.
    pub fn new(era: EraChoice) -> Self {
        let shared = Shared {
            state_codec: RequestStateCodec::new_unchecked(STATE_KEY),
            tasks: TaskManager::new(),
            begun: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            by_id: std::sync::Mutex::default(),
            streams: Mutex::default(),
            next_stream: AtomicU64::new(0),
            more_tools: Vec::new(),
        };
        Self { era, shared: Arc::new(shared), watched: Arc::default(), counted: Arc::default() }
    }

    /// The same server with so many more tools, `more_00000` and so on, which answer with their own name.
    pub fn with_more_tools(mut self, count: usize) -> Result<Self, ErrorData> {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.more_tools = definitions::more_tools(count)?;
        }
        Ok(self)
    }

    /// The same server for another session.
    pub fn session(&self) -> Self {
        Self { era: self.era, shared: self.shared.clone(), watched: Arc::default(), counted: Arc::default() }
    }

    /// Counts a call of `slow` by its id.
    pub(super) fn note_begun(&self, id: String) {
        *self.shared.by_id.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
    }

    /// How often calls of `slow` have begun, by the ids that they gave.
    pub fn begun_by_id(&self) -> HashMap<String, u32> {
        self.shared.by_id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells every open subscription, and the caller's own legacy session.
    pub(super) async fn announce(&self, change: Change<'_>, cx: &RequestContext<RoleServer>) {
        let streams: Vec<SubscriptionSink> = self.shared.streams.lock().await.values().cloned().collect();
        for stream in streams {
            // A stream that closed meanwhile, or did not ask for this, is no failure.
            let _ = match change {
                Change::Tools => stream.notify_tool_list_changed().await,
                Change::Prompts => stream.notify_prompt_list_changed().await,
                Change::Resource(uri) => stream.notify_resource_updated(uri).await,
            };
        }
        if !is_modern(cx) {
            self.announce_to_session(change, &cx.peer).await;
        }
    }

    async fn announce_to_session(&self, change: Change<'_>, peer: &Peer<RoleServer>) {
        let told = match change {
            Change::Tools => peer.notify_tool_list_changed().await,
            Change::Prompts => peer.notify_prompt_list_changed().await,
            Change::Resource(uri) if self.watched.lock().await.contains(uri) => {
                peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await
            }
            Change::Resource(_) => Ok(()),
        };
        if let Err(cause) = told {
            tracing::debug!(%cause, "the client did not hear of a change");
        }
    }
}

/// What changed.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    Tools,
    Prompts,
    Resource(&'a str),
}

#[expect(deprecated, reason = "the legacy era is served too")]
impl ServerHandler for Everything {
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        match self.era {
            EraChoice::Modern => Cow::Owned(vec![ProtocolVersion::V_2026_07_28]),
            EraChoice::Legacy => Cow::Borrowed(ProtocolVersion::known_up_to(&ProtocolVersion::V_2025_11_25)),
            EraChoice::Dual => Cow::Borrowed(ProtocolVersion::KNOWN_VERSIONS),
        }
    }

    fn get_info(&self) -> ServerConfig {
        let mut capabilities = json!({
            "prompts": {"listChanged": true},
            "resources": {"listChanged": true, "subscribe": true},
            "tools": {"listChanged": true},
            "logging": {},
            "completions": {},
        });
        if self.era != EraChoice::Legacy {
            capabilities["extensions"] = json!({"io.modelcontextprotocol/tasks": {}});
        }
        let capabilities: ServerCapabilities = serde_json::from_value(capabilities).unwrap_or_default();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("everything-rmcp", env!("CARGO_PKG_VERSION")))
            .with_instructions("A server with one of everything, for tests.")
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        definitions::tool(name).or_else(|| self.shared.more_tools.iter().find(|t| t.name == name).cloned())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut tools = definitions::tools()?;
        tools.extend_from_slice(&self.shared.more_tools);
        result(json!({"tools": tools, "ttlMs": 60_000, "cacheScope": "public"}))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, request, cx).await
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        result(json!({"prompts": prompts::prompts()?, "ttlMs": 60_000, "cacheScope": "public"}))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(request, &cx).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        result(json!({"resources": resources::resources()?, "ttlMs": 60_000, "cacheScope": "public"}))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        result(json!({"resourceTemplates": resources::templates()?, "ttlMs": 60_000,
                     "cacheScope": "public"}))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        resources::read(&request.uri).map(Into::into)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let all = ["test-one", "test-two", "paris", "park", "party"];
        let values: Vec<&str> = all.into_iter().filter(|v| v.starts_with(&request.argument.value)).collect();
        result(json!({"completion": {"values": values, "total": values.len(), "hasMore": false}}))
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.watched.lock().await.insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.watched.lock().await.remove(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, wanted: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(wanted.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let key = self.shared.next_stream.fetch_add(1, Ordering::Relaxed);
        self.shared.streams.lock().await.insert(key, context.sink().clone());
        context.cancelled().await;
        self.shared.streams.lock().await.remove(&key);
        Ok(())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.shared.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(&self, request: UpdateTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.shared.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.shared.tasks.cancel_task(&request.task_id)
    }
}
