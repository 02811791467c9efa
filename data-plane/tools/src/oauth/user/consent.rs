//! How a consent begins and ends at the authorization server (RFC 6749, 4.1; 7636; 9207).

use std::time::Instant;

use provost_types::PrincipalRef;

use super::{PerUser, bearer, tokens_of};
use crate::{
    UpstreamError,
    connections::Keep,
    oauth::{
        cache::Fetched,
        client::{self, Form},
    },
};

impl PerUser {
    /// Where to send the user: with this state and the challenge of a verifier (RFC 7636).
    pub(in crate::oauth) async fn authorization_url(
        &self,
        redirect: &str,
        state: &str,
        challenge: &str,
    ) -> Result<(String, Option<String>), UpstreamError> {
        let place = self.core.in_time(self.core.place()).await?;
        let unusable = |why: &str| UpstreamError::Token(why.to_owned());
        let endpoint =
            place.authorize.as_ref().ok_or_else(|| unusable("the metadata names no authorization endpoint"))?;
        if place.lacks_pkce {
            return Err(unusable("the authorization server does not say that it supports PKCE with S256"));
        }
        let mut url = endpoint.as_url().clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("response_type", "code");
            query.append_pair("client_id", self.core.identity.id());
            query.append_pair("redirect_uri", redirect);
            query.append_pair("state", state);
            query.append_pair("code_challenge", challenge);
            query.append_pair("code_challenge_method", "S256");
            query.append_pair("resource", &self.core.resource);
            if !self.core.scope.is_empty() {
                query.append_pair("scope", &self.core.scope);
            }
        }
        Ok((url.into(), place.issuer.clone()))
    }

    /// Whether an answer came from the authorization server that was asked (RFC 9207).
    pub(in crate::oauth) async fn check_issuer(
        &self,
        asked: Option<&str>,
        said: Option<&str>,
    ) -> Result<(), UpstreamError> {
        let place = self.core.in_time(self.core.place()).await?;
        let mixed_up = |why: &str| Err(UpstreamError::Token(format!("{why}; nothing was sent to it")));
        if place.issuer.as_deref() != asked {
            return mixed_up("the plugin has another authorization server by now");
        }
        match (said, asked) {
            (Some(said), Some(asked)) if said != asked => mixed_up("another authorization server answered"),
            (Some(_), None) | (Some(_), Some(_)) => Ok(()),
            (None, _) if place.names_itself => mixed_up("the answer does not say which authorization server gave it"),
            (None, _) => Ok(()),
        }
    }

    /// Exchanges the code, and keeps what it gives.
    pub(in crate::oauth) async fn consented(
        &self,
        principal: &PrincipalRef,
        code: &str,
        (verifier, redirect): (&str, &str),
        began_ns: u64,
    ) -> Result<bool, UpstreamError> {
        let mut form = Form::default();
        form.add("grant_type", "authorization_code");
        form.add("code", code);
        form.add("redirect_uri", redirect);
        form.add("code_verifier", verifier);
        self.core.add_target(&mut form, false);
        let redactor = self.core.redactor.and(code);
        let answer = self.core.in_time(async {
            let place = self.core.place().await?;
            bearer(client::ask(&self.core.http, &place, &self.core.identity, form, &redactor).await?)
        });
        let answer = answer.await?;
        // Only what can be sent is kept.
        Fetched::new(&answer.access_token, answer.expires_in, Instant::now())?;
        let scope = answer.scope.clone().unwrap_or_else(|| self.core.scope.clone());
        let tokens = tokens_of(answer, None).to_text();
        let authority = self.core.authority().to_owned();
        self.keep(principal, Keep::Made { authority, scope, began_ns, tokens }).await
    }
}
