//! JSON-RPC 2.0 ids and errors as MCP uses them.

use crate::{RawJson, RawObject, envelope::MAX_ID_BYTES};

/// A JSON-RPC request id, kept as its JSON text (`1`, `"a"`), so that it goes back byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub RawJson);

impl RequestId {
    /// An id of ours.
    pub fn from_text(text: &str) -> Self {
        Self(RawJson::from_text(text))
    }

    /// The id if it is a string or an integer of bounded length.
    pub fn from_raw(raw: &RawJson) -> Option<Self> {
        let bytes = raw.as_bytes();
        let good = match bytes.first() {
            Some(b'"') => true,
            Some(b'-' | b'0'..=b'9') => bytes[1..].iter().all(u8::is_ascii_digit),
            _ => false,
        };
        (good && bytes.len() <= MAX_ID_BYTES).then(|| Self(raw.clone()))
    }

    /// The JSON text, quotes included.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A JSON-RPC error object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// The code.
    pub code: i64,
    /// One sentence.
    pub message: String,
    /// Details.
    pub data: Option<RawJson>,
}

#[allow(missing_docs)]
impl RpcError {
    pub const PARSE: i64 = -32700;
    pub const INVALID_REQUEST: i64 = -32600;
    pub const METHOD_NOT_FOUND: i64 = -32601;
    pub const INVALID_PARAMS: i64 = -32602;
    pub const INTERNAL: i64 = -32603;
    /// 2026-07-28: a header does not match the body.
    pub const HEADER_MISMATCH: i64 = -32020;
    /// 2026-07-28: the client lacks a capability that the answer needs.
    pub const MISSING_CLIENT_CAPABILITY: i64 = -32021;
    /// 2026-07-28: the revision is not spoken here.
    pub const UNSUPPORTED_VERSION: i64 = -32022;
    /// 2025-11-25: the user has to open an address first.
    pub const URL_ELICITATION_REQUIRED: i64 = -32042;
    /// Legacy: no such resource.
    pub const LEGACY_RESOURCE_NOT_FOUND: i64 = -32002;
    /// Ours: refused by policy (outside JSON-RPC's reserved range).
    pub const POLICY_DENIED: i64 = 4031;
    /// Ours: the caller is not known.
    pub const UNAUTHENTICATED: i64 = 4010;
    /// Ours: a limit is used up.
    pub const LIMIT_EXCEEDED: i64 = 4290;
    /// Ours: the node runs as many calls as it may.
    pub const OVERLOADED: i64 = 5030;
    /// Ours: the audit log cannot record, so the call was refused.
    pub const AUDIT_UNAVAILABLE: i64 = 5031;
    /// Ours: the upstream cannot be reached or answered garbage.
    pub const UPSTREAM_FAILED: i64 = 5020;
    /// Ours: the deadline passed.
    pub const DEADLINE_EXCEEDED: i64 = 5040;

    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// An error with `data: {"code": pv_code}`, our stable code.
    pub fn with_code(code: i64, pv_code: &str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: Some(RawJson::from(serde_json::json!({ "code": pv_code }))) }
    }

    /// The stable code in `data`, where there is one.
    pub fn stable_code(&self) -> Option<String> {
        RawObject::parse(self.data.as_ref()?).ok()?.get_text("code")
    }

    /// Reads an error object of the other side; what is missing becomes an internal error.
    pub fn from_raw(raw: &RawJson) -> Self {
        let object = RawObject::parse(raw).unwrap_or_default();
        let code = object.get("code").and_then(|c| c.parse().ok()).unwrap_or(Self::INTERNAL);
        let message = object.get_text("message").unwrap_or_else(|| "no message".to_owned());
        Self { code, message, data: object.get("data") }
    }

    /// The error object.
    pub fn to_raw(&self) -> RawJson {
        let mut object = RawObject::new();
        object.set("code", RawJson::from(serde_json::Value::from(self.code)));
        object.set_text("message", &self.message);
        if let Some(data) = &self.data {
            object.set("data", data.clone());
        }
        object.finish()
    }
}
