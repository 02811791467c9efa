//! Connections: accepted, served, drained.
//!
//! One TCP port takes HTTP, plain or under TLS or both, and the UDP port of the same number takes
//! QUIC. What comes out of a connection is served by [`Frontend::respond`] and its likes.
//!
//! The end comes in three steps, so that no request meets a connection that is just being closed. First
//! the node says that it is going: `/readyz` is not ready, HTTP/1.1 answers carry `Connection: close`,
//! HTTP/2 and HTTP/3 say GOAWAY, sockets begin nothing new; but connections are still accepted, by those
//! who have not heard. After [`crate::FrontendConfig::lame_duck_ms`] the port is closed, then what is idle.
//! Calls in flight end, or the drain does.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, UdpSocket},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{HeaderValue, StatusCode, Version, header};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use provost_data_pipeline::Plane;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Frontend, Peer, ServerTls, certificate::facts_of, cutting::Cutting, opening::Opening, quic::QuicServer};

/// Connections at once.
const MAX_CONNECTIONS: usize = 16_384;
/// The longest wait for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest TLS handshake, and the longest wait for the first bytes of a connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams at once in one HTTP/2 connection.
const MAX_H2_STREAMS: u32 = 256;
/// The longest head in HTTP/2 and HTTP/3, in bytes.
pub(crate) const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Rest after an accept that failed for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// The longest wait until QUIC's clients know that the node is gone.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long clients may remember that there is HTTP/3, in seconds.
const ALT_SVC_AGE_S: u32 = 86_400;
/// A connection that has had no request yet when idle ones are closed may still send its first one, if it
/// comes so soon: it may be on its way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);
/// The first byte of a TLS connection (RFC 8446, section 5.1: a handshake record).
const TLS_HANDSHAKE: u8 = 0x16;

/// Whether a TCP port that takes TLS takes connections without it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainRule {
    /// Both, told apart by the first byte. For loopback.
    Served,
    /// TLS only.
    Refused,
}

/// Where clients come in.
pub struct Doors {
    /// HTTP.
    pub tcp: TcpListener,
    /// QUIC, where there is `tls`.
    pub udp: Option<UdpSocket>,
    /// `None`: plain HTTP and nothing else.
    pub tls: Option<ServerTls>,
    /// See there.
    pub plain: PlainRule,
}

/// What a TCP connection is served with.
#[derive(Clone)]
struct Tcp {
    tls: Option<ServerTls>,
    plain: PlainRule,
    /// Where HTTP/3 is, for responses under TLS (RFC 7838).
    alt_svc: Option<HeaderValue>,
    /// One permit for each connection that may still be accepted.
    slots: Arc<Semaphore>,
    /// Those that are open.
    open: TaskTracker,
    /// Cancelled when connections that are idle are to be closed.
    closing: CancellationToken,
}

/// What a connection is told from outside of it.
enum Told {
    /// The node is going.
    Leaving,
    /// What is idle is closed.
    Closing,
}

/// What is known of a connection while it is served.
#[derive(Default)]
struct Noted {
    /// HTTP/2 can say that it ends while requests are on their way; HTTP/1.1 only with an answer.
    is_h2: AtomicBool,
    /// It had a request.
    is_used: AtomicBool,
    /// The node is going.
    is_leaving: AtomicBool,
}

fn alt_svc(port: u16) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma={ALT_SVC_AGE_S}")).ok()
}

