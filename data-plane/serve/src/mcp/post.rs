//! A POST to an MCP endpoint: one message in, its answer out.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use provost_data_pipeline::{Answer, Call, Plane, Request, drive};
use provost_mcp::{
    Envelope, Era, JsonLimits, RawJson, RawObject, RequestId, RpcError, error_message,
    headers::{self, Header, HeaderSource},
    meta::RequestMeta,
    negotiate,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{answer::modern_status, link::CallLink, outlet::Outlet};
use crate::{
    Frontend,
    frontend::Inbound,
    http::{CancelOnDrop, Final, Outbox, Ready, ResponseBody, empty, json, sse_response},
    observe::log_span,
};

/// HTTP headers as the protocol crate reads them.
pub(super) struct Headers<'a>(pub(super) &'a HeaderMap);

impl HeaderSource for Headers<'_> {
    fn header(&self, name: &str) -> Header<'_> {
        let mut values = self.0.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Header::Absent,
            (Some(value), None) => value.to_str().map_or(Header::Unclear, |v| Header::One(v.trim())),
            (Some(_), Some(_)) => Header::Unclear,
        }
    }
}

/// What nearly every client sends, as MCP asks of it.
const USUAL_ACCEPT: &str = "application/json, text/event-stream";

/// In which forms the client takes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepts {
    pub(super) json: bool,
    pub(super) events: bool,
}

impl Accepts {
    /// A client without `Accept` takes anything.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut given = false;
        let mut accepts = Self { json: false, events: false };
        for value in headers.get_all(header::ACCEPT) {
            given = true;
            if value == USUAL_ACCEPT {
                accepts = Self { json: true, events: true };
                continue;
            }
            for range in value.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default();
                if parts.any(refuses) {
                    continue;
                }
                let is = |names: [&str; 3]| names.iter().any(|name| kind.eq_ignore_ascii_case(name));
                accepts.json |= is(["application/json", "application/*", "*/*"]);
                accepts.events |= is(["text/event-stream", "text/*", "*/*"]);
            }
        }
        if given { accepts } else { Self { json: true, events: true } }
    }
}

/// `q=0`: the client does not take this kind (RFC 9110, section 12.4.2).
fn refuses(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, weight)| {
        name.trim_end().eq_ignore_ascii_case("q") && weight.trim_start().parse::<f32>().is_ok_and(|q| q <= 0.0)
    })
}

/// An error as a whole response.
pub(crate) fn error_response(status: StatusCode, id: Option<&RequestId>, error: &RpcError) -> Response<ResponseBody> {
    json(status, error_message(id, error))
}

