//! What a request says of itself in `params._meta`.

use crate::{LogLevel, RawJson, RawObject, RpcError};

/// `_meta` keys of MCP 2026-07-28 and ours.
#[allow(missing_docs)]
pub mod key {
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// The tasks extension, in `capabilities.extensions`.
    pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";
    pub const PROGRESS_TOKEN: &str = "progressToken";
    pub const TRACEPARENT: &str = "traceparent";
    pub const TRACESTATE: &str = "tracestate";
    /// Ours: the receipt of the audit record of the answer.
    pub const AUDIT: &str = "io.provost/audit";
    /// Ours: the caller's workflow or conversation id.
    pub const WORKFLOW: &str = "io.provost/workflow";
}

/// The longest `traceparent` and workflow id that are taken, in `_meta` as in headers: they are kept beside a call and are in
/// each of its records.
pub const MAX_META_TEXT_BYTES: usize = 256;

/// The members of a request's `_meta` that Provost reads; the rest travels on untouched.
#[derive(Clone, Debug, Default)]
pub struct RequestMeta {
    /// The revision, as written.
    pub protocol_version: Option<String>,
    /// The client capabilities, an object.
    pub capabilities: Option<RawJson>,
    /// The client's description of itself, an object.
    pub client_info: Option<RawJson>,
    /// From which level on log messages are wanted; none: no log messages (2026-07-28).
    pub log_level: Option<LogLevel>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What tracing systems on the way added to it; only beside a `traceparent`.
    pub tracestate: Option<String>,
    /// The caller's workflow id.
    pub workflow: Option<String>,
}

impl RequestMeta {
    /// Reads `params._meta`; members of a wrong type, and texts longer than what a header may have, count as missing.
    pub fn read(params: Option<&RawJson>) -> Self {
        params.and_then(|p| RawObject::parse(p).ok()).map(|p| Self::of(&p)).unwrap_or_default()
    }

    /// Reads `_meta` of parameters that are taken apart already.
    pub fn of(params: &RawObject) -> Self {
        let Some(meta) = params.get_object("_meta") else { return Self::default() };
        let object = |k: &str| meta.get(k).filter(RawJson::is_object);
        let short = |k: &str| meta.get_text(k).filter(|text| text.len() <= MAX_META_TEXT_BYTES);
        let traceparent = short(key::TRACEPARENT);
        let tracestate = traceparent.as_ref().and_then(|_| meta.get_text(key::TRACESTATE));
        Self {
            protocol_version: meta.get_text(key::PROTOCOL_VERSION),
            capabilities: object(key::CLIENT_CAPABILITIES),
            client_info: object(key::CLIENT_INFO),
            log_level: meta.get_text(key::LOG_LEVEL).and_then(|l| LogLevel::parse(&l)),
            traceparent,
            tracestate,
            workflow: short(key::WORKFLOW),
        }
    }

    /// The error for a modern request whose `_meta` lacks what every request must carry.
    pub fn require_modern(&self) -> Result<(), RpcError> {
        let missing = if self.protocol_version.is_none() {
            key::PROTOCOL_VERSION
        } else if self.capabilities.is_none() {
            key::CLIENT_CAPABILITIES
        } else {
            return Ok(());
        };
        Err(RpcError::with_code(
            RpcError::INVALID_PARAMS,
            "PV-MCP-META-MISSING",
            format!("params._meta must carry `{missing}` in every request of MCP 2026-07-28"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_beside_a_call_has_a_bound() {
        let of = |length: usize| {
            let text = "a".repeat(length);
            let meta = json!({ "traceparent": text, "tracestate": "a=b", "io.provost/workflow": text });
            RequestMeta::read(Some(&RawJson::from(json!({ "_meta": meta }))))
        };
        let longest = of(MAX_META_TEXT_BYTES);
        assert!(longest.traceparent.is_some() && longest.tracestate.is_some() && longest.workflow.is_some());
        let longer = of(MAX_META_TEXT_BYTES + 1);
        assert_eq!((longer.traceparent, longer.tracestate, longer.workflow), (None, None, None));
    }
}