impl<P: Plane + 'static> Frontend<P> {
    /// Serves plain HTTP. See [`Frontend::serve_doors`].
    pub async fn serve(self: &Arc<Self>, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        self.serve_doors(Doors { tcp: listener, udp: None, tls: None, plain: PlainRule::Served }, shutdown).await
    }

    /// Serves connections until `shutdown`, then says goodbye and lets calls in flight end (at most
    /// [`crate::FrontendConfig::drain_ms`] after `shutdown`).
    ///
    /// If the process dies instead, calls past their intent stand as `unknown` in the record.
    pub async fn serve_doors(self: &Arc<Self>, doors: Doors, shutdown: CancellationToken) -> io::Result<()> {
        let Doors { tcp: listener, udp, tls, plain } = doors;
        let port = udp.as_ref().map(UdpSocket::local_addr).transpose()?.map(|a| a.port());
        let quic = match (udp, &tls) {
            (Some(socket), Some(tls)) => Some(Arc::new(QuicServer::new(socket, tls, self.config.quic)?)),
            _ => None,
        };
        if let Some(quic) = quic.clone() {
            let front = self.clone();
            tokio::spawn(async move { quic.serve(&front).await });
        }
        let tcp = Tcp {
            tls,
            plain,
            alt_svc: port.filter(|_| quic.is_some()).and_then(alt_svc),
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            open: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        tokio::select! {
            ended = self.accept(&listener, &tcp) => ended?,
            () = shutdown.cancelled() => {}
        }
        self.leave(listener, &tcp).await;
        if let Some(quic) = quic {
            let _ = timeout(GOODBYE_TIMEOUT, quic.close()).await;
        }
        Ok(())
    }

    /// Takes connections. Ends only with an error.
    async fn accept(self: &Arc<Self>, listener: &TcpListener, tcp: &Tcp) -> io::Result<()> {
        loop {
            let slot = tcp.slots.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(cause) => {
                    tracing::warn!(%cause, "PV-HTTP-ACCEPT: a connection was not accepted");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            self.begin(stream, address, tcp, slot);
        }
    }

    fn begin(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, tcp: &Tcp, slot: OwnedSemaphorePermit) {
        // Small answers leave at once.
        let _ = stream.set_nodelay(true);
        let peer = Peer { address: Some(address), transport: "http", is_secure: false, certificate: None };
        let (front, served) = (self.clone(), tcp.clone());
        tcp.open.spawn(async move {
            front.tcp_connection(stream, peer, served).await;
            drop(slot);
        });
    }

    /// Closes the port. What the kernel has accepted before would be reset with it, and is taken first.
    fn close(self: &Arc<Self>, listener: TcpListener, tcp: &Tcp) {
        let Ok(listener) = listener.into_std() else { return };
        while let (Ok((stream, address)), Ok(slot)) = (listener.accept(), tcp.slots.clone().try_acquire_owned()) {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.begin(stream, address, tcp, slot);
            }
        }
    }

    /// See the module.
    async fn leave(self: &Arc<Self>, listener: TcpListener, tcp: &Tcp) {
        let limit = tokio::time::Instant::now() + Duration::from_millis(self.config.drain_ms);
        self.draining.cancel();
        self.sessions.drain();
        let said = Duration::from_millis(self.config.lame_duck_ms);
        let _ = tokio::time::timeout_at(limit, timeout(said, self.accept(&listener, tcp))).await;
        self.close(listener, tcp);
        tcp.closing.cancel();
        self.calls.close();
        tcp.open.close();
        let all = async {
            self.calls.wait().await;
            tcp.open.wait().await;
            self.siblings.hosted_calls_end().await;
        };
        if tokio::time::timeout_at(limit, all).await.is_err() {
            tracing::warn!(
                in_flight = self.calls.len(),
                "PV-HTTP-DRAIN: calls were still in flight when the drain ended"
            );
        }
    }

    /// Takes TLS off a connection, if it has it.
    async fn tcp_connection(self: Arc<Self>, stream: TcpStream, peer: Peer, tcp: Tcp) {
        let Some(tls) = tcp.tls else { return self.connection(stream, peer, None, tcp.closing).await };
        if tcp.plain == PlainRule::Served {
            let mut first = [0];
            match timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await {
                Ok(Ok(1)) if first[0] == TLS_HANDSHAKE => {}
                Ok(Ok(1)) => return self.connection(stream, peer, None, tcp.closing).await,
                _ => return,
            }
        }
        match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls.tcp()).accept(stream)).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
                let peer = Peer { is_secure: true, certificate: chain.as_deref().and_then(facts_of), ..peer };
                if chain.is_none() {
                    return Box::pin(self.connection(stream, peer, tcp.alt_svc, tcp.closing)).await;
                }
                let stream = Cutting::new(stream, async move { tls.until_distrusted(chain).await });
                Box::pin(self.connection(stream, peer, tcp.alt_svc, tcp.closing)).await;
            }
            // Scanners, and clients that do not trust the certificate, are daily business.
            Ok(Err(cause)) => tracing::debug!(%cause, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    /// Serves one connection that TLS has been taken off. A connection that becomes a WebSocket ends
    /// here, and goes on as a task of [`Frontend::calls`].
    async fn connection<I>(
        self: Arc<Self>,
        stream: I,
        peer: Peer,
        alt_svc: Option<HeaderValue>,
        closing: CancellationToken,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Opening::new(stream, HANDSHAKE_TIMEOUT);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_H2_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES);
        let draining = self.draining.clone();
        let noted = Arc::new(Noted::default());
        let seen = noted.clone();
        let service = service_fn(move |request| {
            let (front, alt_svc, noted, peer) = (self.clone(), alt_svc.clone(), seen.clone(), peer.clone());
            noted.is_used.store(true, Ordering::Relaxed);
            async move {
                let is_h2 = request.version() >= Version::HTTP_2;
                noted.is_h2.store(is_h2, Ordering::Relaxed);
                let mut response = front.respond(request, peer).await;
                if let Some(value) = alt_svc {
                    response.headers_mut().insert(header::ALT_SVC, value);
                }
                let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                if noted.is_leaving.load(Ordering::Relaxed) && !is_h2 && !is_upgrade {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        // Each is looked at when it has something to say, and not whenever the connection has: what the tokens keep is
        // behind locks that all connections share.
        let mut told = FuturesUnordered::<BoxFuture<'_, Told>>::new();
        told.push(Box::pin(async {
            draining.cancelled().await;
            Told::Leaving
        }));
        told.push(Box::pin(async {
            closing.cancelled().await;
            if !noted.is_used.load(Ordering::Relaxed) {
                tokio::time::sleep(FIRST_REQUEST_GRACE).await;
            }
            Told::Closing
        }));
        let ended = loop {
            tokio::select! {
                // What was said before a request came counts for its answer.
                biased;
                Some(told) = told.next() => match told {
                    Told::Leaving => {
                        noted.is_leaving.store(true, Ordering::Relaxed);
                        if noted.is_h2.load(Ordering::Relaxed) {
                            connection.as_mut().graceful_shutdown();
                        }
                    }
                    Told::Closing => connection.as_mut().graceful_shutdown(),
                },
                ended = connection.as_mut() => break ended,
            }
        };
        if let Err(cause) = ended {
            // Clients that leave are daily business.
            tracing::debug!(%cause, "a connection broke");
        }
    }
}
