//! The same result in the shape of either era.
//!
//! Executors answer in the modern shape or in the shape of their upstream; the front end gives
//! each client the shape of its own era. Members nobody knows travel through untouched.

use crate::{ProtocolVersion, RawJson, RawObject, RpcError, meta::key, negotiate::supported_versions};

/// What a modern result needs beside its own members.
#[derive(Clone, Debug)]
pub struct ResultDress<'a> {
    /// The method that is answered.
    pub method: &'a str,
    /// `{"name":…,"version":…}` for `_meta`.
    pub server_info: &'a RawJson,
    /// Ours: the audit receipt for `_meta`.
    pub receipt: Option<RawJson>,
}

/// Whether results of the method carry `ttlMs` and `cacheScope`.
fn is_cacheable(method: &str) -> bool {
    matches!(
        method,
        "server/discover"
            | "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
    )
}

/// Puts a result into the modern shape: `resultType`, caching hints, server identity. What a
/// caller sees depends on its rights, so `cacheScope` is always `private`.
pub fn modern_result(body: &RawJson, dress: &ResultDress<'_>) -> RawJson {
    let Ok(mut result) = RawObject::parse(body) else { return body.clone() };
    result.set_default("resultType", || RawJson::from_text("complete"));
    if is_cacheable(dress.method) && !is_input_required(&result) {
        result.set_default("ttlMs", || RawJson::from(serde_json::json!(0)));
        result.set_text("cacheScope", "private");
    }
    let mut meta = result.get_object("_meta").unwrap_or_default();
    meta.set(key::SERVER_INFO, dress.server_info.clone());
    if let Some(receipt) = &dress.receipt {
        meta.set(key::AUDIT, receipt.clone());
    }
    result.set("_meta", meta.finish());
    result.finish()
}

/// Puts a result into the legacy shape: members of 2026-07-28 are taken out. An empty result stays
/// `{}`, which is what legacy acknowledgements are; others get the receipt.
pub fn legacy_result(body: &RawJson, receipt: Option<RawJson>) -> RawJson {
    let Ok(mut result) = RawObject::parse(body) else { return body.clone() };
    for member in ["resultType", "ttlMs", "cacheScope"] {
        result.remove(member);
    }
    if result.is_empty() {
        return RawJson::EMPTY_OBJECT;
    }
    if let Some(receipt) = receipt {
        result.set_in("_meta", key::AUDIT, receipt);
    }
    result.finish()
}

fn is_input_required(result: &RawObject) -> bool {
    result.get_text("resultType").as_deref() == Some("input_required")
}

/// Completes an executor's discovery (`capabilities`, `instructions`, …) to a `DiscoverResult`.
pub fn discover_result(body: &RawJson) -> RawJson {
    let mut result = RawObject::parse(body).unwrap_or_default();
    result.set("supportedVersions", supported_versions());
    let mut capabilities = result.get_object("capabilities").unwrap_or_default();
    // The first form of tasks (2025-11-25); the extension took its place and behaves otherwise.
    capabilities.remove("tasks");
    result.set("capabilities", capabilities.finish());
    // Identity stands in `_meta` since 2026-07-28.
    result.remove("serverInfo");
    // Left over when the body was an `InitializeResult`.
    result.remove("protocolVersion");
    result.finish()
}

/// Turns an executor's discovery into an `InitializeResult`.
pub fn initialize_result(body: &RawJson, version: ProtocolVersion, server_info: &RawJson) -> RawJson {
    let discovered = RawObject::parse(body).unwrap_or_default();
    let mut result = RawObject::new();
    result.set_text("protocolVersion", version.as_str());
    let mut capabilities = discovered.get_object("capabilities").unwrap_or_default();
    // Extensions are negotiated per request, which legacy clients cannot do.
    capabilities.remove("extensions");
    result.set("capabilities", capabilities.finish());
    result.set("serverInfo", server_info.clone());
    if let Some(instructions) = discovered.get("instructions") {
        result.set("instructions", instructions);
    }
    result.finish()
}

/// What `Discover` answers for an upstream that answered `initialize` with this.
pub fn discover_from_initialize(initialized: &RawJson) -> RawJson {
    let from = RawObject::parse(initialized).unwrap_or_default();
    let mut result = RawObject::new();
    for member in ["capabilities", "serverInfo", "instructions"] {
        if let Some(value) = from.get(member) {
            result.set(member, value);
        }
    }
    result.finish()
}

/// An error for a modern client. `resource` is the URI when a resource was read: -32002 became
/// -32602 with the URI in `data`.
pub fn modern_error(mut error: RpcError, resource: Option<&str>) -> RpcError {
    if error.code == RpcError::LEGACY_RESOURCE_NOT_FOUND {
        error.code = RpcError::INVALID_PARAMS;
    }
    if let (RpcError::INVALID_PARAMS, Some(uri)) = (error.code, resource) {
        let mut data = data_object(&error);
        data.set_text("uri", uri);
        error.data = Some(data.finish());
    }
    error
}

/// An error for a legacy client: -32602 on reading a resource that is not there becomes -32002
/// (told by the URI in `data`); codes that only exist since 2026-07-28 become -32603 or -32602.
pub fn legacy_error(mut error: RpcError, resource: Option<&str>) -> RpcError {
    error.code = match error.code {
        RpcError::INVALID_PARAMS if resource.is_some() && data_object(&error).has("uri") => {
            RpcError::LEGACY_RESOURCE_NOT_FOUND
        }
        RpcError::HEADER_MISMATCH | RpcError::MISSING_CLIENT_CAPABILITY | RpcError::UNSUPPORTED_VERSION => {
            RpcError::INVALID_REQUEST
        }
        code => code,
    };
    error
}

fn data_object(error: &RpcError) -> RawObject {
    error.data.as_ref().and_then(|d| RawObject::parse(d).ok()).unwrap_or_default()
}
