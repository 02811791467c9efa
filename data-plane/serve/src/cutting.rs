//! A connection that can be ended from outside, whatever is spoken on it.
//!
//! Reading and writing fail once the time has come, so that HTTP/1.1, HTTP/2 and a WebSocket end as if the
//! client had gone. Calls past their intent run on to their records, as they do then.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
pub(crate) struct Cutting<I> {
    inner: I,
    /// `None`: it has come.
    until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<I> Cutting<I> {
    /// A stream until the end of a future.
    pub(crate) fn new(inner: I, until: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { inner, until: Some(Box::pin(until)) }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            self.until = None;
        }
        match self.until {
            Some(_) => Ok(()),
            None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client is not trusted any more")),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Cutting<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.check(cx)?;
        Pin::new(&mut me.inner).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Cutting<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.check(cx)?;
        Pin::new(&mut me.inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.check(cx)?;
        Pin::new(&mut me.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.check(cx)?;
        Pin::new(&mut me.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn both_directions_end_with_the_future_and_a_reader_hears_of_it() {
        let (mut client, server) = duplex(1024);
        let end = CancellationToken::new();
        let mut stream = Cutting::new(server, end.clone().cancelled_owned());
        client.write_all(b"ab").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        stream.write_all(b"x").await.unwrap();
        stream.read_u8().await.unwrap();
        let reader = tokio::spawn(async move { (stream.read_u8().await, stream) });
        tokio::task::yield_now().await;
        end.cancel();
        let (read, mut stream) = reader.await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(stream.write_all(b"y").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
