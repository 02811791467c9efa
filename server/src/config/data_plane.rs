//! `[data_plane]`: how agents are served.

use std::path::{Path, PathBuf};

use provost_types::PrivateRange;
use serde::Deserialize;

use crate::{
    agent_tls::TlsFiles,
    node::doors::{AgentConfig, AgentTls},
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
    /// For one machine, in their place: where to put the certificate of a CA that is made here.
    pub local_ca: Option<PathBuf>,
}

pub(super) fn check(file: &DataPlaneFile, data_dir: &Path, say: &mut impl FnMut(&'static str, String)) -> AgentConfig {
    let tls = file.tls.as_ref().and_then(|tls| match (&tls.certificate, &tls.key, &tls.local_ca) {
        (Some(certificate), Some(key), None) => {
            Some(AgentTls::Files(TlsFiles { certificate: certificate.clone(), key: key.clone() }))
        }
        (None, None, Some(ca)) => Some(AgentTls::LocalCa { certificate: ca.clone(), keys: data_dir.join("keys") }),
        _ => {
            say("data_plane.tls", "needs certificate and key, two PEM files; or, for one machine, local_ca".to_owned());
            None
        }
    });
    if let Some(url) = &file.public_url
        && !(url.starts_with("https://") || url.starts_with("http://"))
    {
        say("data_plane.public_url", format!("`{url}` is not an address: write https://HOST"));
    }
    AgentConfig { tls, hosts: file.hosts.clone(), origins: file.origins.clone(), public_url: file.public_url.clone() }
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
        for bad in ["[tls]\n", "[tls]\ncertificate = '/c'\n", "[tls]\nkey = '/k'\nlocal_ca = '/ca'\n"] {
            assert_eq!(read(bad).unwrap_err(), ["data_plane.tls"], "{bad}");
        }
        assert_eq!(read("public_url = 'mcp.example.com'\n").unwrap_err(), ["data_plane.public_url"]);
        assert!(toml::from_str::<DataPlaneFile>("[tls]\ncert = '/c'\n").is_err());
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
        let front = config.front([0; 32]);
        assert!(["localhost", "mcp.example.com"].iter().all(|h| front.allowed_hosts.iter().any(|a| a == h)));
        assert!(front.allowed_origins.iter().any(|o| o == "https://app.example.com"));
    }
}
