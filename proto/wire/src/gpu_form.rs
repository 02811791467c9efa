//! Between wire forms of [`crate::gpu`] and what GPU nodes and data planes mean by them.

use provost_types::{
    CallDelta, CallHead, ChatEvent, EmbedResponse, FinishReason, GpuReport, InferenceError, InferenceErrorKind,
    LikelyToken, ModelInfo, ModelKind, ModelReport, ModelState, SpeechSegment, TokenLogprob, TokenUsage, Transcript,
};

use crate::gpu as wire;
use crate::gpu::chat_event::Event;

/// Bytes of one message: a conversation as JSON, or the vectors of all texts of a request.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A message that is not as `proto/gpu.proto` has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PV-GPU-MESSAGE: {0}; do both nodes run the same release?")]
pub struct Malformed(String);

/// What an event of a chat says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// The request has begun.
    Begun,
    /// A step of the answer.
    Step(ChatEvent),
    /// Nothing follows.
    Failed(InferenceError),
}

/// Writes a report.
pub fn report_to_wire(report: &GpuReport) -> wire::Report {
    let model = |model: &ModelReport| wire::Model {
        name: model.info.name.clone(),
        kind: kind_text(model.info.kind).to_owned(),
        architecture: model.info.architecture.clone(),
        context_tokens: model.info.context_tokens,
        dimensions: model.info.dimensions,
        created: model.info.created,
        state: model.state.as_str().to_owned(),
        weight_bytes: model.weight_bytes,
        load_ms: model.load_ms,
        waiting: model.waiting,
        running: model.running,
        tokens_per_s: model.tokens_per_s,
        tenants: report.tenants.get(&model.info.name).into_iter().flatten().cloned().collect(),
        base: report.bases.get(&model.info.name).cloned().unwrap_or_default(),
    };
    wire::Report {
        models: report.models.iter().map(model).collect(),
        waiting: report.waiting,
        places: report.places,
        running: report.running,
        slots: report.slots,
        service_ms: report.service_ms,
        retry_after_ms: report.retry_after_ms,
        capacity_bytes: report.capacity_bytes,
        used_bytes: report.used_bytes,
        draining: report.draining,
    }
}

/// Reads a report. Models of a kind or in a state that is not known here are left out.
pub fn report(report: wire::Report) -> GpuReport {
    let some = report.models.iter().filter(|model| !model.tenants.is_empty());
    let tenants = some.map(|model| (model.name.clone(), model.tenants.iter().cloned().collect())).collect();
    let adapters = report.models.iter().filter(|model| !model.base.is_empty());
    let bases = adapters.map(|model| (model.name.clone(), model.base.clone())).collect();
    GpuReport {
        tenants,
        bases,
        models: report.models.into_iter().filter_map(model).collect(),
        waiting: report.waiting,
        places: report.places,
        running: report.running,
        slots: report.slots,
        service_ms: report.service_ms,
        retry_after_ms: report.retry_after_ms,
        capacity_bytes: report.capacity_bytes,
        used_bytes: report.used_bytes,
        draining: report.draining,
    }
}

fn kind_text(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Chat => "chat",
        ModelKind::Embedding => "embedding",
        ModelKind::Speech => "speech",
    }
}

fn model(model: wire::Model) -> Option<ModelReport> {
    let kinds = [ModelKind::Chat, ModelKind::Embedding, ModelKind::Speech];
    let kind = kinds.into_iter().find(|kind| kind_text(*kind) == model.kind)?;
    let state = ModelState::ALL.into_iter().find(|state| state.as_str() == model.state)?;
    Some(ModelReport {
        info: ModelInfo {
            name: model.name,
            kind,
            architecture: model.architecture,
            context_tokens: model.context_tokens,
            dimensions: model.dimensions,
            created: model.created,
        },
        state,
        weight_bytes: model.weight_bytes,
        load_ms: model.load_ms,
        waiting: model.waiting,
        running: model.running,
        tokens_per_s: model.tokens_per_s,
    })
}

/// Says that a chat has begun.
pub fn begun() -> wire::ChatEvent {
    of(Event::Begun(wire::Begun {}))
}

