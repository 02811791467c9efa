//! Lines of a stream, read under bounds.
//!
//! Invariant: what is held of an unfinished line is bounded by `max`, and on one connection only
//! a few lines may be long at once: 256 streams of a client must not hold 256 times the longest
//! message. A line that waits for its turn is not read, which QUIC's flow control tells the client.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::Semaphore,
    time::timeout,
};

/// Bytes that are made room for at once.
const CHUNK_BYTES: usize = 4 * 1024;

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFault {
    /// Longer than the bound.
    TooLong,
    /// A long line was not sent in time.
    TooSlow,
    /// The client reset the stream, or the connection is gone.
    Broken,
}

/// The bounds of lines, as they are for one connection.
#[derive(Clone, Copy)]
pub(super) struct LineBounds<'a> {
    /// A longer line takes a permit of `large`.
    pub(super) small_bytes: usize,
    pub(super) large: &'a Semaphore,
    /// The longest time with such a permit.
    pub(super) patience: Duration,
}

/// See the module.
pub(super) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    /// Bytes of `buffer` that hold no line feed.
    scanned: usize,
    is_ended: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::new(), scanned: 0, is_ended: false }
    }

    pub(super) fn reader(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The next line, without its line feed; `None`: the stream has ended.
    pub(super) async fn next(&mut self, max: usize, bounds: LineBounds<'_>) -> Result<Option<Bytes>, LineFault> {
        let short = bounds.small_bytes.min(max);
        match self.read_to(short).await? {
            Found::Line(line) => Ok(Some(line)),
            Found::End => Ok(None),
            Found::Longer if short == max => Err(LineFault::TooLong),
            Found::Longer => {
                let _permit = bounds.large.acquire().await.map_err(|_| LineFault::Broken)?;
                match timeout(bounds.patience, self.read_to(max)).await.map_err(|_| LineFault::TooSlow)?? {
                    Found::Line(line) => Ok(Some(line)),
                    Found::End => Ok(None),
                    Found::Longer => Err(LineFault::TooLong),
                }
            }
        }
    }

    /// Reads until there is a line, or until it is clear that it has more than `max` bytes.
    async fn read_to(&mut self, max: usize) -> Result<Found, LineFault> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                let length = self.scanned + at;
                if length > max {
                    return Ok(Found::Longer);
                }
                let line = self.buffer.split_to(length + 1).freeze().slice(..length);
                self.scanned = 0;
                return Ok(Found::Line(line));
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() > max {
                return Ok(Found::Longer);
            }
            if self.is_ended {
                let rest = self.buffer.split().freeze();
                self.scanned = 0;
                return Ok(if rest.is_empty() { Found::End } else { Found::Line(rest) });
            }
            self.buffer.reserve(CHUNK_BYTES);
            self.is_ended = self.reader.read_buf(&mut self.buffer).await.map_err(|_| LineFault::Broken)? == 0;
        }
    }
}

enum Found {
    Line(Bytes),
    End,
    Longer,
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], max: usize) -> (Vec<String>, Option<LineFault>) {
        let large = Semaphore::new(1);
        let bounds = LineBounds { small_bytes: 4, large: &large, patience: Duration::from_secs(5) };
        let mut lines = Lines::new(bytes);
        let mut found = Vec::new();
        loop {
            match lines.next(max, bounds).await {
                Ok(Some(line)) => found.push(String::from_utf8(line.to_vec()).unwrap()),
                Ok(None) => return (found, None),
                Err(fault) => return (found, Some(fault)),
            }
        }
    }

    #[tokio::test]
    async fn lines_end_with_a_line_feed_or_with_the_stream() {
        let table: [(&str, &[&str], Option<LineFault>); 9] = [
            ("", &[], None),
            ("a", &["a"], None),
            ("a\n", &["a"], None),
            ("a\nb", &["a", "b"], None),
            ("\n\n", &["", ""], None),
            ("12345678\n", &["12345678"], None),
            ("12345678", &["12345678"], None),
            ("123456789\n", &[], Some(LineFault::TooLong)),
            ("ok\n123456789", &["ok"], Some(LineFault::TooLong)),
        ];
        for (text, expect, fault) in table {
            let (found, got) = read(text.as_bytes(), 8).await;
            assert_eq!(
                (found.iter().map(String::as_str).collect::<Vec<_>>(), got),
                (expect.to_vec(), fault),
                "{text:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_waits_for_its_turn_and_gives_it_back() {
        let large = Semaphore::new(1);
        let bounds = LineBounds { small_bytes: 4, large: &large, patience: Duration::from_secs(5) };
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut slow = Lines::new(reader);
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"12345").await.unwrap();
        let mut quick = Lines::new(&b"123456\n"[..]);
        // The first takes the only permit, and is given up; the other one is read then.
        let (first, second) = tokio::join!(slow.next(8, bounds), quick.next(8, bounds));
        assert_eq!(first, Err(LineFault::TooSlow));
        assert_eq!(second.unwrap().unwrap(), "123456");
    }
}
