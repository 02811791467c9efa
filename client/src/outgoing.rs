//! One message on its way to the server, and what a transport needs to know of it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use provost_mcp::{
    Envelope, EnvelopeFault, Era, JsonLimits, ProtocolVersion, RawJson, RawObject, RequestId, RpcError, error_message,
    headers, meta::RequestMeta, notification_message, request_message, result_message,
};

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutgoingKind {
    /// Wants an answer under this id.
    Request(RequestId),
    /// Wants none.
    Notification,
    /// Answers the server.
    Response,
}

/// See the module. The body is sent as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    body: Bytes,
    kind: OutgoingKind,
    method: String,
    params: Option<RawJson>,
    era: Era,
}

impl Outgoing {
    /// Takes a message from outside.
    pub fn parse(body: Bytes, limits: &JsonLimits) -> Result<Self, EnvelopeFault> {
        let envelope = Envelope::parse(body.clone(), limits)?;
        Ok(Self::of(body, envelope))
    }

    /// A request of ours.
    pub fn request(id: &RequestId, method: &str, params: &RawJson) -> Self {
        let body = request_message(id, method, Some(params));
        let envelope = Envelope::Request { id: id.clone(), method: method.to_owned(), params: Some(params.clone()) };
        Self::of(body, envelope)
    }

    /// A notification of ours.
    pub fn notification(method: &str, params: Option<&RawJson>) -> Self {
        let body = notification_message(method, params);
        Self::of(body, Envelope::Notification { method: method.to_owned(), params: params.cloned() })
    }

    /// Our answer to the server.
    pub fn response(id: &RequestId, outcome: Result<RawJson, RpcError>) -> Self {
        let body = match &outcome {
            Ok(result) => result_message(id, result),
            Err(error) => error_message(Some(id), error),
        };
        Self::of(body, Envelope::Response { id: Some(id.clone()), outcome })
    }

    /// `notifications/cancelled` for a request.
    pub fn cancelled(id: &RequestId, reason: &str) -> Self {
        let mut params = RawObject::new();
        params.set("requestId", id.0.clone());
        params.set_text("reason", reason);
        Self::notification("notifications/cancelled", Some(&params.finish()))
    }

    fn of(body: Bytes, envelope: Envelope) -> Self {
        let (kind, method, params) = match envelope {
            Envelope::Request { id, method, params } => (OutgoingKind::Request(id), method, params),
            Envelope::Notification { method, params } => (OutgoingKind::Notification, method, params),
            Envelope::Response { .. } => (OutgoingKind::Response, String::new(), None),
        };
        let meta = RequestMeta::read(params.as_ref());
        let is_modern = meta.protocol_version.as_deref().is_some_and(|version| {
            // A revision that nobody knows yet is of the era in which requests name one.
            ProtocolVersion::parse(version).is_none_or(|v| v.era() == Era::Modern)
        });
        let era = if is_modern { Era::Modern } else { Era::Legacy };
        Self { body, kind, method, params, era }
    }

    /// The message.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What it is.
    pub fn kind(&self) -> &OutgoingKind {
        &self.kind
    }

    /// The id of a request.
    pub fn id(&self) -> Option<&RequestId> {
        match &self.kind {
            OutgoingKind::Request(id) => Some(id),
            _ => None,
        }
    }

    /// The method; empty for a response.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The parameters.
    pub fn params(&self) -> Option<&RawJson> {
        self.params.as_ref()
    }

    /// The era that a request says it is of.
    pub fn era(&self) -> Era {
        self.era
    }

    /// Which request this notification cancels.
    pub fn cancels(&self) -> Option<RequestId> {
        if self.method != "notifications/cancelled" {
            return None;
        }
        let params = RawObject::parse(self.params.as_ref()?).ok()?;
        RequestId::from_raw(&params.get("requestId")?)
    }

    /// What Streamable HTTP says of a modern request in headers. Names that fit no header are left
    /// out: the server then says what is missing.
    pub(crate) fn mirrored(&self) -> HeaderMap {
        let mut found = HeaderMap::new();
        let Some(params) = self.params.as_ref().filter(|_| self.era == Era::Modern) else { return found };
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::try_from(value) {
                found.insert(HeaderName::from_static(name), value);
            }
        };
        if let Some(version) = RequestMeta::read(Some(params)).protocol_version {
            set(headers::PROTOCOL_VERSION, &version);
        }
        set(headers::METHOD, &self.method);
        if let Some(name) = RawObject::parse(params).ok().and_then(|p| headers::name_of(&self.method, &p)) {
            set(headers::NAME, &headers::encode_value(&name));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(text: &'static str) -> Outgoing {
        Outgoing::parse(Bytes::from_static(text.as_bytes()), &JsonLimits::REQUEST).unwrap()
    }

    #[test]
    fn a_modern_call_is_mirrored_and_a_legacy_one_is_not() {
        let modern = parsed(
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"a b\u00e9","_meta":
               {"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        let headers = modern.mirrored();
        assert_eq!(headers["mcp-method"], "tools/call");
        assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
        assert_eq!(headers::decode_value(headers["mcp-name"].to_str().unwrap()).unwrap(), "a bé");
        assert_eq!(modern.id().unwrap().as_str(), "\"a\"");
        let legacy = parsed(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#);
        assert!(legacy.era() == Era::Legacy && legacy.mirrored().is_empty());
    }

    #[test]
    fn what_a_cancellation_cancels() {
        let id = RequestId::from_text("x");
        let cancelled = Outgoing::cancelled(&id, "no");
        assert_eq!(cancelled.cancels(), Some(id));
        let other = parsed(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"requestId":1}}"#);
        assert_eq!(other.cancels(), None);
    }
}
