//! What an address is: the special-purpose registries of IANA (RFC 6890), and what clouds hide in them.
//!
//! Invariant: what is not known to be public is not public. An IPv4 address inside an IPv6 one counts as
//! public where it is, and is refused otherwise: nobody needs that spelling of a private address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is to whoever connects to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Of the public internet.
    Public,
    /// This machine.
    Loopback,
    /// May be opened by who runs the node.
    Private,
    /// Never: link-local, metadata, multicast, reserved.
    Never,
}

/// Metadata and control addresses of clouds that lie outside of link-local ranges.
const METADATA: [IpAddr; 5] = [
    // Alibaba Cloud, in the shared range.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Azure's host agent, in a public range.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Oracle Cloud.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // AWS and Google Cloud, in the range of unique local addresses.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Classifies an address.
pub(super) fn class(ip: IpAddr) -> Class {
    if METADATA.contains(&ip) {
        return Class::Never;
    }
    match ip {
        IpAddr::V4(ip) => class_v4(ip),
        IpAddr::V6(ip) => match embedded_v4(ip) {
            Some(v4) if class(IpAddr::V4(v4)) == Class::Public => Class::Public,
            Some(_) => Class::Never,
            None => class_v6(ip),
        },
    }
}

fn class_v4(ip: Ipv4Addr) -> Class {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmark = a == 198 && (b == 18 || b == 19);
    let protocol = a == 192 && b == 0 && c == 0;
    let old_6to4 = a == 192 && b == 88 && c == 99;
    if ip.is_loopback() {
        Class::Loopback
    } else if ip.is_private() || shared || benchmark {
        Class::Private
    } else if a == 0
        || a >= 240
        || protocol
        || old_6to4
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
    {
        Class::Never
    } else {
        Class::Public
    }
}

fn class_v6(ip: Ipv6Addr) -> Class {
    let [first, second, ..] = ip.segments();
    // 2001::/23 is for protocols: Teredo, benchmarking, identifiers that are not routed.
    let protocol = first == 0x2001 && second < 0x0200;
    let documentation = (first == 0x2001 && second == 0x0db8) || (first == 0x3fff && second < 0x1000);
    if ip.is_loopback() {
        Class::Loopback
    } else if first & 0xfe00 == 0xfc00 {
        Class::Private
    } else if first & 0xe000 == 0x2000 && !protocol && !documentation {
        // Only 2000::/3 is global unicast.
        Class::Public
    } else {
        Class::Never
    }
}

/// The IPv4 address inside a mapped, NAT64 or 6to4 address.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let pair = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match ip.segments() {
        [0x2002, high, low, ..] => Some(pair(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(pair(high, low)),
        _ => ip.to_ipv4_mapped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_range_has_its_class() {
        use Class::{Loopback, Never, Private, Public};
        let table = [
            ("1.1.1.1", Public),
            ("9.255.255.255", Public),
            ("172.15.255.255", Public),
            ("172.32.0.0", Public),
            ("100.63.255.255", Public),
            ("100.128.0.0", Public),
            ("192.0.1.0", Public),
            ("223.255.255.255", Public),
            ("0.0.0.0", Never),
            ("0.1.2.3", Never),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("100.64.0.0", Private),
            ("100.127.255.255", Private),
            ("100.100.100.200", Never),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("168.63.129.16", Never),
            ("168.63.129.17", Public),
            ("169.254.0.1", Never),
            ("169.254.169.254", Never),
            ("172.16.0.0", Private),
            ("172.31.255.255", Private),
            ("192.0.0.1", Never),
            ("192.0.0.192", Never),
            ("192.0.2.1", Never),
            ("192.88.99.1", Never),
            ("192.168.0.1", Private),
            ("198.18.0.1", Private),
            ("198.19.255.255", Private),
            ("198.51.100.1", Never),
            ("203.0.113.1", Never),
            ("224.0.0.1", Never),
            ("239.255.255.255", Never),
            ("240.0.0.1", Never),
            ("255.255.255.255", Never),
            ("::", Never),
            ("::1", Loopback),
            ("::2", Never),
            ("::10.0.0.1", Never),
            ("::ffff:1.1.1.1", Public),
            ("::ffff:10.0.0.1", Never),
            ("::ffff:127.0.0.1", Never),
            ("::ffff:169.254.169.254", Never),
            ("64:ff9b::1.1.1.1", Public),
            ("64:ff9b::10.0.0.1", Never),
            ("64:ff9b::a9fe:a9fe", Never),
            ("64:ff9b:1::1", Never),
            ("100::1", Never),
            ("2001::1", Never),
            ("2001:2::1", Never),
            ("2001:20::1", Never),
            ("2001:1ff:ffff::1", Never),
            ("2001:200::1", Public),
            ("2001:db8::1", Never),
            ("2002:101:101::1", Public),
            ("2002:a00:1::1", Never),
            ("2002:7f00:1::1", Never),
            ("2606:4700:4700::1111", Public),
            ("3fff::1", Never),
            ("3fff:1000::1", Public),
            ("5f00::1", Never),
            ("fc00::1", Private),
            ("fd00::1", Private),
            ("fd00:ec2::254", Never),
            ("fd20:ce::254", Never),
            ("fe80::1", Never),
            ("fec0::1", Never),
            ("ff02::1", Never),
        ];
        for (ip, expected) in table {
            let parsed: IpAddr = ip.parse().unwrap_or_else(|_| panic!("{ip}"));
            assert_eq!(class(parsed), expected, "{ip}");
        }
    }
}
