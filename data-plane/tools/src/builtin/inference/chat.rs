//! `chat`: a conversation with a model, which may call functions of whoever asks.

use futures::StreamExt;
use provost_data_pipeline::Usage;
use provost_types::{ChatEvent, ChatMessage, ChatRequest, FinishReason, Inference, TokenUsage};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    functions::{self, Call, Choice, Function, Made},
    read,
};
use crate::builtin::{Outcome, UnderWay};

/// Tokens made if the caller names no limit.
const DEFAULT_MAX_TOKENS: u32 = 256;

/// The tool, with what is said of a model's name and of all tools.
pub(super) fn definition(model: &Value, hints: &Value) -> Value {
    let cut_off = json!({"type": ["object", "string"], "description": "An object; where it was cut off, what there is of its text."});
    json!({
        "name": "chat",
        "title": "Ask a model",
        "description": "Continues a conversation with one of the cluster's own models, or a text.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "model": model,
                "messages": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {
                            "role": {"enum": ["system", "user", "assistant", "tool"]},
                            "content": {"type": "string"},
                            "toolCalls": functions::calls_schema(&json!({"type": "object"})),
                            "toolCallId": {"type": "string", "description": "Whose result a message of the role `tool` is."},
                        },
                        "required": ["role", "content"],
                    },
                },
                "prompt": {"type": "string", "description": "A text to go on with as it stands, in place of `messages` and `tools`."},
                "maxTokens": {"type": "integer", "minimum": 1, "maximum": 32768},
                "temperature": {"type": "number", "minimum": 0, "maximum": 2},
                "topP": {"type": "number", "minimum": 0, "maximum": 1},
                "seed": {"type": "integer", "minimum": 0},
                "stop": {"type": "array", "items": {"type": "string"}, "maxItems": 8},
                "tools": functions::tools_schema(),
                "toolChoice": functions::choice_schema(),
                "parallelToolCalls": {"type": "boolean", "description": "More than one call in an answer, which is the rule."},
            },
            "required": ["model"],
            "additionalProperties": false,
        },
        "outputSchema": {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "toolCalls": functions::calls_schema(&cut_off),
                "finishReason": {"enum": ["stop", "tool_calls", "length"]},
                "promptTokens": {"type": "integer"},
                "completionTokens": {"type": "integer"},
            },
            "required": ["text", "toolCalls", "finishReason", "promptTokens", "completionTokens"],
        },
        "annotations": hints,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChatArguments {
    model: String,
    #[serde(default)]
    messages: Vec<Said>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    temperature: f32,
    #[serde(default)]
    top_p: Option<f32>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    stop: Vec<String>,
    #[serde(default)]
    tools: Vec<Function>,
    #[serde(default)]
    tool_choice: Option<Choice>,
    #[serde(default)]
    parallel_tool_calls: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    role: String,
    content: String,
    #[serde(default)]
    tool_calls: Vec<Made>,
    #[serde(default)]
    tool_call_id: Option<String>,
}

impl Said {
    fn plain(self) -> Result<ChatMessage, String> {
        let calls = functions::made(&self.role, self.tool_calls)?;
        Ok(ChatMessage { calls, call_id: self.tool_call_id, ..ChatMessage::new(self.role, self.content) })
    }
}

/// Reads the arguments of a chat. What has members is an object: serde also takes the values of members in an array, where
/// guards that protect places by name could not tell what they are.
fn chat_arguments(arguments: &Map<String, Value>) -> Result<ChatArguments, String> {
    let messages = arguments.get("messages");
    are_objects("messages", messages)?;
    are_objects("tools", arguments.get("tools"))?;
    for message in messages.and_then(Value::as_array).into_iter().flatten() {
        are_objects("toolCalls", message.get("toolCalls"))?;
    }
    if arguments.get("toolChoice").is_some_and(Value::is_array) {
        return Err("the arguments are wrong: `toolChoice` must be a word or an object".to_owned());
    }
    let given: ChatArguments = read(arguments)?;
    match (messages.is_some(), given.prompt.is_some()) {
        (true, false) => Ok(given),
        (false, true) if given.tools.is_empty() => Ok(given),
        (false, true) => Err("the arguments are wrong: a `prompt` excludes `tools`".to_owned()),
        _ => Err("the arguments are wrong: give `messages`, or a `prompt` in their place".to_owned()),
    }
}

fn are_objects(name: &str, list: Option<&Value>) -> Result<(), String> {
    let list = list.and_then(Value::as_array);
    match list.is_some_and(|list| !list.iter().all(Value::is_object)) {
        true => Err(format!("the arguments are wrong: each of `{name}` must be an object")),
        false => Ok(()),
    }
}

pub(super) async fn chat(
    inference: &dyn Inference,
    tenant: &str,
    arguments: &Map<String, Value>,
    under_way: &UnderWay,
) -> Result<Outcome, String> {
    let given = chat_arguments(arguments)?;
    let request = ChatRequest {
        tenant: tenant.to_owned(),
        model: given.model,
        messages: given.messages.into_iter().map(Said::plain).collect::<Result<_, _>>()?,
        max_tokens: given.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        temperature: given.temperature,
        top_p: given.top_p.unwrap_or(1.0),
        seed: given.seed,
        stop: given.stop,
        logprobs: None,
        schema: None,
        tools: functions::tools(given.tools, given.tool_choice, given.parallel_tool_calls)?,
        prompt: given.prompt,
    };
    let mut events = inference.chat_whole(request).await.map_err(|cause| cause.to_string())?;
    under_way.begins();
    let (mut text, mut calls) = (String::new(), Vec::new());
    while let Some(event) = events.next().await {
        let event = event.map_err(|cause| cause.to_string())?;
        under_way.hears(&event);
        match event {
            ChatEvent::Delta(more) => text.push_str(&more),
            ChatEvent::Calls(deltas) => functions::add(&mut calls, deltas),
            ChatEvent::Tokens(_) | ChatEvent::Silent => {}
            ChatEvent::End { reason, usage } => return Ok(answered(&text, &calls, reason, usage)),
        }
    }
    Err("the generation ended without an end; try again".to_owned())
}

fn answered(text: &str, calls: &[Call], reason: FinishReason, usage: TokenUsage) -> Outcome {
    let structured = json!({
        "text": text,
        "toolCalls": calls.iter().map(Call::shown).collect::<Vec<_>>(),
        "finishReason": reason,
        "promptTokens": usage.prompt,
        "completionTokens": usage.completion,
    });
    // Clients that know no structure see the calls as well.
    let said = if calls.is_empty() { text.to_owned() } else { structured.to_string() };
    let result = json!({
        "content": [{"type": "text", "text": said}],
        "structuredContent": structured,
    });
    let usage = Usage { tokens_in: usage.prompt, tokens_out: usage.completion, ..Usage::default() };
    Outcome { result, usage }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
