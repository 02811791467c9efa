//! Which requests may be sent again, and for how long that is tried.
//!
//! Only those that no node can have begun: the node said that it takes no more, or the request never left.
//! What may have run is not sent again, whatever it costs the caller.

use std::time::Duration;

use provost_mcp::RpcError;

use crate::{ClientError, LinkError};

/// From the first refusal of a request on, nodes are tried for so long.
pub(super) const RESEND_LIMIT: Duration = Duration::from_secs(15);
/// Between two tries: doubled from the first to the second.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// What a node says that shuts down: the request was not run.
const DRAINING: [&str; 2] = ["PV-WS-DRAINING", "PV-QUIC-DRAINING"];

/// Whether a node says by this that it goes, and has not begun the request.
pub fn is_draining(error: &RpcError) -> bool {
    error.stable_code().is_some_and(|code| DRAINING.contains(&code.as_str()))
}

/// Whether it is certain that the request was not begun.
pub(super) fn was_not_taken(error: &ClientError) -> bool {
    match error {
        ClientError::Rpc(error) => is_draining(error),
        ClientError::Link(LinkError::Unreachable { .. } | LinkError::NotTaken(_)) => true,
        ClientError::Link(_) => false,
    }
}

/// Whether another try to connect may end otherwise: at another node, or when this one is back.
pub(super) fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Rpc(_) => was_not_taken(error),
        ClientError::Link(error) => match error {
            LinkError::Unreachable { .. }
            | LinkError::NotTaken(_)
            | LinkError::Lost(_)
            | LinkError::Deadline(_)
            | LinkError::Busy(_) => true,
            LinkError::Refused { status, .. } => *status == 429 || *status >= 500,
            LinkError::Rejected(error) => error.stable_code().as_deref() == Some("PV-WS-CONNECTIONS"),
            LinkError::Tls { .. }
            | LinkError::Ca(_)
            | LinkError::Token
            | LinkError::Answer(_)
            | LinkError::TooLarge(_) => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_certainly_not_begun_is_sent_again() {
        let rpc = |code: &str| ClientError::Rpc(RpcError::with_code(RpcError::INTERNAL, code, ""));
        let address = || "x".to_owned();
        let table = [
            (rpc("PV-WS-DRAINING"), true),
            (rpc("PV-QUIC-DRAINING"), true),
            (rpc("PV-INTERNAL"), false),
            (rpc("PV-UPSTREAM-TIMEOUT"), false),
            (ClientError::Rpc(RpcError::new(RpcError::INTERNAL, "PV-WS-DRAINING")), false),
            (LinkError::NotTaken(address()).into(), true),
            (LinkError::Unreachable { address: address(), cause: address() }.into(), true),
            (LinkError::Lost(address()).into(), false),
            (LinkError::Deadline(RESEND_LIMIT).into(), false),
            (LinkError::Refused { status: 503, text: address() }.into(), false),
        ];
        for (error, expect) in table {
            assert_eq!(was_not_taken(&error), expect, "{error:?}");
        }
    }
}
