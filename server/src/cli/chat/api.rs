//! The client's side of the node's OpenAI-compatible API: the list of models, and streamed answers.
//!
//! Invariants: no redirect is followed and no proxy used, so the token goes to the node alone; what is read
//! and waited for has a bound; dropping a request closes its connection, which cancels it at the node.

use std::{error::Error, io, time::Duration};

use http::{HeaderValue, header};
use provost_client::{Endpoint, LinkError, MAX_MESSAGE_BYTES, Transport};
use provost_mcp::{EventTooLong, SseParser};
use reqwest::{Certificate, Client, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{
    answer::Answer,
    listed::{List, Listed},
    refused::{no_api, refused},
};
use crate::{
    cli::endpoint::{Node, link_failure, usage},
    failure::{Failure, Usage, causes},
};

/// The longest that opening a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The longest silence: a request may wait for a place and for the model to be loaded. In a stream the node
/// breaks the silence every few seconds.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);

/// See the module.
pub struct Api {
    client: Client,
    /// `http(s)://HOST:PORT…/v1`.
    base: String,
    /// `HOST:PORT`.
    address: String,
    bearer: Option<HeaderValue>,
}

impl Api {
    /// Checks what is given; connects to nothing.
    pub fn new(node: &Node) -> anyhow::Result<Self> {
        let (base, address) = base(&node.url)?;
        let bearer = node.token.as_ref().map(bearer).transpose().map_err(|error| link_failure(&error))?;
        let client = client(node).map_err(|error| link_failure(&error))?;
        Ok(Self { client, base, address, bearer })
    }

    /// The models that the caller may use.
    pub async fn models(&self) -> anyhow::Result<Vec<Listed>> {
        let mut response = self.send(self.client.get(format!("{}/models", self.base))).await?;
        let body = self.body(&mut response).await?;
        let list: List = serde_json::from_slice(&body).map_err(no_api)?;
        Ok(list.data)
    }

    /// One answer. `told` gets its text as it comes.
    pub async fn chat(&self, body: &Value, mut told: impl FnMut(&str)) -> anyhow::Result<Answer> {
        let request = self.client.post(format!("{}/chat/completions", self.base)).json(body);
        let mut response = self.send(request).await?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return Err(no_api("it is no stream of events").into());
        }
        let mut parser = SseParser::new(MAX_MESSAGE_BYTES);
        let mut answer = Answer::default();
        while let Some(data) = self.chunk(&mut response).await? {
            parser.feed(&data).map_err(too_long)?;
            while let Some(event) = parser.next_event().map_err(too_long)? {
                let piece = answer.take(&event)?;
                if !piece.is_empty() {
                    told(&piece);
                }
                if answer.is_done {
                    return Ok(answer);
                }
            }
        }
        let cause = "the stream ended before the answer did".to_owned();
        Err(link_failure(&LinkError::Lost(cause)).into())
    }

    /// Sends a request. What is no success is an error.
    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let request = match &self.bearer {
            Some(bearer) => request.header(header::AUTHORIZATION, bearer.clone()),
            None => request,
        };
        let mut response = request.send().await.map_err(|error| self.failure(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = response.headers().get(header::RETRY_AFTER);
        let wait_s = wait.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let body = self.body(&mut response).await?;
        Err(refused(status.as_u16(), wait_s, &body).into())
    }

    async fn body(&self, response: &mut Response) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(data) = self.chunk(response).await? {
            if body.len() + data.len() > MAX_MESSAGE_BYTES {
                return Err(link_failure(&LinkError::TooLarge(MAX_MESSAGE_BYTES)).into());
            }
            body.extend_from_slice(&data);
        }
        Ok(body)
    }

    async fn chunk(&self, response: &mut Response) -> anyhow::Result<Option<bytes::Bytes>> {
        Ok(response.chunk().await.map_err(|error| self.failure(&error))?)
    }

    /// What a person reads when there is no answer.
    fn failure(&self, error: &reqwest::Error) -> Failure {
        let (address, cause) = (self.address.clone(), causes(error));
        let error = if is_tls(error) {
            LinkError::Tls { address, cause }
        } else if error.is_connect() {
            LinkError::Unreachable { address, cause }
        } else if error.is_timeout() {
            LinkError::Deadline(SILENCE_LIMIT)
        } else {
            LinkError::Lost(cause)
        };
        link_failure(&error)
    }
}

fn too_long(long: EventTooLong) -> Failure {
    link_failure(&LinkError::from(long))
}

/// Where the API lies beside an MCP endpoint, and the node's `HOST:PORT`.
fn base(url: &str) -> anyhow::Result<(String, String)> {
    let endpoint = Endpoint::parse(url, None).map_err(|fault| usage(&fault))?;
    if endpoint.transport() == Transport::Quic {
        let hint = "name the node as http://HOST:PORT/mcp or https://HOST:PORT/mcp";
        return Err(Usage(Failure::new("PV-CLI-URL", format!("`{url}`: models are served over HTTP"), hint)).into());
    }
    let scheme = if endpoint.is_secure() { "https" } else { "http" };
    let path = endpoint.path().split('?').next().unwrap_or_default().trim_end_matches('/');
    let before = match path.rsplit_once("/mcp") {
        Some((before, plugin)) if plugin.is_empty() || plugin.starts_with('/') => before,
        _ => path.strip_suffix("/v1").unwrap_or(path),
    };
    let address = endpoint.authority();
    Ok((format!("{scheme}://{address}{before}/v1"), address))
}

fn bearer(token: &SecretString) -> Result<HeaderValue, LinkError> {
    // The cause would repeat the token.
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| LinkError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn client(node: &Node) -> Result<Client, LinkError> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(SILENCE_LIMIT)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    if let Some(file) = &node.ca {
        let wrong = |cause: String| LinkError::Ca(format!("{} cannot be used: {cause}", file.display()));
        let pem = std::fs::read(file).map_err(|cause| wrong(cause.to_string()))?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|cause| wrong(causes(&cause)))?;
        if authorities.is_empty() {
            return Err(wrong("it holds no certificate in PEM".to_owned()));
        }
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|cause| LinkError::Ca(format!("TLS cannot be set up: {}", causes(&cause))))
}

/// Whether it is TLS that failed.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    // An I/O error passes over what it holds when it is asked for its source.
    if let Some(held) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return is_tls(held);
    }
    error.source().is_some_and(is_tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_lies_beside_the_endpoint() {
        for (url, expect) in [
            ("http://127.0.0.1:8420/mcp", "http://127.0.0.1:8420/v1"),
            ("http://127.0.0.1:8420/v1", "http://127.0.0.1:8420/v1"),
            ("http://h/", "http://h:80/v1"),
            ("https://h/mcp/sql?x=1", "https://h:443/v1"),
            ("https://h/gate/mcp", "https://h:443/gate/v1"),
            ("ws://[::1]:9/mcp", "http://[::1]:9/v1"),
            ("wss://h:1/mcp/", "https://h:1/v1"),
            ("h3+https://h:1/mcp", "https://h:1/v1"),
        ] {
            assert_eq!(base(url).ok().map(|found| found.0).as_deref(), Some(expect), "{url}");
        }
        for url in ["quic://h:1", "h:1", "ftp://h/mcp", "http://user:pass@h/mcp"] {
            assert!(base(url).is_err_and(|error| error.to_string().contains("PV-CLI-URL")), "{url}");
        }
    }

    #[test]
    fn a_token_that_fits_no_header_is_not_repeated() {
        let refused = bearer(&SecretString::from("pv_\nsecret".to_owned()));
        assert!(refused.is_err_and(|error| !error.to_string().contains("secret")));
    }
}
