//! Access tokens for upstreams: asked for, kept until shortly before they end, shown to nobody else.
//!
//! Purpose: the plugin's own tokens (RFC 6749, 4.4), and tokens given for the one that a caller came with
//! (RFC 8693), each for one resource (RFC 8707).
//! Invariants: the caller's own token goes to the token endpoint and nowhere else; a token that was given for
//! one caller's token is used for that caller with that token only; one request at a time for one token,
//! however many calls wait for it; endpoints are reached by the plugin's egress rule, those of a discovery
//! document too; what a token endpoint says of our credentials is written over before it is shown.
//! Left out: refresh tokens (both grants are simply repeated), and users' consent.

mod cache;
mod client;
mod endpoint;
mod key;

use std::time::{Duration, Instant};

use cache::{Fetched, TokenCache, TokenKey};
pub(crate) use client::ClientIdentity;
use client::Form;
use endpoint::Endpoint;
use http::HeaderValue;
pub(crate) use key::SigningKey;
use provost_data_pipeline::SubjectToken;
use provost_types::{PrincipalRef, UpstreamAuth};

use crate::{UpstreamError, egress::EgressClient, redact::Redactor};

/// Longest time to get one token, discovery included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const TOKEN_TYPE_ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";
const TOKEN_TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// On whose behalf a request goes out.
pub(crate) struct Behalf<'a> {
    pub(crate) principal: &'a PrincipalRef,
    pub(crate) subject: &'a SubjectToken,
}

impl Behalf<'_> {
    /// What a token that was given for it is kept under.
    pub(crate) fn key(&self) -> String {
        TokenKey::of(self).text()
    }
}

/// One plugin's access tokens.
pub(crate) struct Authorizer {
    http: EgressClient,
    endpoint: Endpoint,
    identity: ClientIdentity,
    exchanges: bool,
    scope: String,
    resource: String,
    audience: Option<String>,
    redactor: Redactor,
    tokens: TokenCache,
}

impl Authorizer {
    /// Tokens for the resource at `url`, unless the document names another. Connects to nothing yet.
    pub(crate) fn new(
        auth: &UpstreamAuth,
        url: &str,
        identity: ClientIdentity,
        http: EgressClient,
        redactor: Redactor,
    ) -> Result<Self, UpstreamError> {
        let client = auth.client();
        Ok(Self {
            endpoint: Endpoint::new(client, &http)?,
            http,
            identity,
            exchanges: matches!(auth, UpstreamAuth::TokenExchange(_)),
            scope: client.scope.clone(),
            resource: client.resource.clone().unwrap_or_else(|| url.to_owned()),
            audience: client.audience.clone(),
            redactor,
            tokens: TokenCache::default(),
        })
    }

    /// Whether callers have tokens of their own.
    pub(crate) fn exchanges(&self) -> bool {
        self.exchanges
    }

    /// The `authorization` header for a request; `None`: the plugin's own.
    pub(crate) async fn header(&self, behalf: Option<&Behalf<'_>>) -> Result<HeaderValue, UpstreamError> {
        let key = behalf.map_or(TokenKey::Own, TokenKey::of);
        self.tokens
            .get(key, || async {
                let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch(behalf)).await;
                fetched.unwrap_or_else(|_| {
                    Err(UpstreamError::Token(format!("the token endpoint did not answer in {FETCH_TIMEOUT:?}")))
                })
            })
            .await
    }

    /// The upstream refused this header: the next request gets another one.
    pub(crate) fn refused(&self, behalf: Option<&Behalf<'_>>, header: &HeaderValue) {
        self.tokens.forget(&behalf.map_or(TokenKey::Own, TokenKey::of), header);
    }

    async fn fetch(&self, behalf: Option<&Behalf<'_>>) -> Result<Fetched, UpstreamError> {
        let place = self.endpoint.place(&self.http, &self.redactor).await?;
        let mut form = Form::default();
        match behalf {
            None => form.add("grant_type", "client_credentials"),
            Some(behalf) => {
                form.add("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
                form.add("subject_token", behalf.subject.expose());
                form.add("subject_token_type", TOKEN_TYPE_ACCESS);
                form.add("requested_token_type", TOKEN_TYPE_ACCESS);
            }
        }
        if !self.scope.is_empty() {
            form.add("scope", &self.scope);
        }
        form.add("resource", &self.resource);
        if let Some(audience) = &self.audience {
            form.add("audience", audience);
        }
        let redactor = match behalf {
            None => self.redactor.clone(),
            Some(behalf) => self.redactor.and(behalf.subject.expose()),
        };
        let asked = Instant::now();
        let answer = client::ask(&self.http, &place, &self.identity, form, &redactor).await?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(UpstreamError::Token("the token that it gave is no bearer token".to_owned()));
        }
        if let Some(issued) = &answer.issued_token_type
            && issued != TOKEN_TYPE_ACCESS
            && issued != TOKEN_TYPE_JWT
        {
            return Err(UpstreamError::Token("what it gave is no access token".to_owned()));
        }
        if behalf.is_some_and(|behalf| behalf.subject.expose() == answer.access_token) {
            // Whoever sends that on would pass the caller's token through.
            return Err(UpstreamError::Token("it gave the caller's own token back".to_owned()));
        }
        Fetched::new(&answer.access_token, answer.expires_in, asked)
    }
}
