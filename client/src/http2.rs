//! Streamable HTTP over HTTP/2 without TLS, by prior knowledge (RFC 9113, section 3.3): the exchanges of HTTP/1.1 on streams of
//! one connection, any number at a time.
//!
//! It is there for loads that many calls on one connection make; the command line speaks HTTP/1.1. Clones are the same
//! connection, which ends with the last of them.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use provost_mcp::RequestId;
use tokio_util::sync::CancellationToken;

use crate::{
    Connector, LinkError,
    http::{Reply, read_reply},
};

/// See the module.
#[derive(Clone)]
pub(crate) struct Http2Connection {
    requests: http2::SendRequest<Full<Bytes>>,
    ended: CancellationToken,
    common: HeaderMap,
    uri: Uri,
}

impl Http2Connection {
    /// Connects to an endpoint without TLS.
    pub(crate) async fn open(connector: &Connector) -> Result<Self, LinkError> {
        let (uri, common) = connector.multiplexed("http")?;
        let stream = connector.stream().await?;
        let opened = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (requests, driver) = opened.map_err(|cause| connector.unreachable(cause.to_string()))?;
        let ended = CancellationToken::new();
        let ending = ended.clone().drop_guard();
        tokio::spawn(async move {
            let _ending = ending;
            if let Err(cause) = driver.await {
                tracing::debug!(%cause, "a connection of HTTP/2 broke");
            }
        });
        Ok(Self { requests, ended, common, uri })
    }

    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Waits for its end.
    pub(crate) async fn closed(&self) -> LinkError {
        self.ended.cancelled().await;
        LinkError::Lost("it was closed".to_owned())
    }

    /// Posts a message; with an id it returns with that request's answer. Dropped, it resets its stream.
    pub(crate) async fn post(
        &self,
        headers: HeaderMap,
        body: Bytes,
        id: Option<&RequestId>,
    ) -> Result<Reply, LinkError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.common.clone();
        request.headers_mut().extend(headers);
        let mut requests = self.requests.clone();
        let sent = requests.try_send_request(request).await.map_err(|mut failed| match failed.take_message() {
            // It comes back whole only if nothing of it was written.
            Some(_) => LinkError::NotTaken(failed.into_error().to_string()),
            None => LinkError::Lost(failed.into_error().to_string()),
        });
        let (head, mut body) = sent?.into_parts();
        let (reply, _) = read_reply(head.status, head.headers, &mut body, id, None).await?;
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http::Response;
    use http_body_util::BodyExt;
    use hyper::{body::Incoming, server, service::service_fn};
    use tokio::{net::TcpListener, sync::Notify};

    use super::*;
    use crate::{Endpoint, Lane, Options};

    fn connector(url: &str) -> Connector {
        Connector::new(Endpoint::parse(url, None).unwrap(), Options::default()).unwrap()
    }

    #[tokio::test]
    async fn lanes_of_one_connection_have_calls_in_flight_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let last = Arc::new(Notify::new());
        tokio::spawn(async move {
            // One connection and no other: who makes a second one is not served.
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| {
                let last = last.clone();
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    // The first is answered once the last has come.
                    match &body[..] {
                        b"first" => last.notified().await,
                        _ => last.notify_one(),
                    }
                    let answer = [&b"{\"said\":\""[..], &body[..], b"\"}"].concat();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
                }
            });
            let serving = server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = serving.serve_connection(TokioIo::new(stream), service).await;
        });

        let mut first = Lane::open_shared(&connector(&url)).await.unwrap();
        let mut last = first.beside().unwrap();
        let (headers, id) = (HeaderMap::new(), RequestId::from_text("1"));
        let (first_answer, last_answer) = tokio::join!(
            first.call(&headers, Bytes::from_static(b"first"), &id),
            last.call(&headers, Bytes::from_static(b"last"), &id),
        );
        assert_eq!(first_answer.unwrap(), &br#"{"said":"first"}"#[..]);
        assert_eq!(last_answer.unwrap(), &br#"{"said":"last"}"#[..]);
        assert!(first.is_open() && last.is_open());
    }

    #[tokio::test]
    async fn what_has_no_streams_of_its_own_is_not_shared() {
        let opened = Lane::open_shared(&connector("ws://127.0.0.1:1/mcp")).await;
        assert!(matches!(opened.err(), Some(LinkError::Answer(_))));
    }
}
