//! QUIC connections, and MCP on their bare streams (ALPN `mcp/1`, see `docs/transports.md`).
//!
//! Each message begins a stream of its own: a head, the message, then what the server says up to its answer.
//! To drop an exchange resets its stream, which cancels the call in both eras.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use provost_mcp::{RawObject, RequestId};
use quinn::{
    ClientConfig, ConnectionError, Endpoint, ReadError, RecvStream, SendStream, TransportConfig, VarInt, WriteError,
    crypto::rustls::QuicClientConfig,
};
use tokio::sync::mpsc;

use crate::{Connector, LinkError, MAX_MESSAGE_BYTES, lane::answers};

/// How often a sign of life is sent.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Without any packet for this long the connection counts as lost.
const SILENCE: Duration = Duration::from_secs(45);
/// The code with which a client cancels.
const CANCELLED: VarInt = VarInt::from_u32(1);
/// The code of a connection whose node shuts down.
const DRAINING: VarInt = VarInt::from_u32(2);
/// How the reason begins with which such a node ends a connection, when it has answered all that it took.
pub(crate) const DRAINING_REASON: &[u8] = b"PV-QUIC-DRAINING";
/// What is read from a stream at once.
const READ_BYTES: usize = 64 * 1024;

/// Connects with the protocols that the connector's TLS offers.
pub(crate) async fn connect(connector: &Connector) -> Result<quinn::Connection, LinkError> {
    let limit = connector.connect_timeout();
    let connected = tokio::time::timeout(limit, connect_to_any(connector)).await;
    connected.unwrap_or_else(|_| Err(connector.unreachable(format!("no connection within {} s", limit.as_secs_f64()))))
}

async fn connect_to_any(connector: &Connector) -> Result<quinn::Connection, LinkError> {
    let mut last = connector.unreachable("the name has no address".to_owned());
    for address in connector.addresses().await? {
        match connect_to(connector, address).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(connector: &Connector, address: SocketAddr) -> Result<quinn::Connection, LinkError> {
    let unreachable = |cause: String| connector.unreachable(cause);
    let endpoint = connector.udp(address).map_err(|cause| unreachable(cause.to_string()))?;
    let config = connector.quic_config()?;
    let connecting = endpoint
        .connect_with(config, address, connector.endpoint().host())
        .map_err(|cause| unreachable(cause.to_string()))?;
    connecting.await.map_err(|cause| match cause {
        // Alerts of TLS (RFC 9001, section 4.8).
        ConnectionError::TransportError(error) if (0x100..0x200).contains(&u64::from(error.code)) => {
            LinkError::Tls { address: connector.endpoint().authority(), cause: error.to_string() }
        }
        other => unreachable(other.to_string()),
    })
}

/// A socket of its own address family, for many connections.
pub(crate) fn udp_socket(source: Option<IpAddr>, to: SocketAddr) -> std::io::Result<Endpoint> {
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    Endpoint::client(SocketAddr::new(source.unwrap_or(any), 0))
}

/// The client's side of QUIC over this TLS.
pub(crate) fn config(tls: rustls::ClientConfig) -> Result<ClientConfig, LinkError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|cause| LinkError::Ca(cause.to_string()))?;
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(PING_EVERY));
    transport.max_idle_timeout(SILENCE.try_into().ok());
    // The server opens no stream of ours to serve.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// A connection with MCP on its streams. Cheap to clone.
#[derive(Clone)]
pub(crate) struct QuicConnection {
    connection: quinn::Connection,
    /// The first line of each stream.
    head: Bytes,
}

impl QuicConnection {
    /// Connects.
    pub(crate) async fn open(connector: &Connector) -> Result<Self, LinkError> {
        let mut head = RawObject::new();
        if let Some(bearer) = connector.bearer().and_then(|b| b.to_str().ok()) {
            head.set_text("authorization", bearer);
        }
        if connector.endpoint().path() != "/" {
            head.set_text("endpoint", connector.endpoint().path());
        }
        let head = head.finish().bytes();
        Ok(Self { connection: connect(connector).await?, head })
    }

    /// Waits for its end.
    pub(crate) async fn closed(&self) -> LinkError {
        lost(&self.connection.closed().await)
    }

