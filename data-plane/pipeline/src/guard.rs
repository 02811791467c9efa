//! What guards do to one call, and the client's end as an executor sees it under them.
//!
//! Invariants: an executor gets no other link than the guarded one where a guard covers the call, so
//! nothing that it sends on its way, and nothing that a client answers, passes by the guards.

use std::sync::Arc;

use provost_mcp::RawJson;
use provost_types::BoxFuture;

use crate::{AskError, ClientLink, Rejection, Reply};

/// The guards of one call that runs. What they found is never told as a value, only counted.
pub trait CallGuard: std::fmt::Debug + Send + Sync {
    /// A notification on its way to the client: hands over what may go, at once or with a later one.
    fn notify(&self, method: &str, params: RawJson, send: &mut dyn FnMut(RawJson));

    /// A question to the client, as it may go.
    ///
    /// # Errors
    /// It holds what may not pass: which kind.
    fn question(&self, input_requests: &RawJson) -> Result<RawJson, String>;

    /// The client's answer, as the executor may see it.
    ///
    /// # Errors
    /// It holds what may not pass: which kind.
    fn answer(&self, input_responses: RawJson) -> Result<RawJson, String>;

    /// The reply, as it may go back. Asked once, at last.
    ///
    /// # Errors
    /// It, or something that was streamed before, holds what may not pass.
    fn reply(&self, reply: Reply) -> Result<GuardedReply, Rejection>;

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
}

impl GuardedParams {
    /// Nothing was found, and nothing watches.
    pub fn untouched(params: RawJson) -> Self {
        Self { params, sent: None, found: Vec::new(), target: None, guard: None }
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
        let question = match self.guard.question(input_requests) {
            Ok(question) => question,
            Err(kind) => return Some(Box::pin(std::future::ready(Err(AskError::Guarded(kind))))),
        };
        Some(Box::pin(async move {
            let asking = self.link.ask(&question).ok_or(AskError::Gone)?;
            self.guard.answer(asking.await?).map_err(AskError::Guarded)
        }))
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        self.link.cancelled()
    }
}
