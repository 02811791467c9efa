//! Newline-delimited JSON: one message a line, in both directions (MCP, stdio transport).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use provost_client::Outgoing;
use provost_mcp::{JsonLimits, RpcError, error_message};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::mpsc,
    task::JoinHandle,
};

/// The longest line that is read. Longer ones are skipped; an answer needs the id, which stands anywhere.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// The longest message that a node takes.
const MAX_MESSAGE_BYTES: usize = JsonLimits::REQUEST.max_bytes;
/// Lines read ahead, and lines that wait for the client to read them.
const QUEUE: usize = 64;
/// How long the client may take to read the last lines.
pub const LAST_LINES: Duration = Duration::from_secs(5);

/// One line of the client's.
#[derive(Debug)]
pub enum Line {
    /// A message.
    Message(Outgoing),
    /// No message: this is the answer to it.
    Refused(Bytes),
}

/// Reads lines until the input ends.
pub fn read(input: impl AsyncRead + Send + Unpin + 'static) -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut input = BufReader::with_capacity(64 * 1024, input);
        while let Some(line) = next_line(&mut input).await {
            let Some(line) = parse(line) else { continue };
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Writes messages, one a line, until the queue is closed or the client has gone.
pub fn write(mut output: impl AsyncWrite + Send + Unpin + 'static) -> (mpsc::Sender<Bytes>, JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    let task = tokio::spawn(async move {
        while let Some(message) = receiver.recv().await {
            let mut line = one_line(&message);
            line.push(b'\n');
            if output.write_all(&line).await.is_err() || output.flush().await.is_err() {
                // Nobody reads: the closed queue tells the relay.
                return;
            }
        }
    });
    (sender, task)
}

/// The message without line ends, which JSON has between its tokens only.
fn one_line(message: &[u8]) -> Vec<u8> {
    message.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// A line, or how many bytes one had that is too long.
type Read = Result<Bytes, usize>;

async fn next_line(input: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Read> {
    let mut line = BytesMut::new();
    let mut skipped = 0;
    loop {
        let available = input.fill_buf().await.ok()?;
        if available.is_empty() {
            // The end of the input ends its last line.
            return (!line.is_empty() || skipped > 0).then(|| finish(line, skipped));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if skipped > 0 || line.len() + part.len() > MAX_LINE_BYTES {
            skipped += line.len() + part.len();
            line = BytesMut::new();
        } else {
            line.extend_from_slice(part);
        }
        let used = end.map_or(available.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Some(finish(line, skipped));
        }
    }
}

fn finish(line: BytesMut, skipped: usize) -> Read {
    if skipped > 0 { Err(skipped) } else { Ok(line.freeze()) }
}

/// `None` for an empty line.
fn parse(line: Read) -> Option<Line> {
    let bytes = match line {
        Ok(bytes) => bytes,
        Err(length) => return Some(Line::Refused(error_message(None, &too_large(length)))),
    };
    let trimmed = bytes.slice_ref(bytes.trim_ascii());
    if trimmed.is_empty() {
        return None;
    }
    let length = trimmed.len();
    let limits = JsonLimits { max_bytes: MAX_LINE_BYTES, max_depth: JsonLimits::REQUEST.max_depth };
    Some(match Outgoing::parse(trimmed, &limits) {
        Ok(message) if length <= MAX_MESSAGE_BYTES => Line::Message(message),
        Ok(message) => Line::Refused(error_message(message.id(), &too_large(length))),
        Err(fault) => Line::Refused(error_message(fault.id(), &fault.rpc_error())),
    })
}

fn too_large(length: usize) -> RpcError {
    let message = format!("the message has {length} bytes, and a node takes at most {MAX_MESSAGE_BYTES}");
    RpcError::with_code(RpcError::INVALID_REQUEST, "PV-MCP-TOO-LARGE", message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    async fn read_all(input: Vec<u8>) -> Vec<Line> {
        let mut lines = read(std::io::Cursor::new(input));
        let mut found = Vec::new();
        while let Some(line) = lines.recv().await {
            found.push(line);
        }
        found
    }

    fn refused(line: &Line) -> serde_json::Value {
        let Line::Refused(answer) = line else { panic!("{line:?} was taken") };
        serde_json::from_slice(answer).unwrap()
    }

    #[tokio::test]
    async fn lines_become_messages_or_answers() {
        let input = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\r\n\n  \nnot json\n[]\n\
                     {\"jsonrpc\":\"2.0\",\"id\":2,\"id\":3,\"method\":\"ping\"}\n\
                     {\"jsonrpc\":\"2.0\",\"id\":\"x\"}\n\
                     {\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}";
        let found = read_all(input.as_bytes().to_vec()).await;
        assert_eq!(found.len(), 6, "{found:?}");
        let Line::Message(first) = &found[0] else { panic!("{found:?}") };
        assert_eq!((first.method(), first.id().unwrap().as_str()), ("ping", "1"));
        let codes: Vec<_> = found[1..5].iter().map(|line| refused(line)["error"]["code"].clone()).collect();
        assert_eq!(codes, [-32700, -32600, -32600, -32600]);
        assert_eq!(refused(&found[4])["id"], "x");
        assert!(matches!(&found[5], Line::Message(m) if m.method() == "notifications/initialized"));
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_answered_and_the_next_one_is_read() {
        let long = |bytes: usize| {
            let text = "x".repeat(bytes);
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{{\"a\":\"{text}\"}},\"id\":7}}\n")
        };
        let input = [long(MAX_MESSAGE_BYTES), long(MAX_LINE_BYTES), long(10)].concat();
        let found = read_all(input.into_bytes()).await;
        assert_eq!(found.len(), 3);
        // Up to a bound it is known whose message it is.
        assert_eq!((refused(&found[0])["id"].clone(), refused(&found[1])["id"].clone()), (7.into(), ().into()));
        assert_eq!(refused(&found[1])["error"]["data"]["code"], "PV-MCP-TOO-LARGE");
        assert!(matches!(&found[2], Line::Message(_)));
    }

    #[tokio::test]
    async fn what_is_written_is_one_line_each() {
        let (mut theirs, ours) = tokio::io::duplex(4096);
        let (sender, task) = write(ours);
        sender.send(Bytes::from_static(b"{\"a\":\r\n1}")).await.unwrap();
        sender.send(Bytes::from_static(b"{}")).await.unwrap();
        drop(sender);
        task.await.unwrap();
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut theirs, &mut text).await.unwrap();
        assert_eq!(text, "{\"a\":  1}\n{}\n");
    }
}