    /// Sends a message. With an id it returns with that request's answer, else at the end of the stream;
    /// what comes before goes to `events`, and `replies` go to the server.
    pub(crate) async fn exchange(
        &self,
        message: &Bytes,
        id: Option<&RequestId>,
        events: Option<&mpsc::Sender<Bytes>>,
        mut replies: Option<mpsc::Receiver<Bytes>>,
    ) -> Result<Option<Bytes>, LinkError> {
        // Without a stream nothing was sent.
        let (send, receive) = self.connection.open_bi().await.map_err(|e| LinkError::NotTaken(lost(&e).to_string()))?;
        let mut stream =
            Stream { send, lines: Lines { receive, buffer: BytesMut::new(), searched: 0 }, is_done: false };
        let mut begin = BytesMut::with_capacity(self.head.len() + message.len() + 2);
        begin.extend_from_slice(&self.head);
        begin.extend_from_slice(b"\n");
        push_line(&mut begin, message);
        stream.send(&begin).await?;
        if replies.is_none() {
            let _ = stream.send.finish();
        }
        loop {
            let line = tokio::select! {
                line = stream.lines.next() => line?,
                Some(reply) = next_reply(&mut replies) => {
                    let mut line = BytesMut::with_capacity(reply.len() + 1);
                    push_line(&mut line, &reply);
                    stream.send(&line).await?;
                    continue;
                }
            };
            let Some(line) = line else {
                stream.is_done = true;
                return match id {
                    Some(_) => Err(LinkError::Lost("the stream ended without an answer".to_owned())),
                    None => Ok(None),
                };
            };
            if id.is_some_and(|id| answers(&line, id)) {
                stream.is_done = true;
                return Ok(Some(line));
            }
            if let Some(events) = events {
                let _ = events.send(line).await;
            }
        }
    }
}

async fn next_reply(replies: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match replies {
        Some(replies) => replies.recv().await,
        None => None,
    }
}

/// A message as one line. JSON has line ends between its tokens only.
fn push_line(line: &mut BytesMut, message: &[u8]) {
    line.extend(message.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    line.extend_from_slice(b"\n");
}

/// One exchange's stream; unless it was done, its end cancels.
struct Stream {
    send: SendStream,
    lines: Lines,
    is_done: bool,
}

impl Stream {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        match self.send.write_all(bytes).await {
            // The server reads no more: its answer, which says why, is still to come.
            Ok(()) | Err(WriteError::Stopped(_)) => Ok(()),
            Err(WriteError::ConnectionLost(cause)) => Err(lost(&cause)),
            Err(other) => Err(LinkError::Lost(other.to_string())),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_done {
            let _ = self.send.finish();
        } else {
            let _ = self.send.reset(CANCELLED);
            let _ = self.lines.receive.stop(CANCELLED);
        }
    }
}

/// The lines of a stream.
struct Lines {
    receive: RecvStream,
    buffer: BytesMut,
    /// How far the buffer was searched.
    searched: usize,
}

impl Lines {
    /// The next line. May be dropped and called again: nothing is lost.
    async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                return Ok(Some(line.slice(..line.len() - 1)));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_MESSAGE_BYTES {
                return Err(LinkError::TooLarge(MAX_MESSAGE_BYTES));
            }
            match self.receive.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => {
                    self.searched = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
                Err(ReadError::ConnectionLost(cause)) => return Err(lost(&cause)),
                Err(other) => return Err(LinkError::Lost(other.to_string())),
            }
        }
    }
}

/// A node that goes ends every stream that it has taken, and hears that its answer arrived, before it closes
/// the connection with a code of its own: what has no answer then was not begun.
fn lost(cause: &ConnectionError) -> LinkError {
    let ConnectionError::ApplicationClosed(close) = cause else { return LinkError::Lost(cause.to_string()) };
    let text = format!("the server closed it with {} {}", close.error_code, String::from_utf8_lossy(&close.reason));
    match close.error_code == DRAINING && close.reason.starts_with(DRAINING_REASON) {
        true => LinkError::NotTaken(text),
        false => LinkError::Lost(text),
    }
}
