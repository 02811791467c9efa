//! The bodies of OpenAI's API, read once: what is served, and a clear no to what is not.
//!
//! A field that changes the answer is served or refused, never passed over; one that does not, such as
//! `user`, `metadata` or `store`, may be there.

use provost_mcp::RpcError;
use provost_types::{ChatMessage, ChatRequest, EmbedRequest};
use serde::Deserialize;
use serde_json::Value;

use super::{
    DEFAULT_MAX_TOKENS,
    object::Object,
    tools::{self, Choice, Made, Tool},
};

/// A chat.
#[derive(Deserialize)]
pub(super) struct ChatBody {
    messages: Vec<Object<Message>>,
    #[serde(default)]
    pub(super) stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    n: Option<u32>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
    response_format: Option<Object<ResponseFormat>>,
    tools: Option<Vec<Object<Tool>>>,
    tool_choice: Option<Choice>,
    parallel_tool_calls: Option<bool>,
    functions: Option<Vec<Value>>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logit_bias: Option<serde_json::Map<String, Value>>,
    modalities: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct StreamOptions {
    include_usage: Option<bool>,
}

impl StreamOptions {
    /// True when a stream ends with a chunk of tokens used.
    pub(super) fn wants_usage(given: Option<&Self>) -> bool {
        given.and_then(|options| options.include_usage).unwrap_or(false)
    }
}

/// Members that chats and completions have, and that are served nowhere: why, of the first that changes the answer.
pub(super) fn unserved_weights(
    penalties: [Option<f32>; 2],
    bias: Option<&serde_json::Map<String, Value>>,
) -> Option<&'static str> {
    if penalties.into_iter().flatten().any(|penalty| penalty != 0.0) {
        return Some("`frequency_penalty` and `presence_penalty` other than 0 are not served");
    }
    bias.is_some_and(|bias| !bias.is_empty()).then_some("`logit_bias` is not served")
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Vec<Object<Made>>>,
    tool_call_id: Option<String>,
}

/// `content` is a text, or a list of parts of which the text ones count.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Object<Part>>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<Object<NamedSchema>>,
}

#[derive(Deserialize)]
struct NamedSchema {
    schema: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// Texts to embed.
#[derive(Deserialize)]
pub(super) struct EmbedBody {
    /// The API also has tokens, and lists of them: of a vocabulary that is not the model's.
    input: Value,
    encoding_format: Option<String>,
    dimensions: Option<u32>,
}

/// What the caller has to correct.
pub(super) fn invalid(cause: impl std::fmt::Display) -> RpcError {
    RpcError::with_code(
        RpcError::INVALID_PARAMS,
        "PV-OPENAI-BODY",
        format!("the request body is not as the API wants it: {cause}"),
    )
}

impl ChatBody {
    /// True when a stream ends with a chunk of tokens used.
    pub(super) fn wants_usage(&self) -> bool {
        StreamOptions::wants_usage(self.stream_options.as_ref())
    }

    /// True when each token's likelihood is asked for.
    pub(super) fn wants_logprobs(&self) -> bool {
        self.logprobs == Some(true)
    }

    /// The request to the model.
    pub(super) fn request(self, tenant: &str, model: &str) -> Result<ChatRequest, RpcError> {
        self.refuse_what_is_not_served()?;
        let logprobs = self.alternatives()?;
        let schema = self.response_format.map(|format| format.0.schema()).transpose()?.flatten();
        let tools = tools::tools(self.tools.unwrap_or_default(), self.tool_choice, self.parallel_tool_calls)?;
        if tools.is_some() && schema.is_some() {
            return Err(invalid(
                "`tools` with a `response_format` other than text are not served, but with `tool_choice: none`",
            ));
        }
        if tools.is_some() && logprobs.is_some() {
            return Err(invalid("`logprobs` with `tools` are not served"));
        }
        Ok(ChatRequest {
            tenant: tenant.to_owned(),
            model: model.to_owned(),
            messages: self.messages.into_iter().map(|message| message.0.plain()).collect::<Result<_, _>>()?,
            max_tokens: self.max_completion_tokens.or(self.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS),
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            seed: self.seed.map(i64::cast_unsigned),
            stop: self.stop.map(OneOrMany::into_vec).unwrap_or_default(),
            logprobs,
            schema,
            tools,
            prompt: None,
        })
    }

