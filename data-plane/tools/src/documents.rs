//! Small documents of others: metadata and keys of authorization servers.
//!
//! Invariants: the rules of egress hold as for upstreams (`https` to public addresses, or loopback; only
//! checked addresses are connected to); no redirect is followed and no proxy used; a document has a bound in
//! bytes and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use reqwest::Client;

use crate::{
    UpstreamError,
    egress::{CheckedResolver, check_url},
};

/// Longest time for one document, the connection included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches documents.
#[derive(Clone, Debug)]
pub struct DocumentClient {
    client: Client,
}

impl DocumentClient {
    /// A client; connects to nothing yet.
    pub fn new() -> Result<Self, UpstreamError> {
        // Whoever installed a provider first wins; all of ours is aws-lc-rs.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(CheckedResolver)
            .timeout(FETCH_TIMEOUT)
            .pool_max_idle_per_host(1)
            .build()
            .map_err(|cause| UpstreamError::Config(cause.to_string()))?;
        Ok(Self { client })
    }

    /// Gets a JSON document of at most `max_bytes`; what it holds is not looked at.
    pub async fn get(&self, url: &str, max_bytes: usize) -> Result<Bytes, UpstreamError> {
        let url = check_url(url)?;
        let request = self.client.get(url).header(header::ACCEPT, "application/json");
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
    if cause.is_timeout() {
        return UpstreamError::Deadline;
    }
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(&cause);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    UpstreamError::Unreachable(text)
}