/// Writes what comes of a chat.
pub fn event_to_wire(said: Result<ChatEvent, InferenceError>) -> wire::ChatEvent {
    of(match said {
        Ok(ChatEvent::Delta(text)) => Event::Delta(text),
        Ok(ChatEvent::Silent) => Event::Silent(wire::Silent {}),
        Ok(ChatEvent::Calls(deltas)) => {
            Event::Calls(wire::Calls { deltas: deltas.into_iter().map(delta_to_wire).collect() })
        }
        Ok(ChatEvent::Tokens(tokens)) => {
            Event::Tokens(wire::Tokens { tokens: tokens.into_iter().map(token_to_wire).collect() })
        }
        Ok(ChatEvent::End { reason, usage }) => Event::End(wire::End {
            reason: reason_text(reason).to_owned(),
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
        }),
        Err(error) => Event::Failure(failure_to_wire(error)),
    })
}

/// Reads what comes of a chat.
///
/// # Errors
/// [`Malformed`] where the message says nothing that is known here.
pub fn event(event: wire::ChatEvent) -> Result<Said, Malformed> {
    let event = event.event.ok_or_else(|| Malformed("an event says nothing".to_owned()))?;
    Ok(Said::Step(match event {
        Event::Begun(_) => return Ok(Said::Begun),
        Event::Failure(failure) => return Ok(Said::Failed(self::failure(failure))),
        Event::Delta(text) => ChatEvent::Delta(text),
        Event::Silent(_) => ChatEvent::Silent,
        Event::Calls(calls) => ChatEvent::Calls(calls.deltas.into_iter().map(delta).collect()),
        Event::Tokens(tokens) => ChatEvent::Tokens(tokens.tokens.into_iter().map(token).collect()),
        Event::End(end) => {
            let reason = [FinishReason::Stop, FinishReason::ToolCalls, FinishReason::Length]
                .into_iter()
                .find(|reason| reason_text(*reason) == end.reason)
                .ok_or_else(|| Malformed(format!("an answer ended for `{}`", end.reason)))?;
            let usage = TokenUsage { prompt: end.prompt_tokens, completion: end.completion_tokens };
            ChatEvent::End { reason, usage }
        }
    }))
}

fn of(event: Event) -> wire::ChatEvent {
    wire::ChatEvent { event: Some(event) }
}

fn reason_text(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::Length => "length",
    }
}

fn delta_to_wire(delta: CallDelta) -> wire::CallDelta {
    let CallDelta { index, head, arguments } = delta;
    let head = head.map(|CallHead { id, name }| wire::CallHead { id, name });
    wire::CallDelta { index, head, arguments }
}

fn delta(delta: wire::CallDelta) -> CallDelta {
    let wire::CallDelta { index, head, arguments } = delta;
    let head = head.map(|wire::CallHead { id, name }| CallHead { id, name });
    CallDelta { index, head, arguments }
}

fn token_to_wire(token: TokenLogprob) -> wire::Token {
    let likely = |LikelyToken { bytes, logprob }: LikelyToken| wire::Likely { bytes: bytes.into(), logprob };
    wire::Token { chosen: Some(likely(token.chosen)), top: token.top.into_iter().map(likely).collect() }
}

fn token(token: wire::Token) -> TokenLogprob {
    let likely = |wire::Likely { bytes, logprob }: wire::Likely| LikelyToken { bytes: bytes.to_vec(), logprob };
    TokenLogprob { chosen: likely(token.chosen.unwrap_or_default()), top: token.top.into_iter().map(likely).collect() }
}

fn kind_of_error(kind: InferenceErrorKind) -> &'static str {
    match kind {
        InferenceErrorKind::ModelNotFound => "not_found",
        InferenceErrorKind::InvalidRequest => "invalid",
        InferenceErrorKind::Busy => "busy",
        InferenceErrorKind::Failed => "failed",
    }
}

