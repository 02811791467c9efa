//! The first bytes of a connection, within a time.
//!
//! Purpose: HTTP's own timers begin when it is known which HTTP it is. A client that sends less than tells
//! them apart would stay for ever.
//! Invariant: whoever has not sent [`ENOUGH_BYTES`] when the time is over is disconnected; for whoever has,
//! this is a pass-through.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// The length of HTTP/2's preface; the shortest request of HTTP/1.1, which has a `Host`, is longer.
const ENOUGH_BYTES: usize = 24;

/// A stream that must begin in time.
pub(crate) struct Opening<I> {
    inner: I,
    missing: usize,
    /// `None`: enough came.
    until: Option<Pin<Box<Sleep>>>,
}

impl<I> Opening<I> {
    /// The time begins now. Must be called within a tokio runtime.
    pub(crate) fn new(inner: I, within: Duration) -> Self {
        Self { inner, missing: ENOUGH_BYTES, until: Some(Box::pin(sleep(within))) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Opening<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut me.inner).poll_read(cx, buf);
        let Some(until) = &mut me.until else { return polled };
        match polled {
            Poll::Ready(Ok(())) => {
                me.missing = me.missing.saturating_sub(buf.filled().len() - before);
                if me.missing == 0 {
                    me.until = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending if until.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request began in time")))
            }
            polled => polled,
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Opening<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_begin_in_time_is_disconnected() {
        let within = Duration::from_secs(10);
        for (sent, taken) in [(0, false), (1, false), (ENOUGH_BYTES - 1, false), (ENOUGH_BYTES, true)] {
            let (mut client, server) = duplex(1024);
            let mut opening = Opening::new(server, within);
            client.write_all(&vec![b'x'; sent]).await.expect("room");
            let mut first = vec![0; sent];
            opening.read_exact(&mut first).await.expect("what was sent");
            let next = tokio::time::timeout(within * 3, opening.read_u8()).await;
            match taken {
                true => assert!(next.is_err(), "{sent}: it waits for more"),
                false => {
                    let refused = next.expect("an end").expect_err("an error");
                    assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "{sent}");
                }
            }
        }
    }
}
