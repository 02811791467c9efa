//! The bounds of QUIC.

use std::time::Duration;

/// Bounds of connections over QUIC: MCP of its own (`mcp/1`), and, as far as they are the
/// connection's, HTTP/3. The defaults are documented in `docs/transports.md`; tests set others, and
/// nodes have no reason to.
#[derive(Clone, Copy, Debug)]
pub struct QuicLimits {
    /// Connections open at once on one node.
    pub max_connections: usize,
    /// Handshakes under way on one node; further connections are refused.
    pub max_handshakes: usize,
    /// Handshakes under way from which on clients prove their address first (RFC 9000, section 8.1.2).
    pub retry_above: usize,
    /// The longest handshake.
    pub handshake: Duration,
    /// Streams that a client may have open at once on one connection.
    pub max_streams: u32,
    /// The longest head of a stream, in bytes.
    pub max_head_bytes: usize,
    /// A line that is longer takes one of `max_large_lines` while it is read, in bytes.
    pub small_line_bytes: usize,
    /// Long lines that are read at once on one connection.
    pub max_large_lines: usize,
    /// The longest time for the first two lines of a stream, and for any long line.
    pub opening: Duration,
    /// Bytes of notifications queued for one stream before it is reset.
    pub max_queued_bytes: usize,
    /// Notifications queued for one stream before it is reset.
    pub max_queued_notifications: usize,
    /// The longest that the client may take to read one message.
    pub write_stall: Duration,
    /// How often the client is sent a PING.
    pub ping_every: Duration,
    /// The longest silence before the connection counts as lost.
    pub silence: Duration,
    /// The longest time without a stream.
    pub idle: Duration,
    /// Bytes that the client may send on one stream before they are read.
    pub stream_window: u32,
    /// The same on all streams of a connection together.
    pub connection_window: u32,
    /// Bytes that wait for the client's acknowledgement on one connection.
    pub send_window: u64,
}

impl QuicLimits {
    /// The bounds of a node.
    pub const DEFAULT: Self = Self {
        max_connections: 16_384,
        max_handshakes: 1_024,
        retry_above: 256,
        handshake: Duration::from_secs(10),
        max_streams: 256,
        max_head_bytes: 16 * 1024,
        small_line_bytes: 64 * 1024,
        max_large_lines: 4,
        opening: Duration::from_secs(30),
        max_queued_bytes: 4 * 1024 * 1024,
        max_queued_notifications: 1_024,
        write_stall: Duration::from_secs(30),
        ping_every: Duration::from_secs(15),
        silence: Duration::from_secs(45),
        idle: Duration::from_secs(3_600),
        stream_window: 256 * 1024,
        connection_window: 1024 * 1024,
        send_window: 1024 * 1024,
    };
}
