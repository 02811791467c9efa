//! What can go wrong with an upstream, and what the caller is told of it.

use provost_mcp::{EventTooLong, JsonFault, RawJson, RpcError};

use crate::egress::AddressRefused;

/// A failure of an upstream. `Rpc` is the upstream's own, well-formed error and goes back as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or it broke before anything was sent.
    #[error("cannot reach the upstream: {0}; check that it runs and that its address is right")]
    Unreachable(String),
    /// It was reached, and says that it is not there for calls now (gRPC's `UNAVAILABLE`).
    #[error("the upstream says that it is not available: {0}; try again, or check that it runs as it should")]
    Unavailable(String),
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
    /// What a token was asked for with is not good any more.
    #[error("no access token for the upstream: {0}; try again")]
    Grant(String),
    /// The caller has not let the plugin act in their name yet.
    #[error(
        "the plugin acts in its users' names, and this caller has not consented to it yet; open the address that a call names"
    )]
    Consent,
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
    /// The walls that the plugin's document demands cannot be built here. Nothing was started.
    #[error(
        "the plugin's process cannot be kept apart as its `isolation` demands: {0}; let the machine permit it, or demand less"
    )]
    Isolation(String),
    /// The process was ended for what it used.
    #[error(
        "the plugin's process was ended: {0}; whether the call took effect is not known; ask for less, or raise the bound"
    )]
    Outgrown(String),
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
    /// No answer in time; whose time it was.
    #[error("{}", late(*.after_ms, *.waited_ms, *.is_policy))]
    Late {
        /// How long the call lasted, in milliseconds.
        after_ms: u64,
        /// How much of that it waited for a place, in milliseconds.
        waited_ms: u64,
        /// The policy's time; else a shorter one that the caller asked for.
        is_policy: bool,
    },
    /// There is no place for the call.
    #[error("the plugin is busy: {cause}; try again later")]
    Crowded {
        /// Why there is none.
        cause: String,
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The upstream failed too often and is left alone for a while.
    #[error("the upstream failed too often and is not called (since {since}, until {until}); try again then")]
    Open {
        /// Since when, RFC 3339.
        since: String,
        /// When it is tried again, RFC 3339.
        until: String,
        /// The same in milliseconds from now.
        retry_after_ms: u64,
    },
    /// The plugin's spec or secrets do not allow to start it.
    #[error("the plugin is not set up right: {0}")]
    Config(String),
    /// The upstream has no such method or operation.
    #[error("the plugin does not offer {0}")]
    Unsupported(String),
    /// The upstream tells nobody when a resource of it changes.
    #[error(
        "the plugin does not tell when its resources change, so that they cannot be subscribed to; read them again when you need them"
    )]
    Unwatched,
    /// An argument that cannot be part of a request, whatever its schema says. It is not sent.
    #[error("the argument `{name}` cannot be sent: {cause}; give another value")]
    Argument {
        /// The argument.
        name: String,
        /// What is wrong with it; never the value.
        cause: String,
    },
    /// An argument that the message of a gRPC method cannot carry, whatever its schema says. It is not sent.
    #[error("the argument `{name}` cannot be sent: {cause}; give another value")]
    GrpcArgument {
        /// The argument.
        name: String,
        /// What is wrong with it; never the value.
        cause: String,
    },
    /// The upstream's own error.
    #[error("the upstream answered error {}: {}", .0.code, .0.message)]
    Rpc(RpcError),
}

impl UpstreamError {
    /// The code of [`UpstreamError::Consent`].
    pub const CONSENT: &str = "PV-UPSTREAM-CONSENT";

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Unavailable(_) => "PV-UPSTREAM-UNREACHABLE",
            Self::Egress(_) => "PV-UPSTREAM-ADDRESS-REFUSED",
            Self::Unauthorized(_) => "PV-UPSTREAM-UNAUTHORIZED",
            Self::Token(_) | Self::Grant(_) => "PV-UPSTREAM-TOKEN",
            Self::Consent => Self::CONSENT,
            Self::NoSubject => "PV-UPSTREAM-NO-SUBJECT",
            Self::Http { .. } => "PV-UPSTREAM-HTTP",
            Self::Garbage(_) => "PV-UPSTREAM-GARBAGE",
            Self::Died(_) => "PV-UPSTREAM-DIED",
            Self::NotRunning(_) => "PV-UPSTREAM-NOT-RUNNING",
            Self::Isolation(_) => "PV-UPSTREAM-ISOLATION",
            Self::Outgrown(_) => "PV-UPSTREAM-OUTGROWN",
            Self::TooLarge(_) => "PV-UPSTREAM-TOO-LARGE",
            Self::SessionGone => "PV-UPSTREAM-SESSION-GONE",
            Self::Deadline | Self::Late { .. } => "PV-UPSTREAM-TIMEOUT",
            Self::Busy(_) | Self::Crowded { .. } => "PV-UPSTREAM-BUSY",
            Self::Open { .. } => "PV-UPSTREAM-OPEN",
            Self::Config(_) => "PV-UPSTREAM-CONFIG",
            Self::Unsupported(_) => "PV-UPSTREAM-UNSUPPORTED",
            Self::Unwatched => "PV-UPSTREAM-NO-SUBSCRIPTION",
            Self::Argument { .. } => "PV-OPENAPI-ARGUMENT",
            Self::GrpcArgument { .. } => "PV-GRPC-ARGUMENT",
            Self::Rpc(_) => "PV-UPSTREAM-ERROR",
        }
    }

    /// The error to answer; `plugin` says whose upstream it is.
    pub fn to_rpc(&self, plugin: &str) -> RpcError {
        let number = match self {
            Self::Rpc(error) => return error.clone(),
            Self::Deadline | Self::Late { .. } => RpcError::DEADLINE_EXCEEDED,
            Self::Busy(_) | Self::Crowded { .. } => RpcError::LIMIT_EXCEEDED,
            Self::Unsupported(_) => RpcError::METHOD_NOT_FOUND,
            // The method is there: a merged route announces it for those plugins that have it.
            Self::Unwatched | Self::Argument { .. } | Self::GrpcArgument { .. } => RpcError::INVALID_PARAMS,
            _ => RpcError::UPSTREAM_FAILED,
        };
        let mut error = RpcError::with_code(number, self.code(), format!("plugin `{plugin}`: {self}"));
        if let Self::Crowded { retry_after_ms, .. } | Self::Open { retry_after_ms, .. } = self {
            let data = serde_json::json!({"code": self.code(), "retryAfterMs": retry_after_ms});
            error.data = Some(RawJson::from(data));
        }
        error
    }
}

fn late(after_ms: u64, waited_ms: u64, is_policy: bool) -> String {
    let waited = match waited_ms {
        0 => String::new(),
        ms => format!(" ({ms} ms of them the call waited for a place)"),
    };
    let whose = if is_policy {
        "the time that its policy gives; try again, or raise `timeoutMs`"
    } else {
        "the time that the caller gave; give more"
    };
    format!("the upstream did not answer in {after_ms} ms{waited}, {whose}")
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
