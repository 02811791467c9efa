//! The first two lines of a stream.

use bytes::Bytes;
use provost_data_pipeline::Plane;
use tokio::{io::AsyncRead, time::timeout};

use super::{
    connection::Connection,
    ending::Refusal,
    head::Head,
    lines::{LineFault, Lines},
};

/// A stream that can be served.
pub(super) struct Opened {
    pub(super) head: Head,
    pub(super) message: Bytes,
}

/// Why there is nothing to serve.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// The client is told why.
    Refused(Refusal),
    /// The client ended the stream before it sent a message.
    Empty,
    /// The client is gone.
    Gone,
}

/// Methods that change nothing and tell only the caller: safe to be replayed.
pub(super) fn is_safe_to_replay(method: &str) -> bool {
    matches!(
        method,
        "server/discover" | "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "ping"
    )
}

impl<P: Plane + 'static> Connection<P> {
    /// Reads head and message, within the bound of both together.
    pub(super) async fn open<R: AsyncRead + Unpin>(&self, lines: &mut Lines<R>) -> Result<Opened, NotOpened> {
        let patience = self.limits.opening;
        let opened = tokio::select! {
            opened = timeout(patience, self.read_opening(lines)) => opened,
            () = self.front.draining.cancelled() => return Err(NotOpened::Refused(Refusal::Draining)),
        };
        opened.unwrap_or(Err(NotOpened::Refused(Refusal::SlowWriter(patience))))
    }

    async fn read_opening<R: AsyncRead + Unpin>(&self, lines: &mut Lines<R>) -> Result<Opened, NotOpened> {
        let head = self.line(lines, self.limits.max_head_bytes).await?;
        let head = Head::parse(head, self.limits.max_head_bytes).map_err(NotOpened::Refused)?;
        let message = self.line(lines, self.front.config.max_body_bytes).await?;
        Ok(Opened { head, message })
    }

    async fn line<R: AsyncRead + Unpin>(&self, lines: &mut Lines<R>, max: usize) -> Result<Bytes, NotOpened> {
        match lines.next(max, self.line_bounds()).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(NotOpened::Empty),
            Err(LineFault::TooLong) => Err(NotOpened::Refused(Refusal::TooLarge(max))),
            Err(LineFault::TooSlow) => Err(NotOpened::Refused(Refusal::SlowWriter(self.limits.opening))),
            Err(LineFault::Broken) => Err(NotOpened::Gone),
        }
    }
}
