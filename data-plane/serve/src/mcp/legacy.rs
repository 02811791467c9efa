//! Requests of the revisions up to 2025-11-25.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use provost_data_pipeline::{Answer, ClientFacts, Operation, Plane, Reply};
use provost_mcp::{
    Era, LogLevel, ProtocolVersion, RawJson, RawObject, RequestId, RpcError, bridge,
    headers::{self, Header, HeaderSource},
    meta::{RequestMeta, key},
    negotiate, result_message,
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::Context,
    classify,
    denied::Denied,
    link::{CallLink, Manner},
    post::{Headers, Post, deliver, error_response},
    session::Session,
    sessions::LocalSession,
};
use crate::{
    Frontend,
    frontend::Inbound,
    http::{Final, Outbox, OutboxKind, Refusal, ResponseBody, empty, json},
};

/// A session that the caller may use, and its state on this node.
pub(super) struct Entered {
    pub(super) session: Session,
    pub(super) local: Arc<LocalSession>,
}

/// 404: the client starts a new session.
fn no_session(id: Option<&RequestId>) -> Refusal {
    let error = RpcError::with_code(
        RpcError::INVALID_REQUEST,
        "PV-MCP-SESSION-UNKNOWN",
        "Session not found: send initialize to start a new one",
    );
    Box::new(error_response(StatusCode::NOT_FOUND, id, &error))
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
            self.record_denied(
                inbound,
                Denied {
                    caller: Some(&caller),
                    method,
                    code: "PV-MCP-SESSION-FOREIGN",
                    reason: format!("a session of {} was used by {}", session.principal, caller.principal),
                },
            );
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
        let mut params = post.params.clone();
        let operation = match classify::operation(&post.method, &params, Era::Legacy) {
            Ok(operation) => operation,
            Err(error) => return error_response(StatusCode::OK, Some(&post.id), &error),
        };
        if let Some(entered) = &entered {
            if let Err(error) = note_level(&operation, &params, &entered.local) {
                return error_response(StatusCode::OK, Some(&post.id), &error);
            }
            // A modern upstream learns the level from each request.
            let level = *entered.local.level.lock();
            if let Some(level) = level.filter(|_| operation != Operation::SetLogLevel) {
                params.set_in("_meta", key::LOG_LEVEL, RawJson::from_text(level.as_str()));
            }
        }
        self.legacy_call(inbound, post, meta, entered, operation, params.finish()).await
    }

    async fn legacy_call(
        self: &Arc<Self>,
        inbound: Inbound,
        post: Post,
        meta: RequestMeta,
        entered: Option<Entered>,
        operation: Operation,
        params: RawJson,
    ) -> Response<ResponseBody> {
        let cancel = CancellationToken::new();
        let client = legacy_client(&inbound, entered.as_ref());
        let (outbox, manner) = match &entered {
            Some(Entered { session, local }) => {
                if !local.begin(post.id.as_str(), &cancel) {
                    return busy(&post.id);
                }
                let primed = session.version >= ProtocolVersion::V2025_11_25;
                let manner = Manner::Session {
                    session: local.clone(),
                    key: session.key.clone(),
                    asks: self.asks.clone(),
                    capabilities: session.capabilities.clone(),
                };
                (local.open_stream(false, primed), manner)
            }
            None => (Outbox::new(OutboxKind::Once), Manner::Sessionless),
        };
        let accepts_events = post.accepts.events;
        let link = Arc::new(CallLink { outbox: outbox.clone(), cancel, manner, accepts_events });
        let context = self.context(&inbound, &post, &operation);
        let request = self.request_of(&inbound, &post, &meta, operation, params, client);
        let local = entered.map(|e| e.local);
        let running = local.clone().zip(Some(post.id.clone()));
        self.start(request, link, move |answer| {
            if let Some((local, id)) = running {
                local.done(id.as_str());
            }
            context.legacy(&answer)
        });
        // A legacy client that disconnects has not cancelled: the call goes on, and its stream can
        // be taken up again.
        let response = deliver(outbox.clone(), post.accepts, None).await;
        if let (ResponseBody::Whole(_), Some(local)) = (response.body(), local) {
            local.close_stream(&outbox);
        }
        response
    }

    async fn initialize(self: &Arc<Self>, inbound: Inbound, post: Post, meta: RequestMeta) -> Response<ResponseBody> {
        let params = &post.params;
        let Some(asked) = params.get_text("protocolVersion") else {
            let error = RpcError::with_code(
                RpcError::INVALID_PARAMS,
                "PV-MCP-INVALID-PARAMS",
                "params.protocolVersion must be a string",
            );
            return error_response(StatusCode::BAD_REQUEST, Some(&post.id), &error);
        };
        let Ok(session_key) = super::SessionSealer::new_key() else { return internal(&post.id) };
        let object = |name: &str| params.get(name).filter(RawJson::is_object);
        let client = ClientFacts {
            protocol_version: negotiate::negotiate_legacy(&asked),
            info: object("clientInfo"),
            capabilities: object("capabilities").unwrap_or(RawJson::EMPTY_OBJECT),
            session: Some(session_key),
            address: inbound.address(),
            transport: inbound.peer.transport,
        };
        let outbox = Outbox::new(OutboxKind::Once);
        let link = Arc::new(CallLink {
            outbox: outbox.clone(),
            cancel: CancellationToken::new(),
            manner: Manner::Sessionless,
            accepts_events: false,
        });
        let context = self.context(&inbound, &post, &Operation::Discover);
        let params = post.params.clone().finish();
        let operation = Operation::Discover;
        let request = self.request_of(&inbound, &post, &meta, operation, params, client.clone());
        let front = self.clone();
        self.start(request, link, move |answer| front.initialized(&inbound, &client, &context, answer));
        deliver(outbox, post.accepts, None).await
    }

    /// The answer to `initialize`, with the sealed session id.
    fn initialized(&self, inbound: &Inbound, client: &ClientFacts, context: &Context, mut answer: Answer) -> Final {
        if let Ok(Reply::Result { body, .. }) = &mut answer.outcome {
            *body = bridge::initialize_result(body, client.protocol_version, &self.server_info);
        }
        let mut end = context.legacy(&answer);
        if let (Ok(Reply::Result { .. }), Some(key), Ok(caller)) =
            (&answer.outcome, &client.session, self.caller_of(inbound))
        {
            let session = Session {
                key: key.clone(),
                principal: caller.principal.clone(),
                route: inbound.path.clone(),
                version: client.protocol_version,
                capabilities: client.capabilities.clone(),
                info: client.info.clone(),
            };
            let sealed = self.session_ids.seal(&session, self.now_s());
            if let Some(value) = sealed.ok().and_then(|id| HeaderValue::from_str(&id).ok()) {
                end.headers.insert(headers::SESSION_ID, value);
            }
        }
        end
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
            if let Some(id) = id {
                entered.local.cancel(id.as_str());
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
                    self.asks.answer(&entered.session.key, &id, outcome);
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

fn note_level(operation: &Operation, params: &RawObject, local: &LocalSession) -> Result<(), RpcError> {
    if *operation != Operation::SetLogLevel {
        return Ok(());
    }
    let level = params.get_text("level").and_then(|l| LogLevel::parse(&l)).ok_or_else(|| {
        RpcError::with_code(
            RpcError::INVALID_PARAMS,
            "PV-MCP-INVALID-PARAMS",
            "params.level must be debug, info, notice, warning, error, critical, alert or emergency",
        )
    })?;
    *local.level.lock() = Some(level);
    Ok(())
}

fn busy(id: &RequestId) -> Response<ResponseBody> {
    let error = RpcError::with_code(
        RpcError::INVALID_REQUEST,
        "PV-MCP-SESSION-BUSY",
        format!("the id is in use, or the session has {} calls in flight", super::sessions::MAX_RUNNING),
    );
    error_response(StatusCode::TOO_MANY_REQUESTS, Some(id), &error)
}

fn internal(id: &RequestId) -> Response<ResponseBody> {
    let error = RpcError::with_code(RpcError::INTERNAL, "PV-INTERNAL", "internal error");
    error_response(StatusCode::INTERNAL_SERVER_ERROR, Some(id), &error)
}