    fn refuse_what_is_not_served(&self) -> Result<(), RpcError> {
        let weights = [self.frequency_penalty, self.presence_penalty];
        let refusal = if self.n.is_some_and(|n| n != 1) {
            "`n` other than 1 is not served"
        } else if self.functions.as_ref().is_some_and(|functions| !functions.is_empty()) {
            "`functions` are not served; `tools` are"
        } else if let Some(weights) = unserved_weights(weights, self.logit_bias.as_ref()) {
            weights
        } else if self.modalities.as_ref().is_some_and(|modalities| modalities.iter().any(|m| m != "text")) {
            "`modalities` other than text are not served"
        } else {
            return Ok(());
        };
        Err(invalid(refusal))
    }

    /// How many alternatives of each token are asked for; none without `logprobs`.
    fn alternatives(&self) -> Result<Option<u32>, RpcError> {
        match (self.wants_logprobs(), self.top_logprobs) {
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => Err(invalid("`top_logprobs` needs `logprobs: true`")),
        }
    }
}

impl ResponseFormat {
    /// The schema that the answer follows; `strict` or not, it is followed.
    fn schema(self) -> Result<Option<String>, RpcError> {
        match (&*self.kind, self.json_schema.and_then(|named| named.0.schema)) {
            ("text", _) => Ok(None),
            ("json_object", _) => Ok(Some(r#"{"type":"object"}"#.to_owned())),
            ("json_schema", Some(schema)) => Ok(Some(schema.to_string())),
            ("json_schema", None) => Err(invalid("`response_format.json_schema.schema` is missing")),
            (other, _) => Err(invalid(format!(
                "response_format `{other}` is not served; there are text, json_object and json_schema"
            ))),
        }
    }
}

impl Message {
    fn plain(self) -> Result<ChatMessage, RpcError> {
        let calls = tools::calls(self.tool_calls.unwrap_or_default())?;
        if !calls.is_empty() && self.role != "assistant" {
            return Err(invalid(format!("a message of the role `{}` has `tool_calls`", self.role)));
        }
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let texts: Result<Vec<String>, RpcError> = parts.into_iter().map(|part| part.0.plain()).collect();
                texts?.join("\n")
            }
            None if !calls.is_empty() => String::new(),
            None => return Err(invalid("a message has no `content`")),
        };
        Ok(ChatMessage { calls, call_id: self.tool_call_id, ..ChatMessage::new(self.role, content) })
    }
}

impl Part {
    fn plain(self) -> Result<String, RpcError> {
        match (&*self.kind, self.text) {
            ("text", Some(text)) => Ok(text),
            (kind, _) => Err(invalid(format!("content of type {kind} is not served"))),
        }
    }
}

impl EmbedBody {
    /// The request to the model, and whether vectors are wanted as base64.
    pub(super) fn request(self, tenant: &str, model: &str) -> Result<(EmbedRequest, bool), RpcError> {
        if self.dimensions.is_some() {
            return Err(invalid("`dimensions` is not served; vectors are as long as the model makes them"));
        }
        let as_base64 = match self.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => return Err(invalid(format!("encoding_format `{other}` is not served"))),
        };
        let input = OneOrMany::deserialize(self.input)
            .map_err(|_| invalid("`input` must be a text or a list of texts; tokens are not served"))?;
        let (tenant, model) = (tenant.to_owned(), model.to_owned());
        Ok((EmbedRequest { tenant, model, inputs: input.into_vec() }, as_base64))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: &Value) -> Result<ChatRequest, String> {
        let mut body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let body: ChatBody = serde_json::from_value(body).map_err(|cause| cause.to_string())?;
        body.request("acme", "m").map_err(|error| error.message)
    }

