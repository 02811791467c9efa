//! Where the token endpoint is: written down, or found in an issuer's metadata (RFC 8414).

use std::time::{Duration, Instant};

use provost_types::OAuthClient;
use reqwest::Method;
use serde::Deserialize;
use url::Url;

use crate::{
    UpstreamError,
    egress::{CheckedUrl, EgressClient},
    redact::Redactor,
    upstream::whole_body,
};

/// How long metadata is used before it is read again.
const METADATA_TTL: Duration = Duration::from_secs(3_600);
/// Longest metadata document.
const MAX_METADATA_BYTES: usize = 256 * 1024;

/// A token endpoint, and what a signed assertion names as its audience.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) url: CheckedUrl,
    pub(super) audience: String,
}

/// Where to find it.
pub(super) enum Endpoint {
    Known(Place),
    Issuer { issuer: String, found: tokio::sync::Mutex<Option<(Instant, Place)>> },
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
}

impl Endpoint {
    /// Checks the addresses that the document names.
    pub(super) fn new(client: &OAuthClient, http: &EgressClient) -> Result<Self, UpstreamError> {
        match (&client.token_url, &client.issuer) {
            (Some(url), _) => Ok(Self::Known(Place { url: http.check(url)?, audience: url.clone() })),
            (None, Some(issuer)) => {
                http.check(issuer)?;
                Ok(Self::Issuer { issuer: issuer.clone(), found: tokio::sync::Mutex::new(None) })
            }
            (None, None) => Err(UpstreamError::Config("auth needs tokenUrl or issuer".to_owned())),
        }
    }

    /// The token endpoint; metadata that cannot be read again is used for longer.
    pub(super) async fn place(&self, http: &EgressClient, redactor: &Redactor) -> Result<Place, UpstreamError> {
        let (issuer, found) = match self {
            Self::Known(place) => return Ok(place.clone()),
            Self::Issuer { issuer, found } => (issuer, found),
        };
        let mut found = found.lock().await;
        if let Some((at, place)) = &*found
            && at.elapsed() < METADATA_TTL
        {
            return Ok(place.clone());
        }
        match (discover(issuer, http).await, &*found) {
            (Ok(place), _) => {
                *found = Some((Instant::now(), place.clone()));
                Ok(place)
            }
            (Err(cause), Some((_, old))) => {
                tracing::warn!(issuer, %cause, "an issuer's metadata cannot be read; the last is used");
                Ok(old.clone())
            }
            (Err(UpstreamError::Token(why)), None) => Err(UpstreamError::Token(redactor.text(&why).into_owned())),
            (Err(cause), None) => Err(cause),
        }
    }
}

/// Reads the metadata: of OAuth first, of OpenID Connect where there is none.
async fn discover(issuer: &str, http: &EgressClient) -> Result<Place, UpstreamError> {
    let mut last = None;
    for url in metadata_urls(issuer)? {
        match metadata(&url, http).await {
            Ok(metadata) if metadata.issuer == issuer => {
                // The document may be another's work: its endpoint is checked like everything else.
                let url = http.check(&metadata.token_endpoint)?;
                return Ok(Place { url, audience: issuer.to_owned() });
            }
            // RFC 8414, 3.3: or a client could be led to send its secret to whoever wrote this.
            Ok(_) => return Err(UpstreamError::Token(format!("the metadata at {url} is of another issuer"))),
            Err(cause) => last = Some(cause),
        }
    }
    Err(last.unwrap_or_else(|| UpstreamError::Token("the issuer has no metadata".to_owned())))
}

fn metadata_urls(issuer: &str) -> Result<[String; 2], UpstreamError> {
    let url = Url::parse(issuer).map_err(|cause| UpstreamError::Config(format!("issuer: {cause}")))?;
    let (origin, path) = (url.origin().ascii_serialization(), url.path().trim_end_matches('/'));
    Ok([
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}{path}/.well-known/openid-configuration"),
    ])
}

async fn metadata(text: &str, http: &EgressClient) -> Result<Metadata, UpstreamError> {
    let url = http.check(text)?;
    let refused = |why: String| UpstreamError::Token(format!("the metadata at {text}: {why}"));
    let response = http.request(Method::GET, &url).header("accept", "application/json").send().await;
    let response = response.map_err(|cause| match EgressClient::refusal(&cause) {
        Some(address) => address.into(),
        None => refused(EgressClient::cause(cause)),
    })?;
    if !response.status().is_success() {
        return Err(refused(format!("HTTP {}", response.status().as_u16())));
    }
    let body = whole_body(response, MAX_METADATA_BYTES).await?;
    serde_json::from_slice(&body).map_err(|cause| refused(cause.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_lies_where_the_standards_say() {
        for (issuer, oauth, openid) in [
            (
                "https://id.example",
                "https://id.example/.well-known/oauth-authorization-server",
                "https://id.example/.well-known/openid-configuration",
            ),
            (
                "https://id.example:8443/realms/a/",
                "https://id.example:8443/.well-known/oauth-authorization-server/realms/a",
                "https://id.example:8443/realms/a/.well-known/openid-configuration",
            ),
        ] {
            assert_eq!(metadata_urls(issuer).expect(issuer), [oauth, openid]);
        }
    }
}
