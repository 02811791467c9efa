//! Which MCP endpoint a command talks to, over what, and how its errors become the command line's.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use provost_client::{ClientError, Connector, Endpoint, EndpointFault, LinkError, Options, Transport};
use provost_mcp::{RawObject, RpcError};
use secrecy::SecretString;

use super::context::{DevFile, default_data_dir};
use crate::failure::{Failure, Usage};

/// Which MCP endpoint to talk to.
#[derive(Args, Clone)]
pub struct EndpointArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Bearer token. Better given by the environment or a file than here.
    #[arg(long, env = "PROVOST_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Where an endpoint is, over what it is spoken to, and where its token lies: nothing secret.
#[derive(Args, Clone)]
pub struct PlaceArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// What carries the messages, whatever the URL's scheme. Default: what the URL says, else http.
    #[arg(long, value_name = "http|ws|h3|quic", value_parser = transport)]
    transport: Option<Transport>,
}

/// Where a node is, and where the token for it lies: nothing secret.
#[derive(Args, Clone)]
pub struct NodeArgs {
    /// The MCP endpoint: `http(s)://HOST:PORT/mcp`, `ws(s)://HOST:PORT/mcp`, `h3+https://HOST:PORT/mcp` or
    /// `quic://HOST:PORT`. Default: the running `provost dev`.
    #[arg(long, env = "PROVOST_URL")]
    url: Option<String>,
    /// File that holds the bearer token.
    #[arg(long, value_name = "FILE", env = "PROVOST_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the certificate authority to believe. Default: that of the running `provost dev`, or the
    /// system's.
    #[arg(long, value_name = "FILE", env = "PROVOST_CA")]
    ca: Option<PathBuf>,
    /// Where the running `provost dev` keeps its data.
    #[arg(long, env = "PROVOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

fn transport(text: &str) -> Result<Transport, String> {
    Transport::parse(text).ok_or_else(|| "the transports are http, ws, h3 and quic".to_owned())
}

/// A node as it was found.
pub struct Node {
    /// Its address, as it was given.
    pub url: String,
    /// What to show there, if anything.
    pub token: Option<SecretString>,
    /// The authorities to believe, PEM; none: those of the system.
    pub ca: Option<PathBuf>,
}

/// The MCP endpoint to talk to.
pub struct EndpointContext {
    /// Its address, as it was given.
    pub url: String,
    /// Opens connections to it.
    pub connector: Connector,
}

impl EndpointArgs {
    /// Finds the endpoint. A URL given without a token is used without one.
    pub fn resolve(&self) -> anyhow::Result<EndpointContext> {
        self.place.resolve(self.token.as_deref())
    }

    /// The running `provost dev`.
    pub fn dev(&self) -> anyhow::Result<DevFile> {
        self.place.dev()
    }
}

impl PlaceArgs {
    /// Finds the endpoint. The file's token comes first, then `token`, then, where no URL is given, that of
    /// the running `provost dev`.
    pub fn resolve(&self, token: Option<&str>) -> anyhow::Result<EndpointContext> {
        let Node { url, token, ca } = self.node.find(token, |dev| address(dev, self.transport))?;
        let endpoint = endpoint(&url, self.transport).map_err(|fault| usage(&fault))?;
        let options = Options { token, ca, ..Options::default() };
        let connector = Connector::new(endpoint, options).map_err(|error| link_failure(&error))?;
        Ok(EndpointContext { url, connector })
    }

    fn dev(&self) -> anyhow::Result<DevFile> {
        self.node.dev()
    }
}

impl NodeArgs {
    /// Finds the node; `of_dev` says which address of the running `provost dev` is meant. The file's token
    /// comes first, then `token`, then, where no URL is given, that of the running `provost dev`.
    pub fn find(
        &self,
        token: Option<&str>,
        of_dev: impl FnOnce(&DevFile) -> anyhow::Result<String>,
    ) -> anyhow::Result<Node> {
        let mut token = token.filter(|t| !t.is_empty()).map(|t| SecretString::from(t.to_owned()));
        if let Some(file) = &self.token_file {
            token = Some(read_token(file)?);
        }
        let mut ca = self.ca.clone();
        let url = match &self.url {
            Some(url) => {
                ca = ca.or_else(|| self.dev().ok().filter(|dev| serves(dev, url)).and_then(|dev| dev.ca));
                url.clone()
            }
            None => {
                let dev = self.dev()?;
                let url = of_dev(&dev)?;
                ca = ca.or_else(|| dev.ca.clone());
                if token.is_none() && !dev.token.is_empty() {
                    token = Some(SecretString::from(dev.token));
                }
                url
            }
        };
        Ok(Node { url, token, ca })
    }

