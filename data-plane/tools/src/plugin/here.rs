//! What a plugin does for other nodes, and the sessions that nodes share. Only MCP servers are asked for over nodes:
//! what is asked of this one is not passed on.

use provost_data_pipeline::{ClientLink, Execution};

use super::{ExecuteRequest, Plugin};
use crate::{
    Definitions, ServerFacts, UpstreamError,
    resilience::Tries,
    siblings::{SessionOwner, SharedSession},
    upstream::ListKind,
};

impl Plugin {
    /// Runs one operation for another node, which has done all but execute it. What is asked of this node
    /// is not passed on.
    pub async fn execute_here(&self, request: &ExecuteRequest<'_>, link: &dyn ClientLink) -> Execution {
        let Some(upstream) = self.source.mcp() else { return self.execute(request, link).await };
        let tries = Tries::new(false);
        let mut ended = upstream.execute_here(request, link, &tries).await;
        // The node that asked cannot choose another endpoint; what was not sent goes to one from here.
        while matches!(&ended, Err(UpstreamError::Unreachable(_))) && upstream.has_other(&tries) {
            ended = upstream.execute_here(request, link, &tries).await;
        }
        ended.unwrap_or_else(|cause| Execution::error(cause.to_rpc(self.name.as_str())))
    }

    /// A list for another node.
    pub async fn list_here(&self, kind: ListKind) -> Result<Definitions, UpstreamError> {
        match self.source.mcp() {
            Some(upstream) => upstream.list_here(kind).await,
            None => self.list(kind).await,
        }
    }

    /// [`Plugin::capabilities`] for another node.
    pub async fn capabilities_here(&self) -> Result<ServerFacts, UpstreamError> {
        match self.source.mcp() {
            Some(upstream) => upstream.facts_here().await,
            None => self.capabilities().await,
        }
    }

    /// The upstream session of an owner, for another node; opened here if there is none.
    pub async fn session_for(
        &self,
        owner: &SessionOwner,
        gone: Option<&str>,
    ) -> Result<Option<SharedSession>, UpstreamError> {
        match self.source.mcp() {
            Some(upstream) => upstream.session_for(owner, gone).await,
            None => Ok(None),
        }
    }

    /// The same as far as it is known here.
    pub fn known_session(&self, owner: &SessionOwner) -> Option<SharedSession> {
        self.source.mcp()?.known_session(owner)
    }

    /// A client has ended its legacy session of this key: see [`crate::Toolbox::end_session`].
    pub(crate) fn end_session(&self, session: &str, tells: bool) {
        if let Some(upstream) = self.source.mcp() {
            upstream.end_session(session, tells);
        }
    }

    /// Notes an upstream session that another node opened.
    pub fn note_session(&self, owner: SessionOwner, session: SharedSession) {
        if let Some(upstream) = self.source.mcp() {
            upstream.note_session(owner, session);
        }
    }
}
