//! Models by the OpenAI-compatible endpoints: the body is parsed here, the answer rendered here.
//!
//! A guard looks at texts, and a list of tokens would tell what it masks: where one watches, tokens'
//! likelihoods are refused.
//!
//! Recordings come beside the body, and are in [`speech`].
//!
//! Shapes: OpenAI API reference, "Create chat completion", "Create embeddings", "List models".

mod answer;
mod body;
mod frame;
mod object;
mod speech;
mod tools;

use futures::StreamExt;
use provost_data_pipeline::{Call, ClientLink, Execution, Intended, Operation, Usage};
use provost_mcp::{RawJson, RpcError};
use provost_types::{ChatEvent, FinishReason, InferenceError, InferenceErrorKind, TokenUsage};
use serde_json::{Value, json};

use self::{
    answer::Answer,
    body::{ChatBody, EmbedBody, invalid},
    frame::Frame,
};
use super::{limit::read_at_most, plane::Node};

/// Tokens of an answer where the caller names no bound.
pub(super) const DEFAULT_MAX_TOKENS: u32 = 512;
/// The notification under which chunks of a streamed answer reach the front end.
pub(crate) const CHUNK: &str = "provost/chunk";

/// Runs a chat, an embedding or a transcription on a model that policy has admitted.
pub(super) async fn run(node: &Node, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
    let outcome = match &call.request().operation {
        Operation::Chat(model) => chat(node, model, call, link).await,
        Operation::Embed(model) => embed(node, model, call, link).await,
        Operation::Transcribe(model) => speech::transcribe(node, model, call, link).await,
        other => Err(RpcError::with_code(
            RpcError::INTERNAL,
            "PV-NODE-ROUTING",
            format!("{} has no plugin to run on", other.method()),
        )),
    };
    outcome.unwrap_or_else(Execution::error)
}

fn failed(error: &InferenceError) -> RpcError {
    let (number, code) = match error.kind {
        InferenceErrorKind::ModelNotFound => (RpcError::INVALID_PARAMS, "PV-MODEL-UNKNOWN"),
        InferenceErrorKind::InvalidRequest => (RpcError::INVALID_PARAMS, "PV-MODEL-REQUEST"),
        InferenceErrorKind::Busy => (RpcError::LIMIT_EXCEEDED, "PV-MODEL-BUSY"),
        InferenceErrorKind::Failed => (RpcError::UPSTREAM_FAILED, "PV-MODEL-FAILED"),
    };
    let mut failed = RpcError::with_code(number, code, error.to_string());
    if let Some(ms) = error.retry_after_ms {
        failed.data = Some(RawJson::from(json!({ "code": code, "retryAfterMs": ms })));
    }
    failed
}

async fn chat(node: &Node, model: &str, call: &Call<Intended>, link: &dyn ClientLink) -> Result<Execution, RpcError> {
    let body: ChatBody = call.params().parse().map_err(invalid)?;
    let (streams, wants_usage, wants_logprobs) = (body.stream, body.wants_usage(), body.wants_logprobs());
    if wants_logprobs && call.guard().is_some() {
        return Err(invalid(
            "`logprobs` are not served here: a guard looks at the answer, and tokens would tell what it hides",
        ));
    }
    let request = body.request(call.caller().principal.tenant.as_str(), model)?;
    let frame = Frame {
        id: format!("chatcmpl-{}", call.request().call_id),
        created: call.request().arrived_ns / 1_000_000_000,
        model,
    };
    let cancelled = link.cancelled();
    futures::pin_mut!(cancelled);
    let begins = match streams {
        true => node.inference.chat(request),
        false => node.inference.chat_whole(request),
    };
    let mut events = match futures::future::select(begins, &mut cancelled).await {
        futures::future::Either::Left((begun, _)) => begun.map_err(|e| failed(&e))?,
        // It gives its place in the queue back; nothing was computed.
        futures::future::Either::Right(((), _)) => return Ok(Execution::cancelled()),
    };
    let mut answer = Answer::default();
    if streams {
        link.notify(CHUNK, frame.chunk(json!({ "role": "assistant", "content": "" }), &[], None));
    }
    loop {
        let event = match futures::future::select(events.next(), &mut cancelled).await {
            futures::future::Either::Left((event, _)) => event,
            // Dropping the stream stops the generation.
            futures::future::Either::Right(((), _)) => {
                return Ok(unended(Execution::cancelled(), call, answer.made_at_most()));
            }
        };
        match event {
            Some(Ok(ChatEvent::Tokens(more))) => answer.tokens.extend(more),
            Some(Ok(ChatEvent::Silent)) => answer.silent += 1,
            Some(Ok(ChatEvent::Delta(delta))) => {
                if streams {
                    link.notify(CHUNK, frame.chunk(json!({ "content": delta }), answer.untold(), None));
                }
                answer.text.push_str(&delta);
            }
            Some(Ok(ChatEvent::Calls(deltas))) => {
                let pieces = answer.add_calls(deltas);
                if streams {
                    link.notify(CHUNK, frame.chunk(json!({ "tool_calls": pieces }), &[], None));
                }
            }
            Some(Ok(ChatEvent::End { reason, usage })) => {
                let finish = match reason {
                    FinishReason::Stop => "stop",
                    FinishReason::ToolCalls => "tool_calls",
                    FinishReason::Length => "length",
                };
                if streams {
                    link.notify(CHUNK, frame.chunk(json!({}), answer.untold(), Some(finish)));
                    if wants_usage {
                        link.notify(CHUNK, frame.usage_chunk(usage));
                    }
                }
                let mut execution = Execution::result(frame.whole(&answer, wants_logprobs, finish, usage), false);
                execution.usage = used(usage);
                return Ok(execution);
            }
            Some(Err(error)) => return Ok(unended(Execution::error(failed(&error)), call, answer.made_at_most())),
            None => {
                let why = "the model stopped without an end; try again";
                let error = RpcError::with_code(RpcError::UPSTREAM_FAILED, "PV-MODEL-FAILED", why);
                return Ok(unended(Execution::error(error), call, answer.made_at_most()));
            }
        }
    }
}

/// The end of an answer that broke off after so many tokens at most. Nobody counted what was read and made until then,
/// and it is not free: upper bounds.
fn unended(mut execution: Execution, call: &Call<Intended>, tokens_out: u64) -> Execution {
    let tokens_in = read_at_most(call.params());
    execution.usage = Usage { tokens_in, tokens_out, ..Usage::default() };
    execution
}

fn used(usage: TokenUsage) -> Usage {
    Usage { tokens_in: usage.prompt, tokens_out: usage.completion, ..Usage::default() }
}

async fn embed(node: &Node, model: &str, call: &Call<Intended>, link: &dyn ClientLink) -> Result<Execution, RpcError> {
    let body: EmbedBody = call.params().parse().map_err(invalid)?;
    let (request, as_base64) = body.request(call.caller().principal.tenant.as_str(), model)?;
    let response = match futures::future::select(node.inference.embed(request), link.cancelled()).await {
        futures::future::Either::Left((response, _)) => response.map_err(|e| failed(&e))?,
        // Part of it may have been computed.
        futures::future::Either::Right(((), _)) => return Ok(unended(Execution::cancelled(), call, 0)),
    };
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
