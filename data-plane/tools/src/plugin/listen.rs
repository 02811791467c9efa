//! What a plugin says between calls.

use provost_data_pipeline::{AskError, ClientLink};
use provost_mcp::RawJson;
use provost_types::BoxFuture;

use super::{ExecuteRequest, Plugin};
use crate::{ListenFilter, UpstreamError, resilience::Shield};

/// Why listening ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenEnd {
    /// The listener went.
    Cancelled,
    /// The plugin was changed or removed: look it up again.
    Retired,
}

impl Plugin {
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
            match (self.source.mcp(), self.source.cause()) {
                (Some(upstream), _) => upstream.listen(filter, request, &Heard { link, shield: &self.shield }).await,
                (None, Some(cause)) => Err(cause.clone()),
                // Built-ins never change, nor do tools of documents, a service tells of nothing, and a component's other
                // version is another plugin.
                (None, None) => {
                    link.cancelled().await;
                    Ok(())
                }
            }
        };
        tokio::select! {
            ended = listening => ended.map(|()| ListenEnd::Cancelled),
            () = self.retired.cancelled() => Ok(ListenEnd::Retired),
        }
    }

    /// Listens for another node. See [`Plugin::listen`].
    pub async fn listen_here(
        &self,
        filter: &ListenFilter,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<(), UpstreamError> {
        match self.source.mcp() {
            Some(upstream) => tokio::select! {
                ended = upstream.listen_here(filter, request, link) => ended,
                () = self.retired.cancelled() => Ok(()),
            },
            None => self.listen(filter, request, link).await.map(drop),
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
