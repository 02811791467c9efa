//! GET and DELETE of legacy sessions: the stream of what concerns no single call, the taking up of
//! a broken stream, and the end of a session.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use provost_data_pipeline::{Operation, Plane};
use provost_mcp::{
    Era, ProtocolVersion, RawJson, RawObject, RequestId, RpcError,
    headers::{self, Header, HeaderSource},
    meta::RequestMeta,
};
use tokio_util::sync::CancellationToken;

use super::{
    legacy::{Entered, legacy_client},
    link::CallLink,
    outlet::Outlet,
    post::{Accepts, Headers, Post, error_response},
    sessions::MAX_LISTENERS,
};
use crate::{
    Frontend,
    frontend::Inbound,
    http::{Final, Outbox, ResponseBody, empty, event_stream, sse_response},
    siblings::{Tag, Told},
};

/// How long a stream without a reader is kept up for a client that comes back.
const RESUME_GRACE: Duration = Duration::from_secs(60);

/// How long the answer to a GET waits at most for the listener behind it: it may have to ask plugins what they have.
const LISTENS_WITHIN: Duration = Duration::from_secs(1);

/// How often the credential behind an open stream is looked at anew.
const RECHECK_EVERY: Duration = Duration::from_secs(15);

/// 405: the revision, or the lack of a session, leaves nothing to GET.
fn not_allowed() -> Response<ResponseBody> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

impl<P: Plane + 'static> Frontend<P> {
    fn is_modern(inbound: &Inbound) -> bool {
        match Headers(&inbound.headers).header(headers::PROTOCOL_VERSION) {
            Header::One(text) => ProtocolVersion::parse(text).is_some_and(|v| v.era() == Era::Modern),
            _ => false,
        }
    }

    /// Opens the session's stream, or takes one up after `Last-Event-ID`.
    pub(crate) async fn mcp_get(self: &Arc<Self>, inbound: Inbound) -> Response<ResponseBody> {
        let inbound = &Arc::new(inbound);
        if Self::is_modern(inbound) {
            return not_allowed();
        }
        if !Accepts::of(&inbound.headers).events {
            return empty(StatusCode::NOT_ACCEPTABLE);
        }
        let entered = match self.enter(inbound, None, "subscriptions/listen") {
            Ok(Some(entered)) => entered,
            Ok(None) => return not_allowed(),
            Err(refused) => return *refused,
        };
        if let Some(last) = last_event(inbound)
            && let Some(resumed) = self.resumed(&entered, last).await
        {
            return resumed;
        }
        if entered.local.listeners() >= MAX_LISTENERS {
            let error = RpcError::with_code(
                RpcError::INVALID_REQUEST,
                "PV-MCP-STREAMS-EXCEEDED",
                format!("the session has {MAX_LISTENERS} streams open"),
            );
            return error_response(StatusCode::CONFLICT, None, &error);
        }
        self.listen(inbound, &entered).await
    }

    /// The rest of a stream, wherever it is; `None`: it is nowhere any more.
    async fn resumed(self: &Arc<Self>, entered: &Entered, last: LastEvent) -> Option<Response<ResponseBody>> {
        let LastEvent { stream, event, tag } = last;
        match tag.filter(|tag| *tag != self.siblings.tag()) {
            None => Some(sse_response(entered.local.stream(stream)?.read(event))),
            Some(tag) => {
                let frames = self.siblings.replay(tag, &entered.session.key, stream, event).await?;
                Some(event_stream(ResponseBody::Relayed(frames)))
            }
        }
    }

    /// Starts a `Listen` that runs as long as somebody reads. It is answered once somebody listens, so that what changes
    /// after the answer is told.
    async fn listen(self: &Arc<Self>, inbound: &Arc<Inbound>, entered: &Entered) -> Response<ResponseBody> {
        let Entered { session, local } = entered;
        let primed = session.version >= ProtocolVersion::V2025_11_25;
        let outbox = local.open_stream(true, primed);
        let cancel = CancellationToken::new();
        let (begun, is_over) = (CancellationToken::new(), cancel.clone());
        let outlet = Arc::new(SessionStream { outbox: outbox.clone(), begun: begun.clone() });
        let (ended, over) = (outbox.clone(), cancel.clone());
        self.start_listening(inbound, entered, outlet, cancel.clone(), move || {
            // A GET has no answer: the stream ends.
            ended.close();
            over.cancel();
        });
        let local = local.clone();
        let (front, inbound, watched) = (self.clone(), inbound.clone(), outbox.clone());
        self.calls.spawn(async move {
            tokio::select! {
                () = front.until_streams_end(&inbound) => {}
                () = local.ended.cancelled() => {}
                () = cancel.cancelled() => {}
                () = unread(&watched) => {}
            }
            cancel.cancel();
            local.close_stream(&watched);
        });
        let settled = async {
            tokio::select! {
                () = begun.cancelled() => {}
                () = is_over.cancelled() => {}
            }
        };
        // Late is better than never: then what changes meanwhile may be missed.
        let _ = tokio::time::timeout(LISTENS_WITHIN, settled).await;
        sse_response(outbox.read(0))
    }

    /// Starts the call behind a session's stream of what concerns no single call. It runs until
    /// `cancel`, has no answer, and runs `over` at its end.
    pub(super) fn start_listening(
        self: &Arc<Self>,
        inbound: &Inbound,
        entered: &Entered,
        outlet: Arc<dyn Outlet>,
        cancel: CancellationToken,
        over: impl FnOnce() + Send + 'static,
    ) {
        let link = Arc::new(CallLink { outlet, cancel, manner: self.manner(Some(entered)), accepts_events: true });
        let everything = RawJson::from(serde_json::json!({
            "notifications": {
                "toolsListChanged": true,
                "promptsListChanged": true,
                "resourcesListChanged": true,
            }
        }));
        let post = Post {
            id: RequestId::from_text("listen"),
            method: String::new(),
            params: RawObject::new(),
            accepts: Accepts { json: false, events: true },
        };
        let client = legacy_client(inbound, Some(entered));
        let meta = RequestMeta::default();
        let request = self.request_of(inbound, &post, &meta, Operation::Listen, everything, client);
        self.start(request, link, move |_| {
            over();
            Final::json(StatusCode::OK, Bytes::new())
        });
    }

    /// Ends the session.
    pub(crate) async fn mcp_delete(&self, inbound: &Inbound) -> Response<ResponseBody> {
        if Self::is_modern(inbound) {
            return not_allowed();
        }
        match self.enter(inbound, None, "session/delete") {
            Ok(Some(entered)) => {
                self.sessions.end(&entered.session.key);
                self.siblings.end_upstream_sessions(&entered.session.key, true);
                self.siblings.tell_all(&entered.session.key, &Told::Ended).await;
                empty(StatusCode::NO_CONTENT)
            }
            Ok(None) => not_allowed(),
            Err(refused) => *refused,
        }
    }
}

