//! The calls in flight on one socket.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use provost_mcp::RequestId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::closing::Closing;
use crate::{
    http::Final,
    mcp::{outlet::Outlet, queue},
};

/// What waits to be sent on one socket.
pub(super) type SendQueue = queue::SendQueue<Closing>;

/// The calls that run, by the client's ids.
pub(super) struct InFlight {
    calls: Mutex<HashMap<String, Arc<SocketCall>>>,
    max: usize,
    ended: Notify,
}

impl InFlight {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { calls: Mutex::default(), max, ended: Notify::new() })
    }

    /// Notes a call; `None`: too many run, or the id is in use.
    pub(super) fn begin(
        self: &Arc<Self>,
        id: &RequestId,
        queue: &Arc<SendQueue>,
        gone: &CancellationToken,
    ) -> Option<Arc<SocketCall>> {
        let mut calls = self.calls.lock();
        if calls.len() >= self.max || calls.contains_key(id.as_str()) {
            return None;
        }
        let call = Arc::new(SocketCall {
            id: id.as_str().to_owned(),
            cancel: gone.child_token(),
            is_muted: AtomicBool::new(false),
            is_finished: AtomicBool::new(false),
            queue: queue.clone(),
            calls: self.clone(),
        });
        calls.insert(call.id.clone(), call.clone());
        Some(call)
    }

    /// Cancels a call for its client, who then hears no more of it (MCP, cancellation). One that
    /// is not known has ended already: no error.
    pub(super) fn cancel(&self, id: &RequestId) {
        let call = self.calls.lock().get(id.as_str()).cloned();
        if let Some(call) = call {
            call.is_muted.store(true, Ordering::Release);
            call.cancel.cancel();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.lock().is_empty()
    }

    /// Resolves once no call runs. For one waiter.
    pub(super) async fn none(&self) {
        while !self.is_empty() {
            self.ended.notified().await;
        }
    }
}

/// One call in flight: its answer and its notifications go into the socket's queue.
pub(super) struct SocketCall {
    id: String,
    pub(super) cancel: CancellationToken,
    is_muted: AtomicBool,
    is_finished: AtomicBool,
    queue: Arc<SendQueue>,
    calls: Arc<InFlight>,
}

impl Outlet for SocketCall {
    fn push(&self, message: &Bytes) {
        if !self.is_muted.load(Ordering::Acquire) && !self.is_finished() {
            self.queue.notify(message);
        }
    }

    fn finish(&self, end: Final) {
        if self.is_finished.swap(true, Ordering::AcqRel) {
            return;
        }
        // Under one lock: a client that has its answer may use the id again, and a socket that
        // waits for its last call must not be closed before the answer is queued.
        let mut calls = self.calls.calls.lock();
        if !self.is_muted.load(Ordering::Acquire) {
            self.queue.answer(end.body);
        }
        calls.remove(&self.id);
        drop(calls);
        self.calls.ended.notify_one();
    }

    fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Acquire)
    }
}

/// What concerns no single call of a legacy session. It has no answer.
pub(super) struct Listener {
    queue: Arc<SendQueue>,
    is_finished: AtomicBool,
}

impl Listener {
    pub(super) fn new(queue: Arc<SendQueue>) -> Arc<Self> {
        Arc::new(Self { queue, is_finished: AtomicBool::new(false) })
    }
}

impl Outlet for Listener {
    fn push(&self, message: &Bytes) {
        if !self.is_finished() {
            self.queue.notify(message);
        }
    }

    fn finish(&self, _: Final) {
        self.is_finished.store(true, Ordering::Release);
    }

    fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Acquire)
    }
}
