//! `[data_plane]`: how agents are served.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use provost_control_api::identity::MAX_AGENT_NAMES;
use provost_types::PrivateRange;
use provost_wire::tls::HostName;
use serde::Deserialize;

use crate::{
    agent_tls::{ClientCa, TlsFiles},
    node::doors::{AgentConfig, AgentTls, Leaving},
};

/// `[data_plane]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataPlaneFile {
    /// TLS, and with it HTTP/3 and QUIC on the UDP port of the same number. Default: plain HTTP, for a
    /// node behind a proxy that takes TLS off.
    pub tls: Option<AgentTlsFile>,
    /// Names under which agents reach the node: `mcp.example.com` or `mcp.example.com:8443`; `*` is any.
    /// Default: those of loopback only, which are always good.
    pub hosts: Vec<String>,
    /// Origins whose pages may call: `https://app.example.com`. Default: those of loopback, which are
    /// always good.
    pub origins: Vec<String>,
    /// `https://mcp.example.com`, for the metadata that clients read. Default: taken from `Host`.
    pub public_url: Option<String>,
    /// Calls at once on this node; beyond it calls are refused, those of principals with low priority first.
    /// Default: 4096. Less on a machine with little memory.
    pub max_calls: Option<u32>,
    /// After SIGTERM calls in flight get so long, and then the process ends. Default 3.5: the process is
    /// gone within five seconds. Longer where calls take longer; keep it below the time after which
    /// whoever stops the process kills it.
    pub drain_seconds: Option<f64>,
    /// For so long of it connections are still accepted, while `/readyz` says that the node goes. Default
    /// 1. Longer where a balancer looks less often; 0 where none looks.
    pub notice_seconds: Option<f64>,
    /// Where plugins may connect to.
    pub egress: EgressFile,
}

/// `[data_plane.egress]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressFile {
    /// Private ranges, such as `10.20.0.0/16`, that a plugin's document may open for itself. Default: none.
    /// Set it where upstreams run in a private network, as narrow as that network is.
    pub allow_private: Vec<String>,
}

/// The ranges that documents may open on this node.
pub(super) fn egress(file: &EgressFile, say: &mut impl FnMut(&'static str, String)) -> Vec<PrivateRange> {
    let read = |text: &String| match text.parse() {
        Ok(range) => Some(range),
        Err(cause) => {
            say("data_plane.egress.allow_private", format!("{cause}"));
            None
        }
    };
    file.allow_private.iter().filter_map(read).collect()
}

/// `[data_plane.tls]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentTlsFile {
    /// A PEM file: the certificate, then those up to its CA. Read again when it changes.
    pub certificate: Option<PathBuf>,
    /// A PEM file that only the server's user can read: its private key.
    pub key: Option<PathBuf>,
    /// In their place: `cluster`, whose CA then certifies the node for its `hosts` and the host of `public_url`,
    /// as far as `[[agent_names]]` of the control plane lets it.
    pub issuer: Option<AgentIssuer>,
    /// For one machine, in their place: where to put the certificate of a CA that is made here.
    pub local_ca: Option<PathBuf>,
    /// A PEM file: the authorities of certificates by which agents may authenticate. Default: none.
    pub client_ca: Option<PathBuf>,
    /// PEM or DER files: the revocation lists of those authorities. Default: nothing is revoked. With any there
    /// must be one of each authority in a chain. Both these and `client_ca` are read again when they change.
    pub client_crl: Vec<PathBuf>,
    /// `optional`: who shows no certificate sends a token; `required`: no connection without one. Default:
    /// `optional`.
    pub client_auth: Option<ClientAuth>,
}

/// Who certifies the node for agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentIssuer {
    /// The cluster's CA.
    Cluster,
}

/// Whether agents must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ClientAuth {
    Optional,
    Required,
}

