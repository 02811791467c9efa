//! One plugin of one tenant, running.
//!
//! - `request`: what it is asked to do.
//! - `identity`: what every plugin has; `source`: where its tools come from, the one place that tells kinds apart.
//! - `lists`: what it says that it has; `listen`: what it says between calls.
//! - `here`: what it does for other nodes; `patience`: how long many wait for it.

mod here;
mod identity;
mod listen;
mod lists;
mod patience;
mod request;
mod source;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use provost_data_pipeline::{ClientLink, Execution};
use provost_types::Name;
use tokio_util::sync::CancellationToken;

pub(crate) use identity::Identity;
pub use listen::ListenEnd;
use patience::Turns;
pub use request::ExecuteRequest;
use source::Source;

use crate::{
    Consent, CorpusView, EndpointView, ServerFacts, UpstreamError, Walls, builtin::Builtin, component::Component,
    grpc::Grpc, openapi::OpenApi, rag::Rag, resilience::Shield, schema::SchemaCache, sql::SqlPlugin,
    upstream::McpUpstream,
};

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

/// A plugin whose present version does not take calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unready {
    /// Why; empty: it is being made ready.
    pub why: String,
    /// Only another document, or another secret, can change that.
    pub is_final: bool,
}

impl Unready {
    /// Because of this; with its code, as callers are told.
    pub(crate) fn by(cause: &UpstreamError, plugin: &Name, is_final: bool) -> Self {
        let error = cause.to_rpc(plugin.as_str());
        let code = error.stable_code().unwrap_or_else(|| cause.code().to_owned());
        Self { why: format!("{code}: {}", error.message), is_final }
    }
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
    turns: Turns,
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
        if let Some(upstream) = source.mcp() {
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
            turns: Turns::default(),
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
        let component = self.source.component()?;
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
        self.source.serves()
    }

    /// Why its present version does not take calls, whatever serves in its place meanwhile; `None`: it does.
    pub fn unready(&self) -> Option<Unready> {
        self.source.unready(&self.name)
    }

    /// Whether a guest serves it, which may want to call other tools.
    pub fn has_guest(&self) -> bool {
        self.source.component().is_some()
    }

    /// The component behind this plugin.
    pub(crate) fn as_component(&self) -> Option<&Arc<Component>> {
        self.source.component()
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
        self.source.mcp().map(|upstream| upstream.endpoints()).unwrap_or_default()
    }

    /// The walls around its process, if it has one that is to have some.
    pub fn walls(&self) -> Option<Walls> {
        self.source.mcp()?.walls()
    }

    /// How its documents stand, if it is a plugin of documents.
    pub fn corpus(&self) -> Option<CorpusView> {
        match &self.source {
            Source::Rag(rag) => Some(rag.view()),
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
        self.source.consents().map(Consent::new)
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
        self.source.mcp().map_or(0, |upstream| upstream.parked())
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
}
