//! Which URLs and addresses one plugin may reach: its document's word within the node's.
//!
//! Invariants: a private address is reached only if the document and the node both name its range; what is
//! [`Class::Never`] is reached by nobody; `http` is for loopback alone, since a secret may travel with it.

use std::net::IpAddr;

use provost_types::{EgressSpec, HostPattern, PrivateRange};
use url::{Host, Url};

use super::{
    AddressRefused, CheckedUrl,
    address::{Class, class},
};

/// What may be reached.
#[derive(Clone, Debug, Default)]
pub struct EgressRule {
    /// Empty: every host.
    hosts: Vec<HostPattern>,
    /// What the document opens.
    asked: Vec<PrivateRange>,
    /// What the node lets documents open.
    bounds: Vec<PrivateRange>,
}

impl EgressRule {
    /// `https` to public addresses, and loopback.
    pub fn public() -> Self {
        Self::default()
    }

    /// What a document asks for, within what the node allows.
    pub fn new(spec: &EgressSpec, node: &[PrivateRange]) -> Result<Self, AddressRefused> {
        let hosts = spec.allow_hosts.iter().map(|text| text.parse::<HostPattern>());
        let asked = spec.allow_private.iter().map(|text| text.parse::<PrivateRange>());
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>().map_err(|e| AddressRefused(e.to_string()))?,
            asked: asked.collect::<Result<_, _>>().map_err(|e| AddressRefused(e.to_string()))?,
            bounds: node.to_vec(),
        })
    }

    /// Checks a URL without resolving it.
    pub fn check(&self, text: &str) -> Result<CheckedUrl, AddressRefused> {
        let url = Url::parse(text).map_err(|cause| AddressRefused(format!("`{text}`: {cause}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressRefused("credentials in the URL; put them in secretHeaders".to_owned()));
        }
        let (loopback, shown) = match url.host() {
            None => return Err(AddressRefused(format!("`{text}` has no host"))),
            Some(Host::Domain(name)) => (is_loopback_name(name), name.to_owned()),
            Some(Host::Ipv4(ip)) => (self.literal(IpAddr::V4(ip))?, ip.to_string()),
            Some(Host::Ipv6(ip)) => (self.literal(IpAddr::V6(ip))?, format!("[{ip}]")),
        };
        if !self.hosts.is_empty() && !self.hosts.iter().any(|pattern| pattern.matches(&shown)) {
            return Err(AddressRefused(format!("`{shown}` is not in the plugin's egress.allowHosts")));
        }
        match url.scheme() {
            "https" => Ok(CheckedUrl(url)),
            "http" if loopback => Ok(CheckedUrl(url)),
            other => Err(AddressRefused(format!("{other}:// is only for loopback"))),
        }
    }

    /// Whether an address literal is loopback; refused if it may not be reached.
    fn literal(&self, ip: IpAddr) -> Result<bool, AddressRefused> {
        match class(ip) {
            Class::Loopback => Ok(true),
            _ => self.reachable(ip).map(|()| false),
        }
    }

    /// Whether an address that is not loopback may be reached.
    fn reachable(&self, ip: IpAddr) -> Result<(), AddressRefused> {
        match class(ip) {
            Class::Public => Ok(()),
            Class::Private => {
                if !self.asked.iter().any(|range| range.contains(ip)) {
                    return Err(AddressRefused(format!(
                        "{ip} is private, and not in the plugin's egress.allowPrivate"
                    )));
                }
                if !self.bounds.iter().any(|range| range.contains(ip)) {
                    let why = "this node lets no plugin reach it ([data_plane.egress] allow_private)";
                    return Err(AddressRefused(format!("{ip} is private, and {why}")));
                }
                Ok(())
            }
            Class::Loopback | Class::Never => Err(AddressRefused(format!("{ip} is not public"))),
        }
    }

    /// Checks what a name resolved to: all of it, or nothing of it is used.
    pub(super) fn check_resolved(&self, name: &str, found: &[IpAddr]) -> Result<(), AddressRefused> {
        let of = |cause: AddressRefused| AddressRefused(format!("{name} resolves to {}", cause.0));
        if found.is_empty() {
            return Err(AddressRefused(format!("{name} has no address")));
        }
        let loopback = is_loopback_name(name);
        for ip in found {
            match (loopback, class(*ip)) {
                (true, Class::Loopback) => {}
                (true, _) => return Err(AddressRefused(format!("{name} resolves to {ip}, which is not loopback"))),
                (false, _) => self.reachable(*ip).map_err(of)?,
            }
        }
        Ok(())
    }
}

/// `localhost` and what lies below it (RFC 6761); with a last dot too it stays a name like any other.
fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(hosts: &[&str], private: &[&str], node: &[&str]) -> EgressRule {
        let set = |items: &[&str]| items.iter().map(|t| (*t).to_owned()).collect();
        let node: Vec<PrivateRange> = node.iter().map(|t| t.parse().expect(t)).collect();
        let spec = EgressSpec { allow_hosts: set(hosts), allow_private: set(private) };
        EgressRule::new(&spec, &node).expect("a rule")
    }

    #[test]
    fn urls_are_checked_however_they_are_spelled() {
        let table = [
            ("https://example.com/mcp", true),
            ("https://example.com./mcp", true),
            ("http://127.0.0.1:8080/mcp", true),
            ("http://127.1/mcp", true),
            ("http://2130706433/", true),
            ("http://localhost:1/mcp", true),
            ("https://1.1.1.1/mcp", true),
            ("http://[::1]:9/mcp", true),
            ("http://example.com/mcp", false),
            // A last dot makes it a name like any other: resolved, and checked then.
            ("http://localhost./mcp", false),
            ("http://localhost.evil.example/", false),
            ("https://10.0.0.1/mcp", false),
            ("https://0xa.0.0.1/", false),
            ("https://0x0a000001/", false),
            ("https://012.0.0.1/", false),
            ("https://167772161/", false),
            ("https://10.1/", false),
            ("https://10.0.0.1./", false),
            ("https://\u{ff11}\u{ff10}.0.0.1/", false),
            ("https://169.254.169.254/latest", false),
            ("https://0xa9fea9fe/latest", false),
            ("https://2852039166/latest", false),
            ("https://0251.0376.0251.0376/latest", false),
            ("https://0/", false),
            ("https://[::ffff:10.0.0.1]/", false),
            ("https://[::ffff:a9fe:a9fe]/", false),
            ("https://[fd00::1]/", false),
            ("https://[64:ff9b::a00:1]/", false),
            ("https://[2002:a00:1::]/", false),
            ("https://[fe80::1%25eth0]/", false),
            ("https://[fe80::1]/", false),
            ("https://100.64.0.1/", false),
            ("https://2130706433.example@10.1.1.1/", false),
            ("https://example.com@10.1.1.1/", false),
            ("https://user:pass@example.com/", false),
            ("https://:@10.0.0.1/", false),
            ("ftp://127.0.0.1/", false),
            ("file:///etc/passwd", false),
            ("gopher://127.0.0.1/", false),
            ("unix:/run/docker.sock", false),
            ("https:///mcp", true), // the host is `mcp`: resolved, and checked then
            ("not a url", false),
        ];
        for (url, taken) in table {
            let checked = EgressRule::public().check(url);
            println!("{url:45} {}", checked.as_ref().map_or_else(ToString::to_string, |_| "taken".to_owned()));
            assert_eq!(checked.is_ok(), taken, "{url}: {checked:?}");
        }
    }

    #[test]
    fn a_private_range_needs_the_document_and_the_node() {
        let ten = ["10.0.0.0/8"];
        let table: [(&str, EgressRule, bool); 8] = [
            ("https://10.1.2.3/", rule(&[], &ten, &ten), true),
            ("https://10.1.2.3/", rule(&[], &ten, &[]), false),
            ("https://10.1.2.3/", rule(&[], &[], &ten), false),
            ("https://10.1.2.3/", rule(&[], &ten, &["10.1.0.0/16"]), true),
            ("https://10.2.2.3/", rule(&[], &ten, &["10.1.0.0/16"]), false),
            ("http://10.1.2.3/", rule(&[], &ten, &ten), false),
            ("https://[::ffff:10.1.2.3]/", rule(&[], &ten, &ten), false),
            ("https://100.100.100.200/", rule(&[], &["100.64.0.0/10"], &["100.64.0.0/10"]), false),
        ];
        for (url, rule, taken) in table {
            assert_eq!(rule.check(url).is_ok(), taken, "{url} {rule:?}");
        }
    }

    #[test]
    fn named_hosts_are_the_only_ones() {
        let rule = rule(&["mcp.example.com", "*.login.example"], &[], &[]);
        for (url, taken) in [
            ("https://mcp.example.com/mcp", true),
            ("https://MCP.example.com./mcp", true),
            ("https://eu.login.example/token", true),
            ("https://login.example/token", false),
            ("https://other.example.com/", false),
            ("http://127.0.0.1/", false),
        ] {
            assert_eq!(rule.check(url).is_ok(), taken, "{url}");
        }
    }

    #[test]
    fn one_bad_address_of_a_name_spoils_all() {
        let ip = |text: &&str| text.parse::<IpAddr>().expect("an address");
        let open = rule(&[], &["10.0.0.0/8"], &["10.0.0.0/8"]);
        let table: [(&EgressRule, &str, &[&str], bool); 9] = [
            (&EgressRule::public(), "a.example", &["1.1.1.1", "2606:4700::1"], true),
            (&EgressRule::public(), "a.example", &["1.1.1.1", "10.0.0.1"], false),
            (&EgressRule::public(), "a.example", &["169.254.169.254", "1.1.1.1"], false),
            (&EgressRule::public(), "a.example", &["127.0.0.1"], false),
            (&EgressRule::public(), "a.example", &[], false),
            (&EgressRule::public(), "localhost", &["127.0.0.1", "::1"], true),
            (&EgressRule::public(), "localhost", &["127.0.0.1", "10.0.0.1"], false),
            (&open, "a.example", &["1.1.1.1", "10.0.0.1"], true),
            (&open, "a.example", &["10.0.0.1", "192.168.0.1"], false),
        ];
        for (rule, name, found, taken) in table {
            let found: Vec<IpAddr> = found.iter().map(ip).collect();
            assert_eq!(rule.check_resolved(name, &found).is_ok(), taken, "{name} {found:?}");
        }
    }
}
