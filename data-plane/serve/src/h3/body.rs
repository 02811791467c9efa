//! A request's body, as hyper would give it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::{
    error::{Code, StreamError},
    server::RequestStream,
};
use http_body::{Body, Frame};

use super::backend::Receiving;

/// See the module.
pub(super) struct RequestBody(pub(super) RequestStream<Receiving, Bytes>);

impl Drop for RequestBody {
    fn drop(&mut self) {
        // RFC 9114, section 4.1: what is not read of a request is no error of the client's.
        self.0.stop_sending(Code::H3_NO_ERROR);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        Poll::Ready(match ready!(self.0.poll_recv_data(cx)) {
            Ok(Some(mut data)) => Some(Ok(Frame::data(data.copy_to_bytes(data.remaining())))),
            // Trailers say nothing that is asked for here.
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        })
    }
}
