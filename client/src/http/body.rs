//! What comes back in a body, over either version of HTTP: one message, or events up to an answer.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use provost_mcp::{RequestId, SseParser};
use tokio::sync::mpsc;

use crate::{LinkError, MAX_MESSAGE_BYTES, lane::answers};

/// How long a stream may stay open after the answer that should end it.
const END_OF_STREAM: Duration = Duration::from_millis(250);
/// How much of a body that is no message is shown.
const SHOWN_BYTES: usize = 200;

/// What came back.
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The answer, or the one message of a body.
    pub(crate) answer: Option<Bytes>,
}

/// A body, piece by piece.
pub(crate) trait Chunks: Send {
    /// The next piece; `None` at the end.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, LinkError>> + Send;
}

impl Chunks for Incoming {
    async fn chunk(&mut self) -> Result<Option<Bytes>, LinkError> {
        while let Some(frame) = self.frame().await {
            // What is no data are trailers, which say nothing here.
            if let Ok(data) = frame.map_err(|cause| LinkError::Lost(cause.to_string()))?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Reads to the answer of `id`; messages before it go to `events`. Also says whether the body has ended.
pub(crate) async fn read_reply(
    status: StatusCode,
    headers: HeaderMap,
    body: &mut impl Chunks,
    id: Option<&RequestId>,
    events: Option<&mpsc::Sender<Bytes>>,
) -> Result<(Reply, bool), LinkError> {
    let kind = headers.get(header::CONTENT_TYPE);
    let (answer, has_ended) = match kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        true => read_stream(body, id, events).await?,
        false => (read_body(body, status).await?, true),
    };
    Ok((Reply { status, headers, answer }, has_ended))
}

/// The one message of a body. What is no JSON object is an error that names the status.
async fn read_body(body: &mut impl Chunks, status: StatusCode) -> Result<Option<Bytes>, LinkError> {
    let mut text = Vec::new();
    while let Some(data) = body.chunk().await? {
        if text.len() + data.len() > MAX_MESSAGE_BYTES {
            return Err(LinkError::TooLarge(MAX_MESSAGE_BYTES));
        }
        text.extend_from_slice(&data);
    }
    if status.is_success() && text.trim_ascii().is_empty() {
        return Ok(None);
    }
    if text.trim_ascii_start().first() == Some(&b'{') {
        return Ok(Some(text.into()));
    }
    let end = text.len().min(SHOWN_BYTES);
    let shown = String::from_utf8_lossy(&text[..end]).trim().to_owned();
    Err(LinkError::Refused { status: status.as_u16(), text: shown })
}

/// Reads up to the answer, and a moment longer to the end; says whether that came.
async fn read_stream(
    body: &mut impl Chunks,
    id: Option<&RequestId>,
    events: Option<&mpsc::Sender<Bytes>>,
) -> Result<(Option<Bytes>, bool), LinkError> {
    let mut parser = SseParser::new(MAX_MESSAGE_BYTES);
    while let Some(data) = body.chunk().await? {
        parser.feed(&data)?;
        while let Some(message) = parser.next_event()? {
            if id.is_some_and(|id| answers(&message, id)) {
                let rest = async { while let Ok(Some(_)) = body.chunk().await {} };
                let has_ended = tokio::time::timeout(END_OF_STREAM, rest).await.is_ok();
                return Ok((Some(message), has_ended));
            }
            if let Some(events) = events {
                let _ = events.send(message).await;
            }
        }
    }
    match id {
        Some(_) => Err(LinkError::Lost("the stream ended without an answer".to_owned())),
        None => Ok((None, true)),
    }
}