    fn dev(&self) -> anyhow::Result<DevFile> {
        DevFile::read(&self.data_dir.clone().unwrap_or_else(default_data_dir))
    }
}

/// The endpoint that a URL names. Where a transport is wanted too, the URL's scheme need not be of it: it says where
/// the node is, which serves all transports under one number, those over UDP with TLS.
fn endpoint(url: &str, wanted: Option<Transport>) -> Result<Endpoint, EndpointFault> {
    match (Endpoint::parse(url, wanted), wanted) {
        (Err(EndpointFault::Mismatch { .. }), Some(transport)) => {
            Endpoint::parse(&over(&Endpoint::parse(url, None)?, transport), wanted)
        }
        (parsed, _) => parsed,
    }
}

/// The same endpoint over another transport. What was under TLS stays under it.
fn over(given: &Endpoint, transport: Transport) -> String {
    let scheme = match (transport, given.is_secure()) {
        (Transport::Http, false) => "http",
        (Transport::Http, true) | (Transport::Http3, _) => "https",
        (Transport::WebSocket, false) => "ws",
        (Transport::WebSocket, true) => "wss",
        (Transport::Quic, _) => "quic",
    };
    // Over QUIC the path may be left out.
    let path = if given.transport() == Transport::Quic && given.path() == "/" { "/mcp" } else { given.path() };
    format!("{scheme}://{}{path}", given.authority())
}

/// Whether an address is one of the running `provost dev`, whose certificate no authority of the system signed.
fn serves(dev: &DevFile, url: &str) -> bool {
    let parsed = Endpoint::parse(url, None).or_else(|_| Endpoint::parse(url, Some(Transport::Quic)));
    match (parsed, Endpoint::parse(&dev.mcp, None)) {
        (Ok(asked), Ok(served)) => {
            let here = |endpoint: &Endpoint| match endpoint.host().parse::<IpAddr>() {
                Ok(address) => address.is_loopback(),
                Err(_) => endpoint.host() == "localhost",
            };
            asked.authority() == served.authority() || (asked.port() == served.port() && here(&asked) && here(&served))
        }
        _ => false,
    }
}

/// Where the running `provost dev` serves a transport.
fn address(dev: &DevFile, transport: Option<Transport>) -> anyhow::Result<String> {
    let transport = transport.unwrap_or(Transport::Http);
    let found = match transport {
        Transport::Http => Some(dev.mcp.clone()),
        Transport::WebSocket => dev.ws.clone(),
        Transport::Http3 => dev.h3.clone(),
        Transport::Quic => dev.quic.clone(),
    };
    found.ok_or_else(|| {
        let message = format!("the running `provost dev` serves no {transport}");
        Usage(Failure::new("PV-CLI-TRANSPORT", message, "use --transport http or ws, or name a server with --url"))
            .into()
    })
}

/// What a person reads when an address is none.
pub fn usage(fault: &EndpointFault) -> Usage {
    let hint = match fault {
        EndpointFault::Mismatch { transport, .. } => {
            format!("write {}, or leave --transport out", transport.example())
        }
        EndpointFault::Url { .. } => "write http://HOST:PORT/mcp, ws://HOST:PORT/mcp or quic://HOST:PORT".to_owned(),
    };
    Usage(Failure::new("PV-CLI-URL", fault.to_string(), hint))
}

fn read_token(file: &Path) -> anyhow::Result<SecretString> {
    let wrong = |cause: String| {
        let message = format!("the token cannot be read from {}: {cause}", file.display());
        Failure::new("PV-CLI-TOKEN-FILE", message, "put the token alone into the file, mode 600")
    };
    let text = std::fs::read_to_string(file).map_err(|cause| wrong(cause.to_string()))?;
    match text.trim() {
        "" => Err(wrong("it is empty".to_owned()).into()),
        token => Ok(SecretString::from(token.to_owned())),
    }
}

/// What a person reads when a request failed.
pub fn failed(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Rpc(error) | ClientError::Link(LinkError::Rejected(error)) => rpc_failure(&error).into(),
        ClientError::Link(error) => link_failure(&error).into(),
    }
}

