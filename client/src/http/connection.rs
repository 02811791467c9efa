//! One connection of HTTP/1.1, with one exchange at a time.
//!
//! The connection is driven by whoever waits for the answer, so an exchange wakes no other task. To drop
//! an exchange closes the connection, which is how a modern call is cancelled. An exchange whose stream
//! goes on after the answer ends the connection too: nothing could be asked on it.

use std::pin::pin;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use provost_mcp::RequestId;
use tokio::sync::mpsc;

use super::body::{Reply, read_reply};
use crate::{Connector, LinkError, connector::Stream};

/// See the module.
pub(crate) struct HttpConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None`: it has ended.
    driver: Option<http1::Connection<TokioIo<Stream>, Full<Bytes>>>,
    common: HeaderMap,
    uri: Uri,
    /// Whether another exchange may begin.
    is_open: bool,
}

impl HttpConnection {
    /// Connects.
    pub(crate) async fn open(connector: &Connector) -> Result<Self, LinkError> {
        let endpoint = connector.endpoint();
        let wrong = |what: &str| LinkError::Answer(format!("the {what} of the URL fits no request"));
        let uri = endpoint.path().parse().map_err(|_| wrong("path"))?;
        let mut common = HeaderMap::new();
        common.insert(header::HOST, HeaderValue::try_from(endpoint.authority()).map_err(|_| wrong("host"))?);
        common.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        common.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(bearer) = connector.bearer() {
            common.insert(header::AUTHORIZATION, bearer.clone());
        }
        let stream = connector.stream().await?;
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| connector.unreachable(e.to_string()))?;
        Ok(Self { sender, driver: Some(driver), common, uri, is_open: true })
    }

    /// Whether another exchange may begin. One that failed, was dropped or did not end leaves none.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open && !self.sender.is_closed()
    }

    /// The same for a connection that has lain idle: notices whether the server has closed it.
    pub(crate) fn is_alive(&mut self) -> bool {
        let ended = self.driver.as_mut().is_none_or(|driver| driver.now_or_never().is_some());
        if ended {
            self.driver = None;
        }
        self.is_open = self.is_open() && !ended;
        self.is_open
    }

    /// Waits for the server to close it.
    pub(crate) async fn closed(&mut self) -> LinkError {
        let ended = match &mut self.driver {
            Some(driver) => driver.await.err(),
            None => None,
        };
        self.driver = None;
        LinkError::Lost(ended.map_or_else(|| "it was closed".to_owned(), |e| e.to_string()))
    }

    /// Posts a message. With an id it returns with that request's answer; messages before it go to `events`.
    pub(crate) async fn post(
        &mut self,
        headers: HeaderMap,
        body: Bytes,
        id: Option<&RequestId>,
        events: Option<&mpsc::Sender<Bytes>>,
    ) -> Result<Reply, LinkError> {
        self.exchange(Method::POST, headers, body, id, events).await
    }

    /// Opens the stream of a legacy session, for what concerns no single call, and reads it to its end.
    pub(crate) async fn listen(
        &mut self,
        headers: HeaderMap,
        events: &mpsc::Sender<Bytes>,
    ) -> Result<Reply, LinkError> {
        self.exchange(Method::GET, headers, Bytes::new(), None, Some(events)).await
    }

    async fn exchange(
        &mut self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
        id: Option<&RequestId>,
        events: Option<&mpsc::Sender<Bytes>>,
    ) -> Result<Reply, LinkError> {
        // Until this has come to its end: whoever drops the future leaves half an exchange.
        self.is_open = false;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.common.clone();
        request.headers_mut().extend(headers);
        let Self { sender, driver, .. } = self;
        let Some(running) = driver.as_mut() else {
            return Err(LinkError::NotTaken("the connection was closed before".to_owned()));
        };
        let mut answer = pin!(async {
            sender.ready().await.map_err(|cause| LinkError::NotTaken(cause.to_string()))?;
            let sent = sender.try_send_request(request).await.map_err(|mut failed| match failed.take_message() {
                // It comes back whole only if nothing of it was written.
                Some(_) => LinkError::NotTaken(failed.into_error().to_string()),
                None => LinkError::Lost(failed.into_error().to_string()),
            });
            let (head, mut body) = sent?.into_parts();
            read_reply(head.status, head.headers, &mut body, id, events).await
        });
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            _ = running => {
                // It gives back what it holds: an answer that had come, or a request that never left.
                *driver = None;
                return answer.await.map(|(reply, _)| reply);
            }
        };
        let (reply, has_ended) = answered?;
        self.is_open = has_ended;
        Ok(reply)
    }
}
