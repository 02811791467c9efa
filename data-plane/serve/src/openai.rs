//! The OpenAI-compatible endpoints: models of the cluster behind the same pipeline as tools.
//!
//! Executors answer in OpenAI's JSON already; here it is wrapped in HTTP, as a whole or as a
//! stream of chunks. Left out: everything a model does.

mod form;
mod limits;
mod recordings;
mod speech;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::RETRY_AFTER};
use provost_data_pipeline::{
    Answer, AskError, Call, ClientFacts, ClientLink, Operation, Plane, Rejection, RejectionKind, Reply, Request, drive,
};
use provost_mcp::{JsonLimits, ProtocolVersion, RawJson, RawObject, RpcError, array_items};
use provost_types::{BoxFuture, Sound};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    Frontend,
    frontend::Inbound,
    http::{CancelOnDrop, Final, Outbox, OutboxKind, Ready, Refusal, ResponseBody, json, sse_response},
    mcp::{receipt_json, rejection_headers},
    observe::log_span,
};

pub(crate) use recordings::Recordings;

/// Ends a stream of chunks.
const DONE: &[u8] = b"[DONE]";
/// What executors send the chunks of a stream as.
const CHUNK: &str = "provost/chunk";

/// An error object as OpenAI clients read it.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<ResponseBody> {
    json(status, error_body(status, code, message))
}

fn invalid(message: &str) -> Response<ResponseBody> {
    error(StatusCode::BAD_REQUEST, "PV-OPENAI-INVALID", message)
}

/// Whether the body of a chat asks for a completion: it has a `prompt` in place of `messages`.
pub(crate) fn is_completion(body: &RawObject) -> bool {
    body.get("prompt").is_some() && body.get("messages").is_none()
}

fn says_completion(body: &RawJson) -> bool {
    RawObject::parse(body).is_ok_and(|body| is_completion(&body))
}

fn error_body(status: StatusCode, code: &str, message: &str) -> Bytes {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let body = serde_json::json!({
        "error": { "message": message, "type": kind, "param": null, "code": code }
    });
    body.to_string().into()
}

/// The table from refusals to statuses.
fn rejected(rejection: &Rejection, metadata_url: &str) -> Final {
    let status = match rejection.kind {
        RejectionKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        RejectionKind::NotFound => StatusCode::NOT_FOUND,
        RejectionKind::Denied | RejectionKind::Guarded => StatusCode::FORBIDDEN,
        RejectionKind::Limited => StatusCode::TOO_MANY_REQUESTS,
        RejectionKind::Invalid => StatusCode::BAD_REQUEST,
        RejectionKind::LimitUnknown | RejectionKind::Overloaded | RejectionKind::AuditUnavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let body = match rejection.limit.as_deref() {
        Some(limit) if rejection.kind == RejectionKind::Limited => limits::limited_body(rejection, limit),
        _ => error_body(status, rejection.code, &rejection.error.message),
    };
    let mut end = Final::json(status, body);
    end.headers = rejection_headers(rejection, metadata_url);
    limits::add_limits(&mut end.headers, rejection.limit.as_deref().into_iter());
    end
}

/// The table from executors' errors to statuses. What carries no code of ours stays inside.
fn failed(error: &RpcError) -> Final {
    let status = match error.code {
        RpcError::INVALID_PARAMS | RpcError::INVALID_REQUEST => StatusCode::BAD_REQUEST,
        RpcError::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        RpcError::LIMIT_EXCEEDED => StatusCode::TOO_MANY_REQUESTS,
        RpcError::UPSTREAM_FAILED => StatusCode::BAD_GATEWAY,
        RpcError::DEADLINE_EXCEEDED => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let data = error.data.as_ref().and_then(|d| RawObject::parse(d).ok());
    let retry_ms = data.as_ref().and_then(|d| d.get("retryAfterMs")?.parse::<u64>().ok());
    let body = match data.and_then(|d| d.get_text("code")) {
        Some(code) => error_body(status, &code, &error.message),
        None => {
            tracing::warn!(code = error.code, "an inference error without a code of ours");
            error_body(status, "PV-INTERNAL", "internal error")
        }
    };
    let mut end = Final::json(status, body);
    if let Some(ms) = retry_ms {
        end.headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
    }
    end
}

/// How an answer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// As JSON.
    Whole,
    /// In chunks.
    Streamed,
    /// As a text of this kind.
    Text(&'static str),
}

/// What a model is asked.
struct Asked {
    /// The body as JSON.
    params: RawJson,
    told: Told,
    sound: Option<Sound>,
    /// Held until the call is over.
    place: Option<recordings::Place>,
}

impl Asked {
    fn whole(params: RawJson) -> Self {
        Self { params, told: Told::Whole, sound: None, place: None }
    }
}

/// The client's end of a generation.
struct ChunkLink {
    outbox: Arc<Outbox>,
    cancel: CancellationToken,
}

impl ClientLink for ChunkLink {
    fn notify(&self, method: &str, params: RawJson) {
        if method == CHUNK {
            self.outbox.push(&params.bytes());
        }
    }

    fn ask<'a>(&'a self, _input_requests: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        let no = AskError::Unsupported("questions: it speaks the OpenAI API".to_owned());
        Some(Box::pin(std::future::ready(Err(no))))
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.cancel.cancelled())
    }
}

