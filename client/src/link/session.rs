//! What a legacy session over HTTP adds to each request.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use provost_mcp::{Envelope, Era, JsonLimits, RawObject, headers};

use crate::{Outgoing, outgoing::OutgoingKind};

const ID: HeaderName = HeaderName::from_static(headers::SESSION_ID);
const VERSION: HeaderName = HeaderName::from_static(headers::PROTOCOL_VERSION);

/// The session that `initialize` opened, if one did.
#[derive(Debug, Default)]
pub(super) struct Session(Mutex<HeaderMap>);

impl Session {
    /// The headers of a message: what a modern request mirrors, or the session's.
    pub(super) fn headers(&self, message: &Outgoing) -> HeaderMap {
        let is_modern = matches!(message.kind(), OutgoingKind::Request(_)) && message.era() == Era::Modern;
        match () {
            () if is_modern => message.mirrored(),
            () if message.method() == "initialize" => HeaderMap::new(),
            () => self.0.lock().clone(),
        }
    }

    /// Takes what the answer to `initialize` says.
    pub(super) fn open(&self, reply: &HeaderMap, answer: &Bytes) {
        let mut session = HeaderMap::new();
        if let Some(id) = reply.get(ID) {
            session.insert(ID, id.clone());
        }
        if let Ok(Envelope::Response { outcome: Ok(result), .. }) =
            Envelope::parse(answer.clone(), &JsonLimits::RESPONSE)
            && let Some(version) = RawObject::parse(&result).ok().and_then(|r| r.get_text("protocolVersion"))
            && let Ok(version) = HeaderValue::try_from(version)
        {
            session.insert(VERSION, version);
        }
        *self.0.lock() = session;
    }

    /// Whether the server keeps a session, so that it has something to say outside of calls.
    pub(super) fn is_open(&self) -> bool {
        self.0.lock().contains_key(ID)
    }

    /// The headers of the session's own stream.
    pub(super) fn of_stream(&self) -> HeaderMap {
        let mut headers = self.0.lock().clone();
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers
    }
}
