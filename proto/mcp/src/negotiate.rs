//! Which era a request belongs to, and what a modern one must carry.

use crate::{
    Era, ProtocolVersion, RawJson, RawObject, RpcError,
    headers::{self, Header, HeaderSource},
    meta::RequestMeta,
};

/// The revisions we answer, newest first, as they stand in `supportedVersions` and errors.
pub fn supported_versions() -> RawJson {
    let names: Vec<&str> = ProtocolVersion::ALL.iter().rev().map(|v| v.as_str()).collect();
    RawJson::from(serde_json::json!(names))
}

/// -32022 with the revisions we speak and the one that was asked for.
pub fn unsupported_version(requested: &str) -> RpcError {
    let requested: String = requested.chars().take(64).collect();
    let mut data = RawObject::new();
    data.set("supported", supported_versions());
    data.set_text("requested", &requested);
    data.set_text("code", "PV-MCP-UNSUPPORTED-VERSION");
    RpcError {
        code: RpcError::UNSUPPORTED_VERSION,
        message: format!("the protocol version {requested:?} is not spoken here"),
        data: Some(data.finish()),
    }
}

/// The era of a request: by `_meta`, else by header, else legacy. `initialize` without modern
/// `_meta` is legacy whatever its header says: the handshake exists only there.
///
/// Errors: a header that names a revision nobody knows, when `_meta` names none.
pub fn era_of(method: &str, meta: &RequestMeta, source: &impl HeaderSource) -> Result<Era, RpcError> {
    if let Some(version) = &meta.protocol_version {
        return Ok(ProtocolVersion::parse(version).map_or(Era::Modern, ProtocolVersion::era));
    }
    if method == "initialize" {
        return Ok(Era::Legacy);
    }
    match source.header(headers::PROTOCOL_VERSION) {
        Header::One(text) => match ProtocolVersion::parse(text) {
            Some(version) => Ok(version.era()),
            None => Err(unsupported_version(text)),
        },
        Header::Absent if method == "server/discover" || method == "subscriptions/listen" => Ok(Era::Modern),
        Header::Absent => Ok(Era::Legacy),
        Header::Unclear => Err(headers::mismatch("the header MCP-Protocol-Version cannot be read")),
    }
}

/// What a modern request's envelope must satisfy before its method is looked at. Returns the
/// revision. Errors: -32602 for missing `_meta` members, -32020 for headers that differ from the
/// body, -32022 for a revision we do not speak; all are HTTP 400.
pub fn check_modern(
    method: &str,
    params: &RawObject,
    meta: &RequestMeta,
    source: &impl HeaderSource,
) -> Result<ProtocolVersion, RpcError> {
    meta.require_modern()?;
    let named = meta.protocol_version.as_deref().unwrap_or_default();
    match source.header(headers::PROTOCOL_VERSION) {
        Header::One(text) if text == named => {}
        Header::One(_) => {
            return Err(headers::mismatch("the header MCP-Protocol-Version differs from params._meta"));
        }
        Header::Absent => {
            return Err(headers::mismatch("the header MCP-Protocol-Version is missing"));
        }
        Header::Unclear => {
            return Err(headers::mismatch("the header MCP-Protocol-Version cannot be read"));
        }
    }
    let version = modern_version(meta)?;
    headers::check_standard(source, method, params)?;
    Ok(version)
}

/// The same for a message that came without headers of its own, as on a socket. Errors: -32602 and
/// -32022, as above.
pub fn modern_version(meta: &RequestMeta) -> Result<ProtocolVersion, RpcError> {
    meta.require_modern()?;
    let named = meta.protocol_version.as_deref().unwrap_or_default();
    ProtocolVersion::parse(named).filter(|v| v.era() == Era::Modern).ok_or_else(|| unsupported_version(named))
}

/// The revision that `initialize` settles on: the client's if we speak it, else our newest legacy.
pub fn negotiate_legacy(requested: &str) -> ProtocolVersion {
    ProtocolVersion::parse(requested).filter(|v| v.era() == Era::Legacy).unwrap_or(ProtocolVersion::LATEST_LEGACY)
}
