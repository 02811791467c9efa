//! Requests of the revisions up to 2025-11-25.

use std::sync::Arc;

use http::{Response, StatusCode};
use provost_data_pipeline::{ClientFacts, Operation, Plane};
use provost_mcp::{
    ProtocolVersion, RawJson, RawObject, RequestId, RpcError,
    headers::{self, Header, HeaderSource},
    meta::RequestMeta,
    result_message,
};
use tokio_util::sync::CancellationToken;

use super::{
    asks::asked_by,
    classify::legacy_operation,
    link::{CallLink, Manner},
    outlet::Outlet,
    post::{Headers, Post, deliver, error_response},
    session::Session,
    sessions::LocalSession,
};
use crate::{
    Frontend,
    frontend::Inbound,
    http::{Outbox, OutboxKind, Refusal, ResponseBody, empty, json},
    siblings::Told,
};

/// A session that the caller may use, and its state on this node.
pub(super) struct Entered {
    pub(super) session: Session,
    pub(super) local: Arc<LocalSession>,
}

/// The caller has no such session.
pub(super) fn session_unknown() -> RpcError {
    RpcError::with_code(
        RpcError::INVALID_REQUEST,
        "PV-MCP-SESSION-UNKNOWN",
        "Session not found: send initialize to start a new one",
    )
}

/// 404: the client starts a new session.
fn no_session(id: Option<&RequestId>) -> Refusal {
    Box::new(error_response(StatusCode::NOT_FOUND, id, &session_unknown()))
}

impl<P: Plane + 'static> Frontend<P> {
    /// The session that the request names. `Ok(None)`: it names none. An id that is forged, too
    /// old, ended, of another path or of another principal is answered alike.
    pub(super) fn enter(
        &self,
        inbound: &Inbound,
        id: Option<&RequestId>,
        method: &str,
    ) -> Result<Option<Entered>, Refusal> {
        let sealed = match Headers(&inbound.headers).header(headers::SESSION_ID) {
            Header::Absent => return Ok(None),
            Header::One(sealed) => sealed.to_owned(),
            Header::Unclear => return Err(no_session(id)),
        };
        let session = self
            .session_ids
            .open(&sealed, self.now_s())
            .filter(|session| session.route == inbound.path)
            .ok_or_else(|| no_session(id))?;
        // The bearer counts, not the possession of the id. Who is unknown altogether gets 401.
        self.known_caller(inbound, method)?;
        let caller = self.caller_of(inbound).map_err(|_| no_session(id))?;
        if caller.principal != session.principal {
            self.record_foreign(inbound, &caller, &session.principal, method);
            return Err(no_session(id));
        }
        let local =
            self.sessions.enter(&session.key, &session.principal, self.now_s()).ok_or_else(|| no_session(id))?;
        Ok(Some(Entered { session, local }))
    }

    pub(super) async fn legacy(
        self: &Arc<Self>,
        inbound: Inbound,
        post: Post,
        meta: RequestMeta,
    ) -> Response<ResponseBody> {
        if post.method == "initialize" {
            return self.initialize(inbound, post, meta).await;
        }
        let entered = match self.enter(&inbound, Some(&post.id), &post.method) {
            Ok(entered) => entered,
            Err(refused) => return *refused,
        };
        if post.method == "ping" {
            return match self.known_caller(&inbound, &post.method) {
                Ok(()) => json(StatusCode::OK, result_message(&post.id, &RawJson::EMPTY_OBJECT)),
                Err(refused) => *refused,
            };
        }
        match legacy_operation(&post, entered.as_ref()) {
            Ok((operation, params)) => {
                if let (Operation::SetLogLevel, Some(Entered { session, local })) = (&operation, &entered) {
                    let level = *local.level.lock();
                    if let Some(level) = level {
                        let told = Told::Level(session.principal.clone(), level);
                        self.siblings.tell_all(&session.key, &told).await;
                    }
                }
                self.legacy_call(inbound, post, meta, entered, (operation, params)).await
            }
            Err(error) => error_response(StatusCode::OK, Some(&post.id), &error),
        }
    }

    async fn legacy_call(
        self: &Arc<Self>,
        inbound: Inbound,
        post: Post,
        meta: RequestMeta,
        entered: Option<Entered>,
        asked: (Operation, RawJson),
    ) -> Response<ResponseBody> {
        let cancel = CancellationToken::new();
        let outbox = match &entered {
            Some(Entered { session, local }) => {
                if !local.begin(post.id.as_str(), &cancel) {
                    return busy(&post.id);
                }
                local.open_stream(false, session.version >= ProtocolVersion::V2025_11_25)
            }
            None => Outbox::new(OutboxKind::Once),
        };
        let (accepts, id) = (post.accepts, post.id.clone());
        let local = entered.as_ref().map(|e| e.local.clone());
        let running = local.clone();
        let over = move || {
            if let Some(local) = running {
                local.done(id.as_str());
            }
        };
        let start = LegacyStart { outlet: outbox.clone(), cancel, entered: entered.as_ref() };
        self.start_legacy(&inbound, &post, &meta, asked, start, over);
        // A legacy client that disconnects has not cancelled: the call goes on, and its stream can
        // be taken up again.
        let response = deliver(outbox.clone(), accepts, None).await;
        if let (ResponseBody::Whole(_), Some(local)) = (response.body(), local) {
            local.close_stream(&outbox);
        }
        response
    }

    /// Starts the call of a request that [`legacy_operation`] took; `over` runs before its answer is sent.
    pub(super) fn start_legacy(
        self: &Arc<Self>,
        inbound: &Inbound,
        post: &Post,
        meta: &RequestMeta,
        (operation, params): (Operation, RawJson),
        start: LegacyStart<'_>,
        over: impl FnOnce() + Send + 'static,
    ) {
        let client = legacy_client(inbound, start.entered);
        let link = Arc::new(CallLink {
            outlet: start.outlet,
            cancel: start.cancel,
            manner: self.manner(start.entered),
            accepts_events: post.accepts.events,
        });
        let context = self.context(inbound, post, &operation);
        let request = self.request_of(inbound, post, meta, operation, params, client);
        self.start(request, link, move |answer| {
            over();
            context.legacy(&answer)
        });
    }

    /// What a client may be sent during a call.
    pub(super) fn manner(&self, entered: Option<&Entered>) -> Manner {
        match entered {
            Some(Entered { session, local }) => Manner::Session {
                session: local.clone(),
                key: session.key.clone(),
                asks: self.asks.clone(),
                capabilities: session.capabilities.clone(),
            },
            None => Manner::Sessionless,
        }
    }

    /// A notification of a session's client.
    pub(super) fn legacy_notification(
        &self,
        inbound: &Inbound,
        method: &str,
        params: Option<&RawJson>,
    ) -> Response<ResponseBody> {
        let entered = match self.enter(inbound, None, method) {
            Ok(entered) => entered,
            Err(refused) => return *refused,
        };
        if let (Some(entered), "notifications/cancelled") = (entered, method) {
            let id = params
                .and_then(|p| RawObject::parse(p).ok())
                .and_then(|p| p.get("requestId"))
                .and_then(|id| RequestId::from_raw(&id));
            if let Some(id) = id
                && !entered.local.cancel(id.as_str())
            {
                // The call may run on another node.
                let (siblings, session) = (self.siblings.clone(), entered.session.key.clone());
                self.calls.spawn(async move { siblings.tell_all(&session, &Told::Cancelled(id)).await });
            }
        }
        empty(StatusCode::ACCEPTED)
    }

    /// A client's answer to a request of ours.
    pub(super) fn response(
        &self,
        inbound: &Inbound,
        id: Option<RequestId>,
        outcome: Result<RawJson, RpcError>,
    ) -> Response<ResponseBody> {
        match self.enter(inbound, None, "response") {
            Ok(Some(entered)) => {
                // An answer that comes too late, or twice, is no error of the client's.
                if let Some(id) = id {
                    self.answered(entered.session.key, id, outcome);
                }
                empty(StatusCode::ACCEPTED)
            }
            Ok(None) => {
                let error = RpcError::with_code(
                    RpcError::INVALID_REQUEST,
                    "PV-MCP-SESSION-REQUIRED",
                    "a response needs the session in which the request was sent",
                );
                error_response(StatusCode::BAD_REQUEST, None, &error)
            }
            Err(refused) => *refused,
        }
    }
}