impl<P: Plane + 'static> Frontend<P> {
    /// Resolves when a stream that has no end of its own must end: the node shuts down, or the
    /// credential that opened it is not good any more, or is somebody else's.
    pub(super) async fn until_streams_end(&self, inbound: &Inbound) {
        let opened_by = self.caller_of(inbound).map(|c| c.principal.clone());
        loop {
            tokio::select! {
                () = self.draining.cancelled() => return,
                () = tokio::time::sleep(RECHECK_EVERY) => {}
            }
            if self.caller_of(inbound).map(|c| c.principal.clone()) != opened_by {
                return;
            }
        }
    }
}

/// Where a session's stream goes, and word that its call listens.
struct SessionStream {
    outbox: Arc<Outbox>,
    begun: CancellationToken,
}

impl Outlet for SessionStream {
    fn push(&self, message: &Bytes) {
        self.outbox.push(message);
    }

    fn finish(&self, end: Final) {
        self.outbox.finish(end);
    }

    fn is_finished(&self) -> bool {
        self.outbox.is_finished()
    }

    fn begun(&self) {
        self.begun.cancel();
    }
}

/// Resolves when a stream had no reader for [`RESUME_GRACE`].
async fn unread(outbox: &Outbox) {
    let mut misses = 0u32;
    // Two looks at half the grace: a reader that came and went in between starts it anew only by
    // half, which is close enough.
    while misses < 2 {
        tokio::time::sleep(RESUME_GRACE / 2).await;
        misses = if outbox.is_read() { 0 } else { misses + 1 };
    }
}

/// The last event that a client saw of a stream.
struct LastEvent {
    stream: u64,
    event: u64,
    /// The process that has the stream; `None`: this one, as far as the client knows.
    tag: Option<Tag>,
}

/// `Last-Event-ID: STREAM-EVENT-TAG`.
fn last_event(inbound: &Inbound) -> Option<LastEvent> {
    let headers = Headers(&inbound.headers);
    let Header::One(text) = headers.header("last-event-id") else { return None };
    let mut parts = text.splitn(3, '-');
    let mut number = || parts.next()?.parse().ok();
    let (stream, event) = (number()?, number()?);
    let tag = match parts.next() {
        None => None,
        Some(tag) => Some(Tag::parse(tag)?),
    };
    Some(LastEvent { stream, event, tag })
}
