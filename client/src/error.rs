//! Why a call was not answered by the server, and what a person can do about it.

use std::time::Duration;

use provost_mcp::{EventTooLong, RpcError};

/// The connection failed, or what came over it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No connection.
    #[error("{address} cannot be reached: {cause}")]
    Unreachable {
        /// `HOST:PORT`.
        address: String,
        /// What the system said.
        cause: String,
    },
    /// The other side is not who it should be, or speaks no TLS.
    #[error("no TLS with {address}: {cause}")]
    Tls {
        /// `HOST:PORT`.
        address: String,
        /// What the handshake said.
        cause: String,
    },
    /// The certificate authority's file, or the system's, cannot be used.
    #[error("{0}")]
    Ca(String),
    /// The token fits no header.
    #[error("the token holds characters that no header may carry")]
    Token,
    /// An HTTP status without a JSON-RPC message.
    #[error("the server answered HTTP {status}{}", said(.text))]
    Refused {
        /// The status.
        status: u16,
        /// The beginning of the body.
        text: String,
    },
    /// The server refused the connection itself with an error of its own.
    #[error("the server refused the connection: {} (JSON-RPC {})", .0.message, .0.code)]
    Rejected(RpcError),
    /// The connection ended while an answer was awaited.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The request was not begun: the node takes no more, or it never went out.
    #[error("the request was not taken: {0}")]
    NotTaken(String),
    /// What came is no MCP.
    #[error("the server's answer is not usable: {0}")]
    Answer(String),
    /// More than the bound.
    #[error("a message of the server is longer than {0} bytes")]
    TooLarge(usize),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Deadline(Duration),
    /// Too much at once.
    #[error("{0} calls are in flight already")]
    Busy(usize),
}

/// How a server's text follows the status.
fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl LinkError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "PV-CLI-UNREACHABLE",
            Self::Tls { .. } => "PV-CLI-TLS",
            Self::Ca(_) => "PV-CLI-CA",
            Self::Token => "PV-CLI-TOKEN",
            Self::Refused { .. } | Self::Rejected(_) => "PV-CLI-REFUSED",
            Self::Lost(_) => "PV-CLI-LOST",
            Self::NotTaken(_) => "PV-CLI-NOT-TAKEN",
            Self::Answer(_) => "PV-CLI-ANSWER",
            Self::TooLarge(_) => "PV-CLI-TOO-LARGE",
            Self::Deadline(_) => "PV-CLI-DEADLINE",
            Self::Busy(_) => "PV-CLI-BUSY",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "is the server running? `provost dev` starts one",
            Self::Tls { .. } => "name the authority that signed the server's certificate with --ca FILE",
            Self::Ca(_) => "give a PEM file with --ca, for `provost dev` the `ca` of its dev.json",
            Self::Token => "copy it again, as one word, as `provost token create` prints it",
            Self::Refused { status: 401, .. } | Self::Rejected(_) => {
                "check the token: `provost token create --principal NAME` makes one"
            }
            Self::Refused { .. } => "is this an MCP endpoint? its path usually ends in /mcp",
            Self::Lost(_) | Self::Deadline(_) => {
                "`provost audit query` says whether the call ran; look before you repeat it"
            }
            Self::Answer(_) => "is this an MCP endpoint? its path usually ends in /mcp",
            Self::NotTaken(_) => "it has not run: ask again, at another node where there is one",
            Self::TooLarge(_) => "ask for less at once",
            Self::Busy(_) => "wait for an answer before the next call",
        }
    }
}

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server's answer is an error.
    #[error("{} (JSON-RPC {})", .0.message, .0.code)]
    Rpc(RpcError),
    /// There is no answer.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl From<EventTooLong> for LinkError {
    fn from(EventTooLong(bytes): EventTooLong) -> Self {
        Self::TooLarge(bytes)
    }
}
