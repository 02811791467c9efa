//! Models by the OpenAI-compatible endpoints: the body is parsed here, the answer rendered here.
//!
//! Shapes: OpenAI API reference, "Create chat completion", "Create embeddings", "List models".

use futures::StreamExt;
use provost_data_pipeline::{Call, ClientLink, Execution, Intended, Operation, Usage};
use provost_mcp::{RawJson, RpcError};
use provost_types::{
    ChatEvent, ChatMessage, ChatRequest, EmbedRequest, FinishReason, InferenceError, InferenceErrorKind, TokenUsage,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{limit::read_at_most, plane::Node};

/// Tokens of an answer where the caller names no bound.
pub(super) const DEFAULT_MAX_TOKENS: u32 = 512;
/// The notification under which chunks of a streamed answer reach the front end.
pub(crate) const CHUNK: &str = "provost/chunk";

#[derive(Deserialize)]
struct ChatBody {
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: StreamOptions,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    n: Option<u32>,
}

#[derive(Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Content,
}

/// `content` is a text, or a list of parts of which the text ones count.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct EmbedBody {
    input: OneOrMany,
    encoding_format: Option<String>,
}

/// Runs a chat or an embedding on a model that policy has admitted.
pub(super) async fn run(node: &Node, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
    let outcome = match &call.request().operation {
        Operation::Chat(model) => chat(node, model, call, link).await,
        Operation::Embed(model) => embed(node, model, call).await,
        other => Err(RpcError::with_code(
            RpcError::INTERNAL,
            "PV-NODE-ROUTING",
            format!("{} has no plugin to run on", other.method()),
        )),
    };
    outcome.unwrap_or_else(Execution::error)
}

fn invalid(cause: impl std::fmt::Display) -> RpcError {
    RpcError::with_code(
        RpcError::INVALID_PARAMS,
        "PV-OPENAI-BODY",
        format!("the request body is not as the API wants it: {cause}"),
    )
}

fn failed(error: &InferenceError) -> RpcError {
    let (number, code) = match error.kind {
        InferenceErrorKind::ModelNotFound => (RpcError::INVALID_PARAMS, "PV-MODEL-UNKNOWN"),
        InferenceErrorKind::InvalidRequest => (RpcError::INVALID_PARAMS, "PV-MODEL-REQUEST"),
        InferenceErrorKind::Busy => (RpcError::LIMIT_EXCEEDED, "PV-MODEL-BUSY"),
        InferenceErrorKind::Failed => (RpcError::UPSTREAM_FAILED, "PV-MODEL-FAILED"),
    };
    RpcError::with_code(number, code, error.to_string())
}

fn chat_request(tenant: &str, model: &str, body: &ChatBody) -> Result<ChatRequest, RpcError> {
    if body.n.is_some_and(|n| n != 1) {
        return Err(invalid("`n` other than 1 is not served"));
    }
    let messages = body
        .messages
        .iter()
        .map(|m| match &m.content {
            Content::Text(text) => Ok(ChatMessage { role: m.role.clone(), content: text.clone() }),
            Content::Parts(parts) => {
                let texts: Result<Vec<&str>, RpcError> = parts
                    .iter()
                    .map(|p| match (&*p.kind, &p.text) {
                        ("text", Some(text)) => Ok(text.as_str()),
                        (kind, _) => Err(invalid(format!("content of type {kind} is not served"))),
                    })
                    .collect();
                Ok(ChatMessage { role: m.role.clone(), content: texts?.join("\n") })
            }
        })
        .collect::<Result<_, _>>()?;
    Ok(ChatRequest {
        tenant: tenant.to_owned(),
        model: model.to_owned(),
        messages,
        max_tokens: body.max_completion_tokens.or(body.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS),
        temperature: body.temperature.unwrap_or(1.0),
        top_p: body.top_p.unwrap_or(1.0),
        seed: body.seed.map(i64::cast_unsigned),
        stop: match &body.stop {
            None => Vec::new(),
            Some(OneOrMany::One(stop)) => vec![stop.clone()],
            Some(OneOrMany::Many(stops)) => stops.clone(),
        },
        logprobs: None,
    })
}

/// What one chat answer is called and dated, in each of its chunks.
struct Frame<'a> {
    id: String,
    created: u64,
    model: &'a str,
}

