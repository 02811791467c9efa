//! Access tokens for upstreams: asked for, kept until shortly before they end, shown to nobody else.
//!
//! Purpose: the plugin's own tokens (RFC 6749, 4.4), tokens given for the one that a caller came with (RFC 8693),
//! and tokens that a caller consented to in a browser (authorization code with PKCE), each for one resource
//! (RFC 8707).
//! Invariants: the caller's own token goes to the token endpoint and nowhere else; a token that was given for
//! one caller is used for that caller only; one request at a time for one token, however many calls wait for it;
//! endpoints are reached by the plugin's egress rule, those of a discovery document too; what a token endpoint
//! says of our credentials is written over before it is shown.
//! Left out: the browser's side of a consent (`provost-data-serve`), and where what it gave is kept (the control
//! plane).

mod cache;
mod client;
mod endpoint;
mod key;
mod user;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cache::{Fetched, TokenCache, TokenKey};
pub(crate) use client::ClientIdentity;
use client::Form;
use endpoint::{Endpoint, Place};
use http::HeaderValue;
pub(crate) use key::SigningKey;
use provost_data_pipeline::SubjectToken;
use provost_types::{Name, PrincipalRef, UpstreamAuth};
pub use user::AuthorityTold;
use user::PerUser;

use crate::{
    UpstreamError,
    connections::{Connections, Found},
    egress::EgressClient,
    redact::Redactor,
};

/// Longest time to get one token, discovery included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const TOKEN_TYPE_ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";
const TOKEN_TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// On whose behalf a request goes out.
pub(crate) struct Behalf<'a> {
    pub(crate) principal: &'a PrincipalRef,
    /// The token to exchange; `None`: the principal has consented.
    pub(crate) subject: Option<&'a SubjectToken>,
}

impl Behalf<'_> {
    /// What a token that was given for it is kept under.
    pub(crate) fn key(&self) -> String {
        TokenKey::of(self).text()
    }
}

/// Who we are at which authorization server, and for what.
struct Core {
    http: EgressClient,
    endpoint: Endpoint,
    identity: ClientIdentity,
    scope: String,
    resource: String,
    audience: Option<String>,
    redactor: Redactor,
    authority: String,
}

impl Core {
    async fn place(&self) -> Result<Place, UpstreamError> {
        self.endpoint.place(&self.http, &self.redactor).await
    }

    /// What a token of a consent is of.
    fn authority(&self) -> &str {
        &self.authority
    }

    /// What the token is for.
    fn add_target(&self, form: &mut Form, with_scope: bool) {
        if with_scope && !self.scope.is_empty() {
            form.add("scope", &self.scope);
        }
        form.add("resource", &self.resource);
        if let Some(audience) = &self.audience {
            form.add("audience", audience);
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, UpstreamError> {
        let late = || Err(UpstreamError::Token(format!("the token endpoint did not answer in {FETCH_TIMEOUT:?}")));
        tokio::time::timeout(FETCH_TIMEOUT, work).await.unwrap_or_else(|_| late())
    }
}

/// Whose tokens a plugin uses.
enum Way {
    /// Its own.
    Own,
    /// Those given for its callers' tokens; its own for lists.
    Exchange,
    /// Those that its callers consented to.
    PerUser(Arc<PerUser>),
}

/// One plugin's access tokens.
pub(crate) struct Authorizer {
    core: Arc<Core>,
    way: Way,
    tokens: TokenCache,
}

/// What an authorizer is made for.
pub(crate) struct For<'a> {
    pub(crate) tenant: &'a Name,
    pub(crate) plugin: &'a Name,
    /// The plugin's URL.
    pub(crate) url: &'a str,
    /// What users consented to; `None`: this node keeps none.
    pub(crate) connections: Option<Arc<Connections>>,
}

impl Authorizer {
    /// Tokens for the resource at the plugin's URL, unless the document names another. Connects to nothing yet.
    pub(crate) fn new(
        auth: &UpstreamAuth,
        of: For<'_>,
        identity: ClientIdentity,
        http: EgressClient,
        redactor: Redactor,
    ) -> Result<Self, UpstreamError> {
        let client = auth.client();
        let upstream = matches!(auth, UpstreamAuth::PerUser(_)).then_some(of.url);
        let resource = client.resource.clone().unwrap_or_else(|| of.url.to_owned());
        let server = client.issuer.as_deref().or(client.token_url.as_deref()).unwrap_or_default();
        let core = Arc::new(Core {
            endpoint: Endpoint::new(client, upstream, &http)?,
            authority: user::authority_of(&[of.url, server, &client.client_id, &resource]),
            http,
            identity,
            scope: client.scope.clone(),
            resource,
            audience: client.audience.clone(),
            redactor,
        });
        let way = match auth {
            UpstreamAuth::ClientCredentials(_) => Way::Own,
            UpstreamAuth::TokenExchange(_) => Way::Exchange,
            UpstreamAuth::PerUser(_) => {
                let connections = of.connections.ok_or_else(|| {
                    UpstreamError::Config("this node has no place for what users consent to".to_owned())
                })?;
                let whose = (of.tenant, of.plugin);
                Way::PerUser(PerUser::new(core.clone(), connections, whose, client.lists_as.clone()))
            }
        };
        Ok(Self { core, way, tokens: TokenCache::default() })
    }