impl<P: Plane + 'static> Frontend<P> {
    /// Gives an answer to whoever asked, here or on the node that the id names.
    fn answered(&self, session: Arc<str>, id: RequestId, outcome: Result<RawJson, RpcError>) {
        let elsewhere = asked_by(&id).filter(|tag| *tag != self.siblings.tag());
        let Some(tag) = elsewhere else {
            self.asks.answer(&session, &id, outcome);
            return;
        };
        let siblings = self.siblings.clone();
        self.calls.spawn(async move {
            if !siblings.answer(tag, &session, &id, &outcome).await {
                tracing::debug!("nobody waits for an answer of a client");
            }
        });
    }
}

/// What is known of a legacy client.
pub(super) fn legacy_client(inbound: &Inbound, entered: Option<&Entered>) -> ClientFacts {
    let named = match Headers(&inbound.headers).header(headers::PROTOCOL_VERSION) {
        Header::One(text) => ProtocolVersion::parse(text),
        _ => None,
    };
    let address = inbound.address();
    let transport = inbound.peer.transport;
    match entered {
        Some(Entered { session, .. }) => ClientFacts {
            protocol_version: session.version,
            info: session.info.clone(),
            capabilities: session.capabilities.clone(),
            session: Some(session.key.clone()),
            address,
            transport,
        },
        None => ClientFacts {
            // What the specification has a server assume.
            protocol_version: named.unwrap_or(ProtocolVersion::V2025_03_26),
            info: None,
            capabilities: RawJson::EMPTY_OBJECT,
            session: None,
            address,
            transport,
        },
    }
}

/// Where a call's answer goes, what cancels it, and the session that it is made in.
pub(super) struct LegacyStart<'a> {
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) cancel: CancellationToken,
    pub(super) entered: Option<&'a Entered>,
}

fn busy(id: &RequestId) -> Response<ResponseBody> {
    let error = RpcError::with_code(
        RpcError::INVALID_REQUEST,
        "PV-MCP-SESSION-BUSY",
        format!("the id is in use, or the session has {} calls in flight", super::sessions::MAX_RUNNING),
    );
    error_response(StatusCode::TOO_MANY_REQUESTS, Some(id), &error)
}
