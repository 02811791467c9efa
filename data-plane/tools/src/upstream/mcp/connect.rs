//! Finding the era, and the connection for each purpose.

use std::{future::Future, sync::Arc, time::Instant};

use provost_mcp::Era;
use tokio::sync::broadcast;

use super::{
    super::{audience::Audience, connection::Connection, handshake, listing::ListCache},
    McpUpstream, Target,
    sessions::Asking,
};
use crate::{ExecuteRequest, UpstreamError};

impl McpUpstream {
    pub(super) async fn era(&self) -> Result<Era, UpstreamError> {
        let waiting_since = Instant::now();
        let mut state = self.era.lock().await;
        if let Some(era) = state.known {
            return Ok(era);
        }
        // Whoever waited through a failed try shares its failure.
        if let Some((at, cause)) = &state.failed
            && *at > waiting_since
        {
            return Err(cause.clone());
        }
        let found = self.find_era().await;
        match &found {
            Ok(era) => state.known = Some(*era),
            Err(cause) => state.failed = Some((Instant::now(), cause.clone())),
        }
        found
    }

    async fn find_era(&self) -> Result<Era, UpstreamError> {
        let tried = tokio::time::timeout(handshake::DISCOVER_TIMEOUT, self.connect_modern()).await;
        match tried {
            Ok(Ok(_)) => return Ok(Era::Modern),
            Ok(Err(
                cause @ (UpstreamError::Unreachable(_) | UpstreamError::Egress(_) | UpstreamError::Unauthorized(_)),
            )) => return Err(cause),
            Ok(Err(cause)) => tracing::debug!(plugin = self.plugin, %cause, "not of the modern era"),
            Err(_) => tracing::debug!(plugin = self.plugin, "no answer to discovery"),
        }
        self.connect_legacy(&Audience::catalogue(), Asking::Owner).await?;
        Ok(Era::Legacy)
    }

    /// The connection that lists, and in the modern era serves all.
    pub(super) async fn catalogue(&self) -> Result<Arc<Connection>, UpstreamError> {
        match self.era().await? {
            Era::Modern => self.connect_modern().await,
            Era::Legacy => self.connect_legacy(&Audience::catalogue(), Asking::Owner).await,
        }
    }

    pub(super) async fn connect_modern(&self) -> Result<Arc<Connection>, UpstreamError> {
        self.modern
            .get(&Audience::catalogue(), || {
                self.in_time(async {
                    match &self.target {
                        Target::Http(target) => handshake::discover_http(target).await,
                        Target::Stdio(target) => handshake::discover_stdio(target).await,
                    }
                })
            })
            .await
    }

    pub(super) async fn connect_legacy(
        &self,
        audience: &Audience,
        asking: Asking,
    ) -> Result<Arc<Connection>, UpstreamError> {
        let capabilities = audience.capabilities(handshake::full_capabilities());
        self.legacy
            .get(audience, || {
                self.in_time(async {
                    let connection = match &self.target {
                        _ if let Some((kin, target)) = self.sharing(audience) => {
                            self.shared_session(kin, target, audience, &capabilities, asking).await?
                        }
                        Target::Http(target) => handshake::initialize_http(target, &capabilities, false).await?,
                        Target::Stdio(target) => handshake::initialize_stdio(target, &capabilities).await?,
                    };
                    self.hear_changes(&connection);
                    Ok(connection)
                })
            })
            .await
    }

    /// A legacy server tells of a changed list in whichever session it likes.
    fn hear_changes(&self, connection: &Arc<Connection>) {
        let (mut told, me) = (connection.switchboard().subscribe(), self.me.clone());
        let ended = connection.switchboard().ended();
        tokio::spawn(async move {
            loop {
                let heard = tokio::select! {
                    heard = told.recv() => heard,
                    () = ended.cancelled() => return,
                };
                match (heard, me.upgrade()) {
                    (Ok(told), Some(upstream)) => upstream.changed(&told.method),
                    // What was lost may have been about any list.
                    (Err(broadcast::error::RecvError::Lagged(_)), Some(upstream)) => {
                        upstream.lists.iter().for_each(ListCache::invalidate);
                    }
                    _ => return,
                }
            }
        });
    }

    async fn in_time<T>(&self, handshake: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, UpstreamError> {
        let limit = self.limits.connect_timeout;
        tokio::time::timeout(limit, handshake)
            .await
            .unwrap_or_else(|_| Err(UpstreamError::Unreachable(format!("no answer to the handshake in {limit:?}"))))
    }

    /// The connection for a caller's request, and its audience if it can be replaced.
    pub(super) async fn connection(
        &self,
        request: &ExecuteRequest<'_>,
    ) -> Result<(Audience, Arc<Connection>), UpstreamError> {
        match self.era().await? {
            Era::Modern => Ok((Audience::catalogue(), self.connect_modern().await?)),
            Era::Legacy => {
                let audience = Audience::of(request.client, request.principal, self.over_stdio());
                let connection = self.connect_legacy(&audience, Asking::Owner).await?;
                Ok((audience, connection))
            }
        }
    }
}
