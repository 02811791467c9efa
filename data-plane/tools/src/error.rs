//! What can go wrong with an upstream, and what the caller is told of it.

use provost_mcp::{EventTooLong, JsonFault, RpcError};

use crate::egress::AddressRefused;

/// A failure of an upstream. `Rpc` is the upstream's own, well-formed error and goes back as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or it broke before anything was sent.
    #[error("cannot reach the upstream: {0}; check that it runs and that its address is right")]
    Unreachable(String),
    /// The address may not be used.
    #[error(
        "the upstream's address is refused: {0}; use https to a public address, or loopback, or let the plugin and the node allow it"
    )]
    Egress(String),
    /// The upstream wants other credentials.
    #[error("the upstream refused our credentials (HTTP {0}); check the plugin's secret headers, or its auth")]
    Unauthorized(u16),
    /// There is no access token for the upstream.
    #[error("no access token for the upstream: {0}; check the plugin's auth, and the authorization server")]
    Token(String),
    /// The caller came without a token that could be exchanged for one of the upstream's.
    #[error(
        "the plugin acts with its callers' rights, and this caller came without a token to exchange; sign in at the identity provider"
    )]
    NoSubject,
    /// An HTTP status that is not part of the protocol.
    #[error("the upstream answered HTTP {status}: {body}; see its log")]
    Http {
        /// The status.
        status: u16,
        /// The start of the body.
        body: String,
    },
    /// Bytes that are no MCP message, or not the one that was due.
    #[error("the upstream's answer is not usable: {0}; the upstream has to be repaired")]
    Garbage(String),
    /// The connection or the process ended in the middle of a call.
    #[error("the upstream ended in the middle of the call: {0}; whether the call took effect is not known")]
    Died(String),
    /// The process cannot be started, or ends at once.
    #[error("the upstream's process does not run: {0}; check the command and its arguments")]
    NotRunning(String),
    /// More bytes than allowed.
    #[error("the upstream's answer is longer than {0} bytes; ask for less, or raise the limit")]
    TooLarge(usize),
    /// The legacy session is gone; nothing was executed.
    #[error("the upstream has forgotten the session; try again")]
    SessionGone,
    /// No answer in time.
    #[error("the upstream did not answer in time; try again, or raise the plugin's timeoutMs")]
    Deadline,
    /// Too many calls or sessions at once.
    #[error("the plugin is busy: {0}; try again")]
    Busy(String),
    /// The plugin's spec or secrets do not allow to start it.
    #[error("the plugin is not set up right: {0}")]
    Config(String),
    /// The upstream has no such method or operation.
    #[error("the plugin does not offer {0}")]
    Unsupported(String),
    /// The upstream's own error.
    #[error("the upstream answered error {}: {}", .0.code, .0.message)]
    Rpc(RpcError),
}

impl UpstreamError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "PV-UPSTREAM-UNREACHABLE",
            Self::Egress(_) => "PV-UPSTREAM-ADDRESS-REFUSED",
            Self::Unauthorized(_) => "PV-UPSTREAM-UNAUTHORIZED",
            Self::Token(_) => "PV-UPSTREAM-TOKEN",
            Self::NoSubject => "PV-UPSTREAM-NO-SUBJECT",
            Self::Http { .. } => "PV-UPSTREAM-HTTP",
            Self::Garbage(_) => "PV-UPSTREAM-GARBAGE",
            Self::Died(_) => "PV-UPSTREAM-DIED",
            Self::NotRunning(_) => "PV-UPSTREAM-NOT-RUNNING",
            Self::TooLarge(_) => "PV-UPSTREAM-TOO-LARGE",
            Self::SessionGone => "PV-UPSTREAM-SESSION-GONE",
            Self::Deadline => "PV-UPSTREAM-TIMEOUT",
            Self::Busy(_) => "PV-UPSTREAM-BUSY",
            Self::Config(_) => "PV-UPSTREAM-CONFIG",
            Self::Unsupported(_) => "PV-UPSTREAM-UNSUPPORTED",
            Self::Rpc(_) => "PV-UPSTREAM-ERROR",
        }
    }

    /// The error to answer; `plugin` says whose upstream it is.
    pub fn to_rpc(&self, plugin: &str) -> RpcError {
        let number = match self {
            Self::Rpc(error) => return error.clone(),
            Self::Deadline => RpcError::DEADLINE_EXCEEDED,
            Self::Busy(_) => RpcError::LIMIT_EXCEEDED,
            Self::Unsupported(_) => RpcError::METHOD_NOT_FOUND,
            _ => RpcError::UPSTREAM_FAILED,
        };
        RpcError::with_code(number, self.code(), format!("plugin `{plugin}`: {self}"))
    }
}

impl From<AddressRefused> for UpstreamError {
    fn from(refused: AddressRefused) -> Self {
        Self::Egress(refused.to_string())
    }
}

impl From<JsonFault> for UpstreamError {
    fn from(fault: JsonFault) -> Self {
        match fault {
            JsonFault::TooLong(bytes) => Self::TooLarge(bytes),
            other => Self::Garbage(other.to_string()),
        }
    }
}

impl From<EventTooLong> for UpstreamError {
    fn from(EventTooLong(bytes): EventTooLong) -> Self {
        Self::TooLarge(bytes)
    }
}
