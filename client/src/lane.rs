//! One call at a time over any transport: what a generator of load needs, at as little cost as can be.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use provost_mcp::RequestId;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{Connector, LinkError, Transport, http::HttpConnection, ws::Socket};

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
    Socket(Box<Socket>),
}

/// A connection with at most one call in flight. Where a call fails for another reason than its answer, or
/// is dropped, the lane must be dropped too: [`Lane::is_open`].
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
            other => return Err(LinkError::Answer(format!("the transport {other} is not built in"))),
        };
        Ok(Self { wire, is_open: true })
    }

    /// Sends a request and returns its answer, whatever it says. `headers` are for HTTP; a session that an
    /// answer opens is used from then on.
    pub async fn call(&mut self, headers: &HeaderMap, body: Bytes, id: &RequestId) -> Result<Bytes, LinkError> {
        self.is_open = false;
        let answer = match &mut self.wire {
            Wire::Http { connection, session } => {
                let mut headers = headers.clone();
                if let Some(session) = session {
                    headers.insert(SESSION, session.clone());
                }
                let reply = connection.post(headers, body, Some(id), None).await?;
                if let Some(opened) = reply.headers.get(SESSION) {
                    *session = Some(opened.clone());
                }
                self.is_open = connection.is_open();
                let status = reply.status.as_u16();
                return reply.answer.ok_or(LinkError::Refused { status, text: String::new() });
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
                let mut headers = headers.clone();
                if let Some(session) = session {
                    headers.insert(SESSION, session.clone());
                }
                let reply = connection.post(headers, body, None, None).await?;
                if !reply.status.is_success() {
                    return Err(LinkError::Refused { status: reply.status.as_u16(), text: String::new() });
                }
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
            Wire::Socket(socket) => loop {
                if let Err(error) = socket.next().await {
                    return error;
                }
            },
        }
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
