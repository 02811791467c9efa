//! Finding the era, and the connection for each purpose.

use std::{future::Future, sync::Arc, time::Instant};

use http::HeaderValue;
use provost_mcp::Era;
use tokio::sync::broadcast;

use super::{
    super::{audience::Audience, connection::Connection, handshake, http::HttpTarget, listing::ListCache},
    McpUpstream, Target,
    sessions::Asking,
};
use crate::{
    ExecuteRequest, UpstreamError,
    oauth::{Authorizer, Behalf},
};

impl McpUpstream {
    pub(super) async fn era(&self) -> Result<Era, UpstreamError> {
        self.era_for(None).await
    }

    /// The same, found out in a caller's name where nobody else may ask the upstream.
    async fn era_for(&self, behalf: Option<(&Audience, &HeaderValue)>) -> Result<Era, UpstreamError> {
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
        // Once: calls do not carry its size.
        let found = Box::pin(self.find_era(behalf)).await;
        match &found {
            Ok(era) => state.known = Some(*era),
            Err(cause) => state.failed = Some((Instant::now(), cause.clone())),
        }
        found
    }

    async fn find_era(&self, behalf: Option<(&Audience, &HeaderValue)>) -> Result<Era, UpstreamError> {
        let catalogue = Audience::catalogue();
        let (audience, token) = behalf.map_or((&catalogue, None), |(audience, token)| (audience, Some(token)));
        let modern = self.connect_modern(audience, token);
        let tried = tokio::time::timeout(handshake::DISCOVER_TIMEOUT, modern).await;
        match tried {
            Ok(Ok(_)) => return Ok(Era::Modern),
            Ok(Err(
                cause @ (UpstreamError::Unreachable(_)
                | UpstreamError::Egress(_)
                | UpstreamError::Unauthorized(_)
                | UpstreamError::Token(_)
                | UpstreamError::Grant(_)
                | UpstreamError::Consent),
            )) => return Err(cause),
            Ok(Err(cause)) => tracing::debug!(plugin = self.plugin, %cause, "not of the modern era"),
            Err(_) => tracing::debug!(plugin = self.plugin, "no answer to discovery"),
        }
        self.connect_legacy(audience, Asking::Owner, token).await?;
        Ok(Era::Legacy)
    }

    /// The connection that lists, and in the modern era serves all.
    pub(super) async fn catalogue(&self) -> Result<Arc<Connection>, UpstreamError> {
        match self.era().await? {
            Era::Modern => self.connect_modern(&Audience::catalogue(), None).await,
            Era::Legacy => self.connect_legacy(&Audience::catalogue(), Asking::Owner, None).await,
        }
    }

    async fn connect_modern(
        &self,
        audience: &Audience,
        token: Option<&HeaderValue>,
    ) -> Result<Arc<Connection>, UpstreamError> {
        self.modern
            .get(audience, || {
                Box::pin(self.in_time(async {
                    match &self.target {
                        Target::Http(target) => handshake::discover_http(&on_behalf(target, token)).await,
                        Target::Stdio(target) => handshake::discover_stdio(target).await,
                    }
                }))
            })
            .await
    }

    pub(super) async fn connect_legacy(
        &self,
        audience: &Audience,
        asking: Asking,
        token: Option<&HeaderValue>,
    ) -> Result<Arc<Connection>, UpstreamError> {
        let capabilities = audience.capabilities(handshake::full_capabilities());
        self.legacy
            .get(audience, || {
                Box::pin(self.in_time(async {
                    let connection = match &self.target {
                        // Not with tokens: a plugin with its callers' rights has no kin.
                        _ if let Some((kin, target)) = self.sharing(audience) => {
                            self.shared_session(kin, target, audience, &capabilities, asking).await?
                        }
                        Target::Http(target) => {
                            handshake::initialize_http(&on_behalf(target, token), &capabilities, false).await?
                        }
                        Target::Stdio(target) => handshake::initialize_stdio(target, &capabilities).await?,
                    };
                    self.hear_changes(&connection);
                    Ok(connection)
                }))
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
        let Some((auth, behalf)) = self.behalf(request)? else {
            return self.connect(self.era().await?, request, None).await;
        };
        let token = auth.header(&behalf).await?;
        match Box::pin(self.connect_for(auth, request, &behalf, token.clone())).await {
            // The handshake is refused, and nothing was executed: another token, once.
            Err(UpstreamError::Unauthorized(401)) => {
                auth.refused(Some(&behalf), &token);
                let token = auth.header(&behalf).await?;
                Box::pin(self.connect_for(auth, request, &behalf, token)).await
            }
            connected => connected,
        }
    }

    async fn connect_for(
        &self,
        auth: &Authorizer,
        request: &ExecuteRequest<'_>,
        behalf: &Behalf<'_>,
        token: HeaderValue,
    ) -> Result<(Audience, Arc<Connection>), UpstreamError> {
        let era = if auth.is_per_user() {
            self.era_for(Some((&Audience::behalf(behalf.key()), &token))).await?
        } else {
            self.era().await?
        };
        self.connect(era, request, Some((behalf, token))).await
    }

    /// A connection whose requests carry the token from now on. Over a legacy session that is the token of its
    /// caller's last call.
    async fn connect(
        &self,
        era: Era,
        request: &ExecuteRequest<'_>,
        behalf: Option<(&Behalf<'_>, HeaderValue)>,
    ) -> Result<(Audience, Arc<Connection>), UpstreamError> {
        let token = behalf.as_ref().map(|(_, token)| token);
        let (audience, connection) = match era {
            Era::Modern => {
                let audience =
                    behalf.as_ref().map_or_else(Audience::catalogue, |(behalf, _)| Audience::behalf(behalf.key()));
                let connection = self.connect_modern(&audience, token).await?;
                (audience, connection)
            }
            Era::Legacy => {
                let audience = Audience::of(request.client, request.principal, self.over_stdio());
                let connection = self.connect_legacy(&audience, Asking::Owner, token).await?;
                (audience, connection)
            }
        };
        if let Some((_, token)) = behalf {
            connection.authorize(token);
        }
        Ok((audience, connection))
    }

    /// On whose behalf the upstream is called, where it is called with its callers' rights. Never with the
    /// plugin's own in their place.
    pub(super) fn behalf<'a>(
        &'a self,
        request: &ExecuteRequest<'a>,
    ) -> Result<Option<(&'a Authorizer, Behalf<'a>)>, UpstreamError> {
        let Target::Http(target) = &self.target else { return Ok(None) };
        let Some(auth) = target.auth() else { return Ok(None) };
        Ok(auth.behalf(request.principal, request.subject)?.map(|behalf| (&**auth, behalf)))
    }

    /// What gives the plugin's tokens, if it acts in its users' names.
    pub(crate) fn consents(&self) -> Option<&Authorizer> {
        match &self.target {
            Target::Http(target) => target.auth().map(|auth| &**auth).filter(|auth| auth.is_per_user()),
            Target::Stdio(_) => None,
        }
    }
}

fn on_behalf(target: &HttpTarget, token: Option<&HeaderValue>) -> HttpTarget {
    token.map_or_else(|| target.clone(), |token| target.on_behalf(token))
}
