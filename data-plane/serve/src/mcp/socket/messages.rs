//! From one message to the same request that a POST would make of it.

use std::sync::Arc;

use bytes::Bytes;
use provost_data_pipeline::Plane;
use provost_mcp::{Envelope, JsonLimits, RawJson, RawObject, RequestId, RpcError, error_message};

use super::{call::Listener, connection::Connection};
use crate::mcp::{
    connected::failed,
    outlet::Outlet,
    post::{Accepts, Post},
};

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
            Ok(Envelope::Response { id, outcome }) => self.connected.answered(id.as_ref(), outcome),
        }
    }

    /// Starts the call of a request. Errors: it was not noted as a call in flight.
    fn request(&mut self, post: Post) -> Result<(), RpcError> {
        if self.is_draining {
            let message = "the node shuts down: send the request on another connection";
            return Err(RpcError::with_code(RpcError::INTERNAL, "PV-WS-DRAINING", message));
        }
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
        if let Err(error) = self.connected.start(inbound, post, call.clone(), call.cancel.clone()) {
            call.finish(failed(&id, &error));
        }
        Ok(())
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
        if self.is_draining {
            return;
        }
        let inbound = match self.front.message_of(&self.inbound) {
            Ok(inbound) => inbound,
            Err(cause) => return tracing::error!(%cause, "no randomness for a call id"),
        };
        let Ok(Some(entered)) = self.connected.entered(&inbound, "subscriptions/listen") else { return };
        let cancel = self.gone.child_token();
        if self.listener.set(cancel.clone()).is_ok() {
            let outlet: Arc<dyn Outlet> = Listener::new(self.queue.clone());
            entered.local.listens(&outlet);
            self.front.start_listening(&inbound, entered, outlet, cancel, || {});
        }
    }
}
