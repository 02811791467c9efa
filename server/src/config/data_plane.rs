//! `[data_plane]`: how agents are served.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{
    agent_tls::{ClientCa, TlsFiles},
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
    /// A PEM file: the authorities of certificates by which agents may authenticate. Default: none.
    pub client_ca: Option<PathBuf>,
    /// `optional`: who shows no certificate sends a token; `required`: no connection without one. Default:
    /// `optional`.
    pub client_auth: Option<ClientAuth>,
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
    let client_ca = file.tls.as_ref().and_then(|tls| client_ca(tls, say));
    AgentConfig {
        tls,
        client_ca,
        hosts: file.hosts.clone(),
        origins: file.origins.clone(),
        public_url: file.public_url.clone(),
    }
}

fn client_ca(tls: &AgentTlsFile, say: &mut impl FnMut(&'static str, String)) -> Option<ClientCa> {
    match (&tls.client_ca, tls.client_auth) {
        (Some(file), auth) => Some(ClientCa { file: file.clone(), required: auth == Some(ClientAuth::Required) }),
        (None, None) => None,
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
        for bad in ["[tls]\n", "[tls]\ncertificate = '/c'\n", "[tls]\nkey = '/k'\nlocal_ca = '/ca'\n"] {
            assert_eq!(read(bad).unwrap_err(), ["data_plane.tls"], "{bad}");
        }
        assert_eq!(read("public_url = 'mcp.example.com'\n").unwrap_err(), ["data_plane.public_url"]);
        let clients = |text: &str| read(&format!("[tls]\nlocal_ca = '/ca'\n{text}")).map(|c| c.client_ca);
        let ca = |required| Ok(Some(ClientCa { file: "/a".into(), required }));
        assert_eq!(clients(""), Ok(None));
        assert_eq!(clients("client_ca = '/a'\n"), ca(false));
        assert_eq!(clients("client_ca = '/a'\nclient_auth = 'optional'\n"), ca(false));
        assert_eq!(clients("client_ca = '/a'\nclient_auth = 'required'\n"), ca(true));
        assert_eq!(clients("client_auth = 'required'\n"), Err(vec!["data_plane.tls.client_auth"]));
        assert!(toml::from_str::<DataPlaneFile>("[tls]\nclient_auth = 'maybe'\n").is_err());
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
