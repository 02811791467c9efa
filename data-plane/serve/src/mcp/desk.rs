//! What other nodes may ask of the legacy sessions that have state here. They have authenticated the
//! session's client; a session is named by its key, which no client ever sees.

use std::sync::Arc;

use provost_mcp::{LogLevel, RawJson, RequestId, RpcError, notification_message};
use provost_types::PrincipalRef;

use super::{asks::Asks, sessions::Sessions};
use crate::http::SseBody;

/// See the module.
#[derive(Clone)]
pub(crate) struct SessionDesk {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) asks: Arc<Asks>,
}

impl SessionDesk {
    /// A client's answer to a request of this process; whether somebody waited for it.
    pub(crate) fn answer(&self, session: &str, id: &RequestId, outcome: Result<RawJson, RpcError>) -> bool {
        self.asks.answer(session, id, outcome)
    }

    /// Cancels a call of the session, if it runs here.
    pub(crate) fn cancel(&self, session: &str, id: &RequestId) -> bool {
        self.sessions.known(session).is_some_and(|local| local.cancel(id.as_str()))
    }

    /// Notes the level of log messages; the session may come here later.
    pub(crate) fn set_level(&self, session: &str, principal: &PrincipalRef, level: LogLevel) -> bool {
        let local = self.sessions.enter(&session.into(), principal, now_s());
        local.map(|local| *local.level.lock() = Some(level)).is_some()
    }

    /// Ends the session here; whether it had state here.
    pub(crate) fn end(&self, session: &str) -> bool {
        let was_known = self.sessions.known(session).is_some();
        self.sessions.end(&session.into());
        was_known
    }

    /// Tells the client that an elicitation's address was seen to its end; whether it listens here.
    pub(crate) fn connected(&self, session: &str, elicitation: &str) -> bool {
        let params = RawJson::from(serde_json::json!({"elicitationId": elicitation}));
        let message = notification_message("notifications/elicitation/complete", Some(&params));
        let local = self.sessions.known(session).or_else(|| self.sessions.held(session));
        local.is_some_and(|local| local.announce(&message))
    }

    /// What one of the session's streams said after an event.
    pub(crate) fn replay(&self, session: &str, stream: u64, after: u64) -> Option<SseBody> {
        Some(self.sessions.known(session)?.stream(stream)?.read(after))
    }
}

/// Unix seconds.
fn now_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
