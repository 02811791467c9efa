//! The opening handshake (RFC 6455, section 4.2), as a decision over headers.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use provost_mcp::RpcError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    http::{ResponseBody, empty},
    mcp::error_response,
};

/// The subprotocol.
const SUBPROTOCOL: &str = "mcp";
/// The only version of the protocol.
const VERSION: &str = "13";
/// The length of a key: 16 bytes in base64.
const KEY_CHARS: usize = 24;

/// Whether one of a header's comma-separated values is `token`.
fn names(headers: &HeaderMap, name: header::HeaderName, token: &str, exact: bool) -> bool {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |value| {
            let value = value.trim();
            if exact { value == token } else { value.eq_ignore_ascii_case(token) }
        },
    )
}

/// Whether a GET asks for a WebSocket.
pub(crate) fn asks_for_socket(headers: &HeaderMap) -> bool {
    names(headers, header::UPGRADE, "websocket", false)
}

/// Why a handshake was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The headers of an upgrade are not all there, or it came over HTTP/2.
    Incomplete,
    /// Another version of the protocol.
    Version,
    /// `mcp` is not among the subprotocols.
    Subprotocol,
}

impl Fault {
    pub(super) fn response(self) -> Response<ResponseBody> {
        let (status, code, message) = match self {
            Self::Incomplete => (
                StatusCode::BAD_REQUEST,
                "PV-WS-HANDSHAKE",
                "a WebSocket is opened over HTTP/1.1 with Connection: upgrade and one Sec-WebSocket-Key",
            ),
            Self::Version => {
                (StatusCode::UPGRADE_REQUIRED, "PV-WS-HANDSHAKE", "Sec-WebSocket-Version must be 13 (RFC 6455)")
            }
            Self::Subprotocol => {
                (StatusCode::BAD_REQUEST, "PV-WS-SUBPROTOCOL", "Sec-WebSocket-Protocol must name the subprotocol mcp")
            }
        };
        let error = RpcError::with_code(RpcError::INVALID_REQUEST, code, message);
        let mut response = error_response(status, None, &error);
        if self == Self::Version {
            let headers = response.headers_mut();
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        response
    }
}

/// Checks a request that [`asks_for_socket`]; returns the answer that accepts it.
pub(super) fn accept(asked: &HeaderMap) -> Result<Response<ResponseBody>, Fault> {
    if !names(asked, header::CONNECTION, "upgrade", false) {
        return Err(Fault::Incomplete);
    }
    let single = |name: header::HeaderName| {
        let mut values = asked.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().map(str::trim),
            _ => None,
        }
    };
    if single(header::SEC_WEBSOCKET_VERSION) != Some(VERSION) {
        return Err(Fault::Version);
    }
    let key = single(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == KEY_CHARS).ok_or(Fault::Incomplete)?;
    if !names(asked, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL, true) {
        return Err(Fault::Subprotocol);
    }
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| Fault::Incomplete)?;
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: [(&str, &str); 5] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "chat, mcp"),
    ];

    /// The good handshake with one header in the place of its namesakes; an empty one is left out.
    fn with(name: &'static str, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (given, value) in GOOD.iter().filter(|(given, _)| *given != name) {
            headers.insert(*given, value.parse().unwrap());
        }
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn handshakes() {
        let table: [(&'static str, &[&'static str], Result<StatusCode, Fault>); 13] = [
            ("x-other", &[], Ok(StatusCode::SWITCHING_PROTOCOLS)),
            ("sec-websocket-protocol", &["mcp"], Ok(StatusCode::SWITCHING_PROTOCOLS)),
            ("sec-websocket-protocol", &["a", "mcp"], Ok(StatusCode::SWITCHING_PROTOCOLS)),
            ("sec-websocket-protocol", &[], Err(Fault::Subprotocol)),
            ("sec-websocket-protocol", &["MCP"], Err(Fault::Subprotocol)),
            ("sec-websocket-protocol", &["mcp2, xmcp"], Err(Fault::Subprotocol)),
            ("sec-websocket-version", &["8"], Err(Fault::Version)),
            ("sec-websocket-version", &[], Err(Fault::Version)),
            ("sec-websocket-key", &[], Err(Fault::Incomplete)),
            ("sec-websocket-key", &["short"], Err(Fault::Incomplete)),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="], Err(Fault::Incomplete)),
            ("connection", &["keep-alive"], Err(Fault::Incomplete)),
            ("connection", &[], Err(Fault::Incomplete)),
        ];
        for (name, values, expect) in table {
            let headers = with(name, values);
            assert!(asks_for_socket(&headers));
            let got = accept(&headers);
            assert_eq!(got.as_ref().map(Response::status).map_err(|f| *f), expect, "{name}: {values:?}");
        }
        assert!(!asks_for_socket(&with("upgrade", &["h2c"])) && !asks_for_socket(&with("upgrade", &[])));
        // RFC 6455, section 1.3.
        let accepted = accept(&with("x-other", &[])).map_err(|_| "refused").unwrap();
        assert_eq!(accepted.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accepted.headers()[header::SEC_WEBSOCKET_PROTOCOL], "mcp");
    }
}
