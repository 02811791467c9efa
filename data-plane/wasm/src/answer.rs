//! What a guest answers, as MCP's JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use provost_mcp::{RawJson, RawObject};

use crate::{
    PluginError,
    bindings::{
        prompts::exports::provost::plugin::prompts::{PromptResult, Role},
        provost::plugin::types,
        resources::exports::provost::plugin::resources::{Body, Contents},
    },
    imports::json_limits,
};

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginAnswer {
    /// A result object: `content`, and `structuredContent` and `isError` where the tool has them.
    Complete {
        /// The object.
        body: RawJson,
        /// The tool says that it failed.
        is_error: bool,
    },
    /// An object with `resultType`, `inputRequests` and, where the tool has one, its own `requestState`.
    InputRequired(RawJson),
}

/// About as many bytes are read to make the answer.
pub(crate) fn outcome_bytes(outcome: &types::Outcome) -> usize {
    match outcome {
        types::Outcome::Complete(result) => {
            let structured = result.structured.as_ref().map_or(0, String::len);
            structured + result.content.iter().map(content_bytes).sum::<usize>()
        }
        types::Outcome::InputRequired(wanted) => wanted.requests.len(),
    }
}

/// The same of a prompt.
pub(crate) fn prompt_bytes(result: &PromptResult) -> usize {
    result.messages.iter().map(|message| content_bytes(&message.content)).sum()
}

/// The same of a resource.
pub(crate) fn contents_bytes(all: &[Contents]) -> usize {
    let bytes = |contents: &Contents| match &contents.body {
        Body::Text(text) => text.len(),
        Body::Blob(data) => data.len(),
    };
    all.iter().map(bytes).sum()
}

fn content_bytes(content: &types::Content) -> usize {
    match content {
        types::Content::Text(text) | types::Content::Other(text) => text.len(),
        types::Content::Image(blob) | types::Content::Audio(blob) => blob.data.len(),
        types::Content::ResourceLink(link) => link.description.as_ref().map_or(0, String::len),
    }
}

/// The answer, if it is right and fits into so many bytes.
pub(crate) fn answer_of(outcome: types::Outcome, max_bytes: usize) -> Result<PluginAnswer, PluginError> {
    let mut writer = Writer { out: Vec::new(), max_bytes };
    match outcome {
        types::Outcome::Complete(result) => {
            let is_error = result.is_error;
            writer.result(result)?;
            Ok(PluginAnswer::Complete { body: writer.finish(), is_error })
        }
        types::Outcome::InputRequired(wanted) => {
            writer.input_required(wanted)?;
            Ok(PluginAnswer::InputRequired(writer.finish()))
        }
    }
}

