//! One stream: a message in, what belongs to it out.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use http::StatusCode;
use provost_data_pipeline::Plane;
use provost_mcp::{Envelope, JsonLimits, RawJson, RawObject, RequestId, RpcError, error_message};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use super::{
    call::{StreamCall, line},
    connection::Connection,
    ending::{CANCELLED, Refusal},
    lines::Lines,
    opening::{NotOpened, is_safe_to_replay},
};
use crate::{
    frontend::Inbound,
    http::Final,
    mcp::{
        connected::failed,
        outlet::Outlet,
        post::{Accepts, Post},
    },
};

/// What a stream came to.
enum Begun {
    /// Something is said on it, until its end.
    Call(Arc<StreamCall>),
    /// One error is said on it.
    Error(Option<RequestId>, RpcError),
    /// Nothing is.
    Nothing,
}

impl<P: Plane + 'static> Connection<P> {
    /// Serves one stream to its end.
    pub(super) async fn serve(self: Arc<Self>, mut send: SendStream, recv: RecvStream) {
        let is_early = recv.is_0rtt();
        let mut lines = Lines::new(recv);
        let begun = {
            let mut stopped = pin!(send.stopped());
            tokio::select! {
                begun = Box::pin(self.begin(&mut lines, is_early)) => begun,
                _ = &mut stopped => Err(NotOpened::Gone),
                () = self.gone.cancelled() => return,
            }
        };
        match begun {
            Ok(Begun::Call(call)) => self.converse(&mut send, &mut lines, &call).await,
            Ok(Begun::Error(id, error)) => self.say(&mut send, id.as_ref(), &error).await,
            Ok(Begun::Nothing) | Err(NotOpened::Empty) => {
                let _ = send.finish();
            }
            Err(NotOpened::Refused(refusal)) => {
                let _ = lines.reader().stop(refusal.stop_code());
                self.say(&mut send, None, &refusal.error()).await;
            }
            Err(NotOpened::Gone) => {
                let _ = send.reset(CANCELLED);
            }
        }
        let _ = lines.reader().stop(CANCELLED);
        // The connection must not be closed before the client has the end of this stream.
        if timeout(self.limits.write_stall, send.stopped()).await.is_err() {
            self.is_in_doubt.store(true, Ordering::Relaxed);
        }
    }

    /// Reads what is asked and starts it.
    async fn begin(&self, lines: &mut Lines<RecvStream>, is_early: bool) -> Result<Begun, NotOpened> {
        let opened = self.open(lines).await?;
        self.until_authenticated(&opened.head).await;
        let inbound = match self.inbound(opened.head) {
            Ok(inbound) => inbound,
            Err(cause) => {
                tracing::error!(%cause, "no randomness for a call id");
                let error = RpcError::with_code(RpcError::INTERNAL, "PV-INTERNAL", "internal error");
                return Ok(Begun::Error(None, error));
            }
        };
        self.front.plane.prepare(&self.front.plane.snapshot(), &inbound.credential).await;
        let limits = JsonLimits { max_bytes: self.front.config.max_body_bytes, ..JsonLimits::REQUEST };
        let message = match Envelope::parse(opened.message, &limits) {
            Ok(message) => message,
            Err(fault) => return Ok(Begun::Error(fault.id().cloned(), fault.rpc_error())),
        };
        let is_safe = matches!(&message, Envelope::Request { method, .. } if is_safe_to_replay(method));
        if is_early && !is_safe {
            self.confirmed.cancelled().await;
        }
        Ok(self.take(inbound, message))
    }

    fn take(&self, inbound: Inbound, message: Envelope) -> Begun {
        match message {
            Envelope::Request { id, .. } if self.front.draining.is_cancelled() => {
                Begun::Error(Some(id), Refusal::Draining.error())
            }
            Envelope::Request { id, method, params } => {
                let raw = params.unwrap_or(RawJson::EMPTY_OBJECT);
                let params = RawObject::parse(&raw).unwrap_or_default();
                let accepts = Accepts { json: true, events: true };
                let call = self.call();
                let post = Post { id: id.clone(), method, params, accepts };
                if let Err(error) = self.connected.start(inbound, post, call.clone(), call.cancel.clone()) {
                    call.finish(failed(&id, &error));
                }
                Begun::Call(call)
            }
            Envelope::Notification { method, .. } if method == "notifications/initialized" => self.listen(inbound),
            // Cancelling is done to streams, and a client has nothing else to notify.
            Envelope::Notification { .. } => Begun::Nothing,
            Envelope::Response { id, outcome } => match self.connected.entered(&inbound, "response") {
                Ok(_) => {
                    self.connected.answered(id.as_ref(), outcome);
                    Begun::Nothing
                }
                Err(error) => Begun::Error(None, error),
            },
        }
    }

    fn call(&self) -> Arc<StreamCall> {
        StreamCall::new(self.queue_bounds(), self.gone.child_token())
    }

    /// Starts to pass on what concerns no single call: what a legacy client opens a GET for.
    fn listen(&self, inbound: Inbound) -> Begun {
        let entered = match self.connected.entered(&inbound, "subscriptions/listen") {
            Ok(Some(entered)) => entered,
            Ok(None) => return Begun::Nothing,
            Err(error) => return Begun::Error(None, error),
        };
        let call = self.call();
        let over = call.clone();
        let outlet: Arc<dyn Outlet> = call.clone();
        entered.local.listens(&outlet);
        self.front.start_listening(&inbound, entered, outlet, call.cancel.clone(), move || over.cancel.cancel());
        let (front, cancel) = (self.front.clone(), call.cancel.clone());
        // It has no end of its own: it ends with the node, or with its caller's credential.
        self.front.calls.spawn(async move {
            tokio::select! {
                () = front.until_streams_end(&inbound) => cancel.cancel(),
                () = cancel.cancelled() => {}
            }
        });
        Begun::Call(call)
    }

    /// Sends what the call says, hears what its client answers, and cancels it for a client that
    /// leaves.
    async fn converse(&self, send: &mut SendStream, lines: &mut Lines<RecvStream>, call: &StreamCall) {
        let _cancel = call.cancel.clone().drop_guard();
        let stopped = send.stopped();
        let heard = {
            let mut stopped = pin!(stopped);
            let mut hearing = pin!(self.hear(lines));
            let mut writing = pin!(call.write(send, self.limits.write_stall));
            let mut is_heard = false;
            loop {
                tokio::select! {
                    written = &mut writing => break written.is_ok(),
                    is_whole = &mut hearing, if !is_heard => {
                        if !is_whole {
                            break false;
                        }
                        is_heard = true;
                    }
                    _ = &mut stopped => break false,
                    () = self.gone.cancelled() => break false,
                }
            }
        };
        if !heard {
            // Nobody hears the answer any more, and the client knows.
            let _ = send.reset(CANCELLED);
        }
    }

    /// Takes the client's answers to requests of ours; `false`: it reset the stream.
    async fn hear(&self, lines: &mut Lines<RecvStream>) -> bool {
        let max = self.front.config.max_body_bytes;
        let limits = JsonLimits { max_bytes: max, ..JsonLimits::REQUEST };
        loop {
            match lines.next(max, self.line_bounds()).await {
                Ok(Some(line)) => {
                    if let Ok(Envelope::Response { id, outcome }) = Envelope::parse(line, &limits) {
                        self.connected.answered(id.as_ref(), outcome);
                    }
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    async fn say(&self, send: &mut SendStream, id: Option<&RequestId>, error: &RpcError) {
        let end = Final::json(StatusCode::OK, error_message(id, error));
        let written = timeout(self.limits.write_stall, send.write_all_chunks(&mut line(end.body))).await;
        if matches!(written, Ok(Ok(()))) {
            let _ = send.finish();
        } else {
            let _ = send.reset(CANCELLED);
        }
    }
}
