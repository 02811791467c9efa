//! `initialize`: the handshake that opens a legacy session.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use provost_data_pipeline::{Answer, ClientFacts, Operation, Plane, Reply};
use provost_mcp::{RawJson, RpcError, bridge, headers, meta::RequestMeta, negotiate};
use tokio_util::sync::CancellationToken;

use super::{
    answer::Context,
    link::{CallLink, Manner},
    outlet::Outlet,
    post::{Post, deliver, error_response},
    session::Session,
};
use crate::{
    Frontend,
    frontend::Inbound,
    http::{Final, Outbox, OutboxKind, ResponseBody},
};

impl<P: Plane + 'static> Frontend<P> {
    pub(super) async fn initialize(
        self: &Arc<Self>,
        inbound: Inbound,
        post: Post,
        meta: RequestMeta,
    ) -> Response<ResponseBody> {
        let outbox = Outbox::new(OutboxKind::Once);
        let (id, accepts) = (post.id.clone(), post.accepts);
        let front = self.clone();
        let sealed = move |session: Session, mut end: Final| {
            let id = front.session_ids.seal(&session, front.now_s());
            if let Some(value) = id.ok().and_then(|id| HeaderValue::from_str(&id).ok()) {
                end.headers.insert(headers::SESSION_ID, value);
            }
            end
        };
        match self.start_initialize(inbound, &post, &meta, outbox.clone(), sealed) {
            Ok(()) => deliver(outbox, accepts, None).await,
            Err((status, error)) => error_response(status, Some(&id), &error),
        }
    }

    /// Starts the call behind `initialize`. `opened` gets the new session with its answer, and
    /// says what is answered.
    pub(super) fn start_initialize(
        self: &Arc<Self>,
        inbound: Inbound,
        post: &Post,
        meta: &RequestMeta,
        outlet: Arc<dyn Outlet>,
        opened: impl FnOnce(Session, Final) -> Final + Send + 'static,
    ) -> Result<(), (StatusCode, RpcError)> {
        let params = &post.params;
        let asked = params.get_text("protocolVersion").ok_or_else(|| {
            let (code, reason) = ("PV-MCP-INVALID-PARAMS", "params.protocolVersion must be a string");
            (StatusCode::BAD_REQUEST, RpcError::with_code(RpcError::INVALID_PARAMS, code, reason))
        })?;
        let session_key = super::SessionSealer::new_key().map_err(|_| {
            let error = RpcError::with_code(RpcError::INTERNAL, "PV-INTERNAL", "internal error");
            (StatusCode::INTERNAL_SERVER_ERROR, error)
        })?;
        let object = |name: &str| params.get(name).filter(RawJson::is_object);
        let client = ClientFacts {
            protocol_version: negotiate::negotiate_legacy(&asked),
            info: object("clientInfo"),
            capabilities: object("capabilities").unwrap_or(RawJson::EMPTY_OBJECT),
            session: Some(session_key),
            address: inbound.address(),
            transport: inbound.peer.transport,
        };
        let link = Arc::new(CallLink {
            outlet,
            cancel: CancellationToken::new(),
            manner: Manner::Sessionless,
            accepts_events: false,
        });
        let context = self.context(&inbound, post, &Operation::Discover);
        let params = post.params.clone().finish();
        let request = self.request_of(&inbound, post, meta, Operation::Discover, params, client.clone());
        let front = self.clone();
        self.start(request, link, move |answer| {
            let (end, session) = front.initialized(&inbound, &client, &context, answer);
            match session {
                Some(session) => opened(session, end),
                None => end,
            }
        });
        Ok(())
    }

    /// The answer to `initialize`, and the session if it opens one.
    fn initialized(
        &self,
        inbound: &Inbound,
        client: &ClientFacts,
        context: &Context,
        mut answer: Answer,
    ) -> (Final, Option<Session>) {
        if let Ok(Reply::Result { body, .. }) = &mut answer.outcome {
            *body = bridge::initialize_result(body, client.protocol_version, &self.server_info);
        }
        let end = context.legacy(&answer);
        let (Ok(Reply::Result { .. }), Some(key), Ok(caller)) =
            (&answer.outcome, &client.session, self.caller_of(inbound))
        else {
            return (end, None);
        };
        let session = Session {
            key: key.clone(),
            principal: caller.principal.clone(),
            route: inbound.path.clone(),
            version: client.protocol_version,
            capabilities: client.capabilities.clone(),
            info: client.info.clone(),
        };
        (end, Some(session))
    }
}