    #[test]
    fn what_is_served_reaches_the_model() {
        let schema = json!({ "type": "object", "required": ["a"] });
        let request = read(&json!({
            "max_tokens": 9, "max_completion_tokens": 7, "seed": -1, "stop": "end", "logprobs": true,
            "top_logprobs": 4, "user": "u", "tools": [], "frequency_penalty": 0, "stream_options": null,
            "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": schema } },
        }))
        .unwrap();
        assert_eq!((request.tenant.as_str(), request.max_tokens, request.seed), ("acme", 7, Some(u64::MAX)));
        assert_eq!((request.stop, request.logprobs), (vec!["end".to_owned()], Some(4)));
        assert_eq!(serde_json::from_str::<Value>(&request.schema.unwrap()).unwrap(), schema);
        assert_eq!(read(&json!({ "logprobs": true })).unwrap().logprobs, Some(0));
        assert_eq!(read(&json!({ "logprobs": false })).unwrap().logprobs, None);
        assert_eq!(read(&json!({ "response_format": { "type": "text" } })).unwrap().schema, None);
        assert!(read(&json!({ "response_format": { "type": "json_object" } })).unwrap().schema.is_some());
        let parts = json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "a" }] }] });
        assert_eq!(read(&parts).unwrap().messages[0].content, "a");
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let function = json!([{ "type": "function", "function": { "name": "f" } }]);
        let made = json!([{ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } }]);
        for (body, says) in [
            (json!({ "n": 2 }), "`n`"),
            (json!({ "tools": function, "logprobs": true }), "`logprobs` with `tools`"),
            (json!({ "tools": function, "response_format": { "type": "json_object" } }), "`response_format`"),
            (json!({ "tools": function, "tool_choice": "always" }), "`tool_choice`"),
            (json!({ "functions": function }), "`functions`"),
            (json!({ "presence_penalty": 0.5 }), "presence_penalty"),
            (json!({ "logit_bias": { "5": 1 } }), "logit_bias"),
            (json!({ "modalities": ["audio"] }), "modalities"),
            (json!({ "top_logprobs": 2 }), "logprobs: true"),
            (json!({ "response_format": { "type": "json_schema" } }), "schema` is missing"),
            (json!({ "response_format": { "type": "grammar" } }), "`grammar`"),
            (json!({ "messages": [{ "role": "user" }] }), "no `content`"),
            (json!({ "messages": [{ "role": "assistant", "tool_calls": [{ "id": "c" }] }] }), "tool_calls"),
            (json!({ "messages": [{ "role": "user", "content": "a", "tool_calls": made }] }), "`user`"),
            (json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }), "image_url"),
        ] {
            let refused = read(&body).unwrap_err();
            assert!(refused.contains(says), "{body}: {refused}");
        }
        // Values without names: guards could not tell what they are.
        for body in [
            json!({ "messages": [["user", "hi"]] }),
            json!({ "messages": [{ "role": "user", "content": [["text", "hi"]] }] }),
            json!({ "messages": [{ "role": "assistant", "tool_calls": [["c", "function", ["f", "{}"]]] }] }),
            json!({ "messages": [{ "role": "assistant", "tool_calls": [{ "id": "c", "function": ["f", "{}"] }] }] }),
            json!({ "tools": [["function", ["f", "what it does", null, false]]] }),
            json!({ "tools": [{ "type": "function", "function": ["f", "what it does", null, false] }] }),
            json!({ "response_format": ["json_schema", { "schema": {} }] }),
            json!({ "response_format": { "type": "json_schema", "json_schema": [{}] } }),
        ] {
            assert!(read(&body).is_err(), "{body}");
        }
        let none = read(&json!({ "tools": function, "tool_choice": "none", "logprobs": true })).unwrap();
        assert_eq!(none.tools, None);
    }

    #[test]
    fn texts_are_embedded_and_tokens_are_refused_by_name() {
        let read = |body: Value| {
            let body: EmbedBody = serde_json::from_value(body).map_err(|cause| cause.to_string())?;
            body.request("acme", "m").map_err(|error| error.message)
        };
        assert_eq!(read(json!({ "input": "a" })).unwrap().0.inputs, ["a"]);
        let (request, as_base64) = read(json!({ "input": ["a", "b"], "encoding_format": "base64" })).unwrap();
        assert!(as_base64 && request.inputs == ["a", "b"]);
        for input in [json!([1, 2]), json!([[1], [2]]), json!(["a", 1]), json!({ "text": "a" }), json!(null)] {
            let refused = read(json!({ "input": input })).unwrap_err();
            assert!(refused.contains("tokens are not served"), "{input}: {refused}");
        }
        assert!(read(json!({ "input": "a", "dimensions": 3 })).unwrap_err().contains("`dimensions`"));
    }

    #[test]
    fn tools_and_what_was_called_reach_the_model() {
        let function = json!([{ "type": "function", "function": { "name": "f" } }]);
        let made = json!([{ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{\"a\": 1}" } }]);
        let messages = json!([
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": null, "tool_calls": made },
            { "role": "tool", "content": "done", "tool_call_id": "c" },
        ]);
        let request = read(&json!({ "tools": function, "parallel_tool_calls": false, "messages": messages })).unwrap();
        assert!(request.tools.is_some_and(|tools| !tools.parallel && tools.functions[0].name == "f"));
        let [_, asked, told] = &request.messages[..] else { panic!("{:?}", request.messages) };
        assert_eq!((&*asked.content, &*asked.calls[0].id, &asked.calls[0].arguments["a"]), ("", "c", &json!(1)));
        assert_eq!((&*told.content, told.call_id.as_deref()), ("done", Some("c")));
    }
}
