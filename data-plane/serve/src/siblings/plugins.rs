//! Plugins on other nodes, as those of this node use them.

use std::{error::Error, sync::Arc, time::Duration};

use futures::future::join_all;
use provost_data_pipeline::{ClientLink, Execution};
use provost_data_tools::{
    At, Definition, Definitions, ExecuteRequest, ListKind, ListenFilter, PluginId, ServerFacts, SessionOwner,
    SharedSession, SiblingError, UpstreamError,
};
use provost_mcp::RawObject;
use provost_types::BoxFuture;
use provost_wire::{
    sibling::{
        ExecuteEvent, ExecuteRequest as WireExecute, ListenRequest, OfferRequest, OfferResponse, SessionRequest,
        execute_event::Event,
    },
    tls::TlsError,
};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, Streaming};

use super::{Sibling, Siblings, Tag, convert, owners};

/// A sibling that has begun a call may answer so much later than the call's deadline.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// The longest wait until a sibling has begun.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);
/// The longest wait for what a plugin offers: its upstream may have to be started.
const OFFER_LIMIT: Duration = Duration::from_secs(45);
/// The longest wait for a sibling that only looks something up.
const ASK_LIMIT: Duration = Duration::from_secs(1);

impl Siblings {
    async fn at(&self, at: &At) -> Result<Arc<Sibling>, SiblingError> {
        let found = match at {
            At::Node(name) => self.nodes.load().iter().find(|node| node.name() == name).cloned(),
            At::Process(tag) => match Tag::parse(tag) {
                Some(tag) => self.find(tag).await,
                None => None,
            },
        };
        found.ok_or_else(|| SiblingError::NotReached("it is not known any more".to_owned()))
    }

    async fn offer(&self, at: &At, plugin: &PluginId, what: &str) -> Result<OfferResponse, SiblingError> {
        let node = self.at(at).await?;
        let request = OfferRequest { plugin: Some(convert::plugin_ref(plugin)), what: what.to_owned() };
        let answer = timeout(OFFER_LIMIT, node.client().offer(request)).await;
        answer
            .map_err(|_| SiblingError::Lost("no answer in time".to_owned()))?
            .map_or_else(|status| Err(refused(&node, &status)), |answer| Ok(answer.into_inner()))
    }
}

/// What the end of a request means: whether anything was done.
fn refused(node: &Sibling, status: &Status) -> SiblingError {
    node.failed(status);
    let cause = status.message().to_owned();
    let nothing_done = matches!(
        status.code(),
        Code::NotFound
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::InvalidArgument
    );
    // Without a connection nothing was sent.
    if nothing_done || is_unconnected(status) { SiblingError::NotReached(cause) } else { SiblingError::Lost(cause) }
}

fn is_unconnected(status: &Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(inner) = cause {
        if inner.is::<TlsError>() {
            return true;
        }
        cause = inner.source();
    }
    // Said by the service itself, before it does anything.
    status.code() == Code::Unavailable && status.message().starts_with("PV-")
}

/// Passes notifications on until the end comes.
async fn follow(
    node: &Sibling,
    events: &mut Streaming<ExecuteEvent>,
    link: &dyn ClientLink,
) -> Result<Option<Execution>, SiblingError> {
    let lost = |status: Status| {
        node.failed(&status);
        SiblingError::Lost(status.message().to_owned())
    };
    while let Some(event) = events.message().await.map_err(lost)? {
        match event.event {
            Some(Event::Notification(told)) => link.notify(&told.method, convert::json(told.params).map_err(lost)?),
            Some(Event::Ended(ended)) => return convert::execution(ended).map(Some).map_err(lost),
            // Of a later release.
            None => {}
        }
    }
    Ok(None)
}

impl provost_data_tools::Siblings for Siblings {
    fn tag(&self) -> String {
        self.tag.to_string()
    }

    fn owner(&self, key: &str) -> Option<String> {
        let nodes = self.nodes.load();
        let others = nodes.iter().filter(|node| node.takes_work()).map(|node| node.name());
        let own = (!self.is_draining()).then_some(self.own.as_str());
        let owner = owners::owner(key, others.chain(own))?;
        (owner != self.own).then(|| owner.to_owned())
    }

    fn execute<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<Execution, SiblingError>> {
        Box::pin(async move {
            let node = self.at(at).await?;
            let left = request.deadline.saturating_duration_since(std::time::Instant::now());
            let is_prompt =
                matches!(request.operation, provost_data_pipeline::Operation::Complete { is_prompt, .. } if is_prompt);
            let asked = WireExecute {
                plugin: Some(convert::plugin_ref(plugin)),
                client: Some(convert::client(request.client, request.principal)),
                method: request.operation.method().to_owned(),
                target: request.operation.target().unwrap_or_default().to_owned(),
                is_prompt,
                params: request.params.bytes(),
                deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                call_id: bytes::Bytes::copy_from_slice(&request.call_id.0.to_be_bytes()),
            };
            let mut client = node.client();
            let begun = tokio::select! {
                biased;
                () = link.cancelled() => return Ok(Execution::cancelled()),
                begun = timeout(BEGIN_LIMIT, client.execute(asked)) => begun,
            };
            let begun = begun.map_err(|_| SiblingError::Lost("it does not begin".to_owned()))?;
            let mut events = begun.map_err(|status| refused(&node, &status))?.into_inner();
            let ended = tokio::select! {
                biased;
                // Dropping the stream cancels there.
                () = link.cancelled() => return Ok(Execution::cancelled()),
                ended = follow(&node, &mut events, link) => ended?,
                () = tokio::time::sleep_until(Instant::from_std(request.deadline) + ANSWER_GRACE) => {
                    return Ok(Execution::error(UpstreamError::Deadline.to_rpc(plugin.name.as_str())));
                }
            };
            ended.ok_or_else(|| SiblingError::Lost("it ended the call without an answer".to_owned()))
        })
    }

