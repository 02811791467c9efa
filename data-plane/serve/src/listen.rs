//! Connections: accepted, served, drained.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use provost_data_pipeline::Plane;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{Frontend, Peer};

/// Connections at once.
const MAX_CONNECTIONS: usize = 16_384;
/// The longest wait for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Streams at once in one HTTP/2 connection.
const MAX_H2_STREAMS: u32 = 256;
/// The longest head in HTTP/2, in bytes.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Rest after an accept that failed for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

impl<P: Plane + 'static> Frontend<P> {
    /// Serves connections until `shutdown`, then lets calls in flight end (at most
    /// [`crate::FrontendConfig::drain_ms`]).
    ///
    /// If the process dies instead, calls past their intent stand as `unknown` in the record.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let slot = tokio::select! {
                slot = slots.clone().acquire_owned() => slot.map_err(io::Error::other)?,
                () = shutdown.cancelled() => break,
            };
            let (stream, address) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(cause) => {
                        tracing::warn!(%cause, "PV-HTTP-ACCEPT: a connection was not accepted");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
                () = shutdown.cancelled() => break,
            };
            // Small answers leave at once.
            let _ = stream.set_nodelay(true);
            let peer = Peer { address: Some(address), transport: "http", is_secure: false };
            let connection = self.clone().connection(stream, peer, &graceful);
            tokio::spawn(async move {
                connection.await;
                drop(slot);
            });
        }
        drop(listener);
        self.drain(graceful).await;
        Ok(())
    }

    /// Serves one connection, such as one that TLS has been taken off. A connection that becomes a
    /// WebSocket ends here, and goes on as a task of [`Frontend::calls`].
    fn connection<I>(
        self: Arc<Self>,
        stream: I,
        peer: Peer,
        graceful: &GracefulShutdown,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_H2_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES);
        let service = service_fn(move |request| {
            let front = self.clone();
            async move { Ok::<_, Infallible>(front.respond(request, peer).await) }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        async move {
            if let Err(cause) = watched.await {
                // Clients that leave are daily business.
                tracing::debug!(%cause, "a connection broke");
            }
        }
    }

    async fn drain(&self, graceful: GracefulShutdown) {
        self.draining.cancel();
        self.sessions.drain();
        self.calls.close();
        let all = async {
            self.calls.wait().await;
            graceful.shutdown().await;
        };
        if tokio::time::timeout(Duration::from_millis(self.config.drain_ms), all).await.is_err() {
            tracing::warn!(
                in_flight = self.calls.len(),
                "PV-HTTP-DRAIN: calls were still in flight when the drain ended"
            );
        }
    }
}
