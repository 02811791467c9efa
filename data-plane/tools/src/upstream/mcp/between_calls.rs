//! What happens between calls: changed lists, log levels, subscriptions, listeners.

use std::sync::Arc;

use http::HeaderMap;
use provost_data_pipeline::{AskError, ClientLink, Execution};
use provost_mcp::{RawJson, RawObject, RpcError};
use provost_types::BoxFuture;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        audience::caller_key,
        connection::Connection,
        listen::{ListenFilter, Pauses, Stretch, listen_legacy, listen_modern},
        subscriptions::SubscriptionBook,
        switchboard::Told,
    },
    McpUpstream,
};
use crate::{ExecuteRequest, UpstreamError, resilience::Tries};

/// Most legacy clients whose log level is remembered.
const MAX_LOG_LEVELS: usize = 8_192;

/// A link that nobody is at the end of: for what the plugin listens to itself.
struct OwnLink(CancellationToken);

impl ClientLink for OwnLink {
    fn notify(&self, _: &str, _: RawJson) {}
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.cancelled())
    }
}

/// A server without the method. On a merged route the client was told of it for the sake of other plugins, and cannot
/// know whose resource it named.
fn unwatched(cause: UpstreamError) -> UpstreamError {
    match cause {
        UpstreamError::Rpc(error) if error.code == RpcError::METHOD_NOT_FOUND => UpstreamError::Unwatched,
        other => other,
    }
}

impl McpUpstream {
    /// Listens for changed lists, once, for as long as the plugin lives.
    pub(super) fn watch(self: &Arc<Self>, connection: &Arc<Connection>) {
        let tells = memchr::memmem::find(connection.facts.capabilities.as_bytes(), b"listChanged");
        if tells.is_none() || self.watching.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        let (weak, link) = (Arc::downgrade(self), OwnLink(self.stop.clone()));
        tokio::spawn(async move {
            let filter = ListenFilter { session: false, ..ListenFilter::legacy() };
            let mut pauses = Pauses::new();
            loop {
                let Some(upstream) = weak.upgrade() else { return };
                let connection = upstream.catalogue().await;
                // Not held while waiting: the plugin must be able to end.
                drop(upstream);
                let hear = |told: &Told| {
                    if let Some(upstream) = weak.upgrade() {
                        upstream.changed(&told.method);
                    }
                };
                let stretch = match connection {
                    Ok(connection) => {
                        let book = SubscriptionBook::default();
                        let mut none = book.watch("");
                        if connection.is_legacy() {
                            listen_legacy(&connection, &filter, &none, false, &hear, &link).await
                        } else {
                            listen_modern(&connection, &filter, &mut none, &hear, &link).await
                        }
                    }
                    Err(cause) => Stretch::Ended(cause),
                };
                match stretch {
                    Stretch::Cancelled => return,
                    Stretch::Ended(UpstreamError::Rpc(error)) => {
                        tracing::info!(error = error.message, "the upstream does not tell of changed lists");
                        return;
                    }
                    Stretch::Changed | Stretch::Ended(_) => {}
                }
                if !pauses.wait(&link).await {
                    return;
                }
            }
        });
    }

    pub(super) async fn set_log_level(&self, request: &ExecuteRequest<'_>) -> Result<Execution, UpstreamError> {
        let level = RawObject::parse(&request.params)?.get_text("level").unwrap_or_default();
        let tries = Tries::new(false);
        let (_, connection) = self.connection(request, &mut self.turn(&tries)).await?;
        if connection.is_legacy() {
            if connection.facts.can("logging") {
                connection.request("logging/setLevel", &request.params, HeaderMap::new()).await?;
                *connection.log_level().lock() = Some(level);
            }
        } else {
            let mut levels = self.levels.lock();
            if levels.len() >= MAX_LOG_LEVELS {
                levels.clear();
            }
            levels.insert(caller_key(request.client, request.principal), level);
        }
        Ok(Execution::result(RawJson::EMPTY_OBJECT, false))
    }

    /// A modern client names its level with each request; a legacy server keeps one for the session.
    pub(super) async fn raise_log_level(&self, connection: &Arc<Connection>, level: &str) -> Result<(), UpstreamError> {
        let same = connection.log_level().lock().as_deref() == Some(level);
        if same || !connection.facts.can("logging") {
            return Ok(());
        }
        let params = RawJson::from(json!({"level": level}));
        connection.request("logging/setLevel", &params, HeaderMap::new()).await?;
        *connection.log_level().lock() = Some(level.to_owned());
        Ok(())
    }

    pub(super) async fn subscribe(&self, request: &ExecuteRequest<'_>, uri: &str) -> Result<Execution, UpstreamError> {
        let tries = Tries::new(false);
        let (_, connection) = self.connection(request, &mut self.turn(&tries)).await?;
        if connection.is_legacy() {
            let params = RawJson::from(json!({"uri": uri}));
            connection.request("resources/subscribe", &params, HeaderMap::new()).await.map_err(unwatched)?;
        } else if !connection.facts.tells_of_resources() {
            return Err(UpstreamError::Unwatched);
        }
        self.book.add(&caller_key(request.client, request.principal), uri)?;
        Ok(Execution::result(RawJson::EMPTY_OBJECT, false))
    }

    pub(super) async fn unsubscribe(
        &self,
        request: &ExecuteRequest<'_>,
        uri: &str,
    ) -> Result<Execution, UpstreamError> {
        self.book.remove(&caller_key(request.client, request.principal), uri);
        let tries = Tries::new(false);
        let (audience, connection) = self.connection(request, &mut self.turn(&tries)).await?;
        // On a shared connection another caller may still want it.
        if connection.is_legacy() && !audience.is_catalogue() {
            let params = RawJson::from(json!({"uri": uri}));
            connection.request("resources/unsubscribe", &params, HeaderMap::new()).await.map_err(unwatched)?;
        }
        Ok(Execution::result(RawJson::EMPTY_OBJECT, false))
    }

    /// Passes on what the upstream says between calls, heard from here, until the listener goes.
    pub(crate) async fn listen_here(
        self: &Arc<Self>,
        filter: &ListenFilter,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<(), UpstreamError> {
        let mut subscribed = self.book.watch(&caller_key(request.client, request.principal));
        let hear = |told: &Told| {
            self.changed(&told.method);
            link.notify(&told.method, told.params.clone().unwrap_or(RawJson::EMPTY_OBJECT));
        };
        let mut pauses = Pauses::new();
        loop {
            // Listening is no call: it is not counted where it is.
            let tries = Tries::new(false);
            let connected = self.connection(request, &mut self.turn(&tries)).await;
            let stretch = match connected {
                Err(cause) => Stretch::Ended(cause),
                Ok((audience, connection)) if connection.is_legacy() => {
                    let private = !audience.is_catalogue();
                    listen_legacy(&connection, filter, &subscribed, private, &hear, link).await
                }
                Ok((_, connection)) => listen_modern(&connection, filter, &mut subscribed, &hear, link).await,
            };
            match stretch {
                Stretch::Cancelled => return Ok(()),
                Stretch::Changed => continue,
                Stretch::Ended(UpstreamError::Rpc(error)) => return Err(UpstreamError::Rpc(error)),
                Stretch::Ended(cause) => {
                    tracing::info!(plugin = self.plugin, %cause, "a subscription's upstream stream ended");
                }
            }
            if !pauses.wait(link).await {
                return Ok(());
            }
        }
    }
}
