//! Plugins of this node, as other nodes use them.
//!
//! Invariants: only a plugin with the same spec is used; what is asked here is not passed on; a call
//! ends when the other node lets go of its stream, and else with its deadline.

use std::{sync::Arc, time::Duration};

use provost_data_pipeline::{AskError, ClientLink};
use provost_data_tools::{ExecuteRequest, ListKind, ListenFilter, Plugin, SessionOwner, UpstreamError};
use provost_mcp::{RawJson, RpcError};
use provost_types::{BoxFuture, CallId, Name, Revision};
use provost_wire::sibling::{
    ExecuteEvent, ExecuteRequest as WireExecute, ListenRequest, Notification, OfferRequest, OfferResponse, PluginRef,
    SessionRequest, SessionResponse, execute_event::Event,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::{Siblings, convert};

/// What [`OfferRequest`] calls what the upstream says of itself.
pub(super) const FACTS: &str = "facts";
/// Events of a call that wait for the other node to take them.
const MAX_EVENTS: usize = 1_024;
/// The longest time for one call, whatever the other node says.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 3600);

type Events = mpsc::Receiver<Result<ExecuteEvent, Status>>;

impl Siblings {
    #[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
    fn hosted(&self, plugin: Option<PluginRef>) -> Result<Arc<Plugin>, Status> {
        let bad = |what: String| Status::invalid_argument(format!("PV-SIBLING-MESSAGE: {what}"));
        let PluginRef { tenant, name, digest } = plugin.ok_or_else(|| bad("no plugin is named".to_owned()))?;
        let tenant = Name::new(&tenant).map_err(|cause| bad(cause.to_string()))?;
        let found = self.toolbox.get().and_then(|toolbox| toolbox.plugin(&tenant, &name));
        let found = found.filter(|plugin| **plugin.digest() == *digest);
        found.ok_or_else(|| {
            Status::failed_precondition(format!("PV-SIBLING-PLUGIN: {tenant}/{name} is not, or not so, on this node"))
        })
    }

    /// Runs one operation for another node.
    #[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
    pub(super) fn execute_for(&self, asked: WireExecute) -> Result<Events, Status> {
        let plugin = self.hosted(asked.plugin)?;
        let (client, principal) = convert::caller(asked.client.unwrap_or_default())?;
        let operation = convert::operation(&asked.method, asked.target, asked.is_prompt)?;
        let params = convert::json(asked.params)?;
        let call_id: Option<[u8; 16]> = asked.call_id.as_ref().try_into().ok();
        let deadline = Duration::from_millis(asked.deadline_ms).min(MAX_DEADLINE);
        let (events, taken) = mpsc::channel(MAX_EVENTS);
        self.hosting.spawn(async move {
            let request = ExecuteRequest {
                operation,
                params,
                client: &client,
                principal: &principal,
                // A plugin that needs it runs where the call was taken.
                subject: None,
                deadline: std::time::Instant::now() + deadline,
                // Answers are kept where calls are taken.
                revision: Revision::default(),
                call_id: CallId(call_id.map_or(0, u128::from_be_bytes)),
                other_tools: None,
            };
            let link = RemoteLink(events.clone());
            let execution = plugin.execute_here(&request, &link).await;
            let event = Event::Ended(convert::ended(&execution));
            // The other node may be gone: it knows that it does not know.
            let _ = events.send(Ok(ExecuteEvent { event: Some(event) })).await;
        });
        Ok(taken)
    }

    /// Listens for another node.
    #[allow(clippy::result_large_err, reason = "tonic's handlers return its Status")]
    pub(super) fn listen_for(&self, asked: ListenRequest) -> Result<Events, Status> {
        let plugin = self.hosted(asked.plugin)?;
        let (client, principal) = convert::caller(asked.client.unwrap_or_default())?;
        let filter = ListenFilter {
            tools: asked.tools,
            prompts: asked.prompts,
            resources: asked.resources,
            uris: asked.uris.into_iter().collect(),
            session: asked.session,
        };
        let (events, taken) = mpsc::channel(MAX_EVENTS);
        let stopping = self.draining.get().cloned().unwrap_or_default();
        tokio::spawn(async move {
            let request = ExecuteRequest {
                operation: provost_data_pipeline::Operation::Listen,
                params: RawJson::EMPTY_OBJECT,
                client: &client,
                principal: &principal,
                subject: None,
                deadline: std::time::Instant::now() + MAX_DEADLINE,
                revision: Revision::default(),
                call_id: CallId(0),
                other_tools: None,
            };
            let link = RemoteLink(events.clone());
            tokio::select! {
                ended = plugin.listen_here(&filter, &request, &link) => {
                    if let Err(cause) = ended {
                        tracing::info!(%cause, "listening for another node ended");
                    }
                }
                () = stopping.cancelled() => {}
            }
        });
        Ok(taken)
    }

    /// What a plugin offers.
    pub(super) async fn offer_for(&self, asked: OfferRequest) -> Result<OfferResponse, Status> {
        let plugin = self.hosted(asked.plugin)?;
        let failed = |cause: &UpstreamError| {
            let failure = Some(convert::failure(&cause.to_rpc(plugin.name().as_str())));
            OfferResponse { failure, ..OfferResponse::default() }
        };
        if asked.what == FACTS {
            return Ok(match plugin.capabilities_here().await {
                Ok(facts) => OfferResponse { facts: Some(convert::facts_to_wire(&facts)), ..OfferResponse::default() },
                Err(cause) => failed(&cause),
            });
        }
        let kind = ListKind::of_member(&asked.what)
            .ok_or_else(|| Status::invalid_argument(format!("PV-SIBLING-MESSAGE: no list `{}`", asked.what)))?;
        Ok(match plugin.list_here(kind).await {
            Ok(list) => {
                let items = list.iter().map(|definition| definition.raw.bytes()).collect();
                OfferResponse { items, ..OfferResponse::default() }
            }
            Err(cause) => failed(&cause),
        })
    }

    /// An upstream session for another node.
    pub(super) async fn session_for(&self, asked: SessionRequest) -> Result<SessionResponse, Status> {
        let plugin = self.hosted(asked.plugin)?;
        let capabilities = convert::json(asked.capabilities)?;
        let owner = SessionOwner { caller: asked.caller, capabilities: capabilities.as_str().to_owned() };
        if let Some(opened) = asked.opened {
            plugin.note_session(owner, convert::session(opened)?);
            return Ok(SessionResponse::default());
        }
        if asked.only_known {
            let session = plugin.known_session(&owner).map(|session| convert::session_to_wire(&session));
            return Ok(SessionResponse { session, failure: None });
        }
        let gone = Some(asked.gone.as_str()).filter(|gone| !gone.is_empty());
        Ok(match plugin.session_for(&owner, gone).await {
            Ok(session) => {
                SessionResponse { session: session.map(|session| convert::session_to_wire(&session)), failure: None }
            }
            Err(cause) => {
                let failure: RpcError = cause.to_rpc(plugin.name().as_str());
                SessionResponse { session: None, failure: Some(convert::failure(&failure)) }
            }
        })
    }
}

/// The other end of a call that another node took.
struct RemoteLink(mpsc::Sender<Result<ExecuteEvent, Status>>);

impl ClientLink for RemoteLink {
    fn notify(&self, method: &str, params: RawJson) {
        let notification = Notification { method: method.to_owned(), params: params.bytes() };
        let event = ExecuteEvent { event: Some(Event::Notification(notification)) };
        if self.0.try_send(Ok(event)).is_err() {
            tracing::debug!("a node does not take the notifications of its call");
        }
    }

    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        // Questions go back as results, and whoever took the call asks.
        None
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.closed())
    }
}
