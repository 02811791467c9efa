//! Where the messages of one call go, whatever transport the call came in on.

use bytes::Bytes;

use crate::http::{Final, Outbox};

/// The client's end of one call, as its task sees it. Whoever writes never waits.
pub(super) trait Outlet: Send + Sync {
    /// Sends a message that belongs to the call.
    fn push(&self, message: &Bytes);

    /// Ends the call with its answer. Later calls do nothing.
    fn finish(&self, end: Final);

    /// Whether the call has ended.
    fn is_finished(&self) -> bool;

    /// The call's executor has begun: it waits for the caller to cancel. May be said several times.
    fn begun(&self) {}
}

impl Outlet for Outbox {
    fn push(&self, message: &Bytes) {
        Self::push(self, message);
    }

    fn finish(&self, end: Final) {
        Self::finish(self, end);
    }

    fn is_finished(&self) -> bool {
        Self::is_finished(self)
    }
}
