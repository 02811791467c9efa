//! The UDP socket of a node: HTTP/3 and MCP over QUIC, told apart by ALPN.

use std::{
    io,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use provost_data_pipeline::Plane;
use quinn::{Connecting, Endpoint, EndpointConfig, Incoming, TokioRuntime, VarInt, crypto::rustls::HandshakeData};
use tokio::time::timeout;

use super::{
    admission::{Admission, admit},
    transport::server_config,
};
use crate::{
    Frontend, ServerTls,
    certificate::chain_of_quic,
    h3,
    mcp::{QuicConnection, QuicLimits},
    tls::MCP_ALPN,
};

/// CONNECTION_CLOSE: the client's certificate is not taken any more.
const DISTRUSTED: VarInt = VarInt::from_u32(0x8);

/// Counts something for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module.
pub(crate) struct QuicServer {
    endpoint: Endpoint,
    limits: QuicLimits,
    tls: ServerTls,
    connections: Arc<AtomicUsize>,
    handshakes: Arc<AtomicUsize>,
}

impl QuicServer {
    pub(crate) fn new(socket: UdpSocket, tls: &ServerTls, limits: QuicLimits) -> io::Result<Self> {
        let config = server_config(tls, &limits);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))?;
        Ok(Self { endpoint, limits, tls: tls.clone(), connections: Arc::default(), handshakes: Arc::default() })
    }

    /// Takes connections until the front end drains; those that are open then end by themselves.
    pub(crate) async fn serve<P: Plane + 'static>(&self, front: &Arc<Frontend<P>>) {
        let mut changes = self.tls.changes();
        loop {
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                Ok(()) = changes.changed() => {
                    self.endpoint.set_server_config(Some(server_config(&self.tls, &self.limits)));
                    continue;
                }
                () = front.draining.cancelled() => return self.endpoint.set_server_config(None),
            };
            let Some(incoming) = incoming else { return };
            if let Some(connecting) = self.admit(incoming) {
                let (held, shaking) = (Counted::new(&self.connections), Counted::new(&self.handshakes));
                let (front, limits, tls) = (front.clone(), self.limits, self.tls.clone());
                // Among the calls: a shutdown waits for what is in flight on the connection.
                let calls = front.calls.clone();
                calls.spawn(async move {
                    Box::pin(serve_connection(front, connecting, limits, tls, shaking)).await;
                    drop(held);
                });
            }
        }
    }

    fn admit(&self, incoming: Incoming) -> Option<Connecting> {
        let (connections, handshakes) =
            (self.connections.load(Ordering::Relaxed), self.handshakes.load(Ordering::Relaxed));
        match admit(&self.limits, connections, handshakes, incoming.remote_address_validated()) {
            Admission::Refuse => incoming.refuse(),
            // A client that was asked already is proven.
            Admission::Retry => drop(incoming.retry()),
            Admission::Accept => {
                return incoming.accept().inspect_err(|cause| tracing::debug!(%cause, "no connection")).ok();
            }
        }
        None
    }

    /// Ends what is still open, and waits until the clients were told.
    pub(crate) async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"");
        self.endpoint.wait_idle().await;
    }
}

/// Serves one connection by the protocol that its client asked for.
async fn serve_connection<P: Plane + 'static>(
    front: Arc<Frontend<P>>,
    mut connecting: Connecting,
    limits: QuicLimits,
    tls: ServerTls,
    handshake: Counted,
) {
    // Clients that leave are daily business.
    let Ok(Ok(said)) = timeout(limits.handshake, connecting.handshake_data()).await else { return };
    let Ok(said) = said.downcast::<HandshakeData>() else { return };
    let authority = said.server_name.unwrap_or_else(|| "localhost".to_owned());
    if said.protocol.as_deref() == Some(MCP_ALPN) {
        // Streams may come before the handshake is complete; each decides what that means for it.
        let Ok((connection, accepted)) = connecting.into_0rtt() else { return };
        let shown = connection.clone();
        let connection = QuicConnection::new(front, connection, authority, tls.takes_certificates());
        let confirmed = connection.confirmed();
        let counting = async move {
            confirmed.cancelled().await;
            drop(handshake);
            distrust(&tls, &shown).await;
        };
        tokio::select! {
            () = Box::pin(connection.run(accepted)) => {}
            () = counting => {}
        }
        return;
    }
    // Early data of HTTP/3 waits here, and is taken once it cannot be a replay.
    let Ok(Ok(connection)) = timeout(limits.handshake, connecting).await else { return };
    drop(handshake);
    let shown = connection.clone();
    tokio::select! {
        () = Box::pin(h3::serve(front, connection)) => {}
        () = distrust(&tls, &shown) => {}
    }
}

/// Closes a connection whose client's certificate is not taken any more, and never ends: the connection does.
async fn distrust(tls: &ServerTls, connection: &quinn::Connection) {
    tls.until_distrusted(chain_of_quic(connection)).await;
    let reason = b"PV-AUTH-CERTIFICATE: the client certificate is not trusted any more";
    connection.close(DISTRUSTED, reason);
    std::future::pending().await
}
