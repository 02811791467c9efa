//! Streamable HTTP over HTTP/3: the exchanges of HTTP/1.1 on streams of one QUIC connection.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use h3::{
    client::SendRequest,
    error::{Code, StreamError},
};
use h3_quinn::{BidiStream, OpenStreams};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use provost_mcp::RequestId;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    Connector, LinkError,
    http::{Chunks, Reply, read_reply},
    quic,
};

/// A connection of HTTP/3. Dropped, it ends what runs on it.
pub(crate) struct Http3Connection {
    requests: SendRequest<OpenStreams, Bytes>,
    connection: quinn::Connection,
    driver: JoinHandle<()>,
    /// The server takes no more requests on it.
    is_going: AtomicBool,
    common: HeaderMap,
    uri: http::Uri,
}

impl Http3Connection {
    /// Connects.
    pub(crate) async fn open(connector: &Connector) -> Result<Self, LinkError> {
        let (uri, common) = connector.multiplexed("https")?;
        let connection = quic::connect(connector).await?;
        let opened = h3::client::new(h3_quinn::Connection::new(connection.clone())).await;
        let (mut driver, requests) = opened.map_err(|cause| connector.unreachable(cause.to_string()))?;
        let driver = tokio::spawn(async move {
            driver.wait_idle().await;
        });
        Ok(Self { requests, connection, driver, is_going: AtomicBool::new(false), common, uri })
    }

    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_going.load(Ordering::Relaxed) || self.connection.close_reason().is_some()
    }

    /// Waits for its end.
    pub(crate) async fn closed(&self) -> LinkError {
        LinkError::Lost(self.connection.closed().await.to_string())
    }

    /// One exchange, as over HTTP/1.1; any number at a time.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
        id: Option<&RequestId>,
        events: Option<&mpsc::Sender<Bytes>>,
    ) -> Result<Reply, LinkError> {
        let outcome = self.try_exchange(method, headers, body, id, events).await;
        if matches!(outcome, Err(LinkError::NotTaken(_))) {
            self.is_going.store(true, Ordering::Relaxed);
        }
        outcome
    }

    async fn try_exchange(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
        id: Option<&RequestId>,
        events: Option<&mpsc::Sender<Bytes>>,
    ) -> Result<Reply, LinkError> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.common.clone();
        request.headers_mut().extend(headers);
        if !body.is_empty() {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let mut requests = self.requests.clone();
        let stream = requests.send_request(request).await.map_err(|cause| self.unsent(cause))?;
        let mut stream = Stream { inner: stream, connection: &self.connection };
        if !body.is_empty()
            && let Err(cause) = stream.inner.send_data(body).await
            // One that reads no more of a request has said why, or will (RFC 9114, section 4.1).
            && !is_early_answer(&cause)
        {
            return Err(self.unsent(cause));
        }
        let _ = stream.inner.finish().await;
        let (head, ()) = stream.inner.recv_response().await.map_err(|cause| stream.lost(cause))?.into_parts();
        let (reply, _) = read_reply(head.status, head.headers, &mut stream, id, events).await?;
        Ok(reply)
    }

    /// A request of which a part has not left: nobody has the whole of it, so nobody has begun it.
    fn unsent(&self, cause: StreamError) -> LinkError {
        match cause {
            StreamError::ConnectionError { .. } => LinkError::NotTaken(cause.to_string()),
            other => lost(&self.connection, other),
        }
    }
}

/// Whether the server stopped reading for another reason than that it takes no more.
fn is_early_answer(cause: &StreamError) -> bool {
    matches!(cause, StreamError::RemoteTerminate { code, .. } if *code != Code::H3_REQUEST_REJECTED)
}

impl Drop for Http3Connection {
    fn drop(&mut self) {
        self.driver.abort();
        self.connection.close(quinn::VarInt::from_u32(0x100), b"");
    }
}

/// One exchange's stream. Dropped before its end it cancels: quinn stops what is not read any more. (To say so
/// by a code of HTTP/3 is no way: h3-quinn panics when a read was dropped in its middle.)
struct Stream<'a> {
    inner: h3::client::RequestStream<BidiStream<Bytes>, Bytes>,
    connection: &'a quinn::Connection,
}

impl Stream<'_> {
    fn lost(&self, cause: StreamError) -> LinkError {
        lost(self.connection, cause)
    }
}

impl Chunks for Stream<'_> {
    async fn chunk(&mut self) -> Result<Option<Bytes>, LinkError> {
        match self.inner.recv_data().await {
            Ok(Some(mut data)) => Ok(Some(data.copy_to_bytes(data.remaining()))),
            Ok(None) => Ok(None),
            Err(cause) => Err(self.lost(cause)),
        }
    }
}

/// What a server that goes has not begun it says so of: by GOAWAY before, by a code of the stream (RFC 9114,
/// section 5.2), or by the reason with which it ends the connection, once all that it took is answered.
fn lost(connection: &quinn::Connection, cause: StreamError) -> LinkError {
    match cause {
        StreamError::RemoteClosing { .. } | StreamError::RemoteTerminate { code: Code::H3_REQUEST_REJECTED, .. } => {
            LinkError::NotTaken(cause.to_string())
        }
        StreamError::ConnectionError { .. } if connection.close_reason().is_some_and(|end| all_was_answered(&end)) => {
            LinkError::NotTaken(cause.to_string())
        }
        other => LinkError::Lost(other.to_string()),
    }
}

fn all_was_answered(end: &quinn::ConnectionError) -> bool {
    matches!(end, quinn::ConnectionError::ApplicationClosed(close)
        if u64::from(close.error_code) == Code::H3_NO_ERROR.value() && close.reason.starts_with(quic::DRAINING_REASON))
}