    /// On whose behalf a caller's request goes out; `None`: the plugin's own.
    pub(crate) fn behalf<'a>(
        &self,
        principal: &'a PrincipalRef,
        subject: Option<&'a SubjectToken>,
    ) -> Result<Option<Behalf<'a>>, UpstreamError> {
        match &self.way {
            Way::Own => Ok(None),
            Way::Exchange => {
                let subject = Some(subject.ok_or(UpstreamError::NoSubject)?);
                Ok(Some(Behalf { principal, subject }))
            }
            Way::PerUser(_) => Ok(Some(Behalf { principal, subject: None })),
        }
    }

    /// Whether nothing can be asked of the upstream but in a user's name.
    pub(crate) fn is_per_user(&self) -> bool {
        matches!(self.way, Way::PerUser(_))
    }

    fn per_user(&self) -> Result<&Arc<PerUser>, UpstreamError> {
        match &self.way {
            Way::PerUser(user) => Ok(user),
            Way::Own | Way::Exchange => Err(UpstreamError::Unsupported("consents of users".to_owned())),
        }
    }

    /// Whether a principal need not be asked, after a while if it is so then.
    pub(crate) async fn is_connected(&self, principal: &PrincipalRef, wait: Duration) -> bool {
        match &self.way {
            Way::PerUser(user) => user.is_connected(principal, wait).await,
            Way::Own | Way::Exchange => true,
        }
    }

    /// When the flow began that led to what the principal has now; 0: never.
    pub(crate) fn began_ns(&self, principal: &PrincipalRef) -> u64 {
        self.per_user().map_or(0, |user| user.began_ns(principal))
    }

    /// Where a user is sent to consent, and the authorization server's name.
    pub(crate) async fn authorization_url(
        &self,
        redirect: &str,
        state: &str,
        challenge: &str,
    ) -> Result<(String, Option<String>), UpstreamError> {
        self.per_user()?.authorization_url(redirect, state, challenge).await
    }

    /// Whether an answer came from the server that was asked (RFC 9207).
    pub(crate) async fn check_issuer(&self, asked: Option<&str>, said: Option<&str>) -> Result<(), UpstreamError> {
        self.per_user()?.check_issuer(asked, said).await
    }

    /// Takes what a user consented to; whether nothing newer was there.
    pub(crate) async fn consented(
        &self,
        principal: &PrincipalRef,
        code: &str,
        proof: (&str, &str),
        began_ns: u64,
    ) -> Result<bool, UpstreamError> {
        self.per_user()?.consented(principal, code, proof, began_ns).await
    }

    /// Ends what a principal consented to in the flow that began then; `None`: there is no such connection.
    pub(crate) async fn disconnect(
        &self,
        principal: &PrincipalRef,
        began_ns: u64,
    ) -> Result<Option<AuthorityTold>, UpstreamError> {
        self.per_user()?.disconnect(principal, began_ns).await
    }

    /// Has the authorization server take back what is gone here already; `None`: nobody consents to anything here.
    pub(crate) async fn tell_of_end(&self, found: &Found) -> Option<AuthorityTold> {
        Some(self.per_user().ok()?.tell_authority(found).await)
    }

    /// The `authorization` header of the plugin itself, for lists and the like; `None`: it has none.
    pub(crate) async fn own_header(&self) -> Result<Option<HeaderValue>, UpstreamError> {
        match &self.way {
            Way::Own | Way::Exchange => Box::pin(self.given(None)).await.map(Some),
            Way::PerUser(user) => match user.lister() {
                Some(principal) => Box::pin(user.header(&principal)).await.map(Some),
                None => Ok(None),
            },
        }
    }

    /// The `authorization` header for a request.
    pub(crate) async fn header(&self, behalf: &Behalf<'_>) -> Result<HeaderValue, UpstreamError> {
        match &self.way {
            // Calls that need no new token do not carry the size of what gets one.
            Way::Own | Way::Exchange => Box::pin(self.given(Some(behalf))).await,
            Way::PerUser(user) => Box::pin(user.header(behalf.principal)).await,
        }
    }

    async fn given(&self, behalf: Option<&Behalf<'_>>) -> Result<HeaderValue, UpstreamError> {
        let key = behalf.map_or(TokenKey::Own, TokenKey::of);
        self.tokens.get(key, || self.core.in_time(self.fetch(behalf))).await
    }

    /// The upstream refused this header: the next request gets another one.
    pub(crate) fn refused(&self, behalf: Option<&Behalf<'_>>, header: &HeaderValue) {
        match (&self.way, behalf) {
            (Way::Own | Way::Exchange, _) => {
                self.tokens.forget(&behalf.map_or(TokenKey::Own, TokenKey::of), header);
            }
            (Way::PerUser(user), Some(behalf)) => user.refused(behalf.principal, header),
            (Way::PerUser(user), None) => {
                if let Some(principal) = user.lister() {
                    user.refused(&principal, header);
                }
            }
        }
    }

    async fn fetch(&self, behalf: Option<&Behalf<'_>>) -> Result<Fetched, UpstreamError> {
        let subject = behalf.and_then(|behalf| behalf.subject);
        let place = self.core.place().await?;
        let mut form = Form::default();
        match subject {
            None => form.add("grant_type", "client_credentials"),
            Some(subject) => {
                form.add("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
                form.add("subject_token", subject.expose());
                form.add("subject_token_type", TOKEN_TYPE_ACCESS);
                form.add("requested_token_type", TOKEN_TYPE_ACCESS);
            }
        }
        self.core.add_target(&mut form, true);
        let redactor = match subject {
            None => self.core.redactor.clone(),
            Some(subject) => self.core.redactor.and(subject.expose()),
        };
        let asked = Instant::now();
        let answer = client::ask(&self.core.http, &place, &self.core.identity, form, &redactor).await?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(UpstreamError::Token("the token that it gave is no bearer token".to_owned()));
        }
        if let Some(issued) = &answer.issued_token_type
            && issued != TOKEN_TYPE_ACCESS
            && issued != TOKEN_TYPE_JWT
        {
            return Err(UpstreamError::Token("what it gave is no access token".to_owned()));
        }
        if subject.is_some_and(|subject| subject.expose() == answer.access_token) {
            // Whoever sends that on would pass the caller's token through.
            return Err(UpstreamError::Token("it gave the caller's own token back".to_owned()));
        }
        Fetched::new(&answer.access_token, answer.expires_in, asked)
    }
}
