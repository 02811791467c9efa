//! Accepted connections: who is at the other end, and cutting those that must go.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Extensions, Request, transport::server::Connected};

use crate::tls::{Certified, NodeName};

/// Who is at the other end of a connection; in the extensions of each of its requests.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its address.
    pub remote: SocketAddr,
    /// What its verified certificate says; `None`: it has none.
    pub certified: Option<Arc<Certified>>,
}

/// The verified name of the node that sent a request; `None`: it proved none.
pub fn peer_of<T>(request: &Request<T>) -> Option<&NodeName> {
    certified_of(request).map(|c| &c.name)
}

/// The verified certificate of the node that sent a request.
pub fn certified_of<T>(request: &Request<T>) -> Option<&Certified> {
    certified_in(request.extensions())
}

/// The same of the request's extensions.
pub fn certified_in(extensions: &Extensions) -> Option<&Certified> {
    extensions.get::<PeerInfo>()?.certified.as_deref()
}

/// The address that a request came from, over TLS.
pub fn remote_of<T>(request: &Request<T>) -> Option<SocketAddr> {
    request.extensions().get::<PeerInfo>().map(|p| p.remote)
}

struct Entry {
    certified: Option<Arc<Certified>>,
    cut: CancellationToken,
}

/// The open connections of one listener; clones share them.
#[derive(Clone, Default)]
pub struct Connections {
    open: Arc<Mutex<HashMap<u64, Entry>>>,
    next: Arc<AtomicU64>,
}

impl Connections {
    /// Ends every connection whose certificate does not pass; those without one stay. Returns how
    /// many.
    pub fn cut_unless(&self, keep: impl Fn(&Certified) -> bool) -> usize {
        let open = self.open.lock();
        let refused = open.values().filter(|e| e.certified.as_ref().is_some_and(|c| !keep(c)));
        refused.map(|e| e.cut.cancel()).count()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn register(
        &self,
        tls: TlsStream<TcpStream>,
        info: PeerInfo,
        permit: OwnedSemaphorePermit,
    ) -> PeerStream {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let cut = CancellationToken::new();
        self.open.lock().insert(id, Entry { certified: info.certified.clone(), cut: cut.clone() });
        let registered = Registered { id, connections: self.clone(), _permit: permit };
        PeerStream { tls, info, cut: Box::pin(cut.cancelled_owned()), _registered: registered }
    }
}

struct Registered {
    id: u64,
    connections: Connections,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.id);
    }
}

/// One accepted TLS connection. Once it is cut, reads and writes fail.
pub struct PeerStream {
    tls: TlsStream<TcpStream>,
    info: PeerInfo,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _registered: Registered,
}

impl PeerStream {
    /// Who is at the other end.
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// Whether the client chose HTTP/2. One that names no protocol at all speaks HTTP/1.1.
    pub fn is_http2(&self) -> bool {
        self.tls.get_ref().1.alpn_protocol().is_some_and(|protocol| protocol == b"h2")
    }

    /// Also wakes the task when it is cut later.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer is no longer a member")),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;
    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.tls).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }
}
