//! Accepting connections: bounded handshakes, verified peers.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::tls::{Certified, Connections, Identity, PeerInfo, PeerStream, read_certificate};

/// Accepted connections that wait to be served.
const BACKLOG: usize = 64;
/// The pause after `accept` failed: the process has no file descriptors left, usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Says whether a verified node may connect.
pub type Admit = Arc<dyn Fn(&Certified) -> bool + Send + Sync>;

/// How much a listener takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Handshakes at once; more wait in the kernel's queue.
    pub handshakes: usize,
    /// The longest handshake.
    pub handshake_timeout: Duration,
    /// Connections of nodes with a certificate; more are closed.
    pub nodes: usize,
    /// Connections without one (nodes that join, administrators); more are closed.
    pub anonymous: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshakes: 256, handshake_timeout: Duration::from_secs(5), nodes: 16_384, anonymous: 512 }
    }
}

/// Verified connections, for `serve_with_incoming`. Dropping it stops accepting.
pub struct Incoming {
    ready: mpsc::Receiver<PeerStream>,
    accepting: AbortHandle,
    connections: Connections,
}

impl Incoming {
    /// The connections that are open, to cut some of them.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }
}

impl Stream for Incoming {
    type Item = io::Result<PeerStream>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts connections as `identity`. Clients may come without a certificate; one that is sent must
/// be good and, if `admit` is given, pass it.
pub fn incoming(listener: TcpListener, identity: Arc<Identity>, limits: Limits, admit: Option<Admit>) -> Incoming {
    let (sender, ready) = mpsc::channel(BACKLOG);
    let connections = Connections::default();
    let door = Arc::new(Door {
        identity,
        admit,
        timeout: limits.handshake_timeout,
        nodes: Arc::new(Semaphore::new(limits.nodes)),
        anonymous: Arc::new(Semaphore::new(limits.anonymous)),
        connections: connections.clone(),
    });
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let accepting = tokio::spawn(accept(listener, door, handshakes, sender)).abort_handle();
    Incoming { ready, accepting, connections }
}

struct Door {
    identity: Arc<Identity>,
    admit: Option<Admit>,
    timeout: Duration,
    nodes: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    connections: Connections,
}

/// Handshakes end with this task.
async fn accept(listener: TcpListener, door: Arc<Door>, handshakes: Arc<Semaphore>, ready: mpsc::Sender<PeerStream>) {
    let mut running = JoinSet::new();
    loop {
        // Never closed.
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let (tcp, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(error = %e, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (door, ready) = (door.clone(), ready.clone());
        running.spawn(async move {
            let _permit = permit;
            if let Some(stream) = door.enter(tcp, remote).await {
                // Closed: the server has stopped.
                let _ = ready.send(stream).await;
            }
        });
        while running.try_join_next().is_some() {}
    }
}

impl Door {
    async fn enter(&self, tcp: TcpStream, remote: SocketAddr) -> Option<PeerStream> {
        match self.handshake(tcp, remote).await {
            Ok(stream) => Some(stream),
            Err(cause) => {
                // Anybody can cause it, at any rate: not a warning.
                tracing::debug!(code = "PV-TLS-PEER", %remote, %cause, "a connection was refused");
                None
            }
        }
    }

    async fn handshake(&self, tcp: TcpStream, remote: SocketAddr) -> Result<PeerStream, String> {
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let acceptor = TlsAcceptor::from(self.identity.server_config());
        let accepted = timeout(self.timeout, acceptor.accept(tcp)).await;
        let tls = accepted.map_err(|_| "the handshake took too long".to_owned())?.map_err(|e| e.to_string())?;
        let certified = match tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
            None => None,
            Some(leaf) => Some(Arc::new(read_certificate(leaf).map_err(|e| e.to_string())?)),
        };
        if let (Some(certified), Some(admit)) = (&certified, &self.admit)
            && !admit(certified)
        {
            tracing::warn!(code = "PV-TLS-MEMBER", %remote, node = %certified.name, "not a member: refused");
            return Err(format!("{} is not a member", certified.name));
        }
        let permit = self.permit(certified.is_some()).ok_or("there are too many connections")?;
        let (admitted, admit) = (certified.clone(), self.admit.clone());
        let stream = self.connections.register(tls, PeerInfo { remote, certified }, permit);
        // A removal between the check and the registration would have missed it.
        match (admitted, admit) {
            (Some(certified), Some(admit)) if !admit(&certified) => Err(format!("{} was removed", certified.name)),
            _ => Ok(stream),
        }
    }

    fn permit(&self, certified: bool) -> Option<OwnedSemaphorePermit> {
        let from = if certified { &self.nodes } else { &self.anonymous };
        from.clone().try_acquire_owned().ok()
    }
}
