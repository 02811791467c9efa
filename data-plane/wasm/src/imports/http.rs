//! Outbound HTTP: the form of a request, before the host decides about it.

use std::time::Duration;

use crate::{
    HttpError, HttpRequest,
    bindings::provost::plugin::http,
    limits::{MAX_HEAD, MAX_HEADERS},
    state::CallState,
};

/// Longest method, in bytes.
const MAX_METHOD: usize = 16;
/// Headers that say how a connection is used or where it leads: the host's business.
const HOSTS_OWN: [&str; 11] = [
    "host",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl http::Host for CallState {
    async fn send(&mut self, req: http::Request) -> Result<http::Response, http::Error> {
        self.may_send().map_err(|bound| http::Error::Denied(format!("over the bound of {bound}")))?;
        let max_response_bytes = self.limits.http_body_bytes;
        if req.body.as_ref().is_some_and(|body| body.len() > max_response_bytes) {
            return Err(http::Error::TooLarge);
        }
        check(&req).map_err(http::Error::Invalid)?;
        let request = HttpRequest {
            method: req.method,
            url: req.url,
            headers: req.headers,
            body: req.body,
            credential: req.credential,
            timeout: req.timeout_ms.map(|ms| Duration::from_millis(u64::from(ms))),
            max_response_bytes,
        };
        let response = self.host.send_http(request).await?;
        if response.body.len() > max_response_bytes {
            return Err(http::Error::TooLarge);
        }
        Ok(http::Response { status: response.status, headers: response.headers, body: response.body })
    }
}

fn check(request: &http::Request) -> Result<(), String> {
    let method = request.method.as_bytes();
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(u8::is_ascii_uppercase) {
        return Err("a method is a word of capital letters".to_owned());
    }
    let url = request.url.as_str();
    if !(url.starts_with("https://") || url.starts_with("http://")) || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a URL begins with https:// or http:// and has printable ASCII only".to_owned());
    }
    if request.headers.len() > MAX_HEADERS {
        return Err(format!("a request has at most {MAX_HEADERS} headers"));
    }
    let headers = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if url.len() > MAX_HEAD || headers > MAX_HEAD {
        return Err(format!("a URL, and the headers together, have at most {MAX_HEAD} bytes"));
    }
    for (name, value) in &request.headers {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err("the name of a header is not one".to_owned());
        }
        if HOSTS_OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(format!("`{name}` is not for a plugin to set"));
        }
        if !value.bytes().all(|b| b == b'\t' || b == b' ' || b.is_ascii_graphic()) {
            return Err(format!("the value of `{name}` has other characters than printable ASCII"));
        }
    }
    Ok(())
}

impl From<HttpError> for http::Error {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Denied(why) => Self::Denied(why),
            HttpError::Invalid(why) => Self::Invalid(why),
            HttpError::Timeout => Self::Timeout,
            HttpError::Connect(why) => Self::Connect(why),
            HttpError::TooLarge => Self::TooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> http::Request {
        http::Request {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: None,
            credential: None,
            timeout_ms: None,
        }
    }

    #[test]
    fn only_what_is_a_request_reaches_the_host() {
        let fine = [
            request("GET", "https://example.com/a?b=c", &[]),
            request("PATCH", "http://[::1]:8080/", &[("Accept", "text/plain; q=0.5"), ("X-Empty", "")]),
        ];
        for request in &fine {
            assert_eq!(check(request), Ok(()), "{request:?}");
        }
        let long = "x".repeat(MAX_HEAD);
        let many = vec![("A", "b"); MAX_HEADERS + 1];
        let wrong = [
            request("get", "https://example.com/", &[]),
            request("", "https://example.com/", &[]),
            request("GET ", "https://example.com/", &[]),
            request("GET", "file:///etc/passwd", &[]),
            request("GET", "https://example.com/ x", &[]),
            request("GET", "https://example.com/\r\nA: b", &[]),
            request("GET", &format!("https://{long}"), &[]),
            request("GET", "https://example.com/", &[("Host", "other")]),
            request("GET", "https://example.com/", &[("transfer-encoding", "chunked")]),
            request("GET", "https://example.com/", &[("a b", "c")]),
            request("GET", "https://example.com/", &[("", "c")]),
            request("GET", "https://example.com/", &[("a", "c\r\nd: e")]),
            request("GET", "https://example.com/", &[("a", &long)]),
            request("GET", "https://example.com/", &many),
        ];
        for request in &wrong {
            assert!(check(request).is_err(), "{request:?}");
        }
    }
}
