//! Names by which agents reach a data-plane node: DNS names and addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use rustls::pki_types::{CertificateDer, DnsName};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::tls::TlsError;

/// A name that a server's certificate can carry. A DNS name is in lower case and has no wildcard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostName {
    /// `mcp.example.com`.
    Dns(String),
    /// `192.0.2.1`, `2001:db8::1`.
    Ip(IpAddr),
}

/// Not a name that a certificate can carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a DNS name, such as mcp.example.com, nor an IP address")]
pub struct HostNameError(pub String);

impl HostName {
    /// The name in `HOST` or `HOST:PORT`; an IPv6 address with a port stands in brackets.
    pub fn of_authority(text: &str) -> Result<Self, HostNameError> {
        if let Ok(name) = text.parse() {
            return Ok(name);
        }
        let bad = || HostNameError(text.to_owned());
        let host = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map(|(host, _)| host).ok_or_else(bad)?,
            None => match text.rsplit_once(':') {
                Some((host, port)) if port.parse::<u16>().is_ok() => host,
                _ => text,
            },
        };
        host.parse().map_err(|_| bad())
    }

    /// The name in `https://HOST[:PORT][/…]`.
    pub fn of_url(url: &str) -> Result<Self, HostNameError> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        Self::of_authority(rest.split(['/', '?', '#']).next().unwrap_or_default())
    }

    /// The names of a certificate. Signatures are not checked here.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Vec<Self>, TlsError> {
        let wrong = |cause: &dyn fmt::Display| TlsError::certificate("the certificate", cause.to_string());
        let (_, certificate) = parse_x509_certificate(der).map_err(|e| wrong(&e))?;
        let names = certificate.subject_alternative_name().map_err(|e| wrong(&e))?;
        let mut found = Vec::new();
        for name in names.map_or(&[][..], |names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(dns) => found.push(dns.parse().map_err(|e: HostNameError| wrong(&e))?),
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let ip = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                    found.push(Self::Ip(ip.map_err(|_| wrong(&"has an address that is none"))?));
                }
                other => return Err(wrong(&format!("has the name {other}, which no agent checks"))),
            }
        }
        Ok(found)
    }
}

impl FromStr for HostName {
    type Err = HostNameError;
    fn from_str(text: &str) -> Result<Self, HostNameError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        let lower = text.to_ascii_lowercase();
        // Four numbers that are no address are no name either.
        let is_number = lower.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        match DnsName::try_from(lower.as_str()) {
            Ok(_) if !is_number && !lower.ends_with('.') => Ok(Self::Dns(lower)),
            _ => Err(HostNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_hosts_and_urls() {
        let dns = |text: &str| Some(HostName::Dns(text.to_owned()));
        let ip = |text: &str| text.parse().ok().map(HostName::Ip);
        for (text, expect) in [
            ("mcp.example.com", dns("mcp.example.com")),
            ("MCP.Example.com:8443", dns("mcp.example.com")),
            ("localhost", dns("localhost")),
            ("192.0.2.1", ip("192.0.2.1")),
            ("192.0.2.1:8443", ip("192.0.2.1")),
            ("2001:db8::1", ip("2001:db8::1")),
            ("[2001:db8::1]:8443", ip("2001:db8::1")),
            ("*", None),
            ("*.example.com", None),
            ("", None),
            ("a b", None),
            ("mcp.example.com.", None),
            ("300.0.0.1", None),
            ("mcp.example.com:port", None),
        ] {
            assert_eq!(HostName::of_authority(text).ok(), expect, "{text}");
        }
        assert_eq!(HostName::of_url("https://mcp.example.com:8443/mcp").ok(), dns("mcp.example.com"));
        assert_eq!(HostName::of_url("https://[2001:db8::1]/").ok(), ip("2001:db8::1"));
        assert_eq!(HostName::of_url("https:///x").ok(), None);
    }
}
