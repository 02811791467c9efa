//! The writing half of a socket.

use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, SinkExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::{call::SendQueue, closing::Closing};
use crate::mcp::queue::Outgoing;

/// Sends what is queued until the close frame has left; `None`: the client is gone, or took longer
/// than `stall` to read one message.
pub(super) async fn write<S>(mut sink: S, queue: &SendQueue, stall: Duration) -> Option<S>
where
    S: Sink<Message, Error = Error> + Unpin,
{
    loop {
        let mut next = Some(queue.next().await);
        let mut is_last = false;
        while let Some(outgoing) = next {
            is_last = matches!(outgoing, Outgoing::Close(_));
            timeout(stall, sink.feed(message(outgoing)?)).await.ok()?.ok()?;
            next = if is_last { None } else { queue.try_next() };
        }
        timeout(stall, sink.flush()).await.ok()?.ok()?;
        if is_last {
            return Some(sink);
        }
    }
}

fn message(outgoing: Outgoing<Closing>) -> Option<Message> {
    Some(match outgoing {
        // What is queued was made from checked JSON, which is UTF-8.
        Outgoing::Text { message, .. } => Message::Text(Utf8Bytes::try_from(message).ok()?),
        Outgoing::Ping => Message::Ping(Bytes::new()),
        Outgoing::Close(closing) => closing.message(),
    })
}
