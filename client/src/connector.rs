//! From an endpoint to an open connection: address, TCP, TLS.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Uri, header};
use parking_lot::Mutex;
use rustls::{ClientConfig, pki_types::ServerName};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use crate::{Endpoint, LinkError, Transport, quic, tls};

/// A TCP connection, under TLS or not.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// How a node is spoken to, beside where it is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bearer token; none: the node may serve callers without one.
    pub token: Option<SecretString>,
    /// PEM file of the authorities to believe; none: those of the system.
    pub ca: Option<PathBuf>,
    /// The longest that opening a connection may take, handshakes included.
    pub connect_timeout: Duration,
    /// The address to connect from; none: the system chooses. A generator of load needs it where it
    /// opens more connections than one address has ports.
    pub source: Option<IpAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self { token: None, ca: None, connect_timeout: Duration::from_secs(10), source: None }
    }
}

/// Opens connections to one endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    endpoint: Arc<Endpoint>,
    options: Arc<Options>,
    tls: Option<Arc<ClientConfig>>,
    quic: Option<quinn::ClientConfig>,
    /// The socket that all QUIC connections share, once there is one.
    udp: Arc<Mutex<Option<quinn::Endpoint>>>,
    bearer: Option<HeaderValue>,
}

impl Connector {
    /// Checks what is given; connects to nothing. Errors: the CA file cannot be used, or the token
    /// holds characters that no header may carry.
    pub fn new(endpoint: Endpoint, options: Options) -> Result<Self, LinkError> {
        let alpn: &[&[u8]] = match endpoint.transport() {
            Transport::Http | Transport::WebSocket => &[b"http/1.1"],
            Transport::Http3 => &[b"h3"],
            Transport::Quic => &[b"mcp/1"],
        };
        let mut tls = match endpoint.is_secure() {
            true => Some(tls::client_config(options.ca.as_deref(), alpn)?),
            false => None,
        };
        let is_quic = matches!(endpoint.transport(), Transport::Http3 | Transport::Quic);
        let quic = tls.take_if(|_| is_quic).map(quic::config).transpose()?;
        let bearer = options.token.as_ref().map(bearer).transpose()?;
        let tls = tls.map(Arc::new);
        Ok(Self { endpoint: Arc::new(endpoint), options: Arc::new(options), tls, quic, udp: Arc::default(), bearer })
    }

    /// Where it connects to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The same, from another address of this machine.
    pub fn bound_to(&self, source: IpAddr) -> Self {
        let options = Options { source: Some(source), ..(*self.options).clone() };
        Self { options: Arc::new(options), udp: Arc::default(), ..self.clone() }
    }

