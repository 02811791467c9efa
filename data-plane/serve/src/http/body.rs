//! Bodies: read under a bound, written whole or as a stream of events.

use std::{
    convert::Infallible,
    error::Error,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::mpsc;

use super::SseBody;

/// The body of every response.
pub enum ResponseBody {
    /// All at once.
    Whole(Option<Bytes>),
    /// Server-sent events.
    Events(Box<SseBody>),
    /// Server-sent events of a stream that another node holds.
    Relayed(mpsc::Receiver<Bytes>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Events(events) => events.poll_event(cx).map(|event| event.map(|b| Ok(Frame::data(b)))),
            Self::Relayed(frames) => frames.poll_recv(cx).map(|frame| frame.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Events(_) | Self::Relayed(_) => SizeHint::default(),
        }
    }
}

/// A response in the place of a value that a function was to give.
pub(crate) type Refusal = Box<Response<ResponseBody>>;

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// Longer than the bound.
    TooLong,
    /// The client went away or broke the framing.
    Broken,
}

/// The longest wait for a request's body: a client that drips it holds memory and a connection.
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// The longest that what is left of a refused body is read and thrown away. Without it the rest, unread when the
/// connection is closed, would reset it, and take the answer from a client that still writes.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

/// Whether the client itself says that its body is longer than `max_bytes`.
pub(crate) fn says_too_long(headers: &HeaderMap, max_bytes: usize) -> bool {
    let said = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    said.is_some_and(|length| length > max_bytes as u64)
}

/// Reads a body that is not taken, as far as it comes soon. A client that asked first (`Expect`) sends none.
pub(crate) fn pass_over<B>(headers: &HeaderMap, body: B)
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    if headers.contains_key(header::EXPECT) {
        return;
    }
    tokio::spawn(async move {
        let mut body = std::pin::pin!(body);
        let rest = async { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
        // Whoever still writes then finds the connection closed.
        let _ = tokio::time::timeout(LINGER, rest).await;
    });
}

/// Reads a body of at most `max_bytes`.
pub(crate) async fn collect<B>(body: B, max_bytes: usize) -> Result<Bytes, BodyFault>
where
    B: Body,
    B::Data: Buf,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Ok(collected) = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max_bytes).collect()).await else {
        return Err(BodyFault::Broken);
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(cause) if cause.is::<LengthLimitError>() => Err(BodyFault::TooLong),
        Err(_) => Err(BodyFault::Broken),
    }
}

fn whole(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Whole(Some(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A JSON response.
pub(crate) fn json(status: StatusCode, bytes: Bytes) -> Response<ResponseBody> {
    whole(status, "application/json", bytes)
}

/// A plain text response.
pub(crate) fn text(status: StatusCode, text: &str) -> Response<ResponseBody> {
    whole(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(text.as_bytes()))
}

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Whole(None));
    *response.status_mut() = status;
    response
}
