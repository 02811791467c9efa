//! Finding the era, and the connection for each purpose.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http::HeaderValue;
use provost_mcp::Era;
use tokio::sync::broadcast;

use super::{
    super::{
        audience::Audience, connection::Connection, endpoints::Turn, handshake, http::HttpTarget, listing::ListCache,
    },
    EraState, McpUpstream, Target,
    sessions::Asking,
};
use crate::{
    ExecuteRequest, UpstreamError,
    oauth::{Authorizer, Behalf},
    resilience::{Tries, Verdict, of_failure},
};

impl McpUpstream {
    /// The era, as far as it is known without asking, else as the first endpoint that answers speaks it.
    pub(super) async fn era(&self) -> Result<Era, UpstreamError> {
        let known = |state: &tokio::sync::Mutex<EraState>| state.try_lock().ok().and_then(|state| state.known);
        match self.eras.iter().find_map(known) {
            Some(era) => Ok(era),
            None => self.catalogue().await.map(|connection| connection.facts.era),
        }
    }

    async fn era_at(&self, at: usize) -> Result<Era, UpstreamError> {
        self.era_for(at, None).await
    }

    /// The same, found out in a caller's name where nobody else may ask the upstream.
    async fn era_for(&self, at: usize, behalf: Option<(&Audience, &HeaderValue)>) -> Result<Era, UpstreamError> {
        let waiting_since = Instant::now();
        // One for each endpoint; a number that is none of ours is the first one's.
        let mut state = self.eras.get(at).unwrap_or(&self.eras[0]).lock().await;
        if let Some(era) = state.known {
            return Ok(era);
        }
        // Whoever waited through a failed try shares its failure.
        if let Some((at, cause)) = &state.failed
            && *at > waiting_since
        {
            return Err(cause.clone());
        }
        let found = Box::pin(self.find_era(at, behalf)).await;
        match &found {
            Ok(era) => state.known = Some(*era),
            Err(cause) => state.failed = Some((Instant::now(), cause.clone())),
        }
        found
    }

    async fn find_era(&self, at: usize, behalf: Option<(&Audience, &HeaderValue)>) -> Result<Era, UpstreamError> {
        let catalogue = self.catalogue_audience(at);
        let (audience, token) = behalf.map_or((&catalogue, None), |(audience, token)| (audience, Some(token)));
        let modern = self.connect_modern(audience, token, at);
        let tried = tokio::time::timeout(handshake::DISCOVER_TIMEOUT, modern).await;
        match tried {
            Ok(Ok(_)) => return Ok(Era::Modern),
            Ok(Err(
                cause @ (UpstreamError::Unreachable(_)
                | UpstreamError::Egress(_)
                | UpstreamError::Unauthorized(_)
                | UpstreamError::Token(_)
                | UpstreamError::Grant(_)
                | UpstreamError::Isolation(_)
                | UpstreamError::Consent),
            )) => return Err(cause),
            Ok(Err(cause)) => tracing::debug!(plugin = self.plugin, %cause, "not of the modern era"),
            Err(_) => tracing::debug!(plugin = self.plugin, "no answer to discovery"),
        }
        self.connect_legacy(audience, Asking::Owner, token, at).await?;
        Ok(Era::Legacy)
    }

    /// A connection that lists, and in the modern era serves all; of several endpoints at one that answers.
    pub(super) async fn catalogue(&self) -> Result<Arc<Connection>, UpstreamError> {
        let Some(endpoints) = self.several() else { return self.catalogue_at(0).await };
        let tries = Tries::new(true);
        loop {
            match self.catalogue_at(endpoints.choose(&tries)).await {
                Err(cause) if of_failure(&cause, true) == Verdict::Bad && endpoints.has_other(&tries) => {
                    tracing::debug!(plugin = self.plugin, %cause, "an endpoint is not reached");
                }
                connected => return connected,
            }
        }
    }

    /// The same at one endpoint.
    pub(super) async fn catalogue_at(&self, at: usize) -> Result<Arc<Connection>, UpstreamError> {
        let audience = self.catalogue_audience(at);
        match self.era_at(at).await? {
            Era::Modern => self.connect_modern(&audience, None, at).await,
            Era::Legacy => self.connect_legacy(&audience, Asking::Owner, None, at).await,
        }
    }

    /// Whoever lists at an endpoint.
    pub(super) fn catalogue_audience(&self, at: usize) -> Audience {
        self.placed(Audience::catalogue(), at)
    }

    /// Of several endpoints each has connections of its own.
    fn placed(&self, audience: Audience, at: usize) -> Audience {
        if self.several().is_some() { audience.at(at) } else { audience }
    }

