//! What stands behind a plugin, as its shield sees it.

use std::sync::Arc;

use provost_data_pipeline::{ClientLink, Execution};
use provost_mcp::RawJson;
use provost_types::BoxFuture;

use crate::{
    ExecuteRequest, UpstreamError,
    builtin::Builtin,
    resilience::{Tries, Upstream},
    upstream::{ListKind, McpUpstream},
};

/// What a plugin stands for.
pub(super) enum Source {
    Mcp(Arc<McpUpstream>),
    Builtin(Builtin),
    /// It could not be set up; every use says why.
    Broken(UpstreamError),
}

impl Upstream for Source {
    fn run<'a>(
        &'a self,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<Execution, UpstreamError>> {
        match self {
            Self::Mcp(upstream) => Box::pin(async move { upstream.execute(request, link, &Tries::new(false)).await }),
            Self::Builtin(builtin) => Box::pin(builtin.execute(request, link)),
            Self::Broken(cause) => Box::pin(std::future::ready(Err(cause.clone()))),
        }
    }

    fn attempt<'a>(
        &'a self,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
        tries: &'a Tries,
    ) -> BoxFuture<'a, Result<Execution, UpstreamError>> {
        match self {
            Self::Mcp(upstream) => Box::pin(upstream.execute(request, link, tries)),
            _ => self.run(request, link),
        }
    }

    fn has_other(&self, tries: &Tries) -> bool {
        matches!(self, Self::Mcp(upstream) if upstream.has_other(tries))
    }

    fn definition(&self, tool: &str) -> Option<RawJson> {
        let tools = match self {
            Self::Mcp(upstream) => upstream.cached(ListKind::Tools)?,
            Self::Builtin(builtin) => builtin.tools(),
            Self::Broken(_) => return None,
        };
        tools.iter().find(|d| d.name == tool).map(|d| d.raw.clone())
    }
}
