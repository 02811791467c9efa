//! From a GET that asks for a WebSocket to a connection with a task of its own.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use provost_data_pipeline::Plane;
use provost_mcp::RpcError;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

use super::{
    connection::Connection,
    handshake::{self, Fault},
};
use crate::{Frontend, frontend::Inbound, http::ResponseBody, mcp::error_response};

/// The transport, as it stands in the record.
const TRANSPORT: &str = "ws";
/// The method under which a refused upgrade is recorded.
const OPEN: &str = "websocket/open";
/// The longest wait for the connection after it was told that it is a socket.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of buffer in each direction; messages that are longer get their own.
const BUFFER_BYTES: usize = 8 * 1024;

impl<P: Plane + 'static> Frontend<P> {
    /// Opens a socket for a caller who is known.
    pub(crate) fn mcp_socket(
        self: &Arc<Self>,
        mut inbound: Inbound,
        upgrade: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        inbound.peer.transport = TRANSPORT;
        if let Err(refused) = self.known_caller(&inbound, OPEN) {
            return *refused;
        }
        let accepted = match handshake::accept(&inbound.headers) {
            Ok(accepted) => accepted,
            Err(fault) => return fault.response(),
        };
        let Some(upgrade) = upgrade else { return Fault::Incomplete.response() };
        let slot = self.sockets.clone().try_acquire_owned().ok().filter(|_| !self.draining.is_cancelled());
        let Some(slot) = slot else { return no_more(self.config.sockets.max_connections) };
        let front = self.clone();
        // Among the calls: a shutdown waits for what is in flight on the socket.
        self.calls.spawn(async move {
            match tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await {
                Ok(Ok(upgraded)) => {
                    let config = config(front.config.max_body_bytes);
                    let io = TokioIo::new(upgraded);
                    let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
                    Box::pin(Connection::new(front, inbound.into_socket()).run(stream)).await;
                }
                // Clients that leave are daily business.
                _ => tracing::debug!("a WebSocket was not opened"),
            }
            drop(slot);
        });
        accepted
    }
}

fn config(max_message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes))
}

fn no_more(max: usize) -> Response<ResponseBody> {
    let message = format!("the node shuts down, or has {max} WebSockets open; try another node, or later");
    let error = RpcError::with_code(RpcError::INTERNAL, "PV-WS-CONNECTIONS", message);
    error_response(StatusCode::SERVICE_UNAVAILABLE, None, &error)
}
