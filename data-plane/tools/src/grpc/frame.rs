//! Messages of gRPC within a body: a flag, a length, and so many bytes (gRPC over HTTP/2, "Length-Prefixed-Message").
//!
//! Invariant: no message is kept that is longer than its bound; what is compressed is refused, since nobody asked for it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::UpstreamError;

/// Bytes before each message: the flag, and the length (big-endian).
const HEAD_BYTES: usize = 5;

/// Messages as one body.
pub(super) fn written<'a>(messages: impl IntoIterator<Item = &'a [u8]>) -> Result<Bytes, UpstreamError> {
    let mut body = BytesMut::new();
    for message in messages {
        let length = u32::try_from(message.len()).map_err(|_| UpstreamError::TooLarge(u32::MAX as usize))?;
        body.put_u8(0);
        body.put_u32(length);
        body.put_slice(message);
    }
    Ok(body.freeze())
}

/// Takes messages out of a body as it comes.
pub(super) struct Frames {
    buffer: BytesMut,
    max_bytes: usize,
}

impl Frames {
    /// `max_bytes` is the longest message.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), max_bytes }
    }

    /// More of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let mut head = &self.buffer[..];
        if head.len() < HEAD_BYTES {
            return Ok(None);
        }
        if head.get_u8() != 0 {
            return Err(UpstreamError::Garbage("a message is compressed, which nobody asked for".to_owned()));
        }
        let length = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
        if length > self.max_bytes {
            return Err(UpstreamError::TooLarge(self.max_bytes));
        }
        if head.len() < length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether nothing of a message is left over.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let messages: [&[u8]; 4] = [b"", b"a", &[7; 300], b"last"];
        let body = written(messages).unwrap();
        for step in [1, 2, 5, 7, 64, body.len()] {
            let (mut frames, mut found) = (Frames::new(300), Vec::new());
            for piece in body.chunks(step) {
                frames.push(piece);
                while let Some(message) = frames.next().unwrap() {
                    found.push(message);
                }
            }
            assert!(frames.is_empty(), "{step}");
            assert_eq!(found, messages, "{step}");
        }
    }

    #[test]
    fn what_is_too_long_or_compressed_is_refused_before_it_is_there() {
        for (head, expect) in [
            ([0, 0, 0, 0, 9], Some(UpstreamError::TooLarge(8))),
            ([0, 255, 255, 255, 255], Some(UpstreamError::TooLarge(8))),
            ([0, 0, 0, 0, 8], None),
        ] {
            let mut frames = Frames::new(8);
            frames.push(&head);
            assert_eq!(frames.next().err(), expect, "{head:?}");
            assert!(!frames.is_empty());
        }
        let mut frames = Frames::new(8);
        frames.push(&[1, 0, 0, 0, 0]);
        assert!(matches!(frames.next(), Err(UpstreamError::Garbage(_))));
    }
}
