//! Arguments that a tool wants mirrored in headers (`x-mcp-header`, MCP 2026-07-28, Streamable HTTP).
//!
//! A caller need not have listed the tools before. When a server says that headers do not match, which is
//! before anything ran, the list is read, and the call is made once more with what the list demands.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use provost_mcp::{
    Envelope, Era, JsonLimits, RawJson, RawObject, RequestId, RpcError, array_items,
    headers::{PARAM_PREFIX, ParamHeader, encode_value, param_headers},
};

use crate::Outgoing;

/// Tools whose annotations are kept.
const MAX_TOOLS: usize = 4_096;
/// Pages of a list that are read for one tool.
pub(super) const MAX_PAGES: usize = 64;

/// Annotations by the tool's name.
#[derive(Debug, Default)]
pub(super) struct ParamHeaders(Mutex<HashMap<String, Vec<ParamHeader>>>);

/// What a page of the list brought.
pub(super) enum Page {
    /// Where the next one begins.
    More(RawJson),
    /// It was the last one, or none at all.
    Last,
}

/// The tool that a modern call is of.
fn called(message: &Outgoing) -> Option<(String, RawObject)> {
    if message.method() != "tools/call" || message.era() != Era::Modern {
        return None;
    }
    let params = RawObject::parse(message.params()?).ok()?;
    Some((params.get_text("name")?, params))
}

impl ParamHeaders {
    /// The headers of a call, as far as is known.
    pub(super) fn of(&self, message: &Outgoing) -> HeaderMap {
        let mut found = HeaderMap::new();
        let Some((tool, params)) = called(message) else { return found };
        let known = self.0.lock();
        let arguments = params.get("arguments").unwrap_or(RawJson::EMPTY_OBJECT);
        for annotation in known.get(&tool).into_iter().flatten() {
            let name = format!("{PARAM_PREFIX}{}", annotation.header.to_ascii_lowercase());
            if let Some(value) = annotation.value(&arguments)
                && let Ok(name) = HeaderName::try_from(name)
                && let Ok(value) = HeaderValue::try_from(encode_value(&value))
            {
                found.insert(name, value);
            }
        }
        found
    }

    /// The request for a page of the list on behalf of a call whose headers were refused.
    pub(super) fn list(message: &Outgoing, cursor: Option<RawJson>, number: usize) -> Option<(RequestId, Outgoing)> {
        let (_, params) = called(message)?;
        let mut meta = params.get_object("_meta")?;
        meta.remove("progressToken");
        let mut list = RawObject::new();
        if let Some(cursor) = cursor {
            list.set("cursor", cursor);
        }
        list.set("_meta", meta.finish());
        let id = RequestId::from_text(&format!("provost-client-list-{number}"));
        let request = Outgoing::request(&id, "tools/list", &list.finish());
        Some((id, request))
    }

    /// Takes a page of the list.
    pub(super) fn learn(&self, answer: &bytes::Bytes) -> Page {
        let Some(result) = result_of(answer) else { return Page::Last };
        let mut known = self.0.lock();
        for tool in result.get("tools").and_then(|tools| array_items(&tools).ok()).unwrap_or_default() {
            let Ok(tool) = RawObject::parse(&tool) else { continue };
            let (Some(name), Some(schema)) = (tool.get_text("name"), tool.get("inputSchema")) else { continue };
            if known.len() < MAX_TOOLS || known.contains_key(&name) {
                known.insert(name, param_headers(&schema).unwrap_or_default());
            }
        }
        match result.get("nextCursor").filter(|next| *next != RawJson::NULL) {
            Some(next) => Page::More(next),
            None => Page::Last,
        }
    }

    /// Forgets the call's tool: what was known of it is wrong.
    pub(super) fn forget(&self, message: &Outgoing) {
        if let Some((tool, _)) = called(message) {
            self.0.lock().remove(&tool);
        }
    }

    /// Whether the call's tool was in the list.
    pub(super) fn knows(&self, message: &Outgoing) -> bool {
        called(message).is_some_and(|(tool, _)| self.0.lock().contains_key(&tool))
    }
}

/// Whether an answer refuses a call for its headers.
pub(super) fn is_mismatch(answer: &bytes::Bytes) -> bool {
    // The code stands in the text of every such answer; most answers are not read for it.
    memchr::memmem::find(answer, b"-32020").is_some()
        && matches!(
            Envelope::parse(answer.clone(), &JsonLimits::RESPONSE),
            Ok(Envelope::Response { outcome: Err(error), .. }) if error.code == RpcError::HEADER_MISMATCH
        )
}

fn result_of(answer: &bytes::Bytes) -> Option<RawObject> {
    match Envelope::parse(answer.clone(), &JsonLimits::RESPONSE).ok()? {
        Envelope::Response { outcome: Ok(result), .. } => RawObject::parse(&result).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn call(arguments: serde_json::Value) -> Outgoing {
        let params = json!({ "name": "t", "arguments": arguments, "_meta": { "progressToken": 1,
            "io.modelcontextprotocol/protocolVersion": "2026-07-28" } });
        Outgoing::request(&RequestId::from_text("1"), "tools/call", &RawJson::from(params))
    }

    #[test]
    fn a_list_teaches_what_a_call_must_mirror() {
        let known = ParamHeaders::default();
        let message = call(json!({ "region": "eu é", "n": 3 }));
        assert!(known.of(&message).is_empty() && !known.knows(&message));
        let page = json!({ "jsonrpc": "2.0", "id": 1, "result": { "nextCursor": "c", "tools": [ { "name": "t",
            "inputSchema": { "properties": { "region": { "type": "string", "x-mcp-header": "Region" },
                "n": { "type": "integer", "x-mcp-header": "N" } } } } ] } });
        assert!(matches!(known.learn(&Bytes::from(page.to_string())), Page::More(_)));
        let headers = known.of(&message);
        assert_eq!(headers["mcp-param-n"], "3");
        assert!(headers["mcp-param-region"].to_str().unwrap().starts_with("=?base64?"));
        assert!(known.knows(&message));

        let (_, list) = ParamHeaders::list(&message, Some(RawJson::from_text("c")), 0).unwrap();
        let list: serde_json::Value = serde_json::from_slice(list.body()).unwrap();
        assert_eq!((&list["params"]["cursor"], &list["params"]["_meta"]["progressToken"]), (&json!("c"), &json!(null)));
    }

    #[test]
    fn only_a_refusal_for_headers_is_one() {
        let answer = |code: i64| {
            let error = json!({ "code": code, "message": "" });
            Bytes::from(json!({ "jsonrpc": "2.0", "id": 1, "error": error }).to_string())
        };
        assert!(is_mismatch(&answer(-32020)) && !is_mismatch(&answer(-32602)));
        assert!(!is_mismatch(&Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{"n":-32020}}"#)));
    }
}
