//! A legacy session's own stream.

use std::{sync::Weak, time::Duration};

use http::HeaderMap;
use provost_mcp::Envelope;

use super::{super::http::HttpTarget, Connection};
use crate::UpstreamError;

/// The pause before a session's stream is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Streams that ended at once before it is given up.
const MAX_EMPTY_STREAMS: u32 = 5;

/// Reads a session's own stream, and opens it again when it ends, as long as the session is used.
pub(super) async fn read_stream(
    target: &HttpTarget,
    headers: HeaderMap,
    connection: Weak<Connection>,
) -> Result<(), UpstreamError> {
    let mut empty = 0;
    while empty < MAX_EMPTY_STREAMS {
        let Some(mut stream) = target.stream(headers.clone()).await? else { return Ok(()) };
        empty += 1;
        while let Ok(Some(message)) = stream.next().await {
            empty = 0;
            let Some(connection) = connection.upgrade() else { return Ok(()) };
            if let Envelope::Request { id, method, .. } = &message
                && method == "ping"
            {
                connection.refuse(id, method).await?;
            } else if let Some((id, error)) = connection.switchboard.deliver(message) {
                connection.respond(&id, Err(&error)).await?;
            }
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
        if connection.upgrade().is_none_or(|c| c.is_closed()) {
            return Ok(());
        }
    }
    Ok(())
}
