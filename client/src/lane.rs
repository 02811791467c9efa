//! One call at a time over any transport: what a generator of load needs, at as little cost as can be.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use provost_mcp::RequestId;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    Connector, LinkError, Transport,
    h3::Http3Connection,
    http::{HttpConnection, Reply},
    http2::Http2Connection,
    quic::QuicConnection,
    ws::Socket,
};

/// How long the stream of a notification is held open over bare QUIC.
const TOLD: Duration = Duration::from_millis(100);
const SESSION: HeaderName = HeaderName::from_static(provost_mcp::headers::SESSION_ID);

/// The members that tell an answer from what comes before it.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<IgnoredAny>,
}

/// Whether a message is the answer to the request of this id. One whose id is null answers it too: the
/// server could not read the id.
pub(crate) fn answers(message: &[u8], id: &RequestId) -> bool {
    let Ok(head) = serde_json::from_slice::<Head<'_>>(message) else { return false };
    head.method.is_none() && head.id.is_none_or(|found| found.get() == id.as_str() || found.get() == "null")
}

enum Wire {
    Http { connection: Box<HttpConnection>, session: Option<HeaderValue> },
    Http2(Box<Http2Connection>),
    Socket(Box<Socket>),
    Http3 { connection: Box<Http3Connection>, session: Option<HeaderValue> },
    Quic(QuicConnection),
}

/// A connection, or a part of one that many lanes share, with at most one call in flight. Where a call fails for another
/// reason than its answer, or is dropped, the lane must be dropped too: [`Lane::is_open`].
pub struct Lane {
    wire: Wire,
    is_open: bool,
}

impl Lane {
    /// Connects.
    pub async fn open(connector: &Connector) -> Result<Self, LinkError> {
        let wire = match connector.endpoint().transport() {
            Transport::Http => {
                Wire::Http { connection: Box::new(HttpConnection::open(connector).await?), session: None }
            }
            Transport::WebSocket => Wire::Socket(Box::new(Socket::open(connector).await?)),
            Transport::Http3 => {
                Wire::Http3 { connection: Box::new(Http3Connection::open(connector).await?), session: None }
            }
            Transport::Quic => Wire::Quic(QuicConnection::open(connector).await?),
        };
        Ok(Self { wire, is_open: true })
    }

    /// Connects for lanes that share the connection, each call on a stream of its own: over HTTP/2 in place of HTTP/1.1, by
    /// prior knowledge and so without TLS, or over bare QUIC. No session is kept over HTTP/2. Errors: [`LinkError::Answer`] of
    /// other endpoints.
    pub async fn open_shared(connector: &Connector) -> Result<Self, LinkError> {
        let endpoint = connector.endpoint();
        let wire = match endpoint.transport() {
            Transport::Http if !endpoint.is_secure() => Wire::Http2(Box::new(Http2Connection::open(connector).await?)),
            Transport::Quic => Wire::Quic(QuicConnection::open(connector).await?),
            _ => {
                let text = "only plain HTTP and QUIC have a connection that lanes can share";
                return Err(LinkError::Answer(text.to_owned()));
            }
        };
        Ok(Self { wire, is_open: true })
    }

    /// Another lane of the same connection, where calls have streams of their own ([`Lane::open_shared`]).
    pub fn beside(&self) -> Option<Self> {
        let wire = match &self.wire {
            Wire::Http2(connection) => Wire::Http2(connection.clone()),
            Wire::Quic(connection) => Wire::Quic(connection.clone()),
            Wire::Http { .. } | Wire::Socket(_) | Wire::Http3 { .. } => return None,
        };
        Some(Self { wire, is_open: true })
    }

