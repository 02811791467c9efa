//! What the bridge itself answers, in the place of a cluster that does not.

use bytes::Bytes;
use provost_client::{LinkError, Outgoing};
use provost_mcp::{RequestId, RpcError, error_message};

/// The request did not go out: it has not run.
pub fn not_sent(id: &RequestId, error: &LinkError) -> Bytes {
    let rejection = match error {
        // What the cluster says is more exact than what we could.
        LinkError::Rejected(error) => return error_message(Some(id), error),
        other => other,
    };
    let message = format!("the request was not sent: {rejection} ({})", rejection.code());
    let error = RpcError::with_code(RpcError::UPSTREAM_FAILED, "PV-BRIDGE-UNREACHABLE", message);
    error_message(Some(id), &error)
}

/// The request went out, and there will be no answer.
pub fn lost(message: &Outgoing, id: &RequestId, error: &LinkError) -> Bytes {
    let method = message.method();
    let text = match method {
        "tools/call" => format!("{error}; the call may have run and was not sent again: look before you repeat it"),
        _ => format!("{error}; `{method}` was not sent again"),
    };
    error_message(Some(id), &RpcError::with_code(RpcError::UPSTREAM_FAILED, "PV-BRIDGE-LOST", text))
}

/// Too many requests wait for a connection.
pub fn busy(id: &RequestId, most: usize) -> Bytes {
    let message = format!("{most} messages wait for a connection already");
    error_message(Some(id), &RpcError::with_code(RpcError::LIMIT_EXCEEDED, "PV-CLI-BUSY", message))
}

/// Whether a request that failed so was never on its way.
pub fn was_not_sent(error: &LinkError) -> bool {
    match error {
        LinkError::Unreachable { .. }
        | LinkError::Tls { .. }
        | LinkError::Ca(_)
        | LinkError::Token
        | LinkError::Rejected(_)
        | LinkError::NotTaken(_)
        | LinkError::Busy(_) => true,
        LinkError::Refused { .. }
        | LinkError::Lost(_)
        | LinkError::Answer(_)
        | LinkError::TooLarge(_)
        | LinkError::Deadline(_) => false,
    }
}

/// Whether to try again makes no sense before somebody changes something.
pub fn is_permanent(error: &LinkError) -> bool {
    match error {
        LinkError::Ca(_) | LinkError::Token | LinkError::Tls { .. } | LinkError::Answer(_) => true,
        LinkError::Refused { status, .. } => *status < 500 && *status != 429,
        // What a node says when it is full or shuts down passes; a token that is not good stays so.
        LinkError::Rejected(error) => error.code == RpcError::UNAUTHENTICATED || error.code == RpcError::POLICY_DENIED,
        LinkError::Unreachable { .. }
        | LinkError::Lost(_)
        | LinkError::NotTaken(_)
        | LinkError::TooLarge(_)
        | LinkError::Deadline(_)
        | LinkError::Busy(_) => false,
    }
}
