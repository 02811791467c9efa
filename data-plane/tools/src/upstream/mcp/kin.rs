//! What of an upstream is on another node, and how it is used from here.
//!
//! - One process for all nodes (`instances: one`): everything is done where the process is.
//! - A legacy session whose client can be asked: its calls run where the session lives, because a
//!   question may come on any of the session's streams.
//! - A legacy session whose client cannot be asked: every node uses the same upstream session, which
//!   any of them takes up by its id.
//! - What a legacy client hears between calls, and what it subscribed to: where its things live.
//! - A call that waits for its client: in the process that its state names.
//!
//! A node that is not reached has done nothing, and the next one is asked, at last this one.

use std::sync::Arc;

use provost_data_pipeline::{ClientLink, Execution, Operation};
use provost_mcp::{Era, RawObject, RpcError};

use super::{
    super::{
        audience::{Audience, caller_key},
        listing::{ListCache, ListKind},
        parking::Parking,
    },
    McpUpstream,
};
use crate::{
    Definitions, ExecuteRequest, ListenFilter, ServerFacts, UpstreamError,
    resilience::Tries,
    siblings::{At, Kin, SiblingError},
};

/// Nodes that are asked in turn before this one does it itself.
const MAX_TRIES: usize = 3;

impl McpUpstream {
    /// Runs one operation, wherever it has to be.
    pub(crate) async fn execute(
        self: &Arc<Self>,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
        tries: &Tries,
    ) -> Result<Execution, UpstreamError> {
        match self.elsewhere(request, link).await {
            Some(done) => done,
            None => self.execute_here(request, link, tries).await,
        }
    }

    async fn elsewhere(
        &self,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Option<Result<Execution, UpstreamError>> {
        let kin = self.kin.as_ref()?;
        if let Some(tag) = parked_at(request).filter(|tag| *tag != kin.nodes.tag()) {
            return Some(self.parked_elsewhere(kin, tag, request, link).await);
        }
        if !self.has_one_place(request).await {
            return None;
        }
        let caller = caller_key(request.client, request.principal);
        for _ in 0..MAX_TRIES {
            let at = kin.owner(&caller)?;
            match kin.nodes.execute(&at, &kin.plugin, request, link).await {
                Ok(done) => return Some(Ok(done)),
                Err(SiblingError::NotReached(cause)) => {
                    tracing::info!(plugin = self.plugin, ?at, cause, "asked again elsewhere");
                }
                Err(lost @ SiblingError::Lost(_)) => {
                    return Some(Err(UpstreamError::Died(lost.to_string())));
                }
            }
        }
        None
    }

    async fn parked_elsewhere(
        &self,
        kin: &Kin,
        tag: String,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<Execution, UpstreamError> {
        match kin.nodes.execute(&At::Process(tag), &kin.plugin, request, link).await {
            Ok(done) => Ok(done),
            Err(SiblingError::NotReached(_)) => Err(UpstreamError::Rpc(RpcError::with_code(
                RpcError::INVALID_PARAMS,
                "PV-UPSTREAM-QUESTION-EXPIRED",
                "the question that this answers is gone with the node that asked it; call again without requestState",
            ))),
            Err(lost @ SiblingError::Lost(_)) => Err(UpstreamError::Died(lost.to_string())),
        }
    }

    /// Whether the operation must run where its things are.
    async fn has_one_place(&self, request: &ExecuteRequest<'_>) -> bool {
        let Some(kin) = &self.kin else { return false };
        if kin.is_single {
            return true;
        }
        if self.over_stdio() {
            return false;
        }
        match request.operation {
            Operation::Subscribe(_) | Operation::Unsubscribe(_) => true,
            // An era that is not found out says so when the call is made.
            _ => matches!(self.era().await, Ok(Era::Legacy)) && Audience::can_be_asked(request.client),
        }
    }

    /// Passes on what the upstream says between calls, until the listener goes.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        filter: &ListenFilter,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<(), UpstreamError> {
        let caller = caller_key(request.client, request.principal);
        let kin = self.kin.as_ref().filter(|kin| kin.is_single || (filter.session && !self.over_stdio()));
        for _ in 0..MAX_TRIES {
            let Some(at) = kin.and_then(|kin| kin.owner(&caller)) else { break };
            let Some(kin) = kin else { break };
            let heard = Heard { upstream: self, link };
            match kin.nodes.listen(&at, &kin.plugin, filter, request, &heard).await {
                Ok(()) => return Ok(()),
                // The next one hears from now on; what was said in between is in the lists.
                Err(cause) => tracing::info!(plugin = self.plugin, ?at, %cause, "listened to elsewhere"),
            }
            self.lists.iter().for_each(ListCache::invalidate);
        }
        self.listen_here(filter, request, link).await
    }

    /// A list, from where the process is.
    pub(super) async fn list_elsewhere(&self, kind: ListKind) -> Option<Result<Definitions, UpstreamError>> {
        let kin = self.kin.as_ref().filter(|kin| kin.is_single)?;
        for _ in 0..MAX_TRIES {
            if let Ok(listed) = kin.nodes.list(&kin.owner("")?, &kin.plugin, kind).await {
                return Some(listed);
            }
        }
        None
    }

    /// What the upstream says of itself.
    pub(crate) async fn facts(&self) -> Result<ServerFacts, UpstreamError> {
        if let Some(kin) = self.kin.as_ref().filter(|kin| kin.is_single) {
            for _ in 0..MAX_TRIES {
                let Some(at) = kin.owner("") else { break };
                if let Ok(facts) = kin.nodes.facts(&at, &kin.plugin).await {
                    return facts;
                }
            }
        }
        self.facts_here().await
    }
}

/// The process that keeps the parked call to which the request comes back. Looked for as text first:
/// hardly any request does.
fn parked_at(request: &ExecuteRequest<'_>) -> Option<String> {
    Parking::is_mentioned(request.params.as_bytes()).then_some(())?;
    let state = RawObject::parse(&request.params).ok()?.get_text("requestState")?;
    Parking::kept_by(&state).map(str::to_owned)
}

/// A listener's link that also notes here which lists have changed.
struct Heard<'a> {
    upstream: &'a McpUpstream,
    link: &'a dyn ClientLink,
}

impl ClientLink for Heard<'_> {
    fn notify(&self, method: &str, params: provost_mcp::RawJson) {
        self.upstream.changed(method);
        self.link.notify(method, params);
    }

    fn ask<'a>(
        &'a self,
        input_requests: &'a provost_mcp::RawJson,
    ) -> Option<provost_types::BoxFuture<'a, Result<provost_mcp::RawJson, provost_data_pipeline::AskError>>> {
        self.link.ask(input_requests)
    }

    fn cancelled(&self) -> provost_types::BoxFuture<'_, ()> {
        self.link.cancelled()
    }
}
