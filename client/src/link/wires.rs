//! The connections under a link whose messages are exchanges: HTTP/1.1, HTTP/3 or bare QUIC.
//!
//! Over HTTP a connection that ended is replaced by the next exchange; a bare QUIC connection carries the
//! legacy session, so its end is the link's.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use provost_mcp::RequestId;
use tokio::sync::mpsc;

use crate::{
    Connector, LinkError, Transport,
    h3::Http3Connection,
    http::{HttpConnection, Reply},
    quic::QuicConnection,
};

/// Connections of HTTP/1.1 that are kept for the next request.
const MAX_IDLE: usize = 16;

/// See the module.
pub(super) struct Wires {
    connector: Connector,
    kind: Kind,
}

enum Kind {
    Http(Mutex<Vec<HttpConnection>>),
    Http3(tokio::sync::Mutex<Arc<Http3Connection>>),
    Quic(QuicConnection),
}

/// One message's way: what it is and where what it brings goes.
pub(super) struct Exchange<'a> {
    /// For HTTP.
    pub(super) headers: HeaderMap,
    /// The message.
    pub(super) body: Bytes,
    /// The request's id, if it is one.
    pub(super) id: Option<&'a RequestId>,
    /// Takes what comes before the answer.
    pub(super) events: &'a mpsc::Sender<Bytes>,
    /// Answers to the server on the same stream: bare QUIC only.
    pub(super) replies: Option<mpsc::Receiver<Bytes>>,
}

impl Wires {
    /// Connects once, to say early what does not work.
    pub(super) async fn open(connector: &Connector) -> Result<Self, LinkError> {
        let kind = match connector.endpoint().transport() {
            Transport::Http3 => Kind::Http3(tokio::sync::Mutex::new(Arc::new(Http3Connection::open(connector).await?))),
            Transport::Quic => Kind::Quic(QuicConnection::open(connector).await?),
            Transport::Http | Transport::WebSocket => {
                Kind::Http(Mutex::new(vec![HttpConnection::open(connector).await?]))
            }
        };
        Ok(Self { connector: connector.clone(), kind })
    }

    /// Whether each stream has the server's questions of its request on it, and its end cancels in both eras.
    pub(super) fn is_quic(&self) -> bool {
        matches!(self.kind, Kind::Quic(_))
    }

    /// Waits for an end that nothing can replace.
    pub(super) async fn closed(&self) -> LinkError {
        match &self.kind {
            Kind::Quic(connection) => connection.closed().await,
            Kind::Http(_) | Kind::Http3(_) => std::future::pending().await,
        }
    }

    /// Sends a message and reads what it brings.
    pub(super) async fn exchange(&self, exchange: Exchange<'_>) -> Result<Reply, LinkError> {
        let Exchange { headers, body, id, events, replies } = exchange;
        match &self.kind {
            Kind::Http(idle) => {
                let mut connection = self.http(idle).await?;
                let reply = connection.post(headers, body, id, Some(events)).await?;
                let mut idle = idle.lock();
                if connection.is_open() && idle.len() < MAX_IDLE {
                    idle.push(connection);
                }
                Ok(reply)
            }
            Kind::Http3(current) => {
                let connection = self.http3(current).await?;
                connection.exchange(Method::POST, headers, body, id, Some(events)).await
            }
            Kind::Quic(connection) => {
                let answer = connection.exchange(&body, id, Some(events), replies).await?;
                Ok(Reply { status: StatusCode::OK, headers: HeaderMap::new(), answer })
            }
        }
    }

    /// Reads what a legacy session's server says outside of calls, to the end of its stream. Over bare QUIC
    /// it comes on the stream of `notifications/initialized`.
    pub(super) async fn listen(&self, headers: HeaderMap, events: &mpsc::Sender<Bytes>) -> Result<Reply, LinkError> {
        match &self.kind {
            Kind::Http(_) => HttpConnection::open(&self.connector).await?.listen(headers, events).await,
            Kind::Http3(current) => {
                let connection = self.http3(current).await?;
                connection.exchange(Method::GET, headers, Bytes::new(), None, Some(events)).await
            }
            Kind::Quic(_) => Err(LinkError::Refused { status: 405, text: String::new() }),
        }
    }

    /// An idle connection that is still open, else a new one.
    async fn http(&self, idle: &Mutex<Vec<HttpConnection>>) -> Result<HttpConnection, LinkError> {
        loop {
            let kept = idle.lock().pop();
            match kept {
                Some(mut connection) => {
                    if connection.is_alive() {
                        return Ok(connection);
                    }
                }
                None => return HttpConnection::open(&self.connector).await,
            }
        }
    }

    /// The connection, or another one if it has ended.
    async fn http3(
        &self,
        current: &tokio::sync::Mutex<Arc<Http3Connection>>,
    ) -> Result<Arc<Http3Connection>, LinkError> {
        let mut current = current.lock().await;
        if current.is_closed() {
            *current = Arc::new(Http3Connection::open(&self.connector).await?);
        }
        Ok(current.clone())
    }
}
