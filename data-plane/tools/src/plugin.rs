//! One plugin of one tenant, running.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use provost_data_pipeline::{AskError, ClientFacts, ClientLink, Execution, Operation, SubjectToken};
use provost_mcp::{Era, ProtocolVersion, RawJson};
use provost_types::{BoxFuture, CallId, Name, PluginSpec, PrincipalRef, Revision};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Consent, Definitions, EndpointView, ListenFilter, OtherTools, ServerFacts, UpstreamError, ValidationProblem, Walls,
    builtin::Builtin,
    component::Component,
    grpc::Grpc,
    openapi::OpenApi,
    rag::Rag,
    resilience::{Shield, Tries, Upstream},
    schema::SchemaCache,
    siblings::{SessionOwner, SharedSession},
    sql::SqlPlugin,
    upstream::{ListKind, McpUpstream},
};

/// One operation for one plugin.
#[derive(Clone, Debug)]
pub struct ExecuteRequest<'a> {
    /// What to do, with the plugin's own names (no prefixes).
    pub operation: Operation,
    /// The params as the client sent them. Names inside are replaced by the operation's; for a
    /// retry `requestState` is the plugin's own and `inputResponses` the answers.
    pub params: RawJson,
    /// The client.
    pub client: &'a ClientFacts,
    /// Who calls.
    pub principal: &'a PrincipalRef,
    /// The token that they came with, where it may be exchanged for one of the upstream's.
    pub subject: Option<&'a SubjectToken>,
    /// When to give up; the plugin's own timeout may come earlier.
    pub deadline: Instant,
    /// The revision of the policy that admitted it.
    pub revision: Revision,
    /// For logs.
    pub call_id: CallId,
    /// How a guest's own calls are made; `None`: it may make none.
    pub other_tools: Option<&'a Arc<dyn OtherTools>>,
}

/// Why listening ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenEnd {
    /// The listener went.
    Cancelled,
    /// The plugin was changed or removed: look it up again.
    Retired,
}

enum Source {
    Mcp(Arc<McpUpstream>),
    Builtin(Builtin),
    Component(Arc<Component>),
    OpenApi(Box<OpenApi>),
    Grpc(Box<Grpc>),
    Rag(Arc<Rag>),
    /// It could not be set up; every use says why.
    Broken(UpstreamError),
}

impl Upstream for Source {
    fn run<'a>(
        &'a self,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<Execution, UpstreamError>> {
        match self {
            Self::Mcp(upstream) => Box::pin(async move { upstream.execute(request, link, &Tries::new(false)).await }),
            Self::Builtin(builtin) => Box::pin(builtin.execute(request, link)),
            Self::Component(component) => Box::pin(component.execute(request, link)),
            Self::OpenApi(api) => Box::pin(api.execute(request, link)),
            Self::Grpc(grpc) => Box::pin(grpc.execute(request, link)),
            Self::Rag(rag) => Box::pin(rag.execute(request, link)),
            Self::Broken(cause) => Box::pin(std::future::ready(Err(cause.clone()))),
        }
    }

    fn attempt<'a>(
        &'a self,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
        tries: &'a Tries,
    ) -> BoxFuture<'a, Result<Execution, UpstreamError>> {
        match self {
            Self::Mcp(upstream) => Box::pin(upstream.execute(request, link, tries)),
            _ => self.run(request, link),
        }
    }

    fn has_other(&self, tries: &Tries) -> bool {
        matches!(self, Self::Mcp(upstream) if upstream.has_other(tries))
    }

    fn calls_others(&self) -> bool {
        matches!(self, Self::Component(component) if component.calls_others())
    }

    fn definition(&self, tool: &str) -> Option<RawJson> {
        let tools = match self {
            Self::Mcp(upstream) => upstream.cached(ListKind::Tools)?,
            Self::Builtin(builtin) => builtin.tools(),
            Self::Component(component) => component.at_hand(ListKind::Tools)?,
            Self::OpenApi(api) => api.at_hand()?,
            Self::Grpc(grpc) => grpc.at_hand()?,
            Self::Rag(rag) => rag.tools(),
            Self::Broken(_) => return None,
        };
        tools.named(tool).map(|d| d.raw.clone())
    }
}

/// How a plugin stands towards its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Its breaker is not closed: calls are refused, but for trials.
    pub is_open: bool,
    /// Calls that run.
    pub running: usize,
    /// Calls that wait for a place.
    pub waiting: usize,
}

