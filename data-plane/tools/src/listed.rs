//! The tools of a service that describes itself (a document of OpenAPI, descriptors of gRPC), and calls of them.
//!
//! Invariants: what was listed is what runs; a call ends with its deadline, or when its caller gives up.
//! Left out: how a description is read, and how a call is made: those are the plugin's.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use provost_data_pipeline::{ClientLink, Execution, Operation};
use provost_mcp::RpcError;

use crate::{Definitions, ExecuteRequest, Limits, UpstreamError, upstream::ListCache};

/// The tools of one description.
pub(crate) trait Tools {
    /// What a call of a tool does.
    type Call;

    /// As they are listed.
    fn definitions(&self) -> &Definitions;

    /// What a call of the tool of this name does.
    fn call_of(&self, tool: &str) -> Option<&Arc<Self::Call>>;
}

/// A plugin's tools, and where new ones come from.
#[allow(clippy::large_enum_variant, reason = "one for each plugin")]
pub(crate) enum Listed<T, F> {
    /// The plugin's resource has the description.
    Inline(T),
    /// It is asked for.
    Asked { from: F, kept: Kept<T> },
}

/// The description that was asked for last, and its list for as long as that is good.
pub(crate) struct Kept<T> {
    lists: ListCache,
    latest: ArcSwapOption<T>,
}

impl<T: Tools, F> Listed<T, F> {
    /// One that nobody was asked for yet.
    pub(crate) fn asked(from: F) -> Self {
        Self::Asked { from, kept: Kept { lists: ListCache::default(), latest: ArcSwapOption::empty() } }
    }

    /// Its tools as far as they are known without asking.
    pub(crate) fn at_hand(&self) -> Option<Definitions> {
        match self {
            Self::Inline(tools) => Some(tools.definitions().clone()),
            Self::Asked { kept, .. } => kept.lists.cached(),
        }
    }

    /// What a call of a tool does, as it was listed. `changed`: what is said of one that has another definition now.
    pub(crate) fn call_of(&self, tool: &str, changed: &str) -> Result<Arc<T::Call>, UpstreamError> {
        let unknown =
            || UpstreamError::Rpc(RpcError::new(RpcError::INVALID_PARAMS, format!("there is no tool `{tool}`")));
        match self {
            Self::Inline(tools) => tools.call_of(tool).cloned().ok_or_else(unknown),
            Self::Asked { kept, .. } => {
                let (latest, listed) = (kept.latest.load(), kept.lists.cached());
                let tools = latest.as_ref().ok_or_else(unknown)?;
                // What was judged is what runs: definitions are looked at as they were listed.
                let is_listed = |listed: &Definitions| listed.named(tool) == tools.definitions().named(tool);
                match listed.as_ref().is_none_or(is_listed) {
                    true => tools.call_of(tool).cloned().ok_or_else(unknown),
                    false => Err(UpstreamError::Busy(changed.to_owned())),
                }
            }
        }
    }
}

impl<T: Tools> Kept<T> {
    /// The list; `fetch` asks for another description if it is too old, and `ttl` is how long that one is good.
    pub(crate) async fn tools<F>(
        &self,
        limits: &Limits,
        ttl: Duration,
        fetch: impl FnOnce() -> F,
    ) -> Result<Definitions, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let latest = &self.latest;
        self.lists
            .get(limits, move || async move {
                let tools = fetch().await?;
                let definitions = tools.definitions().to_vec();
                latest.store(Some(Arc::new(tools)));
                Ok((definitions, Some(ttl)))
            })
            .await
    }
}

/// The tool that is to be called; such a plugin does nothing else.
pub(crate) fn tool_of<'a>(request: &'a ExecuteRequest<'_>) -> Result<&'a str, UpstreamError> {
    match &request.operation {
        Operation::CallTool(tool) => Ok(tool),
        other => Err(UpstreamError::Unsupported(other.method().to_owned())),
    }
}

/// Waits for a call until its deadline, or until its caller gives up.
pub(crate) async fn in_time(
    request: &ExecuteRequest<'_>,
    link: &dyn ClientLink,
    called: impl Future<Output = Result<Execution, UpstreamError>>,
) -> Result<Execution, UpstreamError> {
    let deadline: tokio::time::Instant = request.deadline.into();
    tokio::select! {
        biased;
        () = link.cancelled() => Ok(Execution::cancelled()),
        done = tokio::time::timeout_at(deadline, called) => done.unwrap_or(Err(UpstreamError::Deadline)),
    }
}