    /// Sends a request and returns its answer, whatever it says. `headers` are for HTTP; a session that an
    /// answer opens is used from then on.
    pub async fn call(&mut self, headers: &HeaderMap, body: Bytes, id: &RequestId) -> Result<Bytes, LinkError> {
        self.is_open = false;
        let answer = match &mut self.wire {
            Wire::Http { connection, session } => {
                let reply = connection.post(with_session(headers, session), body, Some(id), None).await?;
                self.is_open = connection.is_open();
                return answer_of(reply, session);
            }
            Wire::Http2(connection) => {
                let reply = connection.post(headers.clone(), body, Some(id)).await?;
                self.is_open = !connection.is_closed();
                return answer_of(reply, &mut None);
            }
            Wire::Http3 { connection, session } => {
                let headers = with_session(headers, session);
                let reply = connection.exchange(Method::POST, headers, body, Some(id), None).await?;
                self.is_open = !connection.is_closed();
                return answer_of(reply, session);
            }
            Wire::Quic(connection) => {
                let answer = connection.exchange(&body, Some(id), None, None).await?;
                answer.ok_or_else(|| LinkError::Lost("there was no answer".to_owned()))?
            }
            Wire::Socket(socket) => {
                socket.send(body).await?;
                loop {
                    let message = socket.next().await?;
                    if answers(&message, id) {
                        break message;
                    }
                }
            }
        };
        self.is_open = true;
        Ok(answer)
    }

    /// Sends a notification.
    pub async fn notify(&mut self, headers: &HeaderMap, body: Bytes) -> Result<(), LinkError> {
        self.is_open = false;
        match &mut self.wire {
            Wire::Http { connection, session } => {
                accepted(&connection.post(with_session(headers, session), body, None, None).await?)?;
            }
            Wire::Http2(connection) => accepted(&connection.post(headers.clone(), body, None).await?)?,
            Wire::Http3 { connection, session } => {
                let headers = with_session(headers, session);
                accepted(&connection.exchange(Method::POST, headers, body, None, None).await?)?;
            }
            Wire::Quic(connection) => {
                // The stream of `notifications/initialized` stays open, for what is not wanted here.
                let told = connection.exchange(&body, None, None, None);
                let _ = tokio::time::timeout(TOLD, told).await;
            }
            Wire::Socket(socket) => socket.send(body).await?,
        }
        self.is_open = true;
        Ok(())
    }

    /// Whether another call may be made.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Stays connected without calls until the server ends it: says why it did.
    pub async fn idle(&mut self) -> LinkError {
        match &mut self.wire {
            Wire::Http { connection, .. } => connection.closed().await,
            Wire::Http2(connection) => connection.closed().await,
            Wire::Http3 { connection, .. } => connection.closed().await,
            Wire::Quic(connection) => connection.closed().await,
            Wire::Socket(socket) => loop {
                if let Err(error) = socket.next().await {
                    return error;
                }
            },
        }
    }
}

fn with_session(headers: &HeaderMap, session: &Option<HeaderValue>) -> HeaderMap {
    let mut headers = headers.clone();
    if let Some(session) = session {
        headers.insert(SESSION, session.clone());
    }
    headers
}

fn answer_of(reply: Reply, session: &mut Option<HeaderValue>) -> Result<Bytes, LinkError> {
    if let Some(opened) = reply.headers.get(SESSION) {
        *session = Some(opened.clone());
    }
    let status = reply.status.as_u16();
    reply.answer.ok_or(LinkError::Refused { status, text: String::new() })
}

fn accepted(reply: &Reply) -> Result<(), LinkError> {
    match reply.status.is_success() {
        true => Ok(()),
        false => Err(LinkError::Refused { status: reply.status.as_u16(), text: String::new() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_a_request() {
        let id = RequestId::from_text("7");
        let table = [
            (r#"{"jsonrpc":"2.0","id":"7","result":{}}"#, true),
            (r#"{"jsonrpc":"2.0","id":"7","error":{"code":1,"message":""}}"#, true),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#, true),
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, false),
            (r#"{"jsonrpc":"2.0","id":"7","method":"elicitation/create"}"#, false),
            (r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#, false),
            ("7", false),
        ];
        for (message, expect) in table {
            assert_eq!(answers(message.as_bytes(), &id), expect, "{message}");
        }
    }
}
