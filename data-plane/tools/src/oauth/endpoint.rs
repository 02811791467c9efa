//! Where an authorization server's endpoints are: written down, or found in its metadata (RFC 8414), which the
//! upstream's may name (RFC 9728).

use std::time::{Duration, Instant};

use provost_types::OAuthClient;
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
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

/// An authorization server's endpoints, and what a signed assertion names as its audience.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) url: CheckedUrl,
    pub(super) audience: String,
    /// Where users are sent; only looked at for consents.
    pub(super) authorize: Option<CheckedUrl>,
    /// Where tokens are taken back (RFC 7009), if its metadata says.
    pub(super) revoke: Option<CheckedUrl>,
    /// The server, where its metadata or the document says.
    pub(super) issuer: Option<String>,
    /// Its metadata says that its answers carry `iss` (RFC 9207).
    pub(super) names_itself: bool,
    /// Its metadata does not say that it supports S256 (RFC 7636).
    pub(super) lacks_pkce: bool,
}

/// Where to find it.
pub(super) enum Endpoint {
    Known(Place),
    Issuer {
        issuer: String,
        found: tokio::sync::Mutex<Option<(Instant, Place)>>,
    },
    /// The upstream's metadata names the server (RFC 9728).
    Upstream {
        url: String,
        found: tokio::sync::Mutex<Option<(Instant, Place)>>,
    },
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    #[serde(default)]
    authorization_endpoint: Option<String>,
    #[serde(default)]
    revocation_endpoint: Option<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

#[derive(Deserialize)]
struct ResourceMetadata {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
}

impl Endpoint {
    /// Checks the addresses that the document names. `upstream`: its metadata counts where there are none.
    pub(super) fn new(
        client: &OAuthClient,
        upstream: Option<&str>,
        http: &EgressClient,
    ) -> Result<Self, UpstreamError> {
        let found = tokio::sync::Mutex::new(None);
        match (&client.token_url, &client.issuer, upstream) {
            (Some(url), _, _) => Ok(Self::Known(Place {
                url: http.check(url)?,
                audience: url.clone(),
                authorize: client.authorize_url.as_ref().map(|url| http.check(url)).transpose()?,
                revoke: None,
                issuer: None,
                names_itself: false,
                lacks_pkce: false,
            })),
            (None, Some(issuer), _) => {
                http.check(issuer)?;
                Ok(Self::Issuer { issuer: issuer.clone(), found })
            }
            (None, None, Some(url)) => Ok(Self::Upstream { url: url.to_owned(), found }),
            (None, None, None) => Err(UpstreamError::Config("auth needs tokenUrl or issuer".to_owned())),
        }
    }

    /// The endpoints; metadata that cannot be read again is used for longer.
    pub(super) async fn place(&self, http: &EgressClient, redactor: &Redactor) -> Result<Place, UpstreamError> {
        let found = match self {
            Self::Known(place) => return Ok(place.clone()),
            Self::Issuer { found, .. } | Self::Upstream { found, .. } => found,
        };
        let mut found = found.lock().await;
        if let Some((at, place)) = &*found
            && at.elapsed() < METADATA_TTL
        {
            return Ok(place.clone());
        }
        let read = match self {
            Self::Upstream { url, .. } => match server_of(url, http).await {
                Ok(issuer) => discover(&issuer, http).await,
                Err(cause) => Err(cause),
            },
            Self::Issuer { issuer, .. } => discover(issuer, http).await,
            Self::Known(place) => Ok(place.clone()),
        };
        match (read, &*found) {
            (Ok(place), _) => {
                *found = Some((Instant::now(), place.clone()));
                Ok(place)
            }
            (Err(cause), Some((_, old))) => {
                tracing::warn!(issuer = old.audience, %cause, "an issuer's metadata cannot be read; the last is used");
                Ok(old.clone())
            }
            (Err(UpstreamError::Token(why)), None) => Err(UpstreamError::Token(redactor.text(&why).into_owned())),
            (Err(cause), None) => Err(cause),
        }
    }
}

/// The authorization server of a resource.
async fn server_of(resource: &str, http: &EgressClient) -> Result<String, UpstreamError> {
    let url = Url::parse(resource).map_err(|cause| UpstreamError::Config(format!("url: {cause}")))?;
    let (origin, path) = (url.origin().ascii_serialization(), url.path().trim_end_matches('/'));
    let at = format!("{origin}/.well-known/oauth-protected-resource{path}");
    let said: ResourceMetadata = document(&at, http).await?;
    let bare = |text: &str| text.trim_end_matches('/').to_owned();
    // RFC 9728, 3.3: another resource's metadata names another resource's server.
    if bare(&said.resource) != bare(resource) && bare(&said.resource) != origin {
        return Err(UpstreamError::Token(format!("the metadata at {at} is of another resource")));
    }
    let first = said.authorization_servers.into_iter().next();
    first.ok_or_else(|| UpstreamError::Token(format!("the metadata at {at} names no authorization server")))
}

/// Reads the metadata: of OAuth first, of OpenID Connect where there is none.
async fn discover(issuer: &str, http: &EgressClient) -> Result<Place, UpstreamError> {
    let mut last = None;
    for url in metadata_urls(issuer)? {
        match document::<Metadata>(&url, http).await {
            Ok(metadata) if metadata.issuer == issuer => {
                // The document may be another's work: its endpoints are checked like everything else.
                return Ok(Place {
                    url: http.check(&metadata.token_endpoint)?,
                    audience: issuer.to_owned(),
                    authorize: metadata.authorization_endpoint.map(|url| http.check(&url)).transpose()?,
                    // One that may not be reached is as good as none: the others are used all the same.
                    revoke: metadata.revocation_endpoint.and_then(|url| http.check(&url).ok()),
                    issuer: Some(metadata.issuer),
                    names_itself: metadata.authorization_response_iss_parameter_supported,
                    lacks_pkce: !metadata.code_challenge_methods_supported.iter().any(|method| method == "S256"),
                });
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

async fn document<T: DeserializeOwned>(text: &str, http: &EgressClient) -> Result<T, UpstreamError> {
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
