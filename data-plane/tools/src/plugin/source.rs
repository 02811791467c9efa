//! Where a plugin's tools come from, and what each kind of source can do.

use std::sync::Arc;

use provost_data_pipeline::{ClientLink, Execution};
use provost_mcp::RawJson;
use provost_types::{BoxFuture, Name};

use super::{ExecuteRequest, Unready};
use crate::{
    Definitions, UpstreamError,
    builtin::Builtin,
    component::Component,
    grpc::Grpc,
    oauth::Authorizer,
    openapi::OpenApi,
    rag::Rag,
    resilience::{Tries, Upstream},
    upstream::{ListKind, McpUpstream},
};

/// One kind of source each.
pub(super) enum Source {
    Mcp(Arc<McpUpstream>),
    Builtin(Builtin),
    Component(Arc<Component>),
    OpenApi(Box<OpenApi>),
    Grpc(Box<Grpc>),
    Rag(Arc<Rag>),
    /// It could not be set up; every use says why.
    Broken(UpstreamError),
}

impl Source {
    /// The MCP server. Only such a source has sessions, endpoints, a process, and a place among other nodes.
    pub(super) fn mcp(&self) -> Option<&Arc<McpUpstream>> {
        match self {
            Self::Mcp(upstream) => Some(upstream),
            _ => None,
        }
    }

    /// The component. Only such a source takes a while until it serves.
    pub(super) fn component(&self) -> Option<&Arc<Component>> {
        match self {
            Self::Component(component) => Some(component),
            _ => None,
        }
    }

    /// Why it could not be set up.
    pub(super) fn cause(&self) -> Option<&UpstreamError> {
        match self {
            Self::Broken(cause) => Some(cause),
            _ => None,
        }
    }

    /// Whether it takes calls.
    pub(super) fn serves(&self) -> bool {
        match self {
            Self::Component(component) => component.is_ready(),
            Self::Mcp(_) | Self::Builtin(_) | Self::OpenApi(_) | Self::Grpc(_) | Self::Rag(_) => true,
            Self::Broken(_) => false,
        }
    }

    /// Why it does not take calls; `None`: it does.
    pub(super) fn unready(&self, plugin: &Name) -> Option<Unready> {
        match self {
            Self::Component(component) => component.unready(),
            Self::Broken(cause) => Some(Unready::by(cause, plugin, true)),
            Self::Mcp(_) | Self::Builtin(_) | Self::OpenApi(_) | Self::Grpc(_) | Self::Rag(_) => None,
        }
    }

    /// What gives its tokens, if it acts in its users' names.
    pub(super) fn consents(&self) -> Option<&Authorizer> {
        match self {
            Self::Mcp(upstream) => upstream.consents(),
            Self::OpenApi(api) => api.consents(),
            Self::Grpc(grpc) => grpc.consents(),
            Self::Builtin(_) | Self::Component(_) | Self::Rag(_) | Self::Broken(_) => None,
        }
    }

    /// A list as far as it is known without asking, however old.
    pub(super) fn at_hand(&self, kind: ListKind) -> Option<Definitions> {
        match self {
            Self::Mcp(upstream) => upstream.cached(kind),
            Self::Component(component) => component.at_hand(kind),
            // The others have nothing but tools.
            _ if kind != ListKind::Tools => None,
            Self::Builtin(builtin) => Some(builtin.tools()),
            Self::OpenApi(api) => api.at_hand(),
            Self::Grpc(grpc) => grpc.at_hand(),
            Self::Rag(rag) => Some(rag.tools()),
            Self::Broken(_) => None,
        }
    }

    /// A list; what is behind the source is asked if need be.
    pub(super) async fn list(&self, kind: ListKind) -> Result<Definitions, UpstreamError> {
        match self {
            Self::Mcp(upstream) => upstream.list(kind).await,
            Self::Component(component) => component.list(kind).await,
            Self::Broken(cause) => Err(cause.clone()),
            // The others have nothing but tools.
            _ if kind != ListKind::Tools => Ok(Definitions::default()),
            Self::Builtin(builtin) => Ok(builtin.tools()),
            Self::OpenApi(api) => api.tools().await,
            Self::Grpc(grpc) => grpc.tools().await,
            Self::Rag(rag) => Ok(rag.tools()),
        }
    }
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
            Self::Component(component) => Box::pin(component.execute(request, link)),
            Self::OpenApi(api) => Box::pin(api.execute(request, link)),
            Self::Grpc(grpc) => Box::pin(grpc.execute(request, link)),
            Self::Rag(rag) => Box::pin(rag.execute(request, link)),
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
        self.mcp().is_some_and(|upstream| upstream.has_other(tries))
    }

    fn calls_others(&self) -> bool {
        self.component().is_some_and(|component| component.calls_others())
    }

    fn definition(&self, tool: &str) -> Option<RawJson> {
        let tools = self.at_hand(ListKind::Tools)?;
        tools.named(tool).map(|d| d.raw.clone())
    }
}
