//! The bounds of a socket.

use std::time::Duration;

/// Bounds of MCP over WebSocket. The defaults are documented in `docs/transports.md`; tests set
/// others, and nodes have no reason to.
#[derive(Clone, Copy, Debug)]
pub struct SocketLimits {
    /// Sockets open at once on one node.
    pub max_connections: usize,
    /// Calls in flight on one socket, subscriptions included.
    pub max_in_flight: usize,
    /// Bytes queued for a client: of notifications before the client is let go; of anything before
    /// nothing more is read from it.
    pub max_queued_bytes: usize,
    /// Notifications queued for a client before it is let go.
    pub max_queued_notifications: usize,
    /// How often the client is pinged.
    pub ping_every: Duration,
    /// The longest time without a whole frame of the client's, of whatever kind: pongs count.
    pub silence: Duration,
    /// The longest time without a message of the client's or a call in flight.
    pub idle: Duration,
    /// The longest that the client may take to read one message.
    pub write_stall: Duration,
    /// The longest that an end may take: what is queued, the close frame, the client's answer to it.
    pub close_wait: Duration,
}

impl SocketLimits {
    /// The bounds of a node.
    pub const DEFAULT: Self = Self {
        max_connections: 16_384,
        max_in_flight: 256,
        max_queued_bytes: 4 * 1024 * 1024,
        max_queued_notifications: 1_024,
        ping_every: Duration::from_secs(15),
        silence: Duration::from_secs(45),
        idle: Duration::from_secs(3_600),
        write_stall: Duration::from_secs(30),
        close_wait: Duration::from_secs(2),
    };
}
