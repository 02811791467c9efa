//! `[data_plane]`: how agents are served.

use std::path::{Path, PathBuf};

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
    /// Calls at once on this node; beyond it calls are refused, those of principals with low priority first.
    /// Default: 4096. Less on a machine with little memory.
    pub max_calls: Option<u32>,
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
    if file.max_calls == Some(0) {
        say("data_plane.max_calls", "is 0: no call could run; write 1 or more, or leave it out".to_owned());
    }
    AgentConfig {
        tls,
        hosts: file.hosts.clone(),
        origins: file.origins.clone(),
        public_url: file.public_url.clone(),
        max_calls: file.max_calls,
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
        for bad in ["[tls]\n", "[tls]\ncertificate = '/c'\n", "[tls]\nkey = '/k'\nlocal_ca = '/ca'\n"] {
            assert_eq!(read(bad).unwrap_err(), ["data_plane.tls"], "{bad}");
        }
        assert_eq!(read("max_calls = 0\n").unwrap_err(), ["data_plane.max_calls"]);
        assert_eq!(read("max_calls = 64\n").unwrap().max_calls, Some(64));
        assert_eq!(read("public_url = 'mcp.example.com'\n").unwrap_err(), ["data_plane.public_url"]);
        assert!(toml::from_str::<DataPlaneFile>("[tls]\ncert = '/c'\n").is_err());
    }

    #[test]
    fn names_are_added_to_those_of_loopback() {
        let config = read("hosts = ['mcp.example.com']\norigins = ['https://app.example.com']\n").unwrap();
        let front = config.front([0; 32]);
        assert!(["localhost", "mcp.example.com"].iter().all(|h| front.allowed_hosts.iter().any(|a| a == h)));
        assert!(front.allowed_origins.iter().any(|o| o == "https://app.example.com"));
    }
}
