//! `inference`: the GPU nodes' models as tools.

use futures::StreamExt;
use provost_data_pipeline::Usage;
use provost_types::{ChatEvent, ChatMessage, ChatRequest, EmbedRequest, FinishReason, Inference, TokenUsage};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Outcome;

/// Tokens made if the caller names no limit.
const DEFAULT_MAX_TOKENS: u32 = 256;
/// Most texts of one embedding call.
const MAX_INPUTS: usize = 256;

pub(super) fn tools() -> Vec<Value> {
    let model = json!({"type": "string", "description": "A model's name, as `models` gives it."});
    let hints = json!({"readOnlyHint": true, "openWorldHint": false});
    vec![
        json!({
            "name": "chat",
            "title": "Ask a model",
            "description": "Continues a conversation with one of the cluster's own models.",
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
                                "role": {"enum": ["system", "user", "assistant"]},
                                "content": {"type": "string"},
                            },
                            "required": ["role", "content"],
                        },
                    },
                    "maxTokens": {"type": "integer", "minimum": 1, "maximum": 32768},
                    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
                    "topP": {"type": "number", "minimum": 0, "maximum": 1},
                    "seed": {"type": "integer", "minimum": 0},
                    "stop": {"type": "array", "items": {"type": "string"}, "maxItems": 8},
                },
                "required": ["model", "messages"],
                "additionalProperties": false,
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "finishReason": {"enum": ["stop", "length"]},
                    "promptTokens": {"type": "integer"},
                    "completionTokens": {"type": "integer"},
                },
                "required": ["text", "finishReason", "promptTokens", "completionTokens"],
            },
            "annotations": hints,
        }),
        json!({
            "name": "embed",
            "title": "Embed texts",
            "description": "Turns texts into vectors of unit length.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "model": model,
                    "inputs": {"type": "array", "items": {"type": "string"}, "minItems": 1,
                               "maxItems": MAX_INPUTS},
                },
                "required": ["model", "inputs"],
                "additionalProperties": false,
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "vectors": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                    "promptTokens": {"type": "integer"},
                },
                "required": ["vectors", "promptTokens"],
            },
            "annotations": hints,
        }),
        json!({
            "name": "models",
            "title": "List models",
            "description": "Lists the models that can be used now.",
            "inputSchema": {"type": "object", "properties": {}, "additionalProperties": false},
            "outputSchema": {
                "type": "object",
                "properties": {"models": {"type": "array", "items": {"type": "object"}}},
                "required": ["models"],
            },
            "annotations": hints,
        }),
    ]
}

pub(super) async fn call(
    inference: &dyn Inference,
    tenant: &str,
    tool: &str,
    arguments: &Map<String, Value>,
) -> Outcome {
    let done = match tool {
        "chat" => chat(inference, tenant, arguments).await,
        "embed" => embed(inference, tenant, arguments).await,
        _ => return Outcome::structured(json!({"models": inference.models_of(tenant)})),
    };
    done.unwrap_or_else(Outcome::failure)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChatArguments {
    model: String,
    messages: Vec<Said>,
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
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
}

/// Reads the arguments of a chat. Messages are objects: serde also takes the values of their members in an array, where guards
/// that protect places by name could not tell what they are.
fn chat_arguments(arguments: &Map<String, Value>) -> Result<ChatArguments, String> {
    let messages = arguments.get("messages").and_then(Value::as_array);
    if messages.is_some_and(|messages| !messages.iter().all(Value::is_object)) {
        return Err("the arguments are wrong: each of `messages` must be an object".to_owned());
    }
    read(arguments)
}

async fn chat(inference: &dyn Inference, tenant: &str, arguments: &Map<String, Value>) -> Result<Outcome, String> {
    let given = chat_arguments(arguments)?;
    let request = ChatRequest {
        tenant: tenant.to_owned(),
        model: given.model,
        messages: given.messages.into_iter().map(|said| ChatMessage::new(said.role, said.content)).collect(),
        max_tokens: given.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        temperature: given.temperature,
        top_p: given.top_p.unwrap_or(1.0),
        seed: given.seed,
        stop: given.stop,
        logprobs: None,
        schema: None,
        tools: None,
    };
    let mut events = inference.chat(request).await.map_err(|cause| cause.to_string())?;
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event.map_err(|cause| cause.to_string())? {
            ChatEvent::Delta(more) => text.push_str(&more),
            ChatEvent::Tokens(_) | ChatEvent::Calls(_) | ChatEvent::Silent => {}
            ChatEvent::End { reason, usage } => return Ok(answered(&text, reason, usage)),
        }
    }
    Err("the generation ended without an end; try again".to_owned())
}

fn answered(text: &str, reason: FinishReason, usage: TokenUsage) -> Outcome {
    let structured = json!({
        "text": text,
        "finishReason": reason,
        "promptTokens": usage.prompt,
        "completionTokens": usage.completion,
    });
    let result = json!({
        "content": [{"type": "text", "text": text}],
        "structuredContent": structured,
    });
    let usage = Usage { tokens_in: usage.prompt, tokens_out: usage.completion, ..Usage::default() };
    Outcome { result, usage }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbedArguments {
    model: String,
    inputs: Vec<String>,
}

async fn embed(inference: &dyn Inference, tenant: &str, arguments: &Map<String, Value>) -> Result<Outcome, String> {
    let EmbedArguments { model, inputs } = read(arguments)?;
    if inputs.is_empty() || inputs.len() > MAX_INPUTS {
        return Err(format!("`inputs` must have 1 to {MAX_INPUTS} texts"));
    }
    let request = EmbedRequest { tenant: tenant.to_owned(), model, inputs };
    let response = inference.embed(request).await.map_err(|cause| cause.to_string())?;
    let mut outcome = Outcome::structured(json!({
        "vectors": response.vectors,
        "promptTokens": response.usage.prompt,
    }));
    outcome.usage.tokens_in = response.usage.prompt;
    Ok(outcome)
}

fn read<T: serde::de::DeserializeOwned>(arguments: &Map<String, Value>) -> Result<T, String> {
    T::deserialize(Value::Object(arguments.clone())).map_err(|cause| format!("the arguments are wrong: {cause}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_objects() {
        let read = |messages: Value| {
            let arguments = json!({ "model": "m", "messages": messages });
            chat_arguments(arguments.as_object().unwrap()).map(|given| given.messages.len())
        };
        assert_eq!(read(json!([{ "role": "user", "content": "hi" }])), Ok(1));
        assert!(read(json!([["user", "hi"]])).unwrap_err().contains("`messages`"));
        assert!(read(json!("hi")).is_err());
    }
}