pub(super) fn check(file: &DataPlaneFile, data_dir: &Path, say: &mut impl FnMut(&'static str, String)) -> AgentConfig {
    let tls = file.tls.as_ref().and_then(|tls| match (&tls.certificate, &tls.key, &tls.local_ca, tls.issuer) {
        (None, None, None, Some(AgentIssuer::Cluster)) => Some(AgentTls::ClusterCa { names: names(file, say) }),
        (Some(certificate), Some(key), None, None) => {
            Some(AgentTls::Files(TlsFiles { certificate: certificate.clone(), key: key.clone() }))
        }
        (None, None, Some(ca), None) => {
            Some(AgentTls::LocalCa { certificate: ca.clone(), keys: data_dir.join("keys") })
        }
        _ => {
            let text =
                "needs certificate and key, two PEM files; or issuer = \"cluster\"; or, for one machine, local_ca";
            say("data_plane.tls", text.to_owned());
            None
        }
    });
    if let Some(url) = &file.public_url
        && !(url.starts_with("https://") || url.starts_with("http://"))
    {
        say("data_plane.public_url", format!("`{url}` is not an address: write https://HOST"));
    }
    if file.max_calls == Some(0) {
        say("data_plane.max_calls", "is 0: no call could run; write 1 or more, or leave it out".to_owned());
    }
    let leaving = leaving(file, say);
    let client_ca = file.tls.as_ref().and_then(|tls| client_ca(tls, say));
    AgentConfig {
        tls,
        client_ca,
        hosts: file.hosts.clone(),
        origins: file.origins.clone(),
        public_url: file.public_url.clone(),
        max_calls: file.max_calls,
        leaving: Some(leaving),
    }
}

/// The longest drain: an hour.
const MAX_DRAIN_SECONDS: f64 = 3_600.0;

fn leaving(file: &DataPlaneFile, say: &mut impl FnMut(&'static str, String)) -> Leaving {
    let mut seconds = |key, given: Option<f64>, default: Duration| match given {
        None => default,
        Some(s) if (0.0..=MAX_DRAIN_SECONDS).contains(&s) => Duration::from_secs_f64(s),
        Some(s) => {
            say(key, format!("`{s}` must be between 0 and {MAX_DRAIN_SECONDS} seconds"));
            default
        }
    };
    let drain = seconds("data_plane.drain_seconds", file.drain_seconds, Leaving::DEFAULT.drain);
    let notice = seconds("data_plane.notice_seconds", file.notice_seconds, Leaving::DEFAULT.notice.min(drain));
    if notice > drain {
        say("data_plane.notice_seconds", format!("is a part of drain_seconds, which is {}", drain.as_secs_f64()));
    }
    Leaving { drain, notice }
}

/// The names to be certified for.
fn names(file: &DataPlaneFile, say: &mut impl FnMut(&'static str, String)) -> Vec<HostName> {
    let mut names = Vec::new();
    for (key, read) in
        (file.hosts.iter().filter(|h| *h != "*").map(|h| ("data_plane.hosts", HostName::of_authority(h))))
            .chain(file.public_url.iter().map(|url| ("data_plane.public_url", HostName::of_url(url))))
    {
        match read {
            Ok(name) if names.contains(&name) => {}
            Ok(name) => names.push(name),
            Err(cause) => say(key, format!("{cause}; data_plane.tls.issuer certifies the node by it")),
        }
    }
    if names.is_empty() || names.len() > MAX_AGENT_NAMES {
        let text =
            format!("must name 1 to {MAX_AGENT_NAMES} hosts, for which data_plane.tls.issuer certifies the node");
        say("data_plane.hosts", text);
    }
    names
}

fn client_ca(tls: &AgentTlsFile, say: &mut impl FnMut(&'static str, String)) -> Option<ClientCa> {
    match (&tls.client_ca, tls.client_auth) {
        (Some(file), auth) => {
            let required = auth == Some(ClientAuth::Required);
            Some(ClientCa { file: file.clone(), lists: tls.client_crl.clone(), required })
        }
        (None, None) => {
            if !tls.client_crl.is_empty() {
                say("data_plane.tls.client_crl", "needs client_ca, whose certificates it revokes".to_owned());
            }
            None
        }
        (None, Some(_)) => {
            say("data_plane.tls.client_auth", "needs client_ca, a PEM file with the authorities of agents".to_owned());
            None
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AgentConfig, Vec<&'static str>> {
        let file: DataPlaneFile = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        let config = check(&file, Path::new("/d"), &mut |key, _| problems.push(key));
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    #[test]
    fn tls_is_a_pair_of_files_or_a_local_ca() {
        assert_eq!(read("").unwrap().tls, None);
        let files = TlsFiles { certificate: "/c".into(), key: "/k".into() };
        assert_eq!(read("[tls]\ncertificate = '/c'\nkey = '/k'\n").unwrap().tls, Some(AgentTls::Files(files)));
        let local = AgentTls::LocalCa { certificate: "/ca".into(), keys: "/d/keys".into() };
        assert_eq!(read("[tls]\nlocal_ca = '/ca'\n").unwrap().tls, Some(local));
        let cluster = |hosts: &str| read(&format!("{hosts}[tls]\nissuer = 'cluster'\n")).map(|c| c.tls.unwrap());
        let names = ["mcp.example.com", "192.0.2.1"].map(|n| n.parse().unwrap()).to_vec();
        let given = "hosts = ['*', 'mcp.example.com:8443', '192.0.2.1']\npublic_url = 'https://MCP.example.com'\n";
        assert_eq!(cluster(given).unwrap(), AgentTls::ClusterCa { names });
        assert_eq!(cluster("hosts = ['*']\n").unwrap_err(), ["data_plane.hosts"]);
        assert_eq!(cluster("hosts = ['a', 'b c']\n").unwrap_err(), ["data_plane.hosts"]);
        assert_eq!(read("[tls]\nissuer = 'cluster'\nlocal_ca = '/ca'\n").unwrap_err(), ["data_plane.tls"]);
        for bad in ["[tls]\n", "[tls]\ncertificate = '/c'\n", "[tls]\nkey = '/k'\nlocal_ca = '/ca'\n"] {
            assert_eq!(read(bad).unwrap_err(), ["data_plane.tls"], "{bad}");
        }
        assert_eq!(read("max_calls = 0\n").unwrap_err(), ["data_plane.max_calls"]);
        assert_eq!(read("max_calls = 64\n").unwrap().max_calls, Some(64));
        assert_eq!(read("public_url = 'mcp.example.com'\n").unwrap_err(), ["data_plane.public_url"]);
        let clients = |text: &str| read(&format!("[tls]\nlocal_ca = '/ca'\n{text}")).map(|c| c.client_ca);
        let ca = |required| Ok(Some(ClientCa { file: "/a".into(), lists: Vec::new(), required }));
        assert_eq!(clients(""), Ok(None));
        assert_eq!(clients("client_ca = '/a'\n"), ca(false));
        assert_eq!(clients("client_ca = '/a'\nclient_auth = 'optional'\n"), ca(false));
        let lists = clients("client_ca = '/a'\nclient_crl = ['/l', '/m']\n").unwrap().unwrap().lists;
        assert_eq!(lists, [Path::new("/l"), Path::new("/m")]);
        assert_eq!(clients("client_crl = ['/l']\n").unwrap_err(), ["data_plane.tls.client_crl"]);
        assert_eq!(clients("client_ca = '/a'\nclient_auth = 'required'\n"), ca(true));
        assert_eq!(clients("client_auth = 'required'\n"), Err(vec!["data_plane.tls.client_auth"]));
        assert!(toml::from_str::<DataPlaneFile>("[tls]\nclient_auth = 'maybe'\n").is_err());
        assert!(toml::from_str::<DataPlaneFile>("[tls]\ncert = '/c'\n").is_err());
    }

    #[test]
    fn a_node_takes_leave_within_bounds() {
        assert_eq!(read("").unwrap().leaving, Some(Leaving::DEFAULT));
        let long = Leaving { drain: Duration::from_secs(25), notice: Duration::from_secs(5) };
        assert_eq!(read("drain_seconds = 25\nnotice_seconds = 5\n").unwrap().leaving, Some(long));
        let short = read("drain_seconds = 0.5\n").unwrap().leaving.unwrap();
        assert_eq!((short.drain, short.notice), (Duration::from_millis(500), Duration::from_millis(500)));
        for bad in ["drain_seconds = -1\n", "drain_seconds = nan\n", "drain_seconds = 4000\n"] {
            assert_eq!(read(bad).unwrap_err(), ["data_plane.drain_seconds"], "{bad}");
        }
        assert_eq!(read("notice_seconds = 9\n").unwrap_err(), ["data_plane.notice_seconds"]);
        let front = read("drain_seconds = 25\n").unwrap().front(provost_data_serve::SealKeys::own([0; 32]));
        assert_eq!((front.drain_ms, front.lame_duck_ms), (25_000, 1_000));
    }

    #[test]
    fn private_ranges_are_read_or_refused() {
        let read = |text: &str| {
            let file: DataPlaneFile = toml::from_str(text).unwrap();
            let mut problems = Vec::new();
            let ranges = egress(&file.egress, &mut |key, text| problems.push(format!("{key}: {text}")));
            (ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), problems)
        };
        assert_eq!(read(""), (vec![], vec![]));
        let good = read("[egress]\nallow_private = ['10.20.0.0/16', 'fd00::/8']\n");
        assert_eq!(good, (vec!["10.20.0.0/16".to_owned(), "fd00::/8".to_owned()], vec![]));
        let (ranges, problems) = read("[egress]\nallow_private = ['169.254.0.0/16', '10.0.0.0/8', '0.0.0.0/0']\n");
        assert_eq!((ranges.len(), problems.len()), (1, 2), "{problems:?}");
        assert!(
            problems
                .iter()
                .all(|p| p.starts_with("data_plane.egress.allow_private: ") && p.contains("cannot be opened"))
        );
    }

    #[test]
    fn names_are_added_to_those_of_loopback() {
        let config = read("hosts = ['mcp.example.com']\norigins = ['https://app.example.com']\n").unwrap();
        let front = config.front(provost_data_serve::SealKeys::own([0; 32]));
        assert!(["localhost", "mcp.example.com"].iter().all(|h| front.allowed_hosts.iter().any(|a| a == h)));
        assert!(front.allowed_origins.iter().any(|o| o == "https://app.example.com"));
    }
}