/// What a person reads when a connection failed.
pub fn link_failure(error: &LinkError) -> Failure {
    match error {
        LinkError::Rejected(error) => rpc_failure(error),
        error => Failure::new(error.code(), error.to_string(), error.hint()),
    }
}

fn rpc_failure(error: &RpcError) -> Failure {
    let data = error.data.as_ref().and_then(|data| RawObject::parse(data).ok()).unwrap_or_default();
    let code = data.get_text("code").unwrap_or_else(|| "PV-RPC".to_owned());
    let hint = match (code.as_str(), error.code) {
        ("PV-POLICY-DENIED", _) => Some("`provost audit query --status denied` shows the record"),
        (_, RpcError::UNAUTHENTICATED) => Some("check the token: `provost token create --principal NAME` makes one"),
        (_, RpcError::MISSING_CLIENT_CAPABILITY) => {
            Some("the tool asks its caller something: run the command on a terminal, to be asked")
        }
        _ => None,
    };
    let message = format!("{} (JSON-RPC {})", error.message, error.code);
    Failure { code, message, hint: hint.map(str::to_owned) }
}

/// The client of a command.
pub async fn connect(
    context: &EndpointContext,
    capabilities: serde_json::Value,
    handler: std::sync::Arc<dyn provost_client::Handler>,
) -> anyhow::Result<provost_client::Client> {
    let identity = provost_client::Identity {
        name: "provost-cli",
        version: env!("CARGO_PKG_VERSION"),
        capabilities: provost_mcp::RawJson::from(capabilities),
    };
    let era = provost_client::EraChoice::Auto;
    let connected = provost_client::Client::connect(&context.connector, identity, handler, era).await;
    connected.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wanted_transport_is_taken_at_the_urls_node() {
        use Transport::{Http, Http3, Quic, WebSocket};
        let table = [
            ("http://h:1/mcp", WebSocket, false, "h:1", "/mcp"),
            ("http://h:1/mcp", Http3, true, "h:1", "/mcp"),
            ("http://h:1/mcp/sql", Quic, true, "h:1", "/mcp/sql"),
            ("https://h/mcp", WebSocket, true, "h:443", "/mcp"),
            ("ws://[::1]:2/mcp", Http, false, "[::1]:2", "/mcp"),
            ("wss://h:3/mcp", Http, true, "h:3", "/mcp"),
            ("quic://h:4", WebSocket, true, "h:4", "/mcp"),
            ("quic://h:4/mcp/sql", Http, true, "h:4", "/mcp/sql"),
            ("h:5", Quic, true, "h:5", "/"),
        ];
        for (url, transport, is_secure, authority, path) in table {
            let found = endpoint(url, Some(transport)).unwrap_or_else(|fault| panic!("{url}: {fault}"));
            assert_eq!((found.transport(), found.is_secure()), (transport, is_secure), "{url}");
            assert_eq!((found.authority().as_str(), found.path()), (authority, path), "{url}");
        }
        for url in ["h:5", "ftp://h/mcp", "http://u:p@h/mcp"] {
            assert!(endpoint(url, Some(WebSocket)).is_err(), "{url}");
        }
    }

    #[test]
    fn only_addresses_of_the_running_dev_have_its_ca() {
        let text = r#"{"mcp":"http://127.0.0.1:8420/mcp","openai":"","admin":"","metrics":"","console":"","token":"",
            "admin_token":"","audit_dir":"","pid":1}"#;
        let dev: DevFile = serde_json::from_str(text).unwrap();
        let here =
            ["https://127.0.0.1:8420/mcp", "wss://localhost:8420/mcp", "quic://127.0.0.1:8420", "127.0.0.1:8420"];
        for url in here {
            assert!(serves(&dev, url), "{url}");
        }
        for url in ["https://127.0.0.1:8421/mcp", "https://h.example:8420/mcp", "https://10.0.0.1:8420/mcp", "nonsense"]
        {
            assert!(!serves(&dev, url), "{url}");
        }
    }
}
