//! Where a node is and over what it is spoken to, from a URL and a transport.

use std::fmt;

use url::{Host, Url};

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Streamable HTTP over HTTP/1.1.
    Http,
    /// WebSocket with the subprotocol `mcp`.
    WebSocket,
    /// Streamable HTTP over HTTP/3.
    Http3,
    /// Raw QUIC with the ALPN `mcp/1`.
    Quic,
}

impl Transport {
    /// Every transport.
    pub const ALL: [Self; 4] = [Self::Http, Self::WebSocket, Self::Http3, Self::Quic];

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::WebSocket => "ws",
            Self::Http3 => "h3",
            Self::Quic => "quic",
        }
    }

    /// The transport of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == text)
    }

    /// What its URLs look like.
    pub fn example(self) -> &'static str {
        match self {
            Self::Http => "http://HOST:PORT/mcp or https://HOST:PORT/mcp",
            Self::WebSocket => "ws://HOST:PORT/mcp or wss://HOST:PORT/mcp",
            Self::Http3 => "https://HOST:PORT/mcp",
            Self::Quic => "quic://HOST:PORT",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a URL names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointFault {
    /// Not a URL, or one without a host.
    #[error("`{url}` cannot be used: {cause}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        cause: String,
    },
    /// The scheme is of another transport.
    #[error("`{url}` is no address for the transport {transport}")]
    Mismatch {
        /// As given.
        url: String,
        /// The transport that was asked for.
        transport: Transport,
    },
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    transport: Transport,
    is_secure: bool,
    host: String,
    port: u16,
    /// With the query, if there is one.
    path: String,
}

impl Endpoint {
    /// Reads a URL. Without a transport the scheme says it; with one the scheme must be of it.
    /// `HOST:PORT` alone is taken for `quic`, as `dev.json` writes it.
    pub fn parse(text: &str, transport: Option<Transport>) -> Result<Self, EndpointFault> {
        let wrong = |cause: &str| EndpointFault::Url { url: shown(text), cause: cause.to_owned() };
        let full = match (text.contains("://"), transport) {
            (false, Some(Transport::Quic)) => format!("quic://{text}"),
            (false, _) => return Err(wrong("it has no scheme, such as http:// or ws://")),
            (true, _) => text.to_owned(),
        };
        let url = Url::parse(&full).map_err(|cause| wrong(&cause.to_string()))?;
        let (of_scheme, is_secure, default_port) = match url.scheme() {
            "http" => (Transport::Http, false, 80),
            "https" if transport == Some(Transport::Http3) => (Transport::Http3, true, 443),
            "https" => (Transport::Http, true, 443),
            "ws" => (Transport::WebSocket, false, 80),
            "wss" => (Transport::WebSocket, true, 443),
            "h3+https" => (Transport::Http3, true, 443),
            "quic" => (Transport::Quic, true, 443),
            other => return Err(wrong(&format!("`{other}` is none of http, https, ws, wss, h3+https and quic"))),
        };
        if let Some(transport) = transport.filter(|t| *t != of_scheme) {
            return Err(EndpointFault::Mismatch { url: shown(text), transport });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a URL holds no credentials; set PROVOST_TOKEN"));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            // Hosts of schemes that the URL standard does not know stay as they were written.
            _ => return Err(wrong("it names no host")),
        };
        let path = match (url.path(), url.query()) {
            ("", None) => "/".to_owned(),
            (path, None) => path.to_owned(),
            (path, Some(query)) => format!("{path}?{query}"),
        };
        let port = url.port().unwrap_or(default_port);
        Ok(Self { transport: of_scheme, is_secure, host, port, path })
    }

    /// What carries the messages.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether the bytes are under TLS.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The name or the address, an IPv6 one without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path with its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `HOST:PORT`, as it stands in the header `Host`.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A URL as it may be printed: without what stands before the host.
fn shown(url: &str) -> String {
    match (url.find("://"), url.find('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls() {
        use Transport::{Http, Http3, Quic, WebSocket};
        let table = [
            ("http://127.0.0.1:8420/mcp", None, Http, false, "127.0.0.1:8420", "/mcp"),
            ("http://h", None, Http, false, "h:80", "/"),
            ("https://h/mcp/up?x=1", None, Http, true, "h:443", "/mcp/up?x=1"),
            ("https://h:1/mcp", Some(Http3), Http3, true, "h:1", "/mcp"),
            ("h3+https://h:1/mcp", None, Http3, true, "h:1", "/mcp"),
            ("ws://[::1]:9/mcp", Some(WebSocket), WebSocket, false, "[::1]:9", "/mcp"),
            ("wss://h/mcp", None, WebSocket, true, "h:443", "/mcp"),
            ("quic://h:7", None, Quic, true, "h:7", "/"),
            ("quic://[::1]:7/mcp/up", None, Quic, true, "[::1]:7", "/mcp/up"),
            ("127.0.0.1:8420", Some(Quic), Quic, true, "127.0.0.1:8420", "/"),
        ];
        for (text, transport, expect, secure, authority, path) in table {
            let got = Endpoint::parse(text, transport).unwrap();
            assert_eq!((got.transport(), got.is_secure()), (expect, secure), "{text}");
            assert_eq!((got.authority().as_str(), got.path()), (authority, path), "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint() {
        use Transport::{Http, Http3, Quic, WebSocket};
        let mismatches = [
            ("http://h/mcp", WebSocket),
            ("http://h/mcp", Http3),
            ("ws://h/mcp", Http),
            ("wss://h/mcp", Quic),
            ("quic://h:1", WebSocket),
        ];
        for (text, transport) in mismatches {
            let fault = Endpoint::parse(text, Some(transport)).unwrap_err();
            assert!(matches!(fault, EndpointFault::Mismatch { .. }), "{text}: {fault}");
        }
        for text in ["127.0.0.1:8420", "ftp://h/mcp", "http://", "nonsense", "quic://:7", "http://h:99999/"] {
            assert!(matches!(Endpoint::parse(text, None), Err(EndpointFault::Url { .. })), "{text}");
        }
    }

    #[test]
    fn no_error_repeats_credentials() {
        for transport in [None, Some(Transport::WebSocket)] {
            let fault = Endpoint::parse("http://user:hunter2@h/mcp", transport).unwrap_err();
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
        }
    }
}
