//! A plugin for another node, which has done all but execute: what is asked of this node is not passed on.

use provost_data_pipeline::{ClientLink, Execution};

use super::{Plugin, source::Source};
use crate::{
    Definitions, ExecuteRequest, ListenFilter, ServerFacts, UpstreamError,
    resilience::Tries,
    siblings::{SessionOwner, SharedSession},
    upstream::ListKind,
};

impl Plugin {
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
            Source::Builtin(_) | Source::Broken(_) => self.execute(request, link).await,
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
            Source::Builtin(_) | Source::Broken(_) => self.listen(filter, request, link).await.map(drop),
        }
    }

    /// A list for another node.
    pub async fn list_here(&self, kind: ListKind) -> Result<Definitions, UpstreamError> {
        match &self.source {
            Source::Mcp(upstream) => upstream.list_here(kind).await,
            Source::Builtin(_) | Source::Broken(_) => self.list(kind).await,
        }
    }

    /// [`Plugin::capabilities`] for another node.
    pub async fn capabilities_here(&self) -> Result<ServerFacts, UpstreamError> {
        match &self.source {
            Source::Mcp(upstream) => upstream.facts_here().await,
            Source::Builtin(_) | Source::Broken(_) => self.capabilities().await,
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
            Source::Builtin(_) | Source::Broken(_) => Ok(None),
        }
    }

    /// The same as far as it is known here.
    pub fn known_session(&self, owner: &SessionOwner) -> Option<SharedSession> {
        match &self.source {
            Source::Mcp(upstream) => upstream.known_session(owner),
            Source::Builtin(_) | Source::Broken(_) => None,
        }
    }

    /// Notes an upstream session that another node opened.
    pub fn note_session(&self, owner: SessionOwner, session: SharedSession) {
        if let Source::Mcp(upstream) = &self.source {
            upstream.note_session(owner, session);
        }
    }
}