impl<P: Plane + 'static> Frontend<P> {
    /// Answers one POSTed message.
    pub(crate) async fn mcp_post(self: &Arc<Self>, inbound: Inbound, body: Bytes) -> Response<ResponseBody> {
        let accepts = Accepts::of(&inbound.headers);
        if !accepts.json && !accepts.events {
            let error = RpcError::with_code(
                RpcError::INVALID_REQUEST,
                "PV-HTTP-NOT-ACCEPTABLE",
                "Accept must name application/json and text/event-stream",
            );
            return error_response(StatusCode::NOT_ACCEPTABLE, None, &error);
        }
        let limits = JsonLimits { max_bytes: self.config.max_body_bytes, ..JsonLimits::REQUEST };
        match Envelope::parse(body, &limits) {
            Err(fault) => error_response(StatusCode::BAD_REQUEST, fault.id(), &fault.rpc_error()),
            Ok(Envelope::Request { id, method, params }) => {
                let raw = params.unwrap_or(RawJson::EMPTY_OBJECT);
                let params = RawObject::parse(&raw).unwrap_or_default();
                self.request(inbound, Post { id, method, params, accepts }).await
            }
            Ok(Envelope::Notification { method, params }) => self.notification(&inbound, &method, params.as_ref()),
            Ok(Envelope::Response { id, outcome }) => self.response(&inbound, id, outcome),
        }
    }

    async fn request(self: &Arc<Self>, inbound: Inbound, post: Post) -> Response<ResponseBody> {
        let meta = RequestMeta::of(&post.params);
        match negotiate::era_of(&post.method, &meta, &Headers(&inbound.headers)) {
            Ok(Era::Modern) => self.modern(inbound, post, meta).await,
            Ok(Era::Legacy) => self.legacy(inbound, post, meta).await,
            Err(error) => error_response(modern_status(error.code), Some(&post.id), &error),
        }
    }

    fn notification(&self, inbound: &Inbound, method: &str, params: Option<&RawJson>) -> Response<ResponseBody> {
        if let Err(refused) = self.known_caller(inbound, method) {
            return *refused;
        }
        match Headers(&inbound.headers).header(headers::SESSION_ID) {
            // A modern client cancels by closing its request, and has nothing else to notify.
            Header::Absent => empty(StatusCode::ACCEPTED),
            _ => self.legacy_notification(inbound, method, params),
        }
    }

    /// Starts the call on its own task, which nothing but its end stops: past the intent, an
    /// outcome is written whether or not the client still listens.
    #[allow(clippy::large_futures, reason = "it is in a box")]
    pub(super) fn start(
        self: &Arc<Self>,
        request: Request,
        link: Arc<CallLink>,
        render: impl FnOnce(Answer) -> Final + Send + 'static,
    ) {
        let plane = self.plane.clone();
        // A call's future is large: in a box it is moved once, and not each time that its task is. One box for all of it:
        // its task is then a small one.
        self.calls.spawn(Box::pin(async move {
            let unfinished = FinishOnDrop(link.outlet.clone(), request.trace.request_id.clone());
            let span = log_span(&request);
            let answer = drive(&*plane, Call::received(request), &*link).instrument(span).await;
            link.outlet.finish(render(answer));
            drop(unfinished);
        }));
    }
}

/// A request, taken apart.
pub(super) struct Post {
    pub(super) id: RequestId,
    pub(super) method: String,
    pub(super) params: RawObject,
    pub(super) accepts: Accepts,
}

/// Answers for a call whose task was lost to a panic, so that its client does not wait for ever.
struct FinishOnDrop(Arc<dyn Outlet>, Option<String>);

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        if self.0.is_finished() {
            return;
        }
        let id = self.1.take().map(|id| RequestId(RawJson::from_checked(id.into())));
        let error = RpcError::with_code(RpcError::INTERNAL, "PV-INTERNAL", "internal error");
        self.0.finish(Final::json(StatusCode::OK, error_message(id.as_ref(), &error)));
    }
}

/// Waits for the first thing to send and sends it in its form. `gone` is cancelled when the client
/// leaves before the end.
pub(super) async fn deliver(
    outbox: Arc<Outbox>,
    accepts: Accepts,
    gone: Option<CancellationToken>,
) -> Response<ResponseBody> {
    let guard = gone.clone().map(CancelOnDrop::new);
    let ready = outbox.ready().await;
    if let Some(guard) = guard {
        guard.disarm();
    }
    if let Ready::Plain(end) = ready {
        if accepts.json || !end.status.is_success() {
            return end.into_response();
        }
        outbox.reopen(*end);
    }
    let body = outbox.read(0).on_end(move || {
        if let Some(gone) = gone {
            gone.cancel();
        }
    });
    sse_response(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_read_of_all_that_was_sent() {
        let table: [(&[&str], (bool, bool)); 9] = [
            (&[], (true, true)),
            (&[USUAL_ACCEPT], (true, true)),
            (&["text/event-stream, application/json"], (true, true)),
            (&["application/json"], (true, false)),
            (&["text/html", "text/event-stream"], (false, true)),
            (&["text/html", USUAL_ACCEPT], (true, true)),
            (&[USUAL_ACCEPT, "text/html"], (true, true)),
            (&["application/json, text/event-stream;q=0"], (true, false)),
            (&["text/html"], (false, false)),
        ];
        for (sent, (json, events)) in table {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            assert_eq!(Accepts::of(&headers), Accepts { json, events }, "{sent:?}");
        }
    }
}
