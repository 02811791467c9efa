//! How streams and connections end: the table of application error codes.

use std::time::Duration;

use provost_mcp::RpcError;
use quinn::VarInt;

/// How the server ends its side of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// All was said.
    Finished,
    /// More than the client reads.
    SlowReader,
}

/// STOP_SENDING and RESET_STREAM: nothing more is read from this stream, or it was cancelled.
pub(super) const CANCELLED: VarInt = VarInt::from_u32(0x1);
/// RESET_STREAM: the client does not read.
pub(super) const SLOW_READER: VarInt = VarInt::from_u32(0x4);

/// Why a connection is closed by this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// The node shuts down, and every answer of it has arrived.
    Draining,
    /// The node shuts down, and an answer of it may not have arrived.
    Doubt,
    /// The client opened a unidirectional stream.
    Protocol,
    /// Nothing was asked for a long time.
    Idle(Duration),
    /// The handshake took too long.
    Handshake,
}

impl Closing {
    /// The code, and a reason that begins with our stable code.
    fn code_and_reason(self) -> (VarInt, String) {
        let (code, reason) = match self {
            Self::Draining => (0x2, "PV-QUIC-DRAINING: the node shuts down; connect again".to_owned()),
            Self::Doubt => (0x4, "PV-QUIC-SLOW-READER: the node shuts down, and not every answer was read".to_owned()),
            Self::Protocol => (0x3, "PV-QUIC-PROTOCOL: the streams of mcp/1 are bidirectional".to_owned()),
            Self::Idle(limit) => (0x5, format!("PV-QUIC-IDLE: no stream for {} s", limit.as_secs())),
            Self::Handshake => (0x0, "the handshake took too long".to_owned()),
        };
        (VarInt::from_u32(code), reason)
    }

    pub(super) fn close(self, connection: &quinn::Connection) {
        let (code, reason) = self.code_and_reason();
        connection.close(code, reason.as_bytes());
    }
}

/// Why a stream is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The first line is no head.
    Head(&'static str),
    /// A line is longer than this many bytes.
    TooLarge(usize),
    /// The first two lines took longer than this.
    SlowWriter(Duration),
    /// The node shuts down.
    Draining,
}

impl Refusal {
    /// What the client is told.
    pub(super) fn error(&self) -> RpcError {
        let (kind, code, message) = match self {
            Self::Head(why) => {
                (RpcError::INVALID_REQUEST, "PV-QUIC-HEAD", format!("the first line of a stream is its head: {why}"))
            }
            Self::TooLarge(max) => {
                (RpcError::INVALID_REQUEST, "PV-QUIC-TOO-LARGE", format!("the line is longer than {max} bytes"))
            }
            Self::SlowWriter(limit) => (
                RpcError::INVALID_REQUEST,
                "PV-QUIC-SLOW-WRITER",
                format!("the first two lines took more than {} s", limit.as_secs()),
            ),
            Self::Draining => (
                RpcError::INTERNAL,
                "PV-QUIC-DRAINING",
                "the node shuts down: send the request on another connection".to_owned(),
            ),
        };
        RpcError::with_code(kind, code, message)
    }

    /// The code under which the rest of the client's side is not read.
    pub(super) fn stop_code(&self) -> VarInt {
        match self {
            Self::Head(_) => CANCELLED,
            Self::Draining => VarInt::from_u32(0x2),
            Self::TooLarge(_) => VarInt::from_u32(0x6),
            Self::SlowWriter(_) => VarInt::from_u32(0x7),
        }
    }
}
