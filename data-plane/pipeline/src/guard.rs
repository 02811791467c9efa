//! What guards do to one call, and the client's end as an executor sees it under them.
//!
//! Invariants: an executor gets no other link than the guarded one where a guard covers the call, so
//! nothing that it sends on its way, and nothing that a client answers, passes by the guards.

use std::{pin::pin, sync::Arc, task::Poll};

use provost_mcp::RawJson;
use provost_types::BoxFuture;

use crate::{AskError, ClientLink, Rejection, Reply};

/// The guards of one call that runs. What they found is never told as a value, only counted.
pub trait CallGuard: std::fmt::Debug + Send + Sync {
    /// A notification on its way to the client: hands over what may go, at once or with a later one.
    fn notify(&self, method: &str, params: RawJson, send: &mut dyn FnMut(RawJson));

    /// Sends what waited for a check on its way, as long as the call runs. Can be given up at any point. `None`: nothing
    /// ever waits.
    fn relay<'a>(&'a self, _link: &'a dyn ClientLink) -> Option<BoxFuture<'a, ()>> {
        None
    }

    /// Sends what still waits, after the call ran. `None`: nothing does.
    fn flush<'a>(&'a self, _link: &'a dyn ClientLink) -> Option<BoxFuture<'a, ()>> {
        None
    }

    /// A question to the client, as it may go.
    ///
    /// # Errors
    /// It holds what may not pass: which kind.
    fn question<'a>(&'a self, input_requests: &'a RawJson) -> BoxFuture<'a, Result<RawJson, String>>;

    /// The client's answer, as the executor may see it.
    ///
    /// # Errors
    /// It holds what may not pass: which kind.
    fn answer(&self, input_responses: RawJson) -> BoxFuture<'_, Result<RawJson, String>>;

    /// The reply, as it may go back. Asked once, at last.
    ///
    /// # Errors
    /// It, or something that was streamed before, holds what may not pass.
    fn reply(&self, reply: Reply) -> BoxFuture<'_, Result<GuardedReply, Rejection>>;

    /// What was found while the call ran, for its outcome: of each kind and action how many.
    fn found(&self) -> Vec<String>;
}

/// A reply as guards left it.
#[derive(Clone, Debug)]
pub struct GuardedReply {
    /// What may go back.
    pub reply: Reply,
    /// What is recorded of its body, where that is another: tokens for values that the caller gets back.
    pub kept: Option<RawJson>,
}

impl GuardedReply {
    /// As it is.
    pub fn untouched(reply: Reply) -> Self {
        Self { reply, kept: None }
    }
}

/// What guards make of words that are the caller's own and are recorded beside the parameters: of what the client calls
/// itself, the request's id, the workflow, and of a refusal that may repeat a name.
pub trait RecordGuard: std::fmt::Debug + Send + Sync {
    /// The text as a record may have it; `None`: as it is.
    fn clean(&self, text: &str) -> Option<String>;
}

/// Parameters as guards left them.
#[derive(Clone, Debug)]
pub struct GuardedParams {
    /// What is recorded, and sent on.
    pub params: RawJson,
    /// What is sent on, where that is another: values out of tokens that the log keeps.
    pub sent: Option<RawJson>,
    /// Of each kind and action how many were found.
    pub found: Vec<String>,
    /// What the record says was called, where that held a protected value itself.
    pub target: Option<String>,
    /// What watches the call while it runs; `None`: nothing.
    pub guard: Option<Arc<dyn CallGuard>>,
    /// What else is recorded of the call passes it; `None`: as it is.
    pub records: Option<Arc<dyn RecordGuard>>,
}

impl GuardedParams {
    /// Nothing was found, and nothing watches.
    pub fn untouched(params: RawJson) -> Self {
        Self { params, sent: None, found: Vec::new(), target: None, guard: None, records: None }
    }
}

/// The client's end behind guards.
pub(crate) struct GuardedLink<'a> {
    pub(crate) link: &'a dyn ClientLink,
    pub(crate) guard: &'a dyn CallGuard,
}

impl ClientLink for GuardedLink<'_> {
    fn notify(&self, method: &str, params: RawJson) {
        self.guard.notify(method, params, &mut |params| self.link.notify(method, params));
    }

    fn ask<'a>(&'a self, input_requests: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        // Whether the client can be asked at all is known at once, and does not depend on the question.
        drop(self.link.ask(input_requests)?);
        Some(Box::pin(async move {
            let question = self.guard.question(input_requests).await.map_err(AskError::Guarded)?;
            let asking = self.link.ask(&question).ok_or(AskError::Gone)?;
            let answer = asking.await?;
            self.guard.answer(answer).await.map_err(AskError::Guarded)
        }))
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        self.link.cancelled()
    }
}

/// Runs a call with what is beside it and has no end of its own.
pub(crate) async fn beside<T>(call: impl Future<Output = T>, relay: BoxFuture<'_, ()>) -> T {
    let (mut call, mut relay) = (pin!(call), relay);
    let mut relaying = true;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = call.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        relaying = relaying && relay.as_mut().poll(cx).is_pending();
        Poll::Pending
    })
    .await
}
