//! MCP over WebSocket: one message a text frame.

use std::time::Duration;

use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderValue, Request, header};
use provost_mcp::{Envelope, JsonLimits};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::ProtocolError,
        handshake::client::generate_key,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{Connector, LinkError, MAX_MESSAGE_BYTES, connector::Stream};

/// The subprotocol.
const SUBPROTOCOL: &str = "mcp";
/// What is read at once: messages are small, and a generator of load holds thousands of sockets.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// How often the server is pinged, so that a connection that is gone is noticed.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(15);
/// Without any frame for this long the connection counts as lost.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);
/// How much of a body that is no message is shown.
const SHOWN_BYTES: usize = 200;

/// An open socket.
pub(crate) struct Socket(WebSocketStream<Stream>);

/// Its sending side.
pub(crate) struct SocketSender(SplitSink<WebSocketStream<Stream>, Message>);

/// Its receiving side.
pub(crate) struct SocketReceiver(SplitStream<WebSocketStream<Stream>>);

impl Socket {
    /// Connects and upgrades within the time allowed.
    pub(crate) async fn open(connector: &Connector) -> Result<Self, LinkError> {
        let stream = connector.stream().await?;
        let request = upgrade(connector)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let upgraded = client_async_with_config(request, stream, Some(config));
        match tokio::time::timeout(connector.connect_timeout(), upgraded).await {
            Ok(Ok((socket, _))) => Ok(Self(socket)),
            Ok(Err(error)) => Err(refused(connector, error)),
            Err(_) => Err(connector.unreachable("the upgrade to a WebSocket was not answered".to_owned())),
        }
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, message: Bytes) -> Result<(), LinkError> {
        self.0.send(text(message)?).await.map_err(|e| broken(&e))
    }

    /// The next message; pings are answered meanwhile.
    pub(crate) async fn next(&mut self) -> Result<Bytes, LinkError> {
        loop {
            if let Some(message) = taken(self.0.next().await)? {
                return Ok(message);
            }
        }
    }

    /// Both sides, for two tasks.
    pub(crate) fn split(self) -> (SocketSender, SocketReceiver) {
        let (sender, receiver) = self.0.split();
        (SocketSender(sender), SocketReceiver(receiver))
    }
}

impl SocketSender {
    /// Sends one message.
    pub(crate) async fn send(&mut self, message: Bytes) -> Result<(), LinkError> {
        self.0.send(text(message)?).await.map_err(|e| broken(&e))
    }

    /// Asks for a sign of life.
    pub(crate) async fn ping(&mut self) -> Result<(), LinkError> {
        self.0.send(Message::Ping(Bytes::new())).await.map_err(|e| broken(&e))
    }

    /// Says that this is the end; what was sent before arrives.
    pub(crate) async fn close(&mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
        let _ = self.0.send(Message::Close(Some(frame))).await;
    }
}

impl SocketReceiver {
    /// The next message, `None` for a frame that only shows that the server is there.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        taken(self.0.next().await)
    }
}

fn text(message: Bytes) -> Result<Message, LinkError> {
    let text = Utf8Bytes::try_from(message).map_err(|_| LinkError::Answer("a message must be UTF-8".to_owned()))?;
    Ok(Message::Text(text))
}

fn taken(frame: Option<Result<Message, Error>>) -> Result<Option<Bytes>, LinkError> {
    match frame {
        Some(Ok(Message::Text(text))) => Ok(Some(text.into())),
        Some(Ok(Message::Close(frame))) => Err(closed(frame.as_ref())),
        Some(Ok(Message::Binary(_))) => Err(LinkError::Answer("a binary frame came".to_owned())),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Err(error)) => Err(broken(&error)),
        None => Err(closed(None)),
    }
}

/// A node that goes answers all that it has taken before it says so: what has no answer then was not begun.
fn closed(frame: Option<&CloseFrame>) -> LinkError {
    let Some(frame) = frame else { return LinkError::Lost("it was closed".to_owned()) };
    let text = format!("the server closed it with {} {}", u16::from(frame.code), frame.reason);
    match frame.code == CloseCode::Away && frame.reason.starts_with("PV-WS-DRAINING") {
        true => LinkError::NotTaken(text),
        false => LinkError::Lost(text),
    }
}

fn broken(error: &Error) -> LinkError {
    match error {
        Error::Capacity(_) => LinkError::TooLarge(MAX_MESSAGE_BYTES),
        other => LinkError::Lost(other.to_string()),
    }
}

fn upgrade(connector: &Connector) -> Result<Request<()>, LinkError> {
    let endpoint = connector.endpoint();
    let scheme = if endpoint.is_secure() { "wss" } else { "ws" };
    let mut request = Request::builder()
        .uri(format!("{scheme}://{}{}", endpoint.authority(), endpoint.path()))
        .header(header::HOST, endpoint.authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .header(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Some(bearer) = connector.bearer() {
        request = request.header(header::AUTHORIZATION, bearer);
    }
    request.body(()).map_err(|cause| LinkError::Answer(format!("the URL fits no request: {cause}")))
}

/// Why there is no socket. A refusal's body may hold the server's own error.
fn refused(connector: &Connector, error: Error) -> LinkError {
    match error {
        Error::Http(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().unwrap_or_default();
            match Envelope::parse(Bytes::from(body.clone()), &JsonLimits::RESPONSE) {
                Ok(Envelope::Response { outcome: Err(error), .. }) => LinkError::Rejected(error),
                _ => {
                    let end = body.len().min(SHOWN_BYTES);
                    let text = String::from_utf8_lossy(&body[..end]).trim().to_owned();
                    LinkError::Refused { status, text }
                }
            }
        }
        Error::Io(cause) => connector.unreachable(cause.to_string()),
        // A node that just went, or a balancer with none behind it: nothing was asked yet, and the next try may end
        // otherwise. Whether the system tells of this or of a reset depends on who was faster.
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            connector.unreachable("it was closed before the upgrade to a WebSocket was answered".to_owned())
        }
        other => LinkError::Answer(format!("no WebSocket could be opened: {other}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{Endpoint, Options};

    /// Opens a socket where whoever listens takes the request, answers this and closes the connection.
    async fn opened(answer: &'static str) -> LinkError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/mcp", listener.local_addr().unwrap());
        let connector = Connector::new(Endpoint::parse(&url, None).unwrap(), Options::default()).unwrap();
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // What is left unread would reset the connection.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut head).await.unwrap() > 0, "the request broke off");
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        match tokio::join!(Socket::open(&connector), serving).0 {
            Ok(_) => panic!("a socket came of {answer:?}"),
            Err(error) => error,
        }
    }

    #[tokio::test]
    async fn what_is_closed_before_it_is_answered_is_not_reached_and_what_is_no_upgrade_is_no_answer() {
        for closed in ["", "HTTP/1.1 101 Switch"] {
            let error = opened(closed).await;
            assert!(matches!(error, LinkError::Unreachable { .. }), "{closed:?}: {error:?}");
        }
        let error = opened("SSH-2.0-x\r\n\r\n").await;
        assert!(matches!(error, LinkError::Answer(_)), "{error:?}");
        let error = opened("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(error, LinkError::Refused { status: 503, .. }), "{error:?}");
    }
}
