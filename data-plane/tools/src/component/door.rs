//! The way out of a guest: its requests, where the document lets them go, with credentials that it never sees.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};
use provost_data_wasm::{HttpError, HttpRequest, HttpResponse, step_aside_for};
use provost_types::HostPattern;

use crate::{
    egress::{CheckedUrl, EgressClient},
    redact::Redactor,
};

/// The longest wait for a response where the guest names no time; the call's own deadline may come earlier.
const PATIENCE: Duration = Duration::from_secs(30);

/// A header with a secret, and who may get it.
pub(crate) struct Credential {
    pub header: HeaderName,
    /// Marked as sensitive.
    pub value: HeaderValue,
    pub hosts: Vec<HostPattern>,
}

/// The door of one plugin.
pub(crate) struct Door {
    pub client: EgressClient,
    pub credentials: BTreeMap<String, Credential>,
    /// Finds the plugin's secrets in what comes back.
    pub redactor: Redactor,
}

impl Door {
    pub(crate) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let patience = request.timeout.unwrap_or(PATIENCE).min(PATIENCE);
        match tokio::time::timeout(patience, self.exchange(request)).await {
            Ok(ended) => ended,
            Err(_) => Err(HttpError::Timeout),
        }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let HttpRequest { method, url, headers, body, credential, max_response_bytes, .. } = request;
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| HttpError::Invalid(format!("method {method}")))?;
        let url = self.client.check(&url).map_err(|refused| HttpError::Denied(refused.to_string()))?;
        let mut map = header_map(&headers)?;
        if let Some(alias) = &credential {
            let Credential { header, value, .. } = self.credential(alias, &url)?;
            map.insert(header.clone(), value.clone());
            // In what comes back encoded nobody here finds it.
            map.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let mut sending = self.client.request(method, &url).headers(map);
        if let Some(body) = body {
            sending = sending.body(body);
        }
        let mut response = sending.send().await.map_err(failed)?;
        if credential.is_some() && is_encoded(response.headers()) {
            return Err(HttpError::Denied("the response is encoded, and might repeat the credential".to_owned()));
        }
        let status = response.status().as_u16();
        let headers = self.shown(response.headers());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > max_response_bytes {
                return Err(HttpError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        step_aside_for(body.len()).await;
        let body = self.without_credentials(body.freeze())?;
        Ok(HttpResponse { status, headers, body })
    }

    fn credential(&self, alias: &str, url: &CheckedUrl) -> Result<&Credential, HttpError> {
        let found = self.credentials.get(alias);
        let found = found.ok_or_else(|| HttpError::Denied(format!("the plugin has no credential `{alias}`")))?;
        let host = url.as_url().host_str().unwrap_or_default();
        if found.hosts.iter().any(|pattern| pattern.matches(host)) {
            return Ok(found);
        }
        Err(HttpError::Denied(format!("the credential `{alias}` is not for `{host}`")))
    }

    /// Headers whose values are text, without credentials.
    fn shown(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), self.redactor.text(value.to_str().ok()?).into_owned()))
        };
        headers.iter().filter_map(text).collect()
    }

    fn without_credentials(&self, body: Bytes) -> Result<Vec<u8>, HttpError> {
        if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok() {
            return Ok(self.redactor.message(body).into());
        }
        match std::str::from_utf8(&body) {
            Ok(text) => Ok(self.redactor.text(text).into_owned().into_bytes()),
            // Bytes that are no text cannot be written over without breaking them.
            Err(_) if self.redactor.finds(&body) => {
                Err(HttpError::Denied("the response repeats a credential".to_owned()))
            }
            Err(_) => Ok(body.into()),
        }
    }
}

/// Whether the body is in another form than its own (RFC 9110, 8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, HttpError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let invalid = || HttpError::Invalid(format!("header {name}"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        map.append(name, HeaderValue::from_str(value).map_err(|_| invalid())?);
    }
    Ok(map)
}

fn failed(cause: reqwest::Error) -> HttpError {
    if let Some(refused) = EgressClient::refusal(&cause) {
        return HttpError::Denied(refused.to_string());
    }
    if cause.is_timeout() {
        return HttpError::Timeout;
    }
    HttpError::Connect(EgressClient::cause(cause))
}
