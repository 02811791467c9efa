//! What one stream says to its client.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use quinn::SendStream;
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;

use super::ending::{SLOW_READER, StreamEnd};
use crate::{
    http::Final,
    mcp::{
        outlet::Outlet,
        queue::{self, Outgoing, QueueBounds},
    },
};

type SendQueue = queue::SendQueue<StreamEnd>;

/// The call of one stream: its notifications and its answer.
pub(super) struct StreamCall {
    pub(super) cancel: CancellationToken,
    queue: Arc<SendQueue>,
    is_finished: AtomicBool,
}

impl StreamCall {
    pub(super) fn new(bounds: QueueBounds, cancel: CancellationToken) -> Arc<Self> {
        let queue = SendQueue::new(bounds, StreamEnd::SlowReader);
        Arc::new(Self { cancel, queue, is_finished: AtomicBool::new(false) })
    }

    /// Sends what there is to say, and then ends the stream. `Err`: the client is gone, or does not
    /// read.
    pub(super) async fn write(&self, send: &mut SendStream, stall: Duration) -> Result<(), Unread> {
        loop {
            match self.queue.next().await {
                Outgoing::Text { message, .. } => {
                    let written = timeout(stall, send.write_all_chunks(&mut line(message))).await;
                    if !matches!(written, Ok(Ok(()))) {
                        return Err(unread(send));
                    }
                }
                Outgoing::Ping => {}
                Outgoing::Close(StreamEnd::Finished) => {
                    let _ = send.finish();
                    return Ok(());
                }
                Outgoing::Close(StreamEnd::SlowReader) => return Err(unread(send)),
            }
        }
    }
}

/// The client did not hear all.
#[derive(Debug)]
pub(super) struct Unread;

/// All that a client can be told that does not read.
fn unread(send: &mut SendStream) -> Unread {
    tracing::debug!("PV-QUIC-SLOW-READER: a client left, or does not read a stream");
    let _ = send.reset(SLOW_READER);
    Unread
}

impl Outlet for StreamCall {
    fn push(&self, message: &Bytes) {
        if !self.is_finished() {
            self.queue.notify(message);
        }
    }

    fn finish(&self, end: Final) {
        if self.is_finished.swap(true, Ordering::AcqRel) {
            return;
        }
        // What concerns no single call has no answer.
        if !end.body.is_empty() {
            self.queue.answer(end.body);
        }
        self.queue.close(StreamEnd::Finished);
    }

    fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Acquire)
    }
}

/// A message as a line. Line breaks in JSON are only ever space between tokens.
pub(super) fn line(message: Bytes) -> [Bytes; 2] {
    let is_break = |b: &u8| matches!(b, b'\n' | b'\r');
    let message = match message.iter().any(is_break) {
        false => message,
        true => message.iter().map(|b| if is_break(b) { b' ' } else { *b }).collect(),
    };
    [message, Bytes::from_static(b"\n")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        for (message, expect) in [("{}", "{}"), ("{\n \"a\":\r\n 1}", "{  \"a\":   1}")] {
            let [text, end] = line(Bytes::from_static(message.as_bytes()));
            assert_eq!((&text[..], &end[..]), (expect.as_bytes(), &b"\n"[..]));
        }
    }
}
