//! The HTTP headers that mirror a request's body (MCP 2026-07-28, SEP-2243), on both sides.
//!
//! Whoever routes by a header must be able to trust that the server acts on the same value; so a
//! server refuses a request whose headers say something else than its body.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{RawJson, RawObject, RpcError};

/// `Mcp-Method`.
pub const METHOD: &str = "mcp-method";
/// `Mcp-Name`.
pub const NAME: &str = "mcp-name";
/// `MCP-Protocol-Version`.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// `Mcp-Session-Id` (legacy).
pub const SESSION_ID: &str = "mcp-session-id";
/// `Mcp-Param-…`.
pub const PARAM_PREFIX: &str = "mcp-param-";
/// The annotation in a tool's input schema that asks for such a header.
pub const ANNOTATION: &str = "x-mcp-header";

const BASE64_PREFIX: &str = "=?base64?";
const BASE64_SUFFIX: &str = "?=";

/// What a transport has under a header name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// Nothing.
    Absent,
    /// One value, without surrounding space.
    One(&'a str),
    /// Several, or one that is no visible ASCII: readers could differ on it.
    Unclear,
}

/// Reads headers by lower-case name.
pub trait HeaderSource {
    /// What stands under `name`.
    fn header(&self, name: &str) -> Header<'_>;
}

/// A message that came without headers of its own: one of many on a socket.
#[derive(Clone, Copy, Debug)]
pub struct NoHeaders;

impl HeaderSource for NoHeaders {
    fn header(&self, _: &str) -> Header<'_> {
        Header::Absent
    }
}

/// The error for headers that do not match the body.
pub fn mismatch(reason: impl Into<String>) -> RpcError {
    RpcError::with_code(RpcError::HEADER_MISMATCH, "PV-MCP-HEADER-MISMATCH", reason)
}

