//! The parameters of QUIC: windows, streams, clocks.
//!
//! An idle connection holds no buffers: the windows say what a client may make the node hold, and
//! are small, since calls are.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, ServerConfig, TransportConfig, VarInt};

use super::credit::Credit;
use crate::{ServerTls, mcp::QuicLimits};

/// Unidirectional streams of a client: HTTP/3 needs three, and may try others (RFC 9114, section 6.2).
const UNI_STREAMS: u32 = 4;
/// Bytes of handshake data out of order that are held.
const CRYPTO_BUFFER_BYTES: usize = 16 * 1024;
/// Bytes of first packets that are held for one connection, and for all, before they are decided on.
const INCOMING_BYTES: u64 = 64 * 1024;
const ALL_INCOMING_BYTES: u64 = 16 * 1024 * 1024;

pub(super) fn server_config(tls: &ServerTls, limits: &QuicLimits) -> ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(Credit::new(limits).granted()))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(limits.stream_window))
        .receive_window(VarInt::from_u32(limits.connection_window))
        .send_window(limits.send_window)
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        .max_idle_timeout(Some(idle(limits.silence)))
        .keep_alive_interval(Some(limits.ping_every))
        // Nothing is sent as a datagram.
        .datagram_receive_buffer_size(None);
    let mut config = ServerConfig::with_crypto(tls.quic());
    config
        .transport_config(Arc::new(transport))
        .migration(true)
        .max_incoming(limits.max_handshakes)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(ALL_INCOMING_BYTES);
    config
}

/// A silence beyond what QUIC can say counts as the longest that it can.
fn idle(silence: Duration) -> IdleTimeout {
    let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    IdleTimeout::from(VarInt::from_u32(millis))
}
