//! Models by the OpenAI-compatible endpoints: the body is parsed here, the answer rendered here.
//!
//! A guard looks at texts, and a list of tokens would tell what it masks: where one watches, tokens'
//! likelihoods are refused.
//!
//! Recordings come beside the body, and are in [`speech`].
//!
//! Shapes: OpenAI API reference, "Create chat completion", "Create completion", "Create embeddings", "List models". A completion
//! is a chat whose prompt stands as it is: its body has `prompt` in place of `messages` ([`is_completion`]).

mod answer;
mod body;
mod completion;
mod frame;
mod object;
mod speech;
mod tools;

use futures::StreamExt;
use provost_data_pipeline::{Call, ClientLink, Execution, Intended, Operation, Usage};
use provost_mcp::{RawJson, RawObject, RpcError};
use provost_types::{ChatEvent, ChatRequest, FinishReason, InferenceError, InferenceErrorKind, TokenUsage};
use serde_json::{Value, json};

use self::{
    answer::Answer,
    body::{ChatBody, EmbedBody, invalid},
    completion::CompletionBody,
    frame::{Frame, Shape},
};
use super::{limit::read_at_most, plane::Node};
use crate::openai::is_completion;

/// Tokens of an answer where the caller names no bound.
const DEFAULT_MAX_TOKENS: u32 = 512;
/// The same where a text is gone on with, as OpenAI's API has it.
const DEFAULT_COMPLETION_TOKENS: u32 = 16;
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

/// Tokens that are made for the body of a chat or of a completion, where it names no bound.
pub(super) fn default_max_tokens(body: &RawObject) -> u32 {
    if is_completion(body) { DEFAULT_COMPLETION_TOKENS } else { DEFAULT_MAX_TOKENS }
}

/// What a body asks for.
struct Asked {
    shape: Shape,
    streams: bool,
    wants_usage: bool,
    wants_logprobs: bool,
    request: ChatRequest,
}

fn asked(call: &Call<Intended>, model: &str) -> Result<Asked, RpcError> {
    let (params, tenant) = (call.params(), call.caller().principal.tenant.as_str());
    let is_guarded = call.guard().is_some();
    let refuse_logprobs = |wants: bool| match wants && is_guarded {
        true => Err(invalid(
            "`logprobs` are not served here: a guard looks at the answer, and tokens would tell what it hides",
        )),
        false => Ok(()),
    };
    if RawObject::parse(params).is_ok_and(|body| is_completion(&body)) {
        let body: CompletionBody = params.parse().map_err(invalid)?;
        let (streams, wants_usage, wants_logprobs) = (body.stream, body.wants_usage(), body.wants_logprobs());
        refuse_logprobs(wants_logprobs)?;
        if streams && is_guarded {
            return Err(invalid(
                "`stream` is not served here: a guard looks at the answer, which it does with streams of \
                 /v1/chat/completions only",
            ));
        }
        let request = body.request(tenant, model)?;
        return Ok(Asked { shape: Shape::Completion, streams, wants_usage, wants_logprobs, request });
    }
    let body: ChatBody = params.parse().map_err(invalid)?;
    let (streams, wants_usage, wants_logprobs) = (body.stream, body.wants_usage(), body.wants_logprobs());
    refuse_logprobs(wants_logprobs)?;
    let request = body.request(tenant, model)?;
    Ok(Asked { shape: Shape::Chat, streams, wants_usage, wants_logprobs, request })
}

async fn chat(node: &Node, model: &str, call: &Call<Intended>, link: &dyn ClientLink) -> Result<Execution, RpcError> {
    let Asked { shape, streams, wants_usage, wants_logprobs, request } = asked(call, model)?;
    let frame = Frame {
        shape,
        id: format!("{}-{}", shape.prefix(), call.request().call_id),
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
    if streams && shape == Shape::Chat {
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
                    let before = answer.text.len();
                    link.notify(CHUNK, frame.text(&delta, answer.untold(), before));
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
                    let before = answer.text.len();
                    link.notify(CHUNK, frame.end(answer.untold(), before, finish));
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