/// Decodes `=?base64?…?=`; other values stand for themselves. `None`: the wrapping holds no base64
/// or no UTF-8.
pub fn decode_value(value: &str) -> Option<String> {
    match value.strip_prefix(BASE64_PREFIX).and_then(|v| v.strip_suffix(BASE64_SUFFIX)) {
        Some(inner) => String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

/// Wraps a value that cannot travel as it is.
pub fn encode_value(value: &str) -> String {
    let looks_wrapped = value.starts_with(BASE64_PREFIX) && value.ends_with(BASE64_SUFFIX);
    let is_visible = value.bytes().all(|b| (0x20..0x7F).contains(&b));
    let bare = is_visible && value.trim() == value && !looks_wrapped;
    if bare { value.to_owned() } else { format!("{BASE64_PREFIX}{}{BASE64_SUFFIX}", BASE64_STANDARD.encode(value)) }
}

/// The value that `Mcp-Name` must carry: the tool or prompt, the URI, the task.
pub fn name_of(method: &str, params: &RawObject) -> Option<String> {
    let member = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    params.get_text(member)
}

/// Checks `Mcp-Method` and `Mcp-Name` of a modern request against its body.
pub fn check_standard(source: &impl HeaderSource, method: &str, params: &RawObject) -> Result<(), RpcError> {
    match source.header(METHOD) {
        Header::One(value) if value == method => {}
        Header::One(_) => return Err(mismatch("the header Mcp-Method differs from the method")),
        Header::Absent => return Err(mismatch("the header Mcp-Method is missing")),
        Header::Unclear => return Err(mismatch("the header Mcp-Method cannot be read")),
    }
    let Some(expected) = name_of(method, params) else { return Ok(()) };
    match source.header(NAME) {
        Header::One(value) if decode_value(value).as_deref() == Some(&expected) => Ok(()),
        Header::One(_) => Err(mismatch("the header Mcp-Name differs from the name in the body")),
        Header::Absent => Err(mismatch("the header Mcp-Name is missing")),
        Header::Unclear => Err(mismatch("the header Mcp-Name cannot be read")),
    }
}

/// One annotated property of a tool's input schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamHeader {
    /// Property names from the root of the arguments.
    pub path: Vec<String>,
    /// The header's name after the prefix, as written.
    pub header: String,
}

/// Reads the `x-mcp-header` annotations of an input schema. `Err`: the tool must not be offered
/// (an annotation that is empty, no RFC 9110 token, double, on something else than a string,
/// integer or boolean, or off the path of `properties`).
pub fn param_headers(schema: &RawJson) -> Result<Vec<ParamHeader>, String> {
    let mut found = Vec::new();
    let mentions = count_annotations(schema);
    if mentions == 0 {
        return Ok(found);
    }
    collect_annotations(schema, &mut Vec::new(), &mut found)?;
    if found.len() != mentions {
        return Err(format!("`{ANNOTATION}` stands outside the schema's properties"));
    }
    for (i, one) in found.iter().enumerate() {
        if found[..i].iter().any(|other| other.header.eq_ignore_ascii_case(&one.header)) {
            return Err(format!("`{ANNOTATION}: {}` stands twice", one.header));
        }
    }
    Ok(found)
}

fn collect_annotations(schema: &RawJson, path: &mut Vec<String>, found: &mut Vec<ParamHeader>) -> Result<(), String> {
    let Some(properties) = RawObject::parse(schema).ok().and_then(|s| s.get_object("properties")) else {
        return Ok(());
    };
    for (name, property) in properties.iter() {
        path.push(name.into_owned());
        if let Ok(object) = RawObject::parse(&property) {
            if let Some(annotation) = object.get(ANNOTATION) {
                let header = annotation.as_text().map(|t| t.into_owned()).unwrap_or_default();
                let kind = object.get_text("type").unwrap_or_default();
                if header.is_empty() || !header.bytes().all(is_token) {
                    return Err(format!("`{ANNOTATION}` of `{}` is no header name", path.join(".")));
                }
                if !matches!(kind.as_str(), "string" | "integer" | "boolean") {
                    return Err(format!(
                        "`{ANNOTATION}` of `{}` needs a string, an integer or a boolean",
                        path.join(".")
                    ));
                }
                found.push(ParamHeader { path: path.clone(), header });
            }
            collect_annotations(&property, path, found)?;
        }
        path.pop();
    }
    Ok(())
}

/// How many annotations stand anywhere in the schema, but for instance data.
fn count_annotations(value: &RawJson) -> usize {
    if memchr::memmem::find(value.as_bytes(), ANNOTATION.as_bytes()).is_none() {
        return 0;
    }
    if let Ok(object) = RawObject::parse(value) {
        return object
            .iter()
            .map(|(key, inner)| match &*key {
                ANNOTATION => 1,
                "default" | "const" | "enum" | "examples" => 0,
                _ => count_annotations(&inner),
            })
            .sum();
    }
    crate::array_items(value).map_or(0, |items| items.iter().map(count_annotations).sum())
}

/// A token character of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl ParamHeader {
    /// The argument's value as header text; `None` if it is absent or null.
    pub fn value(&self, arguments: &RawJson) -> Option<String> {
        let mut value = arguments.clone();
        for step in &self.path {
            value = RawObject::parse(&value).ok()?.get(step)?;
        }
        match value.as_bytes().first()? {
            b'"' => value.as_text().map(|t| t.into_owned()),
            b'n' | b'{' | b'[' => None,
            _ => Some(value.as_str().to_owned()),
        }
    }
}

/// Checks the `Mcp-Param-…` headers of a `tools/call` against its arguments.
pub fn check_params(
    source: &impl HeaderSource,
    annotations: &[ParamHeader],
    arguments: &RawJson,
) -> Result<(), RpcError> {
    for annotation in annotations {
        let name = format!("{PARAM_PREFIX}{}", annotation.header.to_ascii_lowercase());
        let shown = format!("Mcp-Param-{}", annotation.header);
        match (source.header(&name), annotation.value(arguments)) {
            (Header::Absent, None) => {}
            (Header::One(value), Some(expected)) if decode_value(value).as_deref() == Some(&expected) => {}
            (Header::Absent, Some(_)) => {
                return Err(mismatch(format!("the header {shown} is missing")));
            }
            (_, None) => return Err(mismatch(format!("{shown} names no argument of the body"))),
            _ => return Err(mismatch(format!("the header {shown} differs from the argument"))),
        }
    }
    Ok(())
}