impl<P: Plane + 'static> Frontend<P> {
    pub(crate) async fn chat(self: &Arc<Self>, inbound: Inbound, body: Bytes) -> Response<ResponseBody> {
        match self.named_model(body) {
            Ok((model, body, streams)) if !says_completion(&body) => {
                let told = if streams { Told::Streamed } else { Told::Whole };
                self.infer(inbound, Operation::Chat(model), Asked { told, ..Asked::whole(body) }).await
            }
            Ok(_) => invalid("`messages` are missing; `prompt` is for /v1/completions"),
            Err(refused) => *refused,
        }
    }

    /// `/v1/completions`: a chat whose prompt stands as it is.
    pub(crate) async fn completions(self: &Arc<Self>, inbound: Inbound, body: Bytes) -> Response<ResponseBody> {
        match self.named_model(body) {
            Ok((model, body, streams)) if says_completion(&body) => {
                let told = if streams { Told::Streamed } else { Told::Whole };
                self.infer(inbound, Operation::Chat(model), Asked { told, ..Asked::whole(body) }).await
            }
            Ok(_) => invalid("`prompt` is missing, or comes with `messages`, which are for /v1/chat/completions"),
            Err(refused) => *refused,
        }
    }

    pub(crate) async fn embeddings(self: &Arc<Self>, inbound: Inbound, body: Bytes) -> Response<ResponseBody> {
        match self.named_model(body) {
            Ok((model, body, _)) => self.infer(inbound, Operation::Embed(model), Asked::whole(body)).await,
            Err(refused) => *refused,
        }
    }

    /// `/v1/models`, or one of them.
    pub(crate) async fn models(self: &Arc<Self>, inbound: Inbound, name: Option<String>) -> Response<ResponseBody> {
        let all = self.infer(inbound, Operation::ListModels, Asked::whole(RawJson::EMPTY_OBJECT)).await;
        let Some(name) = name else { return all };
        let ResponseBody::Whole(Some(body)) = all.body() else { return all };
        if !all.status().is_success() {
            return all;
        }
        let items = RawJson::check(body.clone(), &JsonLimits::RESPONSE)
            .ok()
            .and_then(|list| RawObject::parse(&list).ok()?.get("data"))
            .and_then(|data| array_items(&data).ok())
            .unwrap_or_default();
        let is_named =
            |item: &&RawJson| RawObject::parse(item).ok().and_then(|m| m.get_text("id")).as_ref() == Some(&name);
        match items.iter().find(is_named) {
            Some(model) => json(StatusCode::OK, model.bytes()),
            None => error(
                StatusCode::NOT_FOUND,
                "PV-MODEL-UNKNOWN",
                "there is no such model, or none that you may use; GET /v1/models lists yours",
            ),
        }
    }

    /// The model's name, the checked body, and whether a stream is wanted.
    fn named_model(&self, body: Bytes) -> Result<(String, RawJson, bool), Refusal> {
        let bad = |message: &str| Box::new(invalid(message));
        let limits = JsonLimits { max_bytes: self.config.max_body_bytes, ..JsonLimits::REQUEST };
        let body = RawJson::check(body, &limits).map_err(|fault| bad(&fault.to_string()))?;
        let object = RawObject::parse(&body).map_err(|fault| bad(&fault.to_string()))?;
        let model = object.get_text("model").ok_or_else(|| bad("`model` must be a string"))?;
        let streams = object.get("stream").is_some_and(|s| s.is_true());
        Ok((model, body, streams))
    }

    async fn infer(self: &Arc<Self>, inbound: Inbound, operation: Operation, asked: Asked) -> Response<ResponseBody> {
        let Asked { params, told, sound, place } = asked;
        let outbox = Outbox::new(OutboxKind::Once);
        let cancel = CancellationToken::new();
        let metadata_url = inbound.metadata_url();
        let request = Request {
            call_id: inbound.call_id,
            arrived_ns: inbound.arrived_ns,
            credential: inbound.credential.clone(),
            route: inbound.route.clone(),
            operation,
            params,
            sound,
            client: ClientFacts {
                protocol_version: ProtocolVersion::LATEST,
                info: None,
                capabilities: RawJson::EMPTY_OBJECT,
                session: None,
                address: inbound.address(),
                transport: inbound.peer.transport,
            },
            trace: inbound.trace(),
            within: None,
        };
        let plane = self.plane.clone();
        let receipts = self.config.audit_receipts;
        let link = ChunkLink { outbox: outbox.clone(), cancel: cancel.clone() };
        self.calls.spawn(async move {
            let unfinished = FinishOnDrop(link.outbox.clone());
            let span = log_span(&request);
            let answer = drive(&*plane, Call::received(request), &link).instrument(span).await;
            link.outbox.finish(ending(answer, told, receipts, &metadata_url));
            drop((unfinished, place));
        });
        let guard = CancelOnDrop::new(cancel.clone());
        let ready = outbox.ready().await;
        guard.disarm();
        match ready {
            Ready::Plain(end) => end.into_response(),
            Ready::Events => sse_response(outbox.read(0).on_end(move || cancel.cancel())),
        }
    }
}

