//! An answer over HTTP as it comes, by whichever way it was asked for.

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use reqwest::Response;

use crate::{
    UpstreamError,
    egress::{EgressClient, LineBody, LineFault},
};

/// The rest of an answer whose head is known. Dropped before its end it closes what it comes on.
pub(crate) enum Answer {
    /// Of a connection that this answer drives.
    Line(LineBody),
    /// Of a client with its own tasks: TLS and HTTP/2.
    Client(Response),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Client(response)
    }
}

impl Answer {
    /// How many bytes it says that it has.
    fn length(&self) -> Option<u64> {
        match self {
            Self::Line(body) => body.length(),
            Self::Client(response) => response.content_length(),
        }
    }

    /// The next piece; `None` at the end. Can be dropped and called again without loss.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        match self {
            Self::Line(body) => body.chunk().await.map_err(line_error),
            Self::Client(response) => {
                response.chunk().await.map_err(|cause| UpstreamError::Died(EgressClient::cause(cause)))
            }
        }
    }

    /// Nothing of it is wanted. If it is there and empty, what it came on serves the next request: servers on Node.js send
    /// the end of an empty answer as a chunk.
    pub(super) fn let_go(mut self) {
        let _ = self.chunk().now_or_never();
    }
}

pub(super) fn line_error(cause: LineFault) -> UpstreamError {
    match cause {
        LineFault::Refused(refused) => UpstreamError::Egress(refused.to_string()),
        LineFault::Unreachable(text) => UpstreamError::Unreachable(text),
        LineFault::Broken(text) => UpstreamError::Died(text),
    }
}

/// Reads an answer to its end. Errors: it is longer than `max_bytes`, or breaks off.
pub(crate) async fn whole_body(answer: impl Into<Answer>, max_bytes: usize) -> Result<Bytes, UpstreamError> {
    let mut answer = answer.into();
    if answer.length().is_some_and(|n| n > max_bytes as u64) {
        return Err(UpstreamError::TooLarge(max_bytes));
    }
    let Some(first) = answer.chunk().await? else { return Ok(Bytes::new()) };
    let mut whole: Option<BytesMut> = None;
    let mut length = first.len();
    while let Some(chunk) = answer.chunk().await? {
        length += chunk.len();
        if length > max_bytes {
            return Err(UpstreamError::TooLarge(max_bytes));
        }
        whole.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&chunk);
    }
    // Most answers come in one piece and are not copied.
    Ok(whole.map_or(first, BytesMut::freeze))
}
