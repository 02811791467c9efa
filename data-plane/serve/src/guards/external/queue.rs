//! What a running call sends, waiting to be checked. In order, and bounded.

use std::collections::VecDeque;

use parking_lot::Mutex;
use provost_mcp::RawJson;
use tokio::sync::Notify;

/// Bytes that wait in one call; what comes beyond is left out.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// A notification that waits.
#[derive(Clone)]
pub(crate) struct Waiting {
    pub(crate) method: String,
    pub(crate) params: RawJson,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    came: Notify,
}

impl Queue {
    /// Whether there was room.
    pub(crate) fn push(&self, method: &str, params: RawJson) -> bool {
        let mut inner = self.inner.lock();
        let bytes = params.as_bytes().len();
        if inner.bytes + bytes > WAITING_BYTES_MAX {
            return false;
        }
        inner.bytes += bytes;
        inner.waiting.push_back(Waiting { method: method.to_owned(), params });
        drop(inner);
        self.came.notify_one();
        true
    }

    /// The first; it stays until it is taken, so that a check which is given up is made again.
    pub(crate) fn first(&self) -> Option<Waiting> {
        self.inner.lock().waiting.front().cloned()
    }

    pub(crate) fn take(&self) {
        let mut inner = self.inner.lock();
        if let Some(taken) = inner.waiting.pop_front() {
            inner.bytes = inner.bytes.saturating_sub(taken.params.as_bytes().len());
        }
    }

    /// Until something comes, or came since this was asked last.
    pub(crate) async fn came(&self) {
        self.came.notified().await;
    }
}
