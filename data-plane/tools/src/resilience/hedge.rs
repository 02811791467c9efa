//! A second try beside a slow first one.

use std::time::Duration;

use futures::future::{Either, select};
use provost_data_pipeline::{AskError, ClientLink, Execution, Operation, Reply};
use provost_mcp::RawJson;
use provost_types::{BoxFuture, HedgeSpec};

use super::{policy::names, shield::Upstream, tries::Tries};
use crate::{ExecuteRequest, UpstreamError};

/// After how long the operation is tried a second time, if it is.
pub(crate) fn after(spec: Option<&HedgeSpec>, operation: &Operation) -> Option<Duration> {
    let (spec, Operation::CallTool(tool)) = (spec?, operation) else { return None };
    names(&spec.tools, tool).then(|| Duration::from_millis(spec.after_ms))
}

/// One attempt, and beside it a second one when the first takes long and `may_hedge` allows it. The first result that
/// is none of failure is taken; the other attempt is dropped, which cancels it.
pub(crate) async fn run(
    upstream: &dyn Upstream,
    request: &ExecuteRequest<'_>,
    link: &dyn ClientLink,
    tries: &Tries,
    after: Duration,
    may_hedge: impl FnOnce() -> bool,
) -> Result<Execution, UpstreamError> {
    let mut first = upstream.attempt(request, link, tries);
    tokio::select! {
        biased;
        done = &mut first => return done,
        () = tokio::time::sleep(after) => {}
    }
    if !may_hedge() {
        return first.await;
    }
    let quiet = Quiet(link);
    let second = upstream.attempt(request, &quiet, tries);
    match select(first, second).await {
        Either::Left((Ok(done), _)) => Ok(done),
        Either::Left((Err(cause), second)) => match second.await {
            Ok(done) if is_good(&done) => Ok(done),
            _ => Err(cause),
        },
        Either::Right((Ok(done), _)) if is_good(&done) => Ok(done),
        Either::Right((_, first)) => first.await,
    }
}

fn is_good(execution: &Execution) -> bool {
    matches!(execution.reply, Reply::Result { is_error: false, .. })
}

/// The client as the second try sees it: it hears nothing of it, and is not asked.
struct Quiet<'a>(&'a dyn ClientLink);

impl ClientLink for Quiet<'_> {
    fn notify(&self, _: &str, _: RawJson) {}

    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        self.0.cancelled()
    }
}