/// Writes a failure.
pub fn failure_to_wire(error: InferenceError) -> wire::Failure {
    let InferenceError { kind, message, retry_after_ms } = error;
    wire::Failure { kind: kind_of_error(kind).to_owned(), message, retry_after_ms: retry_after_ms.unwrap_or_default() }
}

/// Reads a failure; one of a kind that is not known here is a failure of the node.
pub fn failure(failure: wire::Failure) -> InferenceError {
    use InferenceErrorKind::{Busy, Failed, InvalidRequest, ModelNotFound};
    let wire::Failure { kind, message, retry_after_ms } = failure;
    let known = [ModelNotFound, InvalidRequest, Busy, Failed].into_iter().find(|known| kind_of_error(*known) == kind);
    let retry_after_ms = Some(retry_after_ms).filter(|ms| *ms > 0);
    InferenceError { kind: known.unwrap_or(Failed), message, retry_after_ms }
}

/// Writes the outcome of an embedding.
pub fn embedded_to_wire(outcome: Result<EmbedResponse, InferenceError>) -> wire::EmbedResponse {
    match outcome {
        Ok(EmbedResponse { vectors, usage }) => {
            let bytes = |vector: Vec<f32>| {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                prost::bytes::Bytes::from(bytes)
            };
            let vectors = vectors.into_iter().map(bytes).collect();
            wire::EmbedResponse { vectors, prompt_tokens: usage.prompt, failure: None }
        }
        Err(error) => wire::EmbedResponse { failure: Some(failure_to_wire(error)), ..wire::EmbedResponse::default() },
    }
}

/// Reads the outcome of an embedding.
///
/// # Errors
/// [`Malformed`] where a vector is none.
pub fn embedded(response: wire::EmbedResponse) -> Result<Result<EmbedResponse, InferenceError>, Malformed> {
    let wire::EmbedResponse { vectors, prompt_tokens, failure: failed } = response;
    if let Some(failed) = failed {
        return Ok(Err(failure(failed)));
    }
    let mut read = Vec::with_capacity(vectors.len());
    for bytes in vectors {
        let (floats, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Malformed(format!("a vector has {} bytes", bytes.len())));
        }
        read.push(floats.iter().map(|float| f32::from_le_bytes(*float)).collect());
    }
    let usage = TokenUsage { prompt: prompt_tokens, completion: 0 };
    Ok(Ok(EmbedResponse { vectors: read, usage }))
}

/// Writes the outcome of a transcription.
pub fn transcribed_to_wire(outcome: Result<Transcript, InferenceError>) -> wire::TranscribeResponse {
    let segment = |segment: SpeechSegment| {
        let SpeechSegment { from_s, to_s, text, mean_logprob, silence } = segment;
        wire::SpeechSegment { from_s, to_s, text, mean_logprob, silence }
    };
    match outcome {
        Ok(Transcript { text, language, seconds, segments, usage }) => wire::TranscribeResponse {
            text,
            language: language.unwrap_or_default(),
            seconds,
            segments: segments.into_iter().map(segment).collect(),
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
            failure: None,
        },
        Err(error) => {
            wire::TranscribeResponse { failure: Some(failure_to_wire(error)), ..wire::TranscribeResponse::default() }
        }
    }
}

/// Reads the outcome of a transcription.
///
/// # Errors
/// The failure that it tells.
pub fn transcribed(response: wire::TranscribeResponse) -> Result<Transcript, InferenceError> {
    let wire::TranscribeResponse {
        text,
        language,
        seconds,
        segments,
        prompt_tokens,
        completion_tokens,
        failure: failed,
    } = response;
    if let Some(failed) = failed {
        return Err(failure(failed));
    }
    let segment = |segment: wire::SpeechSegment| {
        let wire::SpeechSegment { from_s, to_s, text, mean_logprob, silence } = segment;
        SpeechSegment { from_s, to_s, text, mean_logprob, silence }
    };
    Ok(Transcript {
        text,
        language: Some(language).filter(|language| !language.is_empty()),
        seconds,
        segments: segments.into_iter().map(segment).collect(),
        usage: TokenUsage { prompt: prompt_tokens, completion: completion_tokens },
    })
}

#[cfg(test)]
mod tests;
