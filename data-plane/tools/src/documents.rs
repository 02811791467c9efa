//! Small documents of others: metadata and keys of authorization servers.
//!
//! Invariants: the rules of egress hold as for upstreams (`https` to public addresses, or loopback; only
//! checked addresses are connected to); no redirect is followed and no proxy used; a document has a bound in
//! bytes and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, header};

use crate::{
    UpstreamError,
    egress::{EgressClient, EgressRule},
};

/// Longest time for one document, the connection included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches documents.
#[derive(Clone)]
pub struct DocumentClient {
    client: EgressClient,
}

impl std::fmt::Debug for DocumentClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DocumentClient").finish_non_exhaustive()
    }
}

impl DocumentClient {
    /// A client; connects to nothing yet.
    pub fn new() -> Result<Self, UpstreamError> {
        let client = EgressClient::new(EgressRule::public());
        Ok(Self { client: client.map_err(|cause| UpstreamError::Config(cause.to_string()))? })
    }

    /// Gets a JSON document of at most `max_bytes`; what it holds is not looked at.
    pub async fn get(&self, url: &str, max_bytes: usize) -> Result<Bytes, UpstreamError> {
        let url = self.client.check(url)?;
        let request = self.client.request(Method::GET, &url).timeout(FETCH_TIMEOUT);
        let request = request.header(header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(transport_error)?;
        let status = response.status();
        if !status.is_success() {
            // The body is somebody else's text and may be anything: the status says enough.
            return Err(UpstreamError::Http { status: status.as_u16(), body: String::new() });
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(transport_error)? {
            if body.len() + chunk.len() > max_bytes {
                return Err(UpstreamError::TooLarge(max_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

fn transport_error(cause: reqwest::Error) -> UpstreamError {
    if let Some(refused) = EgressClient::refusal(&cause) {
        return refused.into();
    }
    if cause.is_timeout() {
        return UpstreamError::Deadline;
    }
    UpstreamError::Unreachable(EgressClient::cause(cause))
}