impl Frame<'_> {
    fn chunk(&self, delta: Value, finish: Option<&str>) -> RawJson {
        RawJson::from(json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        }))
    }

    fn usage_chunk(&self, usage: TokenUsage) -> RawJson {
        RawJson::from(json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": [], "usage": usage_json(usage),
        }))
    }

    fn whole(&self, text: &str, finish: &str, usage: TokenUsage) -> RawJson {
        RawJson::from(json!({
            "id": self.id, "object": "chat.completion", "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": text },
                "finish_reason": finish,
            }],
            "usage": usage_json(usage),
        }))
    }
}

fn usage_json(usage: TokenUsage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    })
}

async fn chat(node: &Node, model: &str, call: &Call<Intended>, link: &dyn ClientLink) -> Result<Execution, RpcError> {
    let body: ChatBody = call.params().parse().map_err(invalid)?;
    let request = chat_request(call.caller().principal.tenant.as_str(), model, &body)?;
    let frame = Frame {
        id: format!("chatcmpl-{}", call.request().call_id),
        created: call.request().arrived_ns / 1_000_000_000,
        model,
    };
    let mut events = node.inference.chat(request).await.map_err(|e| failed(&e))?;
    let cancelled = link.cancelled();
    futures::pin_mut!(cancelled);
    let mut text = String::new();
    if body.stream {
        link.notify(CHUNK, frame.chunk(json!({ "role": "assistant", "content": "" }), None));
    }
    loop {
        let event = match futures::future::select(events.next(), &mut cancelled).await {
            futures::future::Either::Left((event, _)) => event,
            // Dropping the stream stops the generation.
            futures::future::Either::Right(((), _)) => {
                let mut execution = Execution::cancelled();
                // Nobody counted what was read and made until now, and it is not free: upper bounds.
                let (tokens_in, tokens_out) = (read_at_most(call.params()), text.len() as u64);
                execution.usage = Usage { tokens_in, tokens_out, ..Usage::default() };
                return Ok(execution);
            }
        };
        match event {
            Some(Ok(ChatEvent::Delta(delta))) => {
                if body.stream {
                    link.notify(CHUNK, frame.chunk(json!({ "content": delta }), None));
                }
                text.push_str(&delta);
            }
            Some(Ok(ChatEvent::Tokens(_))) => {}
            Some(Ok(ChatEvent::End { reason, usage })) => {
                let finish = match reason {
                    FinishReason::Stop => "stop",
                    FinishReason::Length => "length",
                };
                if body.stream {
                    link.notify(CHUNK, frame.chunk(json!({}), Some(finish)));
                    if body.stream_options.include_usage {
                        link.notify(CHUNK, frame.usage_chunk(usage));
                    }
                }
                let mut execution = Execution::result(frame.whole(&text, finish, usage), false);
                execution.usage = used(usage);
                return Ok(execution);
            }
            Some(Err(error)) => return Err(failed(&error)),
            None => {
                return Err(RpcError::with_code(
                    RpcError::UPSTREAM_FAILED,
                    "PV-MODEL-FAILED",
                    "the model stopped without an end; try again",
                ));
            }
        }
    }
}

fn used(usage: TokenUsage) -> Usage {
    Usage { tokens_in: usage.prompt, tokens_out: usage.completion, ..Usage::default() }
}

async fn embed(node: &Node, model: &str, call: &Call<Intended>) -> Result<Execution, RpcError> {
    let body: EmbedBody = call.params().parse().map_err(invalid)?;
    let inputs = match body.input {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    };
    let as_base64 = match body.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => return Err(invalid(format!("encoding_format `{other}` is not served"))),
    };
    let tenant = call.caller().principal.tenant.as_str().to_owned();
    let request = EmbedRequest { tenant, model: model.to_owned(), inputs };
    let response = node.inference.embed(request).await.map_err(|e| failed(&e))?;
    let data: Vec<Value> = response
        .vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let embedding = if as_base64 { base64_floats(vector) } else { json!(vector) };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    let body = json!({
        "object": "list", "model": model, "data": data,
        "usage": {
            "prompt_tokens": response.usage.prompt,
            "total_tokens": response.usage.prompt,
        },
    });
    let mut execution = Execution::result(RawJson::from(body), false);
    execution.usage = used(response.usage);
    Ok(execution)
}

/// Little-endian 32-bit floats in base64, the official clients' default.
fn base64_floats(vector: &[f32]) -> Value {
    use base64::Engine;
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
}