    async fn connect_modern(
        &self,
        audience: &Audience,
        token: Option<&HeaderValue>,
        at: usize,
    ) -> Result<Arc<Connection>, UpstreamError> {
        self.modern
            .get(audience, || {
                Box::pin(self.in_time(async {
                    match &self.target {
                        Target::Http(endpoints) => {
                            handshake::discover_http(&on_behalf(endpoints.target(at), token)).await
                        }
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
        at: usize,
    ) -> Result<Arc<Connection>, UpstreamError> {
        let capabilities = audience.capabilities(handshake::full_capabilities());
        self.legacy
            .get(audience, || {
                Box::pin(self.in_time(async {
                    let connection = match &self.target {
                        // Not with tokens: a plugin with its callers' rights has no kin.
                        _ if let Some((kin, endpoints)) = self.sharing(audience) => {
                            self.shared_session(kin, endpoints, at, audience, &capabilities, asking).await?
                        }
                        Target::Http(endpoints) => {
                            let target = on_behalf(endpoints.target(at), token);
                            handshake::initialize_http(&target, &capabilities, false).await?
                        }
                        Target::Stdio(target) => handshake::initialize_stdio(target, &capabilities).await?,
                    };
                    if self.several().is_some() && connection.session_id().is_none() {
                        self.is_stateless.store(true, Ordering::Relaxed);
                    }
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

    /// The connection for a caller's request, and its audience if it can be replaced. The turn then is where the
    /// connection is.
    pub(super) async fn connection(
        &self,
        request: &ExecuteRequest<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(Audience, Arc<Connection>), UpstreamError> {
        self.looked_at_first().await;
        let Some((auth, behalf)) = self.behalf(request)? else {
            let era = self.era_at(turn.at()).await?;
            return self.connect(era, request, None, turn).await;
        };
        // Of a size that calls without it need not carry.
        Box::pin(self.connection_for(auth, request, behalf, turn)).await
    }

    async fn connection_for(
        &self,
        auth: &Authorizer,
        request: &ExecuteRequest<'_>,
        behalf: Behalf<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(Audience, Arc<Connection>), UpstreamError> {
        let token = auth.header(&behalf).await?;
        match self.connect_for(auth, request, (&behalf, token.clone()), turn).await {
            // The handshake is refused, and nothing was executed: another token, once.
            Err(UpstreamError::Unauthorized(401)) => {
                auth.refused(Some(&behalf), &token);
                let token = auth.header(&behalf).await?;
                self.connect_for(auth, request, (&behalf, token), turn).await
            }
            connected => connected,
        }
    }

    async fn connect_for(
        &self,
        auth: &Authorizer,
        request: &ExecuteRequest<'_>,
        (behalf, token): (&Behalf<'_>, HeaderValue),
        turn: &mut Turn<'_>,
    ) -> Result<(Audience, Arc<Connection>), UpstreamError> {
        let era = if auth.is_per_user() {
            let audience = self.placed(Audience::behalf(behalf.key()), turn.at());
            self.era_for(turn.at(), Some((&audience, &token))).await?
        } else {
            self.era_at(turn.at()).await?
        };
        self.connect(era, request, Some((behalf, token)), turn).await
    }

    /// A connection whose requests carry the token from now on. Over a legacy session that is the token of its
    /// caller's last call.
    async fn connect(
        &self,
        era: Era,
        request: &ExecuteRequest<'_>,
        behalf: Option<(&Behalf<'_>, HeaderValue)>,
        turn: &mut Turn<'_>,
    ) -> Result<(Audience, Arc<Connection>), UpstreamError> {
        let token = behalf.as_ref().map(|(_, token)| token);
        let (audience, connection) = match era {
            Era::Modern => {
                let audience =
                    behalf.as_ref().map_or_else(Audience::catalogue, |(behalf, _)| Audience::behalf(behalf.key()));
                let audience = self.placed(audience, turn.at());
                let connection = self.connect_modern(&audience, token, turn.at()).await?;
                (audience, connection)
            }
            Era::Legacy => {
                let audience = Audience::of(request.client, request.principal, self.over_stdio());
                let audience = self.session_home(audience, turn);
                let connection = self.connect_legacy(&audience, Asking::Owner, token, turn.at()).await?;
                turn.go(connection.endpoint());
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
        let Target::Http(endpoints) = &self.target else { return Ok(None) };
        let Some(auth) = endpoints.target(0).auth() else { return Ok(None) };
        Ok(auth.behalf(request.principal, request.subject)?.map(|behalf| (&**auth, behalf)))
    }

    /// What gives the plugin's tokens, if it acts in its users' names.
    pub(crate) fn consents(&self) -> Option<&Authorizer> {
        match &self.target {
            Target::Http(endpoints) => endpoints.target(0).auth().map(|auth| &**auth).filter(|auth| auth.is_per_user()),
            Target::Stdio(_) => None,
        }
    }
}

fn on_behalf(target: &HttpTarget, token: Option<&HeaderValue>) -> HttpTarget {
    token.map_or_else(|| target.clone(), |token| target.on_behalf(token))
}
