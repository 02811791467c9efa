//! Connections to servers of the cluster.

use std::{
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::Service,
    transport::{Channel, Endpoint, Uri},
};

use crate::tls::{
    Expect, Identity, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, Role, TlsError,
    identity::{anonymous_config, roots},
    verify::Trust,
};

/// The longest wait for TCP and the handshake together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Bytes in flight of one stream and of a connection: snapshots must not wait for the round trip.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of an error with its problems: they travel as trailers.
const MAX_FAILURE_BYTES: u32 = 4 << 20;

/// A connection as this node to `host:port`, made when first used and again when it broke, with
/// the identity of that moment. The server must be of this node's cluster and as expected.
pub fn channel(identity: Arc<Identity>, address: &str, expect: Expect) -> Result<Channel, TlsError> {
    let connector = Connector::new(address, AsWhom::Node(identity, expect))?;
    Ok(endpoint(address)?.connect_with_connector_lazy(connector))
}

/// A connection without a certificate to a control-plane node, trusting exactly the CA whose
/// certificate has this SHA-256: for a node that joins.
pub async fn join_channel(address: &str, ca_hash: [u8; 32]) -> Result<Channel, TlsError> {
    let config = anonymous_config(Trust::CaHash(ca_hash), Expect::role(Role::ControlPlane))?;
    anonymous(address, config).await
}

/// A connection without a certificate to a control-plane node of this node's cluster: for a node
/// whose certificate has ended.
pub async fn readmit_channel(identity: &Identity, address: &str) -> Result<Channel, TlsError> {
    anonymous(address, identity.nameless_config(Expect::role(Role::ControlPlane))?).await
}

/// A connection without a certificate to a control-plane node of the cluster whose CA is given, as
/// PEM: for administrators.
pub async fn admin_channel(address: &str, ca_pem: &str) -> Result<Channel, TlsError> {
    let config = anonymous_config(Trust::Bundle(roots(ca_pem)?), Expect::role(Role::ControlPlane))?;
    anonymous(address, config).await
}

/// For HTTPS without a certificate to a node with this role of the cluster whose CA is given, as PEM: for
/// readers of what nodes serve beside gRPC. The node is known by its SPIFFE name, whatever its address is.
pub fn reader_config(ca_pem: &str, role: Role) -> Result<ClientConfig, TlsError> {
    let config = anonymous_config(Trust::Bundle(roots(ca_pem)?), Expect::role(role))?;
    Ok(Arc::unwrap_or_clone(config))
}

/// Connects at once, here and not in the channel, which would hide the cause of a failure.
async fn anonymous(address: &str, config: Arc<ClientConfig>) -> Result<Channel, TlsError> {
    let connector = Connector::new(address, AsWhom::Nobody(config))?;
    let endpoint = endpoint(address)?;
    let first = connector.clone().connect().await?;
    *connector.first.lock() = Some(first);
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|e| TlsError::Peer { address: address.to_owned(), cause: e.to_string() })
}

fn endpoint(address: &str) -> Result<Endpoint, TlsError> {
    // The scheme is for the URI's form only: the connector speaks TLS and nothing else.
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|_| TlsError::Address(address.to_owned()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(MAX_FAILURE_BYTES))
}

/// Whether a text is an address of a node: `host:port`, `1.2.3.4:port` or `[v6]:port`, and no port 0.
pub fn is_address(text: &str) -> bool {
    check(text).is_ok()
}

/// `host:port`, `1.2.3.4:port` or `[v6]:port`.
fn check(address: &str) -> Result<&str, TlsError> {
    let bad = || TlsError::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let host_is_good = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')),
    };
    if host_is_good && port.parse::<u16>().is_ok_and(|p| p > 0) { Ok(address) } else { Err(bad()) }
}

#[derive(Clone)]
enum AsWhom {
    Node(Arc<Identity>, Expect),
    Nobody(Arc<ClientConfig>),
}

#[derive(Clone)]
struct Connector {
    address: Arc<str>,
    as_whom: AsWhom,
    /// Made already, and used before any other.
    first: Arc<Mutex<Option<TlsStream<TcpStream>>>>,
}

impl Connector {
    fn new(address: &str, as_whom: AsWhom) -> Result<Self, TlsError> {
        Ok(Self { address: check(address)?.into(), as_whom, first: Arc::default() })
    }

    async fn connect(self) -> Result<TlsStream<TcpStream>, TlsError> {
        let config = match self.as_whom {
            AsWhom::Node(identity, expect) => identity.client_config(expect)?,
            AsWhom::Nobody(config) => config,
        };
        let address = self.address.to_string();
        match timeout(CONNECT_LIMIT, connect(&address, config)).await {
            Ok(connected) => connected,
            Err(late) => Err(TlsError::Unreachable { address, cause: late.into() }),
        }
    }
}

async fn connect(address: &str, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, TlsError> {
    let unreachable = |cause| TlsError::Unreachable { address: address.to_owned(), cause };
    let tcp = TcpStream::connect(address).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    // Servers are known by their SPIFFE name; this one is not sent and not looked at.
    let nameless = ServerName::IpAddress(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
    let connected = TlsConnector::from(config).connect(nameless, tcp).await;
    connected.map_err(|cause| TlsError::Peer { address: address.to_owned(), cause: cause.to_string() })
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = TlsError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TlsError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        let first = self.first.lock().take();
        Box::pin(async move {
            if let Some(first) = first {
                return Ok(TokioIo::new(first));
            }
            let connected = connector.connect().await;
            if let Err(e @ TlsError::Peer { .. }) = &connected {
                tracing::warn!(code = e.code(), error = %e, "a connection to a node was refused");
            }
            connected.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["localhost:7443", "10.0.0.1:1", "[::1]:65535", "cp-1.acme.svc:7443", "node_1:80"] {
            assert!(check(good).is_ok() && endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost", ":1", "host:", "host:0", "host:65536", "::1:80", "[x]:80", "http://a:1", "a/b:1"] {
            assert_eq!(check(bad).map_err(|e| e.code()), Err("PV-TLS-ADDRESS"), "{bad}");
        }
    }
}