/// A running plugin. Cheap to hold: whoever holds one while it is replaced finishes on the old one.
pub struct Plugin {
    tenant: Name,
    name: Name,
    digest: Arc<str>,
    recorded: Arc<str>,
    shield: Shield,
    source: Source,
    schemas: SchemaCache,
    /// What this one replaces, until it is ready to.
    before: ArcSwapOption<Plugin>,
    /// What the upstream said of itself last.
    facts: Mutex<Option<ServerFacts>>,
    retired: CancellationToken,
}

impl Plugin {
    pub(crate) fn mcp(id: Identity, upstream: Arc<McpUpstream>) -> Self {
        Self::new(id, Source::Mcp(upstream))
    }

    pub(crate) fn builtin(id: Identity, builtin: Builtin) -> Self {
        Self::new(id, Source::Builtin(builtin))
    }

    pub(crate) fn openapi(id: Identity, api: OpenApi) -> Self {
        Self::new(id, Source::OpenApi(Box::new(api)))
    }

    pub(crate) fn grpc(id: Identity, grpc: Grpc) -> Self {
        Self::new(id, Source::Grpc(Box::new(grpc)))
    }

    /// One that searches documents.
    pub(crate) fn rag(id: Identity, rag: Arc<Rag>) -> Self {
        Self::new(id, Source::Rag(rag))
    }

    /// `before` serves until the component is ready.
    pub(crate) fn component(id: Identity, component: Arc<Component>, before: Option<&Arc<Plugin>>) -> Self {
        // One that is not ready itself never served.
        let before = before.and_then(|before| before.stand_in().or_else(|| before.serves().then(|| before.clone())));
        // The component may never be ready: what is taken from it now must not stay with the one before.
        let has_more = |before: &Arc<Plugin>| before.as_component().is_some_and(|c| !c.has_no_more_than(&component));
        let before = before.filter(|before| !has_more(before));
        let plugin = Self::new(id, Source::Component(component));
        plugin.before.store(before);
        plugin
    }

    pub(crate) fn broken(id: Identity, cause: UpstreamError) -> Self {
        tracing::warn!(plugin = %id.name, tenant = %id.tenant, %cause, "a plugin cannot be set up");
        Self::new(id, Source::Broken(cause))
    }

    fn new(id: Identity, source: Source) -> Self {
        let shield = id.shield;
        if let Source::Mcp(upstream) = &source {
            upstream.guard_with(shield.watch().clone());
        }
        Self {
            tenant: id.tenant,
            name: id.name,
            digest: id.digest,
            recorded: id.recorded,
            shield,
            source,
            schemas: SchemaCache::default(),
            before: ArcSwapOption::empty(),
            facts: Mutex::default(),
            retired: CancellationToken::new(),
        }
    }

    /// The tenant.
    pub fn tenant(&self) -> &Name {
        &self.tenant
    }

    /// The name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// SHA-256 of the spec, hexadecimal.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// The digest that records of its calls name.
    pub fn recorded_digest(&self) -> &Arc<str> {
        &self.recorded
    }

    /// What serves while this one is being made ready; `None`: this one does.
    pub fn stand_in(&self) -> Option<Arc<Plugin>> {
        let Source::Component(component) = &self.source else { return None };
        if !component.is_ready() {
            return self.before.load_full();
        }
        if self.before.load().is_some() {
            self.before.store(None);
        }
        None
    }

    /// Whether it takes calls; what is behind it may be down all the same.
    pub fn serves(&self) -> bool {
        match &self.source {
            Source::Component(component) => component.is_ready(),
            Source::Mcp(_) | Source::Builtin(_) | Source::OpenApi(_) | Source::Grpc(_) | Source::Rag(_) => true,
            Source::Broken(_) => false,
        }
    }

    /// Whether a guest serves it, which may want to call other tools.
    pub fn has_guest(&self) -> bool {
        matches!(self.source, Source::Component(_))
    }

    /// The component behind this plugin.
    pub(crate) fn as_component(&self) -> Option<&Arc<Component>> {
        match &self.source {
            Source::Component(component) => Some(component),
            _ => None,
        }
    }

    /// The longest time for one call of a tool that has none of its own.
    pub fn timeout(&self) -> Duration {
        self.shield.policy().timeout()
    }

    /// Its state towards its upstream, for metrics.
    pub fn pressure(&self) -> Pressure {
        let (running, waiting) = self.shield.policy().gate.load();
        Pressure { is_open: self.shield.watch().is_open(), running, waiting }
    }

