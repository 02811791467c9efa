//! `Host` and `Origin`: the defence of a local node against pages of other sites; and headers that come twice.
//!
//! A page that rebinds its own name to our address still sends its name in `Host`, and its origin
//! in `Origin`; both are compared with lists, so such a page is refused before its body is read.
//! Of a header that comes twice one reader takes the first and another the last: what decides anything comes
//! once.

use std::borrow::Cow;

use http::{HeaderMap, Uri, header};

/// Which header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Host,
    Origin,
    /// This one came twice.
    Twice(&'static str),
}

/// Headers that decide something, beside `Host` and those that mirror the body, which are compared with it.
const SINGLE: [&str; 5] = ["authorization", "content-type", "origin", "mcp-session-id", "last-event-id"];

/// The lists, in lower case.
pub(crate) struct Doorkeeper {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Doorkeeper {
    pub(crate) fn new(hosts: &[String], origins: &[String]) -> Self {
        let lower = |list: &[String]| list.iter().map(|s| s.to_ascii_lowercase()).collect();
        Self { hosts: lower(hosts), origins: lower(origins) }
    }

    /// The authority that the client addressed: `Host`, or `:authority` in HTTP/2.
    pub(crate) fn authority<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            (None, _) => uri.authority().map(http::uri::Authority::as_str),
            // Two Host headers: readers differ on which one counts.
            (Some(_), Some(_)) => None,
        }
    }

    pub(crate) fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refused> {
        // Mostly there are as many names as values, and none came twice.
        if headers.keys_len() != headers.len()
            && let Some(name) = SINGLE.into_iter().find(|name| headers.get_all(*name).iter().nth(1).is_some())
        {
            return Err(Refused::Twice(name));
        }
        let authority = Self::authority(headers, uri).ok_or(Refused::Host)?;
        if !self.host_allowed(&lower(authority)) {
            return Err(Refused::Host);
        }
        // Beside `Host` there may be a name in the request's target, which others go by (RFC 9112, section 3.2.2).
        if uri.authority().is_some_and(|other| !self.host_allowed(&other.as_str().to_ascii_lowercase())) {
            return Err(Refused::Host);
        }
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.to_str().map_err(|_| Refused::Origin)?.to_ascii_lowercase();
            if !self.origin_allowed(&origin) {
                return Err(Refused::Origin);
            }
        }
        Ok(())
    }

    fn host_allowed(&self, authority: &str) -> bool {
        let host = without_port(authority);
        self.hosts
            .iter()
            .any(|entry| entry == "*" || entry == authority || (without_port(entry) == entry && entry == host))
    }

    fn origin_allowed(&self, origin: &str) -> bool {
        self.origins.iter().any(|entry| match entry.strip_suffix(":*") {
            Some(any_port) => origin == any_port || port_follows(origin, any_port),
            None => entry == origin || entry == "*",
        })
    }
}

/// In lower case; what is that already is not copied.
fn lower(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(text.to_ascii_lowercase()),
        false => Cow::Borrowed(text),
    }
}

fn port_follows(origin: &str, prefix: &str) -> bool {
    origin
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix(':'))
        .is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// `host:port` or `[v6]:port` without the port.
fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        // What is no port leaves the authority as it is, and so on no list: `localhost:80@evil.example`.
        Some(colon) if authority[colon + 1..].bytes().all(|b| b.is_ascii_digit()) => {
            // A bare IPv6 address has several colons and no port.
            if authority.starts_with('[') || authority[..colon].find(':').is_none() {
                &authority[..colon]
            } else {
                authority
            }
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(host: &str, origin: Option<&str>) -> Result<(), Refused> {
        let list = |l: &[&str]| l.iter().map(ToString::to_string).collect::<Vec<_>>();
        let keeper = Doorkeeper::new(
            &list(&["localhost", "127.0.0.1", "[::1]", "mcp.example.com:8443"]),
            &list(&["http://localhost:*", "https://app.example.com"]),
        );
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        keeper.check(&headers, &Uri::from_static("/mcp"))
    }

    #[test]
    fn what_decides_comes_once() {
        let keeper = Doorkeeper::new(&["localhost".to_owned()], &["http://localhost:*".to_owned()]);
        for name in SINGLE.into_iter().chain(["x-other"]) {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "localhost".parse().unwrap());
            for value in ["http://localhost", "http://localhost"] {
                headers.append(name, value.parse().unwrap());
            }
            let expected = if name == "x-other" { Ok(()) } else { Err(Refused::Twice(name)) };
            assert_eq!(keeper.check(&headers, &Uri::from_static("/mcp")), expected, "{name}");
        }
    }

    #[test]
    fn the_name_in_the_target_counts_beside_host() {
        let keeper = Doorkeeper::new(&["localhost".to_owned()], &[]);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost:8420".parse().unwrap());
        for (target, expected) in [
            ("/mcp", Ok(())),
            ("http://localhost:8420/mcp", Ok(())),
            ("http://LOCALHOST/mcp", Ok(())),
            ("http://evil.example.com/mcp", Err(Refused::Host)),
            ("http://localhost@evil.example.com/mcp", Err(Refused::Host)),
        ] {
            assert_eq!(keeper.check(&headers, &Uri::from_static(target)), expected, "{target}");
        }
    }

    #[test]
    fn hosts_and_origins() {
        let table = [
            ("localhost", None, Ok(())),
            ("LOCALHOST:8420", None, Ok(())),
            ("127.0.0.1:1", Some("http://localhost:5173"), Ok(())),
            ("[::1]:8420", None, Ok(())),
            ("[::1]", None, Ok(())),
            ("mcp.example.com:8443", Some("https://app.example.com"), Ok(())),
            ("mcp.example.com", None, Err(Refused::Host)),
            ("mcp.example.com:80", None, Err(Refused::Host)),
            ("evil.example.com", None, Err(Refused::Host)),
            ("localhost.evil.com", None, Err(Refused::Host)),
            ("localhost:80@evil.com", None, Err(Refused::Host)),
            ("localhost:80@evil.com:80", None, Err(Refused::Host)),
            ("user@localhost", None, Err(Refused::Host)),
            ("localhost:http", None, Err(Refused::Host)),
            ("[::1]x:80", None, Err(Refused::Host)),
            ("localhost", Some("http://evil.example.com"), Err(Refused::Origin)),
            ("localhost", Some("null"), Err(Refused::Origin)),
            ("localhost", Some("http://localhost.evil.com"), Err(Refused::Origin)),
            ("localhost", Some("http://localhost:80.evil.com"), Err(Refused::Origin)),
            ("localhost", Some("https://app.example.com:444"), Err(Refused::Origin)),
        ];
        for (host, origin, expected) in table {
            assert_eq!(check(host, origin), expected, "{host} {origin:?}");
        }
    }
}
