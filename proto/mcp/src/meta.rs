//! What a request says of itself in `params._meta`.

use crate::{LogLevel, RawJson, RawObject, RpcError, TraceParent};

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
    /// W3C trace context, in the form of version 00.
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
        // What is none counts as missing: it would stand in the records of the call, where guards do not look for it.
        let parent = short(key::TRACEPARENT).and_then(|text| TraceParent::parse(&text));
        let traceparent = parent.map(|parent| parent.to_string());
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

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(traceparent: &str, workflow: &str) -> RequestMeta {
        let meta = json!({ "traceparent": traceparent, "tracestate": "a=b", "io.provost/workflow": workflow });
        RequestMeta::read(Some(&RawJson::from(json!({ "_meta": meta }))))
    }

    #[test]
    fn what_is_kept_beside_a_call_has_a_bound() {
        let longest = of(PARENT, &"a".repeat(MAX_META_TEXT_BYTES));
        assert!(longest.traceparent.is_some() && longest.tracestate.is_some() && longest.workflow.is_some());
        let later = PARENT.replacen("00", "cc", 1);
        let longer = of(&format!("{later}-{}", "a".repeat(MAX_META_TEXT_BYTES)), &"a".repeat(MAX_META_TEXT_BYTES + 1));
        assert_eq!((longer.traceparent, longer.tracestate, longer.workflow), (None, None, None));
    }

    #[test]
    fn what_is_no_trace_is_not_kept_as_one() {
        let none = of("AKIAIOSFODNN7EXAMPLE", "w");
        assert_eq!((none.traceparent, none.tracestate, none.workflow.as_deref()), (None, None, Some("w")));
        let later = of(&format!("{}-ann@example.org", PARENT.replacen("00", "cc", 1)), "w");
        assert_eq!(later.traceparent.as_deref(), Some(PARENT), "of a later version the part that is known");
    }
}