    /// Its endpoints, if it has several.
    pub fn endpoints(&self) -> Vec<EndpointView> {
        match &self.source {
            Source::Mcp(upstream) => upstream.endpoints(),
            _ => Vec::new(),
        }
    }

    /// The walls around its process, if it has one that is to have some.
    pub fn walls(&self) -> Option<Walls> {
        match &self.source {
            Source::Mcp(upstream) => upstream.walls(),
            _ => None,
        }
    }

    /// Ends listeners, and what it does beside calls; calls under way finish.
    pub(crate) fn retire(&self) {
        self.retired.cancel();
        if let Source::Rag(rag) = &self.source {
            rag.stop();
        }
    }

    /// How users let it act in their names; `None`: it does not.
    pub fn consent(&self) -> Option<Consent<'_>> {
        match &self.source {
            Source::Mcp(upstream) => upstream.consents().map(Consent::new),
            Source::OpenApi(api) => api.consents().map(Consent::new),
            Source::Grpc(grpc) => grpc.consents().map(Consent::new),
            Source::Builtin(_) | Source::Component(_) | Source::Rag(_) | Source::Broken(_) => None,
        }
    }

    /// The `sql` built-in behind this plugin, for the facts that policy needs.
    pub fn sql(&self) -> Option<&SqlPlugin> {
        match &self.source {
            Source::Builtin(builtin) => builtin.sql(),
            _ => None,
        }
    }

    /// Calls that wait for an answer of their client.
    pub fn parked_calls(&self) -> usize {
        match &self.source {
            Source::Mcp(upstream) => upstream.parked(),
            _ => 0,
        }
    }

    /// What the server says of itself: era, revision, capabilities, instructions.
    pub async fn capabilities(&self) -> Result<ServerFacts, UpstreamError> {
        match &self.source {
            Source::Mcp(upstream) => match self.shield.watch().recall(upstream.facts()).await {
                // What it said last is true until it can be asked again.
                Err(cause @ UpstreamError::Open { .. }) => self.facts.lock().clone().ok_or(cause),
                facts => facts.inspect(|facts| *self.facts.lock() = Some(facts.clone())),
            },
            Source::Builtin(_) | Source::OpenApi(_) | Source::Grpc(_) | Source::Component(_) | Source::Rag(_) => {
                Ok(ServerFacts {
                    era: Era::Modern,
                    protocol_version: ProtocolVersion::LATEST.as_str().to_owned(),
                    capabilities: self.own_capabilities(),
                    server_info: Some(RawJson::from(
                        json!({"name": self.name.as_str(), "version": env!("CARGO_PKG_VERSION")}),
                    )),
                    instructions: None,
                })
            }
            Source::Broken(cause) => Err(cause.clone()),
        }
    }

    /// What it has, of a plugin that no server stands behind.
    fn own_capabilities(&self) -> RawJson {
        let mut capabilities = json!({"tools": {}});
        for (member, kinds) in
            [("prompts", &[ListKind::Prompts][..]), ("resources", &[ListKind::Resources, ListKind::Templates][..])]
        {
            if kinds.iter().any(|kind| !self.at_hand(*kind).is_empty()) {
                capabilities[member] = json!({});
            }
        }
        RawJson::from(capabilities)
    }

    /// Its tools. All lists are fetched once for all callers and cached.
    pub async fn tools(&self) -> Result<Definitions, UpstreamError> {
        let stand_in = self.stand_in();
        let serving = stand_in.as_deref().unwrap_or(self);
        match &serving.source {
            Source::Builtin(builtin) => Ok(builtin.tools()),
            Source::Rag(rag) => Ok(rag.tools()),
            _ => serving.list(ListKind::Tools).await,
        }
    }

    /// Its prompts.
    pub async fn prompts(&self) -> Result<Definitions, UpstreamError> {
        self.list(ListKind::Prompts).await
    }

    /// Its resources.
    pub async fn resources(&self) -> Result<Definitions, UpstreamError> {
        self.list(ListKind::Resources).await
    }

    /// Its resource templates.
    pub async fn resource_templates(&self) -> Result<Definitions, UpstreamError> {
        self.list(ListKind::Templates).await
    }

    async fn list(&self, kind: ListKind) -> Result<Definitions, UpstreamError> {
        let stand_in = self.stand_in();
        match &stand_in.as_deref().unwrap_or(self).source {
            Source::Mcp(upstream) => upstream.list(kind).await,
            Source::Component(component) => component.list(kind).await,
            Source::OpenApi(api) if kind == ListKind::Tools => api.tools().await,
            Source::Grpc(grpc) if kind == ListKind::Tools => grpc.tools().await,
            Source::Rag(rag) if kind == ListKind::Tools => Ok(rag.tools()),
            Source::Builtin(_) | Source::OpenApi(_) | Source::Grpc(_) | Source::Rag(_) => Ok(Definitions::default()),
            Source::Broken(cause) => Err(cause.clone()),
        }
    }

    /// A list as far as it is known without asking; however old.
    pub fn at_hand(&self, kind: ListKind) -> Definitions {
        let stand_in = self.stand_in();
        match (&stand_in.as_deref().unwrap_or(self).source, kind) {
            (Source::Mcp(upstream), _) => upstream.cached(kind).unwrap_or_default(),
            (Source::Builtin(builtin), ListKind::Tools) => builtin.tools(),
            (Source::Component(component), _) => component.at_hand(kind).unwrap_or_default(),
            (Source::OpenApi(api), ListKind::Tools) => api.at_hand().unwrap_or_default(),
            (Source::Grpc(grpc), ListKind::Tools) => grpc.at_hand().unwrap_or_default(),
            (Source::Rag(rag), ListKind::Tools) => rag.tools(),
            _ => Definitions::default(),
        }
    }

    /// The tool's definition, if its list was fetched before (resolving a call does that).
    pub fn cached_tool(&self, tool: &str) -> Option<crate::Definition> {
        let stand_in = self.stand_in();
        let tools = match &stand_in.as_deref().unwrap_or(self).source {
            Source::Mcp(upstream) => upstream.cached(ListKind::Tools)?,
            Source::Builtin(builtin) => builtin.tools(),
            Source::Component(component) => component.at_hand(ListKind::Tools)?,
            Source::OpenApi(api) => api.at_hand()?,
            Source::Grpc(grpc) => grpc.at_hand()?,
            Source::Rag(rag) => rag.tools(),
            Source::Broken(_) => return None,
        };
        tools.named(tool).cloned()
    }

    /// Checks a call's arguments (the object itself) against the tool's input schema. Waits for
    /// nothing: a tool whose definition is not at hand is left to the upstream.
    pub fn validate(&self, tool: &str, arguments: &RawJson) -> Result<(), ValidationProblem> {
        match self.cached_tool(tool) {
            Some(definition) => self.schemas.validate(&definition, arguments),
            None => Ok(()),
        }
    }

    /// Runs one operation. Never fails to answer: cancellation, the deadline and every failure of
    /// the upstream are executions. A question of the upstream comes back as `input_required`;
    /// whoever can ask the client does, and executes again with `requestState` and
    /// `inputResponses` in the params.
    pub async fn execute(&self, request: &ExecuteRequest<'_>, link: &dyn ClientLink) -> Execution {
        let stand_in = self.stand_in();
        let serving = stand_in.as_deref().unwrap_or(self);
        serving.shield.execute(&serving.source, request, link).await
    }

    /// Runs one operation for another node, which has done all but execute it. What is asked of this node
    /// is not passed on.
    pub async fn execute_here(&self, request: &ExecuteRequest<'_>, link: &dyn ClientLink) -> Execution {
        match &self.source {
            Source::Mcp(upstream) => {
                let tries = Tries::new(false);
                let mut ended = upstream.execute_here(request, link, &tries).await;
                // The node that asked cannot choose another endpoint; what was not sent goes to one from here.
                while matches!(&ended, Err(UpstreamError::Unreachable(_))) && upstream.has_other(&tries) {
                    ended = upstream.execute_here(request, link, &tries).await;
                }
                ended.unwrap_or_else(|cause| Execution::error(cause.to_rpc(self.name.as_str())))
            }
            Source::Builtin(_)
            | Source::OpenApi(_)
            | Source::Grpc(_)
            | Source::Component(_)
            | Source::Rag(_)
            | Source::Broken(_) => self.execute(request, link).await,
        }
    }

    /// Listens for another node. See [`Plugin::listen`].
    pub async fn listen_here(
        &self,
        filter: &ListenFilter,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<(), UpstreamError> {
        match &self.source {
            Source::Mcp(upstream) => tokio::select! {
                ended = upstream.listen_here(filter, request, link) => ended,
                () = self.retired.cancelled() => Ok(()),
            },
            Source::Builtin(_)
            | Source::OpenApi(_)
            | Source::Grpc(_)
            | Source::Component(_)
            | Source::Rag(_)
            | Source::Broken(_) => self.listen(filter, request, link).await.map(drop),
        }
    }

    /// A list for another node.
    pub async fn list_here(&self, kind: ListKind) -> Result<Definitions, UpstreamError> {
        match &self.source {
            Source::Mcp(upstream) => upstream.list_here(kind).await,
            Source::Builtin(_)
            | Source::OpenApi(_)
            | Source::Grpc(_)
            | Source::Component(_)
            | Source::Rag(_)
            | Source::Broken(_) => self.list(kind).await,
        }
    }

    /// [`Plugin::capabilities`] for another node.
    pub async fn capabilities_here(&self) -> Result<ServerFacts, UpstreamError> {
        match &self.source {
            Source::Mcp(upstream) => upstream.facts_here().await,
            Source::Builtin(_)
            | Source::OpenApi(_)
            | Source::Grpc(_)
            | Source::Component(_)
            | Source::Rag(_)
            | Source::Broken(_) => self.capabilities().await,
        }
    }

    /// The upstream session of an owner, for another node; opened here if there is none.
    pub async fn session_for(
        &self,
        owner: &SessionOwner,
        gone: Option<&str>,
    ) -> Result<Option<SharedSession>, UpstreamError> {
        match &self.source {
            Source::Mcp(upstream) => upstream.session_for(owner, gone).await,
            Source::Builtin(_)
            | Source::OpenApi(_)
            | Source::Grpc(_)
            | Source::Component(_)
            | Source::Rag(_)
            | Source::Broken(_) => Ok(None),
        }
    }

    /// The same as far as it is known here.
    pub fn known_session(&self, owner: &SessionOwner) -> Option<SharedSession> {
        match &self.source {
            Source::Mcp(upstream) => upstream.known_session(owner),
            Source::Builtin(_)
            | Source::OpenApi(_)
            | Source::Grpc(_)
            | Source::Component(_)
            | Source::Rag(_)
            | Source::Broken(_) => None,
        }
    }

    /// A client has ended its legacy session of this key: see [`crate::Toolbox::end_session`].
    pub(crate) fn end_session(&self, session: &str, tells: bool) {
        if let Source::Mcp(upstream) = &self.source {
            upstream.end_session(session, tells);
        }
    }

    /// Notes an upstream session that another node opened.
    pub fn note_session(&self, owner: SessionOwner, session: SharedSession) {
        if let Source::Mcp(upstream) = &self.source {
            upstream.note_session(owner, session);
        }
    }

    /// Passes on what the upstream says between calls (names and URIs are the plugin's own), until
    /// the listener goes or the plugin is replaced. `request` says who listens; its operation,
    /// params and deadline do not matter.
    pub async fn listen(
        &self,
        filter: &ListenFilter,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<ListenEnd, UpstreamError> {
        let listening = async {
            match &self.source {
                Source::Mcp(upstream) => upstream.listen(filter, request, &Heard { link, shield: &self.shield }).await,
                // Built-ins never change, nor do tools of documents, a service tells of nothing, and a component's other
                // version is another plugin.
                Source::Builtin(_) | Source::OpenApi(_) | Source::Grpc(_) | Source::Component(_) | Source::Rag(_) => {
                    link.cancelled().await;
                    Ok(())
                }
                Source::Broken(cause) => Err(cause.clone()),
            }
        };
        tokio::select! {
            ended = listening => ended.map(|()| ListenEnd::Cancelled),
            () = self.retired.cancelled() => Ok(ListenEnd::Retired),
        }
    }
}

/// A listener that has kept answers forgotten when it hears of changes.
struct Heard<'a> {
    link: &'a dyn ClientLink,
    shield: &'a Shield,
}

impl ClientLink for Heard<'_> {
    fn notify(&self, method: &str, params: RawJson) {
        if method.starts_with("notifications/resources/") {
            self.shield.forget();
        }
        self.link.notify(method, params);
    }

    fn ask<'a>(&'a self, input_requests: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        self.link.ask(input_requests)
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        self.link.cancelled()
    }
}

/// What a plugin needs of its resource beside its source.
pub(crate) struct Identity {
    pub(crate) tenant: Name,
    pub(crate) name: Name,
    pub(crate) digest: Arc<str>,
    /// As records name it.
    pub(crate) recorded: Arc<str>,
    shield: Shield,
}

impl Identity {
    pub(crate) fn new(tenant: Name, name: Name, (digest, recorded): (Arc<str>, Arc<str>), spec: &PluginSpec) -> Self {
        let shield = Shield::new(&tenant, &name, spec);
        Self { tenant, name, digest, recorded, shield }
    }
}
