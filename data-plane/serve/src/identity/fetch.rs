//! Where a provider's keys are, and getting them.

use provost_data_tools::{DocumentClient, UpstreamError};
use provost_mcp::{JsonLimits, RawJson, RawObject};
use url::Url;

use super::jwk::{KeySet, MAX_SET_BYTES};

/// The longest metadata document, in bytes.
const MAX_METADATA_BYTES: usize = 128 * 1024;

/// Whose keys are fetched, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Whence {
    pub(super) issuer: String,
    /// `None`: its metadata says.
    pub(super) jwks_uri: Option<String>,
}

/// Why there are no keys. For the node's log: it names addresses.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchFault {
    #[error("{url}: {cause}")]
    Document { url: String, cause: UpstreamError },
    #[error("{url}: {why}")]
    Content { url: String, why: String },
}

impl Whence {
    /// Gets the keys: from `jwks_uri`, or from where the issuer's metadata says.
    pub(super) async fn keys(&self, client: &DocumentClient) -> Result<KeySet, FetchFault> {
        let uri = match &self.jwks_uri {
            Some(uri) => uri.clone(),
            None => self.discover(client).await?,
        };
        let body = get(client, &uri, MAX_SET_BYTES).await?;
        KeySet::parse(body).map_err(|why| FetchFault::Content { url: uri, why: why.to_owned() })
    }

    /// The `jwks_uri` of the first metadata document that there is.
    async fn discover(&self, client: &DocumentClient) -> Result<String, FetchFault> {
        let mut last = None;
        for url in metadata_urls(&self.issuer) {
            match get(client, &url, MAX_METADATA_BYTES).await {
                Ok(body) => {
                    let limits = JsonLimits { max_bytes: MAX_METADATA_BYTES, max_depth: 16 };
                    let document = RawJson::check(body, &limits).and_then(|json| RawObject::parse(&json));
                    let content = |why: String| FetchFault::Content { url: url.clone(), why };
                    let document = document.map_err(|fault| content(fault.to_string()))?;
                    // Mix-up: the document must speak for this issuer (RFC 8414, section 3.3).
                    if document.get_text("issuer").as_deref() != Some(&self.issuer) {
                        return Err(content("its `issuer` is another one".to_owned()));
                    }
                    return document.get_text("jwks_uri").ok_or_else(|| content("it has no `jwks_uri`".to_owned()));
                }
                Err(fault) => last = Some(fault),
            }
        }
        let none = || FetchFault::Content { url: self.issuer.clone(), why: "it is not a URL".to_owned() };
        Err(last.unwrap_or_else(none))
    }
}

async fn get(client: &DocumentClient, url: &str, max_bytes: usize) -> Result<bytes::Bytes, FetchFault> {
    client.get(url, max_bytes).await.map_err(|cause| FetchFault::Document { url: url.to_owned(), cause })
}

/// OpenID Connect Discovery appends the well-known path; RFC 8414 puts it before the issuer's own.
fn metadata_urls(issuer: &str) -> Vec<String> {
    let Ok(url) = Url::parse(issuer) else { return Vec::new() };
    let bare = issuer.trim_end_matches('/');
    let mut urls = vec![format!("{bare}/.well-known/openid-configuration")];
    let path = url.path().trim_end_matches('/');
    let mut inserted = url.clone();
    inserted.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    urls.push(inserted.to_string());
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_both_standards_put_it() {
        for (issuer, openid, oauth) in [
            (
                "https://id.example.com",
                "https://id.example.com/.well-known/openid-configuration",
                "https://id.example.com/.well-known/oauth-authorization-server",
            ),
            (
                "https://id.example.com/realms/a/",
                "https://id.example.com/realms/a/.well-known/openid-configuration",
                "https://id.example.com/.well-known/oauth-authorization-server/realms/a",
            ),
        ] {
            assert_eq!(metadata_urls(issuer), [openid, oauth]);
        }
    }
}