/// The result of `prompts/get`, if it is right and fits into so many bytes.
pub(crate) fn prompt_of(result: PromptResult, max_bytes: usize) -> Result<PluginAnswer, PluginError> {
    let mut writer = Writer { out: Vec::new(), max_bytes };
    writer.raw("{")?;
    if let Some(description) = &result.description {
        writer.member(r#""description":"#, Some(description))?;
        writer.raw(",")?;
    }
    writer.raw(r#""messages":["#)?;
    for (i, message) in result.messages.into_iter().enumerate() {
        if i > 0 {
            writer.raw(",")?;
        }
        writer.raw(match message.role {
            Role::User => r#"{"role":"user","content":"#,
            Role::Assistant => r#"{"role":"assistant","content":"#,
        })?;
        writer.content(message.content)?;
        writer.raw("}")?;
    }
    writer.raw("]}")?;
    Ok(PluginAnswer::Complete { body: writer.finish(), is_error: false })
}

/// The result of `resources/read`, if it fits into so many bytes.
pub(crate) fn contents_of(all: Vec<Contents>, max_bytes: usize) -> Result<PluginAnswer, PluginError> {
    let mut writer = Writer { out: Vec::new(), max_bytes };
    writer.raw(r#"{"contents":["#)?;
    for (i, contents) in all.into_iter().enumerate() {
        writer.member(if i > 0 { r#",{"uri":"# } else { r#"{"uri":"# }, Some(&contents.uri))?;
        writer.member(r#","mimeType":"#, contents.mime_type.as_deref())?;
        match &contents.body {
            Body::Text(text) => writer.member(r#","text":"#, Some(text))?,
            Body::Blob(data) => {
                writer.raw(r#","blob":""#)?;
                writer.base64(data)?;
                writer.raw("\"")?;
            }
        }
        writer.raw("}")?;
    }
    writer.raw("]}")?;
    Ok(PluginAnswer::Complete { body: writer.finish(), is_error: false })
}

/// Builds one object; everything that is put in is checked or escaped.
struct Writer {
    out: Vec<u8>,
    max_bytes: usize,
}

impl Writer {
    fn finish(self) -> RawJson {
        RawJson::from_checked(Bytes::from(self.out))
    }

    fn room(&self, bytes: usize) -> Result<(), PluginError> {
        let fits = self.out.len().checked_add(bytes).is_some_and(|sum| sum <= self.max_bytes);
        if fits { Ok(()) } else { Err(PluginError::TooLarge(self.max_bytes)) }
    }

    fn raw(&mut self, text: &str) -> Result<(), PluginError> {
        self.room(text.len())?;
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), PluginError> {
        self.room(text.len())?;
        // Text always serialises, and memory takes it. Escapes can make it longer than it was.
        let _ = serde_json::to_writer(&mut self.out, text);
        self.room(0)
    }

    /// A member with a text, if there is one.
    fn member(&mut self, before: &str, text: Option<&str>) -> Result<(), PluginError> {
        let Some(text) = text else { return Ok(()) };
        self.raw(before)?;
        self.text(text)
    }

    fn object(&mut self, what: &'static str, json: String) -> Result<RawJson, PluginError> {
        self.room(json.len())?;
        let json = RawJson::check(Bytes::from(json), &json_limits(self.max_bytes));
        let json = json.map_err(|fault| PluginError::json(what, &fault))?;
        if !json.is_object() {
            return Err(PluginError::Json { what, why: "it is not an object".to_owned() });
        }
        self.raw(json.as_str())?;
        Ok(json)
    }

    fn result(&mut self, result: types::ToolResult) -> Result<(), PluginError> {
        self.raw(r#"{"content":["#)?;
        for (i, content) in result.content.into_iter().enumerate() {
            if i > 0 {
                self.raw(",")?;
            }
            self.content(content)?;
        }
        self.raw("]")?;
        if let Some(structured) = result.structured {
            self.raw(r#","structuredContent":"#)?;
            self.object("the structured answer", structured)?;
        }
        self.raw(if result.is_error { r#","isError":true}"# } else { "}" })
    }

    fn content(&mut self, content: types::Content) -> Result<(), PluginError> {
        match content {
            types::Content::Text(text) => {
                self.raw(r#"{"type":"text","text":"#)?;
                self.text(&text)?;
                self.raw("}")
            }
            types::Content::Image(blob) => self.blob(r#"{"type":"image","data":""#, &blob),
            types::Content::Audio(blob) => self.blob(r#"{"type":"audio","data":""#, &blob),
            types::Content::ResourceLink(link) => {
                self.member(r#"{"type":"resource_link","uri":"#, Some(&link.uri))?;
                self.member(r#","name":"#, Some(&link.name))?;
                self.member(r#","description":"#, link.description.as_deref())?;
                self.member(r#","mimeType":"#, link.mime_type.as_deref())?;
                self.raw("}")
            }
            types::Content::Other(json) => {
                let json = self.object("content", json)?;
                let has_type = RawObject::parse(&json).is_ok_and(|object| object.get_text("type").is_some());
                if has_type {
                    return Ok(());
                }
                Err(PluginError::Json { what: "content", why: "it has no `type`".to_owned() })
            }
        }
    }

    fn blob(&mut self, before: &str, blob: &types::Blob) -> Result<(), PluginError> {
        self.raw(before)?;
        self.base64(&blob.data)?;
        self.member(r#"","mimeType":"#, Some(&blob.mime_type))?;
        self.raw("}")
    }

    fn base64(&mut self, data: &[u8]) -> Result<(), PluginError> {
        let encoded = base64::encoded_len(data.len(), true).unwrap_or(usize::MAX);
        self.room(encoded)?;
        self.raw(&STANDARD.encode(data))
    }

    fn input_required(&mut self, wanted: types::InputRequired) -> Result<(), PluginError> {
        self.raw(r#"{"resultType":"input_required","inputRequests":"#)?;
        self.object("the request for input", wanted.requests)?;
        self.member(r#","requestState":"#, wanted.state.as_deref())?;
        self.raw("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(content: Vec<types::Content>, structured: Option<&str>, is_error: bool) -> types::Outcome {
        let structured = structured.map(str::to_owned);
        types::Outcome::Complete(types::ToolResult { content, structured, is_error })
    }

    fn text(text: &str) -> types::Content {
        types::Content::Text(text.to_owned())
    }

    fn blob() -> types::Blob {
        types::Blob { data: vec![0, 255, 1], mime_type: "image/png".to_owned() }
    }

    #[test]
    fn answers_are_results_of_mcp() {
        let link =
            types::Link { uri: "x:y".into(), name: "y".into(), description: None, mime_type: Some("a/b".into()) };
        let other = r#"{"type":"resource","resource":{"uri":"x:y","text":"z"}}"#;
        let table = [
            (complete(vec![], None, false), r#"{"content":[]}"#),
            (
                complete(vec![text("a\"b\n")], None, true),
                r#"{"content":[{"type":"text","text":"a\"b\n"}],"isError":true}"#,
            ),
            (
                complete(vec![text("a"), text("b")], Some(r#" {"n": 1.50} "#), false),
                r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"structuredContent":{"n": 1.50}}"#,
            ),
            (
                complete(vec![types::Content::Image(blob()), types::Content::Audio(blob())], None, false),
                r#"{"content":[{"type":"image","data":"AP8B","mimeType":"image/png"},{"type":"audio","data":"AP8B","mimeType":"image/png"}]}"#,
            ),
            (
                complete(vec![types::Content::ResourceLink(link), types::Content::Other(other.into())], None, false),
                r#"{"content":[{"type":"resource_link","uri":"x:y","name":"y","mimeType":"a/b"},{"type":"resource","resource":{"uri":"x:y","text":"z"}}]}"#,
            ),
        ];
        for (outcome, expect) in table {
            let PluginAnswer::Complete { body, is_error } = answer_of(outcome, 1 << 10).unwrap() else { panic!() };
            assert_eq!(body.as_str(), expect);
            assert_eq!(is_error, expect.ends_with(r#""isError":true}"#));
        }
        let requests = r#"{"who":{"method":"elicitation/create","params":{}}}"#.to_owned();
        let wanted = types::InputRequired { requests, state: Some("s".to_owned()) };
        let PluginAnswer::InputRequired(body) = answer_of(types::Outcome::InputRequired(wanted), 1 << 10).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            body.as_str(),
            r#"{"resultType":"input_required","inputRequests":{"who":{"method":"elicitation/create","params":{}}},"requestState":"s"}"#
        );
    }

    #[test]
    fn what_is_not_json_or_too_large_is_refused() {
        let json = |outcome| matches!(answer_of(outcome, 1 << 12), Err(PluginError::Json { .. }));
        let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        for wrong in ["", "{", "[]", "{} {}", r#"{"a":1,"a":2}"#, r#"},"isError":{"#, &deep] {
            assert!(json(complete(vec![], Some(wrong), false)), "{wrong}");
            assert!(json(complete(vec![types::Content::Other(wrong.to_owned())], None, false)), "{wrong}");
        }
        assert!(json(complete(vec![types::Content::Other(r#"{"text":"no type"}"#.to_owned())], None, false)));
        let large = types::Blob { data: vec![0; 800], mime_type: String::new() };
        for outcome in [
            complete(vec![text(&"x".repeat(1 << 10))], None, false),
            // Fits as it is, but not as JSON writes it.
            complete(vec![text(&"\u{1}".repeat(500))], None, false),
            complete(vec![types::Content::Image(large)], None, false),
            complete(vec![text(""); 100], None, false),
        ] {
            assert_eq!(answer_of(outcome, 1 << 10), Err(PluginError::TooLarge(1 << 10)));
        }
    }
}
