//! Where upstream requests may go.
//!
//! Invariants: `https` to public addresses, or loopback; a name is resolved once and refused if
//! any of its addresses is private, link-local, shared (CGNAT), multicast, a cloud's metadata
//! service, or one of these mapped into IPv6; only the checked addresses are connected to.
//! Left out: redirects (never followed) and proxies (never used), see `upstream::http`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::UpstreamError;

/// Checks an upstream's URL without resolving it.
pub(crate) fn check_url(text: &str) -> Result<Url, UpstreamError> {
    let refused = |why: String| UpstreamError::Egress(why);
    let url = Url::parse(text).map_err(|cause| refused(format!("`{text}`: {cause}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("credentials in the URL; put them in secretHeaders".to_owned()));
    }
    let loopback = match url.host() {
        None => return Err(refused(format!("`{text}` has no host"))),
        Some(Host::Domain(name)) => is_loopback_name(name),
        Some(Host::Ipv4(ip)) => literal(IpAddr::V4(ip)).map_err(refused)?,
        Some(Host::Ipv6(ip)) => literal(IpAddr::V6(ip)).map_err(refused)?,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        other => Err(refused(format!("{other}:// is only for loopback"))),
    }
}

/// Whether an address literal is loopback; refused if it is neither that nor public.
fn literal(ip: IpAddr) -> Result<bool, String> {
    if ip.is_loopback() || is_public(ip) { Ok(ip.is_loopback()) } else { Err(format!("{ip} is not public")) }
}

fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether the address is one of the public internet.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match embedded_v4(ip) {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (b == 18 || b == 19);
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || shared
        || protocol
        || benchmark
        || a == 0
        || a >= 240)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    let documentation = first == 0x2001 && ip.segments()[1] == 0x0db8;
    // Only 2000::/3 is global unicast; everything local lies outside of it.
    first & 0xe000 == 0x2000 && !documentation
}

/// The IPv4 address inside a mapped, NAT64 or 6to4 address.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let pair = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0x2002, high, low, ..] => Some(pair(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(pair(high, low)),
        _ => ip.to_ipv4_mapped(),
    }
}

/// Resolves names to checked addresses only.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CheckedResolver;

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let loopback = is_loopback_name(&name);
            if let Some(bad) = found.iter().find(|a| {
                let ip = a.ip();
                if loopback { !ip.is_loopback() } else { !is_public(ip) }
            }) {
                return Err(format!("{name} resolves to {}, which is not public", bad.ip()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        for good in [
            "https://example.com/mcp",
            "http://127.0.0.1:8080/mcp",
            "http://localhost:1/mcp",
            "https://1.1.1.1/mcp",
            "http://[::1]:9/mcp",
        ] {
            assert!(check_url(good).is_ok(), "{good} was refused");
        }
        for bad in [
            "http://example.com/mcp",
            "https://10.0.0.1/mcp",
            "https://169.254.169.254/latest",
            "https://[::ffff:10.0.0.1]/",
            "https://[fd00::1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[2002:a00:1::]/",
            "https://100.64.0.1/",
            "https://0x7f.1.1.1.1/",
            "https://2130706433.example@10.1.1.1/",
            "https://user:pass@example.com/",
            "ftp://127.0.0.1/",
            "not a url",
        ] {
            assert!(check_url(bad).is_err(), "{bad} was taken");
        }
    }
}