    fn listen<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        filter: &'a ListenFilter,
        request: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<(), SiblingError>> {
        Box::pin(async move {
            let node = self.at(at).await?;
            let asked = ListenRequest {
                plugin: Some(convert::plugin_ref(plugin)),
                client: Some(convert::client(request.client, request.principal)),
                tools: filter.tools,
                prompts: filter.prompts,
                resources: filter.resources,
                uris: filter.uris.iter().cloned().collect(),
                session: filter.session,
            };
            let mut client = node.client();
            let begun = timeout(BEGIN_LIMIT, client.listen(asked)).await;
            let begun = begun.map_err(|_| SiblingError::NotReached("it does not begin".to_owned()))?;
            let mut events = begun.map_err(|status| refused(&node, &status))?.into_inner();
            tokio::select! {
                biased;
                () = link.cancelled() => Ok(()),
                ended = follow(&node, &mut events, link) => {
                    ended?;
                    Err(SiblingError::Lost("it stopped listening".to_owned()))
                }
            }
        })
    }

    fn list<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        kind: ListKind,
    ) -> BoxFuture<'a, Result<Result<Definitions, UpstreamError>, SiblingError>> {
        Box::pin(async move {
            let OfferResponse { items, failure, .. } = self.offer(at, plugin, kind.member()).await?;
            let lost = |status: Status| SiblingError::Lost(status.message().to_owned());
            if let Some(failure) = failure {
                return Ok(Err(UpstreamError::Rpc(convert::rpc_error(failure).map_err(lost)?)));
            }
            let mut definitions = Vec::with_capacity(items.len());
            for item in items {
                let raw = convert::json(item).map_err(lost)?;
                let name = RawObject::parse(&raw).ok().and_then(|item| item.get_text(kind.name_member()));
                let Some(name) = name else { continue };
                definitions.push(Definition { name, raw });
            }
            Ok(Ok(Arc::new(definitions.into())))
        })
    }

    fn facts<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
    ) -> BoxFuture<'a, Result<Result<ServerFacts, UpstreamError>, SiblingError>> {
        Box::pin(async move {
            let OfferResponse { facts, failure, .. } = self.offer(at, plugin, super::hosting::FACTS).await?;
            let lost = |status: Status| SiblingError::Lost(status.message().to_owned());
            if let Some(failure) = failure {
                return Ok(Err(UpstreamError::Rpc(convert::rpc_error(failure).map_err(lost)?)));
            }
            let facts = facts.ok_or_else(|| SiblingError::Lost("it says nothing of the upstream".to_owned()))?;
            Ok(Ok(convert::session(facts).map_err(lost)?.facts))
        })
    }

    fn session<'a>(
        &'a self,
        at: &'a At,
        plugin: &'a PluginId,
        owner: &'a SessionOwner,
        gone: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<SharedSession>, SiblingError>> {
        Box::pin(async move {
            let node = self.at(at).await?;
            let asked = SessionRequest { gone: gone.unwrap_or_default().to_owned(), ..about(plugin, owner) };
            let answer = timeout(OFFER_LIMIT, node.client().session(asked)).await;
            let answer = answer.map_err(|_| SiblingError::NotReached("no answer in time".to_owned()))?;
            let answer = answer.map_err(|status| refused(&node, &status))?.into_inner();
            if let Some(failure) = answer.failure {
                return Err(SiblingError::NotReached(failure.message));
            }
            let session = answer.session.map(convert::session).transpose();
            session.map_err(|status| SiblingError::NotReached(status.message().to_owned()))
        })
    }

    fn known_session<'a>(
        &'a self,
        plugin: &'a PluginId,
        owner: &'a SessionOwner,
    ) -> BoxFuture<'a, Option<SharedSession>> {
        Box::pin(async move {
            let asked = SessionRequest { only_known: true, ..about(plugin, owner) };
            let answers = join_all(self.alive().into_iter().map(|node| {
                let asked = asked.clone();
                async move { timeout(ASK_LIMIT, node.client().session(asked)).await }
            }));
            let known = answers.await.into_iter().filter_map(|answer| answer.ok()?.ok()?.into_inner().session);
            known.filter_map(|session| convert::session(session).ok()).next()
        })
    }

    fn share_session<'a>(
        &'a self,
        plugin: &'a PluginId,
        owner: &'a SessionOwner,
        session: &'a SharedSession,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let opened = Some(convert::session_to_wire(session));
            let told = SessionRequest { opened, only_known: true, ..about(plugin, owner) };
            join_all(self.alive().into_iter().map(|node| {
                let told = told.clone();
                async move { drop(timeout(ASK_LIMIT, node.client().session(told)).await) }
            }))
            .await;
        })
    }
}

fn about(plugin: &PluginId, owner: &SessionOwner) -> SessionRequest {
    SessionRequest {
        plugin: Some(convert::plugin_ref(plugin)),
        caller: owner.caller.clone(),
        capabilities: bytes::Bytes::copy_from_slice(owner.capabilities.as_bytes()),
        ..SessionRequest::default()
    }
}