    /// The longest that opening may take.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.options.connect_timeout
    }

    /// The header `Authorization`.
    pub(crate) fn bearer(&self) -> Option<&HeaderValue> {
        self.bearer.as_ref()
    }

    /// Target and common headers of the requests of one connection of HTTP/2 or /3, whose `:authority` is the target's.
    pub(crate) fn multiplexed(&self, scheme: &str) -> Result<(Uri, HeaderMap), LinkError> {
        let uri = format!("{scheme}://{}{}", self.endpoint.authority(), self.endpoint.path());
        let uri = uri.parse().map_err(|_| LinkError::Answer("the URL fits no request".to_owned()))?;
        let mut common = HeaderMap::new();
        common.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        common.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        common.extend(self.bearer.clone().map(|bearer| (header::AUTHORIZATION, bearer)));
        Ok((uri, common))
    }

    /// A TCP connection, with TLS where the endpoint has it, within the time allowed.
    pub(crate) async fn stream(&self) -> Result<Stream, LinkError> {
        let limit = self.options.connect_timeout;
        let opened = tokio::time::timeout(limit, self.open_stream()).await;
        opened.unwrap_or_else(|_| Err(self.unreachable(format!("no connection within {} s", limit.as_secs_f64()))))
    }

    async fn open_stream(&self) -> Result<Stream, LinkError> {
        let tcp = self.tcp().await?;
        tcp.set_nodelay(true).map_err(|cause| self.unreachable(cause.to_string()))?;
        let Some(config) = &self.tls else { return Ok(Either::Left(tcp)) };
        let wrong = |cause: String| LinkError::Tls { address: self.endpoint.authority(), cause };
        let name = ServerName::try_from(self.endpoint.host().to_owned()).map_err(|cause| wrong(cause.to_string()))?;
        let stream = TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(|cause| {
            // What TLS has to say of the other side stays so. That the connection ended meanwhile (a node that just
            // went, a balancer with none behind it) says nothing about TLS.
            match cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                true => wrong(cause.to_string()),
                false => self.unreachable(cause.to_string()),
            }
        })?;
        Ok(Either::Right(Box::new(stream)))
    }

    /// Tries the addresses of the host in order.
    async fn tcp(&self) -> Result<TcpStream, LinkError> {
        let mut last = "the name has no address".to_owned();
        for address in self.addresses().await? {
            match self.tcp_to(address).await {
                Ok(stream) => return Ok(stream),
                Err(cause) => last = cause.to_string(),
            }
        }
        Err(self.unreachable(last))
    }

    /// What the host's name means, addresses of the source's family only where one is given.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, LinkError> {
        let host = (self.endpoint.host(), self.endpoint.port());
        let found = lookup_host(host).await.map_err(|cause| self.unreachable(cause.to_string()))?;
        let source = self.options.source;
        Ok(found.filter(|a| source.is_none_or(|s| s.is_ipv4() == a.is_ipv4())).collect())
    }

    async fn tcp_to(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let Some(source) = self.options.source else { return TcpStream::connect(address).await };
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        socket.connect(address).await
    }

    /// The socket for QUIC to this address; made at first use, which must be inside the runtime.
    pub(crate) fn udp(&self, to: SocketAddr) -> std::io::Result<quinn::Endpoint> {
        let mut udp = self.udp.lock();
        match &*udp {
            Some(endpoint) if endpoint.local_addr()?.is_ipv4() == to.is_ipv4() => Ok(endpoint.clone()),
            _ => Ok(udp.insert(quic::udp_socket(self.options.source, to)?).clone()),
        }
    }

    /// How QUIC is spoken here.
    pub(crate) fn quic_config(&self) -> Result<quinn::ClientConfig, LinkError> {
        self.quic.clone().ok_or_else(|| LinkError::Answer("the endpoint is not spoken to over QUIC".to_owned()))
    }

    /// The error of an address that does not answer.
    pub(crate) fn unreachable(&self, cause: String) -> LinkError {
        LinkError::Unreachable { address: self.endpoint.authority(), cause }
    }
}

fn bearer(token: &SecretString) -> Result<HeaderValue, LinkError> {
    // The cause would repeat the token.
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| LinkError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Bytes before the body of a TLS record; the last two are its length (RFC 8446, section 5.1).
    const RECORD_HEAD: usize = 5;

    /// Connects under TLS where whoever listens takes the first record, answers this and closes the connection.
    async fn opened(answer: &'static str) -> LinkError {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let body = BASE64_STANDARD.encode(own.cert.der());
        std::fs::write(&file, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("wss://{}/mcp", listener.local_addr().unwrap());
        let options = Options { ca: Some(file), ..Options::default() };
        let connector = Connector::new(Endpoint::parse(&url, None).unwrap(), options).unwrap();
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // What is left unread would reset the connection.
            let mut head = [0; RECORD_HEAD];
            stream.read_exact(&mut head).await.unwrap();
            let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        match tokio::join!(connector.stream(), serving).0 {
            Ok(_) => panic!("TLS came of {answer:?}"),
            Err(error) => error,
        }
    }

    #[tokio::test]
    async fn what_is_closed_in_the_handshake_is_not_reached_and_what_speaks_no_tls_is_told_so() {
        let error = opened("").await;
        assert!(matches!(error, LinkError::Unreachable { .. }), "{error:?}");
        let error = opened("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert!(matches!(error, LinkError::Tls { .. }), "{error:?}");
    }
}
