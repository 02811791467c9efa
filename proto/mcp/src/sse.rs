//! Server-sent events, read as they come (WHATWG HTML, 9.2.6): for whoever reads Streamable HTTP.

use bytes::{Buf, Bytes, BytesMut};

/// An event is longer than the parser takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {0} bytes")]
pub struct EventTooLong(pub usize);

/// Puts events together from chunks. Fed bytes, it gives events; it holds at most one event.
#[derive(Debug)]
pub struct SseParser {
    buffer: BytesMut,
    data: BytesMut,
    has_data: bool,
    last_id: Option<String>,
    retry_ms: Option<u64>,
    max_bytes: usize,
    /// How far the buffer was searched for a line's end.
    searched: usize,
    /// The last line ended in a carriage return: a line feed that follows belongs to that end.
    after_return: bool,
}

impl SseParser {
    /// A parser that takes events of at most `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            data: BytesMut::new(),
            has_data: false,
            last_id: None,
            retry_ms: None,
            max_bytes,
            searched: 0,
            after_return: false,
        }
    }

    /// The last event id seen, for resumption.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The pause before a reconnection that the server asked for.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Adds bytes.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), EventTooLong> {
        // What is left over from earlier chunks belongs to one event.
        if self.buffer.len() + self.data.len() > self.max_bytes {
            return Err(EventTooLong(self.max_bytes));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// The data of the next whole event, if there is one: its lines, joined by newlines. Events without data
    /// only update id and retry.
    pub fn next_event(&mut self) -> Result<Option<Bytes>, EventTooLong> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(self.data.split().freeze()));
                }
                continue;
            }
            self.field(&line);
            if self.data.len() > self.max_bytes {
                return Err(EventTooLong(self.max_bytes));
            }
        }
        Ok(None)
    }

    /// A line without its end: LF, CR or CRLF. A carriage return ends its line at once, since nothing may follow it
    /// for long.
    fn next_line(&mut self) -> Option<BytesMut> {
        if self.after_return && !self.buffer.is_empty() {
            self.after_return = false;
            if self.buffer.starts_with(b"\n") {
                self.buffer.advance(1);
            }
        }
        let from = self.searched.min(self.buffer.len());
        let Some(found) = memchr::memchr2(b'\n', b'\r', &self.buffer[from..]) else {
            self.searched = self.buffer.len();
            return None;
        };
        let end = from + found;
        self.after_return = self.buffer[end] == b'\r';
        let line = self.buffer.split_to(end);
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }

    fn field(&mut self, line: &[u8]) {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(0) => return,
            Some(at) => {
                let value = &line[at + 1..];
                (&line[..at], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &[][..]),
        };
        match name {
            b"data" => {
                if self.has_data {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(value);
                // A priming event has an empty data line: no message.
                self.has_data = !self.data.is_empty();
            }
            b"id" => self.last_id = std::str::from_utf8(value).ok().map(str::to_owned),
            b"retry" => {
                self.retry_ms = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn events(chunks: &[&str]) -> Vec<String> {
        let mut parser = SseParser::new(1_000);
        let mut out = Vec::new();
        for chunk in chunks {
            parser.feed(chunk.as_bytes()).unwrap();
            while let Some(event) = parser.next_event().unwrap() {
                out.push(String::from_utf8(event.to_vec()).unwrap());
            }
        }
        out
    }

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let whole =
            ": hello\nid: 7\nretry: 300\ndata:\n\nevent: message\r\ndata: {\"a\":1}\r\n\r\ndata: x\ndata: y\n\n";
        let expect = vec!["{\"a\":1}".to_owned(), "x\ny".to_owned()];
        assert_eq!(events(&[whole]), expect);
        for cut in 1..whole.len() {
            assert_eq!(events(&[&whole[..cut], &whole[cut..]]), expect, "cut at {cut}");
        }
    }

    #[test]
    fn carriage_returns_alone_end_lines_and_nothing_is_waited_for() {
        let whole = "event: message\rdata: {\"a\":1}\r\rdata: x\r\r";
        let expect = vec!["{\"a\":1}".to_owned(), "x".to_owned()];
        assert_eq!(events(&[whole]), expect);
        for cut in 1..whole.len() {
            assert_eq!(events(&[&whole[..cut], &whole[cut..]]), expect, "cut at {cut}");
        }
        assert_eq!(events(&["data: x\r\n\r"]), ["x"], "the rest of the last CRLF changes nothing");
    }

    #[test]
    fn a_long_event_is_refused() {
        let mut parser = SseParser::new(100);
        let fed =
            parser.feed(&[b'x'; 90]).and_then(|()| parser.feed(&[b'x'; 90])).and_then(|()| parser.feed(&[b'x'; 90]));
        assert_eq!(fed, Err(EventTooLong(100)));
    }
}