fn ending(answer: Answer, told: Told, receipts: bool, metadata_url: &str) -> Final {
    let done = Bytes::from_static(DONE);
    let mut end = match answer.outcome {
        Ok(Reply::Result { body, .. }) => {
            let mut end = Final::json(StatusCode::OK, body.bytes());
            // The chunks said it all.
            end.events = vec![done];
            end.prefers_events = told == Told::Streamed;
            match told {
                Told::Text(kind) => speech::plain(end, &body, kind),
                Told::Whole | Told::Streamed => end,
            }
        }
        Ok(Reply::InputRequired(_)) => Final::json(
            StatusCode::INTERNAL_SERVER_ERROR,
            error_body(StatusCode::INTERNAL_SERVER_ERROR, "PV-INTERNAL", "a model cannot ask its caller"),
        ),
        Ok(Reply::Error(error)) => failed(&error),
        Err(rejection) => rejected(&rejection, metadata_url),
    };
    limits::add_limits(&mut end.headers, answer.limits.iter());
    if let Some(receipt) = answer.receipt.filter(|_| receipts) {
        add_receipt(&mut end.headers, &receipt_json(&receipt));
    }
    end
}

/// The body is OpenAI's, so the receipt stands in a header.
fn add_receipt(headers: &mut HeaderMap, receipt: &RawJson) {
    if let Ok(value) = HeaderValue::from_str(receipt.as_str()) {
        headers.insert("x-provost-audit", value);
    }
}

/// Answers for a generation whose task was lost to a panic.
struct FinishOnDrop(Arc<Outbox>);

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            self.0.finish(Final::json(status, error_body(status, "PV-INTERNAL", "internal error")));
        }
    }
}
