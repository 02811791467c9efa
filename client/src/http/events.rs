//! Server-sent events as they come (WHATWG HTML, section 9.2.6): only their data counts here.

use bytes::{Buf, Bytes, BytesMut};

use crate::LinkError;

/// Puts events together from chunks; holds at most one event and one chunk.
#[derive(Debug)]
pub(crate) struct Events {
    buffer: BytesMut,
    data: BytesMut,
    has_data: bool,
    /// How far the buffer was searched for the end of a line.
    searched: usize,
    max_bytes: usize,
}

impl Events {
    /// A reader of events of at most this many bytes.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), data: BytesMut::new(), has_data: false, searched: 0, max_bytes }
    }

    /// Adds what came.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Result<(), LinkError> {
        if self.buffer.len() + self.data.len() > self.max_bytes {
            return Err(LinkError::TooLarge(self.max_bytes));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// The data of the next whole event.
    pub(crate) fn next_event(&mut self) -> Result<Option<Bytes>, LinkError> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(self.data.split().freeze()));
                }
                continue;
            }
            let Some(value) = line.strip_prefix(b"data:".as_slice()) else { continue };
            if self.has_data {
                self.data.extend_from_slice(b"\n");
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.has_data = true;
            if self.data.len() > self.max_bytes {
                return Err(LinkError::TooLarge(self.max_bytes));
            }
        }
        Ok(None)
    }

    /// A line without its end. A carriage return at the end of the buffer may be half of an end: it waits.
    fn next_line(&mut self) -> Option<BytesMut> {
        let from = self.searched.min(self.buffer.len());
        let Some(found) = memchr::memchr2(b'\n', b'\r', &self.buffer[from..]) else {
            self.searched = self.buffer.len();
            return None;
        };
        let end = from + found;
        if self.buffer[end] == b'\r' && end + 1 == self.buffer.len() {
            self.searched = end;
            return None;
        }
        let width = if self.buffer[end..].starts_with(b"\r\n") { 2 } else { 1 };
        let line = self.buffer.split_to(end);
        self.buffer.advance(width);
        self.searched = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(chunks: &[&str]) -> Vec<String> {
        let mut events = Events::new(64);
        let mut found = Vec::new();
        for chunk in chunks {
            events.feed(chunk.as_bytes()).unwrap();
            while let Some(data) = events.next_event().unwrap() {
                found.push(String::from_utf8(data.to_vec()).unwrap());
            }
        }
        found
    }

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let text = ": hello\n\nid: 1\nevent: message\ndata: {\"a\":1}\n\ndata:x\r\ndata: y\r\n\r\ndata: never ended\n";
        let whole = read(&[text]);
        assert_eq!(whole, ["{\"a\":1}", "x\ny"]);
        for cut in 0..text.len() {
            assert_eq!(read(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_has_a_bound() {
        let mut events = Events::new(8);
        events.feed(b"data: 123456789\n").unwrap();
        assert_eq!(events.next_event(), Err(LinkError::TooLarge(8)));
        let mut endless = Events::new(8);
        endless.feed(b"data: 123456789").unwrap();
        assert_eq!(endless.next_event(), Ok(None));
        assert_eq!(endless.feed(b"0"), Err(LinkError::TooLarge(8)));
    }
}
