//! Where a plugin may connect to, beside public addresses: what documents and node configurations say.
//!
//! Invariants: a range that can be written down is one of those that may be opened at all; link-local
//! and metadata addresses are in none of them that matters, and nodes refuse them whatever is written.
//! Left out: the check of an address (`provost-data-tools`), which looks at every form of it.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a plugin may connect to. Without it: public addresses by `https`, and this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct EgressSpec {
    /// Host names, and no others: `mcp.example.com`, or `*.example.com` for every name below it. Empty: those
    /// of the document's URLs, and the token endpoint that its `issuer` names.
    pub allow_hosts: BTreeSet<String>,
    /// Private ranges that names and addresses may lie in, such as `10.20.0.0/16`. They hold on nodes whose
    /// configuration allows them too (`[data_plane.egress] allow_private`).
    pub allow_private: BTreeSet<String>,
}

/// The ranges that can be opened, wholly or in part: private use (RFC 1918, RFC 4193), shared (RFC 6598)
/// and benchmarking (RFC 2544).
const OPENABLE: [(IpAddr, u8); 6] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    (IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), 15),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
];

/// A private range in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrivateRange {
    base: IpAddr,
    bits: u8,
}

/// Why a text is no range that may be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPrivateRange {
    /// It is not an address, a slash and a number of bits.
    #[error("`{0}` is not a range: write ADDRESS/BITS, such as 10.20.0.0/16")]
    Form(String),
    /// Bits of the address are set that the range does not hold.
    #[error("`{0}` has bits set after the range; write {1}")]
    Loose(String, PrivateRange),
    /// It holds what may never be opened.
    #[error(
        "`{0}` is not within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, 198.18.0.0/15 or fc00::/7; \
         others cannot be opened"
    )]
    NotPrivate(String),
}

impl PrivateRange {
    /// Whether the address lies in the range. A mapped IPv4 address lies in no range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        within(ip, self.base, self.bits)
    }

    /// Whether this range is part of the other.
    pub fn is_within(&self, other: &Self) -> bool {
        self.bits >= other.bits && other.contains(self.base)
    }
}

fn within(ip: IpAddr, base: IpAddr, bits: u8) -> bool {
    match (ip, base) {
        (IpAddr::V4(ip), IpAddr::V4(base)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            u32::from(ip) & mask == u32::from(base) & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(base)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            u128::from(ip) & mask == u128::from(base) & mask
        }
        _ => false,
    }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}

impl FromStr for PrivateRange {
    type Err = NotAPrivateRange;

    fn from_str(text: &str) -> Result<Self, NotAPrivateRange> {
        let form = || NotAPrivateRange::Form(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(form)?;
        let base: IpAddr = address.parse().map_err(|_| form())?;
        let plain = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let bits: u8 = bits.parse().ok().filter(|_| plain).ok_or_else(form)?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        if bits > longest {
            return Err(form());
        }
        if !OPENABLE.iter().any(|(open, least)| bits >= *least && within(base, *open, *least)) {
            return Err(NotAPrivateRange::NotPrivate(text.to_owned()));
        }
        let range = Self { base: masked(base, bits), bits };
        if range.base != base {
            return Err(NotAPrivateRange::Loose(text.to_owned(), range));
        }
        Ok(range)
    }
}

impl fmt::Display for PrivateRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl Serialize for PrivateRange {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// A name of a host, or `*.` and a name for all below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// In lower case, without a last dot.
    name: String,
    below: bool,
}

/// Why a text names no hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host name: write mcp.example.com, or *.example.com for every name below it")]
pub struct NotAHost(pub String);

impl HostPattern {
    /// Whether the host (as a parsed URL has it) is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        match host.strip_suffix(&self.name) {
            Some("") => !self.below,
            Some(above) => self.below && above.ends_with('.') && above.len() > 1,
            None => false,
        }
    }
}

impl FromStr for HostPattern {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        /// Longest name (RFC 1035, 2.3.4).
        const MAX_NAME_BYTES: usize = 253;
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |rest| (rest, true));
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        // An address in brackets is one host; there is nothing below it.
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let good = match address {
            Some(inner) => !below && inner.parse::<Ipv6Addr>().is_ok(),
            None => name.split('.').all(|label| !label.is_empty() && label.len() < 64 && label.bytes().all(letter)),
        };
        if !good || name.len() > MAX_NAME_BYTES {
            return Err(NotAHost(text.to_owned()));
        }
        Ok(Self { name, below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_private_ones_or_refused() {
        for good in ["10.0.0.0/8", "10.1.2.3/32", "172.16.0.0/12", "192.168.4.0/24", "100.64.0.0/10", "fd00::/8"] {
            let range: PrivateRange = good.parse().expect(good);
            assert_eq!(range.to_string(), good);
        }
        let form = |text: &str| NotAPrivateRange::Form(text.to_owned());
        let open = |text: &str| NotAPrivateRange::NotPrivate(text.to_owned());
        for (bad, why) in [
            ("10.0.0.0", form("10.0.0.0")),
            ("10.0.0.0/33", form("10.0.0.0/33")),
            ("10.0.0.0/+8", form("10.0.0.0/+8")),
            ("10.0.0.0/", form("10.0.0.0/")),
            ("010.0.0.0/8", form("010.0.0.0/8")),
            ("0.0.0.0/0", open("0.0.0.0/0")),
            ("10.0.0.0/7", open("10.0.0.0/7")),
            ("127.0.0.0/8", open("127.0.0.0/8")),
            ("169.254.0.0/16", open("169.254.0.0/16")),
            ("169.254.169.254/32", open("169.254.169.254/32")),
            ("fe80::/10", open("fe80::/10")),
            ("::/0", open("::/0")),
            ("::ffff:10.0.0.0/104", open("::ffff:10.0.0.0/104")),
            ("8.8.8.0/24", open("8.8.8.0/24")),
        ] {
            assert_eq!(bad.parse::<PrivateRange>(), Err(why), "{bad}");
        }
        let loose = "10.1.2.3/16".parse::<PrivateRange>().unwrap_err().to_string();
        assert!(loose.contains("write 10.1.0.0/16"), "{loose}");
    }

    #[test]
    fn a_range_contains_what_it_says() {
        let range: PrivateRange = "10.20.0.0/16".parse().expect("a range");
        for (ip, inside) in
            [("10.20.0.0", true), ("10.20.255.255", true), ("10.21.0.0", false), ("::ffff:10.20.0.1", false)]
        {
            assert_eq!(range.contains(ip.parse().expect("an address")), inside, "{ip}");
        }
        let all: PrivateRange = "10.0.0.0/8".parse().expect("a range");
        assert!(range.is_within(&all) && all.is_within(&all) && !all.is_within(&range));
    }

    #[test]
    fn hosts_are_names_or_what_lies_below_them() {
        let table = [
            ("mcp.example.com", "mcp.example.com", true),
            ("mcp.example.com", "MCP.Example.Com.", true),
            ("mcp.example.com", "a.mcp.example.com", false),
            ("*.example.com", "mcp.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "evilexample.com", false),
            ("*.example.com", ".example.com", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("[fd00::1]", "[fd00::1]", true),
        ];
        for (pattern, host, matches) in table {
            assert_eq!(pattern.parse::<HostPattern>().expect(pattern).matches(host), matches, "{pattern} {host}");
        }
        for bad in ["", "*", "*.", "a b", "https://a", "a:80", "a..b", "*.*.com", "*.[fd00::1]"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }
}
