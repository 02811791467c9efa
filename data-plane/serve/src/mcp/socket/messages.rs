//! From one message to the same request that a POST would make of it.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use provost_data_pipeline::Plane;
use provost_mcp::{
    Envelope, Era, JsonLimits, RawJson, RawObject, RequestId, RpcError, error_message, headers::NoHeaders,
    meta::RequestMeta, negotiate, result_message,
};

use super::{
    call::{Listener, SocketCall},
    connection::Connection,
};
use crate::{
    frontend::Inbound,
    http::Final,
    mcp::{
        classify::legacy_operation,
        legacy::{Entered, LegacyStart},
        outlet::Outlet,
        post::{Accepts, Post},
        session::Session,
        sessions::LocalSession,
    },
};

fn failed(id: &RequestId, error: &RpcError) -> Final {
    // The status is HTTP's; on a socket only the message counts.
    Final::json(StatusCode::OK, error_message(Some(id), error))
}

impl<P: Plane + 'static> Connection<P> {
    /// Takes one message.
    pub(super) fn message(&mut self, bytes: Bytes) {
        let limits = JsonLimits { max_bytes: self.front.config.max_body_bytes, ..JsonLimits::REQUEST };
        match Envelope::parse(bytes, &limits) {
            Err(fault) => self.queue.answer(error_message(fault.id(), &fault.rpc_error())),
            Ok(Envelope::Request { id, method, params }) => {
                let raw = params.unwrap_or(RawJson::EMPTY_OBJECT);
                let params = RawObject::parse(&raw).unwrap_or_default();
                let accepts = Accepts { json: true, events: true };
                if let Err(error) = self.request(Post { id: id.clone(), method, params, accepts }) {
                    self.queue.answer(error_message(Some(&id), &error));
                }
            }
            Ok(Envelope::Notification { method, params }) => self.notification(&method, params.as_ref()),
            Ok(Envelope::Response { id, outcome }) => {
                // One that comes too late, or twice, is no error; and an error would answer an answer.
                if let (Some(id), Some(entered)) = (id, self.session.get()) {
                    self.front.asks.answer(&entered.session.key, &id, outcome);
                }
            }
        }
    }

    /// Starts the call of a request. Errors: it was not noted as a call in flight.
    fn request(&mut self, post: Post) -> Result<(), RpcError> {
        if self.is_draining {
            let message = "the node shuts down: send the request on another connection";
            return Err(RpcError::with_code(RpcError::INTERNAL, "PV-WS-DRAINING", message));
        }
        let meta = RequestMeta::of(&post.params);
        let era = negotiate::era_of(&post.method, &meta, &NoHeaders)?;
        let inbound = self.front.message_of(&self.inbound).map_err(|cause| {
            tracing::error!(%cause, "no randomness for a call id");
            RpcError::with_code(RpcError::INTERNAL, "PV-INTERNAL", "internal error")
        })?;
        let call = self.in_flight.begin(&post.id, &self.queue, &self.gone).ok_or_else(|| {
            let max = self.front.config.sockets.max_in_flight;
            let message = format!("the id is in use, or the connection has {max} calls in flight");
            RpcError::with_code(RpcError::INVALID_REQUEST, "PV-MCP-SESSION-BUSY", message)
        })?;
        let id = post.id.clone();
        let started = match era {
            Era::Modern => {
                let (outlet, cancel) = (call.clone(), call.cancel.clone());
                self.front.start_modern(inbound, post, meta, outlet, cancel).map_err(|(_, error)| error)
            }
            Era::Legacy => self.legacy(inbound, post, &meta, call.clone()),
        };
        if let Err(error) = started {
            call.finish(failed(&id, &error));
        }
        Ok(())
    }

    fn legacy(&self, inbound: Inbound, post: Post, meta: &RequestMeta, call: Arc<SocketCall>) -> Result<(), RpcError> {
        match post.method.as_str() {
            "initialize" => return self.initialize(inbound, &post, meta, call),
            "ping" => {
                call.finish(Final::json(StatusCode::OK, result_message(&post.id, &RawJson::EMPTY_OBJECT)));
                return Ok(());
            }
            _ => {}
        }
        let entered = self.session.get();
        let asked = legacy_operation(&post, entered)?;
        let start = LegacyStart { cancel: call.cancel.clone(), outlet: call, entered };
        self.front.start_legacy(&inbound, &post, meta, asked, start, || {});
        Ok(())
    }

    /// Opens the session of this connection; it has one at most.
    fn initialize(
        &self,
        inbound: Inbound,
        post: &Post,
        meta: &RequestMeta,
        call: Arc<SocketCall>,
    ) -> Result<(), RpcError> {
        let again = || {
            let message = "the connection has its session: open another connection for another one";
            RpcError::with_code(RpcError::INVALID_REQUEST, "PV-WS-SESSION-OPEN", message)
        };
        if self.session.get().is_some() {
            return Err(again());
        }
        let (slot, id) = (self.session.clone(), post.id.clone());
        let opened = move |session: Session, end| {
            let local = Arc::new(LocalSession::new(session.principal.clone()));
            match slot.set(Entered { session, local }) {
                Ok(()) => end,
                // Two at once: the other was faster.
                Err(_) => failed(&id, &again()),
            }
        };
        self.front.start_initialize(inbound, post, meta, call, opened).map_err(|(_, error)| error)
    }

    fn notification(&self, method: &str, params: Option<&RawJson>) {
        match method {
            "notifications/cancelled" => {
                let id = params
                    .and_then(|p| RawObject::parse(p).ok())
                    .and_then(|p| p.get("requestId"))
                    .and_then(|id| RequestId::from_raw(&id));
                if let Some(id) = id {
                    self.in_flight.cancel(&id);
                }
            }
            "notifications/initialized" => self.listen(),
            // A client has nothing else to notify that a server would act on.
            _ => {}
        }
    }

    /// Starts to pass on what concerns no single call: what a legacy client opens a GET for.
    fn listen(&self) {
        let Some(entered) = self.session.get().filter(|_| !self.is_draining) else { return };
        let cancel = self.gone.child_token();
        if self.listener.set(cancel.clone()).is_err() {
            return;
        }
        match self.front.message_of(&self.inbound) {
            Ok(inbound) => {
                let outlet = Listener::new(self.queue.clone());
                self.front.start_listening(&inbound, entered, outlet, cancel, || {});
            }
            Err(cause) => tracing::error!(%cause, "no randomness for a call id"),
        }
    }
}
