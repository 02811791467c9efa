//! What a request becomes on a transport whose connections last: WebSocket, QUIC.
//!
//! Purpose: the same call that a POST makes of it, with the legacy session held by the connection
//! instead of by an id that the client carries.
//! Invariants: a connection has one session at most, which ends with it; the session serves only
//! the caller and the endpoint that opened it. Left out: framing, and what is in flight.

use std::sync::{Arc, OnceLock};

use http::StatusCode;
use provost_data_pipeline::Plane;
use provost_mcp::{
    Era, RawJson, RequestId, RpcError, error_message, headers::NoHeaders, meta::RequestMeta, negotiate, result_message,
};
use tokio_util::sync::CancellationToken;

use super::{
    classify::legacy_operation,
    legacy::{Entered, LegacyStart, session_unknown},
    outlet::Outlet,
    post::Post,
    session::Session,
    sessions::LocalSession,
};
use crate::{Frontend, frontend::Inbound, http::Final};

/// An error as the end of a call.
pub(super) fn failed(id: &RequestId, error: &RpcError) -> Final {
    // The status is HTTP's; here only the message counts.
    Final::json(StatusCode::OK, error_message(Some(id), error))
}

/// See the module.
pub(super) struct Connected<P> {
    front: Arc<Frontend<P>>,
    session: Arc<OnceLock<Entered>>,
    /// What the refusal of a second `initialize` is called.
    has_session: &'static str,
}

impl<P: Plane + 'static> Connected<P> {
    pub(super) fn new(front: Arc<Frontend<P>>, has_session: &'static str) -> Self {
        Self { front, session: Arc::default(), has_session }
    }

    /// Starts the call of a request: its messages and its answer go to `outlet`, and `cancel`
    /// cancels it. Errors: there is no call, and `outlet` heard nothing.
    pub(super) fn start(
        &self,
        inbound: Inbound,
        post: Post,
        outlet: Arc<dyn Outlet>,
        cancel: CancellationToken,
    ) -> Result<(), RpcError> {
        let meta = RequestMeta::of(&post.params);
        match negotiate::era_of(&post.method, &meta, &NoHeaders)? {
            Era::Modern => self.front.start_modern(inbound, post, meta, outlet, cancel).map_err(|(_, error)| error),
            Era::Legacy => self.legacy(inbound, &post, &meta, outlet, cancel),
        }
    }

    fn legacy(
        &self,
        inbound: Inbound,
        post: &Post,
        meta: &RequestMeta,
        outlet: Arc<dyn Outlet>,
        cancel: CancellationToken,
    ) -> Result<(), RpcError> {
        match post.method.as_str() {
            "initialize" => return self.initialize(inbound, post, meta, outlet),
            "ping" => {
                self.front.recognise(&inbound, &post.method).map_err(|rejection| rejection.error)?;
                outlet.finish(Final::json(StatusCode::OK, result_message(&post.id, &RawJson::EMPTY_OBJECT)));
                return Ok(());
            }
            _ => {}
        }
        let entered = self.entered(&inbound, &post.method)?;
        let asked = legacy_operation(post, entered)?;
        let start = LegacyStart { cancel, outlet, entered };
        self.front.start_legacy(&inbound, post, meta, asked, start, || {});
        Ok(())
    }

    /// Opens the session.
    fn initialize(
        &self,
        inbound: Inbound,
        post: &Post,
        meta: &RequestMeta,
        outlet: Arc<dyn Outlet>,
    ) -> Result<(), RpcError> {
        let code = self.has_session;
        let again = move || {
            let message = "the connection has its session: open another connection for another one";
            RpcError::with_code(RpcError::INVALID_REQUEST, code, message)
        };
        if self.session.get().is_some() {
            return Err(again());
        }
        let (slot, id, tag) = (self.session.clone(), post.id.clone(), self.front.siblings.tag());
        let sessions = self.front.sessions.clone();
        let opened = move |session: Session, end| {
            let local = Arc::new(LocalSession::new(session.principal.clone(), tag));
            let (key, held) = (session.key.clone(), local.clone());
            match slot.set(Entered { session, local }) {
                Ok(()) => {
                    // Others have to find it: what a user does in a browser may be said anywhere.
                    sessions.hold(&key, &held);
                    end
                }
                // Two at once: the other was faster.
                Err(_) => failed(&id, &again()),
            }
        };
        self.front.start_initialize(inbound, post, meta, outlet, opened).map_err(|(_, error)| error)
    }

    /// The session, if there is one and it is this caller's at this endpoint.
    pub(super) fn entered(&self, inbound: &Inbound, method: &str) -> Result<Option<&Entered>, RpcError> {
        let Some(entered) = self.session.get() else { return Ok(None) };
        if entered.session.route != inbound.path {
            return Err(session_unknown());
        }
        // A caller who is unknown altogether is refused, and recorded, by the pipeline.
        if let Ok(caller) = self.front.caller_of(inbound)
            && caller.principal != entered.session.principal
        {
            self.front.record_foreign(inbound, &caller, &entered.session.principal, method);
            return Err(session_unknown());
        }
        Ok(Some(entered))
    }

    /// Takes a client's answer to a request of ours. One that comes too late, or twice, is no
    /// error; and an error would answer an answer.
    pub(super) fn answered(&self, id: Option<&RequestId>, outcome: Result<RawJson, RpcError>) {
        if let (Some(id), Some(entered)) = (id, self.session.get()) {
            self.front.asks.answer(&entered.session.key, id, outcome);
        }
    }
}
