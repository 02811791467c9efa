//! Calls that plugins make: each is a call like any other.
//!
//! Purpose: what a guest asks for goes through `drive`, as the caller of the guest, with the credential that came with
//! that call: authenticated, authorised, limited, validated, guarded and recorded anew, on the state that is active then.
//! Invariants: nothing is executed in another way; a call ends no later than the one that makes it, and is recorded even
//! if nobody waits for it any more; a caller's own call leads to a bounded number of others, which go to a bounded depth.
//! Left out: the number of calls that one guest may make and how deep they go (`provost-data-wasm`).

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures::FutureExt;
use provost_data_pipeline::{
    Answer, AskError, Call, ChainCount, ClientFacts, ClientLink, Intended, MAX_CHAIN_CALLS, Operation, Plane,
    Rejection, RejectionKind, Reply, Request, Resolved, Route, TraceFacts, Within, drive,
};
use provost_data_tools::{GuestCall, NestedError, OtherTools};
use provost_mcp::{ProtocolVersion, RawJson, RawObject, RpcError};
use provost_types::{BoxFuture, CallId};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::plane::Node;
use crate::{frontend::call_id, observe::log_span};

/// How long a call that is over waits for what its guest had begun.
const END_LIMIT: Duration = Duration::from_millis(500);
/// Hexadecimal digits of a plugin's digest that stand for its version.
const VERSION_DIGITS: usize = 12;

/// Other tools as the guest of one call gets to them.
#[derive(Debug)]
pub(super) struct Nest {
    node: Weak<Node>,
    /// The call whose guest it is.
    request: Arc<Request>,
    /// Of its plugin.
    version: String,
    /// What it led to, unless another led to it.
    made: ChainCount,
    /// What its guest has begun.
    running: TaskTracker,
}

impl Node {
    /// What the guest of a call may use to call others; `None`: this node lets none.
    pub(super) fn nest(&self, call: &Call<Intended>) -> Option<Arc<Nest>> {
        let digest = call.target().plugin_digest.as_deref().unwrap_or_default();
        let version = digest.chars().take(VERSION_DIGITS).collect();
        Some(Arc::new(Nest::new(self.itself()?, call.shared_request(), version)))
    }
}

/// Refuses a plugin's call of a tool that its document does not let it call, by what was found.
pub(super) fn check(call: &Call<Resolved>) -> Result<(), Rejection> {
    match &call.request().within {
        Some(within) => check_grant(within, &call.target().full, &call.target().full),
        None => Ok(()),
    }
}

/// The same before anything is looked for, so that what a plugin may not call looks alike whether it is there or not.
/// `full` is what is meant; `written` is what the plugin wrote, and all that it is told.
pub(super) fn check_grant(within: &Within, full: &str, written: &str) -> Result<(), Rejection> {
    if within.grants(full) {
        return Ok(());
    }
    let text = format!(
        "the plugin `{}` may not call {written}: `source.wasm.tools` of its document names the tools that it may call",
        within.plugin
    );
    Err(Rejection::new(RejectionKind::Denied, "PV-PLUGIN-GRANT", text))
}

/// Counts a call among those that its caller's own call led to, and refuses it if these are too many.
pub(super) fn count(within: &Within) -> Result<(), Rejection> {
    if within.made.one_more() { Ok(()) } else { Err(too_many()) }
}

fn too_many() -> Rejection {
    let text = format!("over the bound of {MAX_CHAIN_CALLS} calls that one call may lead to");
    Rejection::new(RejectionKind::Denied, "PV-PLUGIN-CHAIN", text)
}

/// Whether the call that makes this one has ended meanwhile: nothing is begun for it any more.
pub(super) fn is_over(within: &Within, link: &dyn ClientLink) -> bool {
    Instant::now() >= within.deadline || link.cancelled().now_or_never().is_some()
}

impl Nest {
    pub(super) fn new(node: Weak<Node>, request: Arc<Request>, version: String) -> Self {
        Self { node, request, version, made: ChainCount::default(), running: TaskTracker::new() }
    }

    /// Waits, a bounded time, for what the guest left behind: its records then come before that of its own end.
    pub(super) async fn end(&self) {
        self.running.close();
        if tokio::time::timeout(END_LIMIT, self.running.wait()).await.is_err() {
            tracing::debug!(calls = self.running.len(), "a call ended before those that its plugin made");
        }
    }

    /// The call that a caller made, and what it led to so far.
    fn chain(&self) -> (CallId, ChainCount) {
        match &self.request.within {
            Some(within) => (within.root, within.made.clone()),
            None => (self.request.call_id, self.made.clone()),
        }
    }

    /// The guest's wish as a request, as if the caller had sent it.
    fn request_of(&self, node: &Node, call: GuestCall) -> Result<Request, NestedError> {
        let (root, made) = self.chain();
        if made.is_over() {
            // The first that was refused is in the audit log, which plugins must not be able to fill.
            return Err(refusal_of(&too_many()));
        }
        let arrived_ns = node.now_ns();
        let call_id = call_id(arrived_ns).map_err(|cause| NestedError::Failed(cause.to_string()))?;
        let outer = &self.request;
        let GuestCall { plugin, tool, arguments, depth, granted, deadline, stop: _ } = call;
        let mut params = RawObject::new();
        params.set_text("name", &tool);
        params.set("arguments", arguments);
        // It belongs to the span in which the plugin runs; where calls are not traced, to that of the caller.
        let traceparent = match node.tracing.get() {
            Some(tracing) => Some(tracing.onward(outer).to_string()),
            None => outer.trace.traceparent.clone(),
        };
        if let Some(traceparent) = &traceparent {
            params.set("_meta", RawJson::from(json!({ "traceparent": traceparent })));
        }
        let client = ClientFacts {
            protocol_version: ProtocolVersion::LATEST,
            // Who asks is the plugin; in whose name is in the record beside it.
            info: Some(RawJson::from(json!({ "name": format!("plugin:{plugin}"), "version": self.version }))),
            // Nobody is there to be asked.
            capabilities: RawJson::EMPTY_OBJECT,
            session: None,
            // Those of the caller, so that policy says what it says to them.
            address: outer.client.address.clone(),
            transport: outer.client.transport,
        };
        Ok(Request {
            call_id,
            arrived_ns,
            credential: outer.credential.clone(),
            // Full names mean the same wherever the caller came in; a token for one plugin alone is good for no other.
            route: Route::Merged,
            operation: Operation::CallTool(tool),
            params: params.finish(),
            client,
            trace: TraceFacts { request_id: None, traceparent, ..outer.trace.clone() },
            sound: None,
            within: Some(Within { root, plugin, depth, deadline, granted, made }),
        })
    }
}

impl OtherTools for Nest {
    fn depth(&self) -> u8 {
        self.request.within.as_ref().map_or(0, |within| within.depth)
    }

    fn call(&self, call: GuestCall) -> BoxFuture<'static, Result<RawJson, NestedError>> {
        let (stop, tool) = (call.stop.clone(), call.tool.clone());
        let begun = match self.node.upgrade() {
            Some(node) => self.request_of(&node, call).map(|request| (node, request)),
            None => Err(NestedError::Failed("the node is about to end".to_owned())),
        };
        let (node, request) = match begun {
            Ok(begun) => begun,
            Err(refused) => return Box::pin(std::future::ready(Err(refused))),
        };
        let link = GuestLink(stop.clone());
        // A task of its own: past its intent a call comes to its end, whatever becomes of who made it.
        let span = log_span(&request);
        let driven = async move { Box::pin(drive(&*node, Call::received(request), &link)).instrument(span).await };
        let running = self.running.spawn(driven);
        Box::pin(async move {
            let given_up = async {
                stop.cancelled().await;
                tokio::time::sleep(END_LIMIT).await;
            };
            tokio::select! {
                biased;
                ended = running => match ended {
                    Ok(answer) => result_of(&tool, answer),
                    Err(_) => Err(NestedError::Failed("PV-INTERNAL: internal error".to_owned())),
                },
                () = given_up => Err(NestedError::Cancelled),
            }
        })
    }
}

/// The guest's end of a call that it makes: it waits for the result and hears nothing before.
struct GuestLink(CancellationToken);

impl ClientLink for GuestLink {
    fn notify(&self, _: &str, _: RawJson) {}

    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.cancelled())
    }
}

/// How a guest is told of the end of its call.
fn result_of(tool: &str, answer: Answer) -> Result<RawJson, NestedError> {
    match answer.outcome {
        Ok(Reply::Result { body, .. }) => Ok(body),
        Ok(Reply::InputRequired(_)) => Err(NestedError::Failed(format!(
            "PV-PLUGIN-ASKED: {tool} asks the user for something, and a plugin's call of it cannot be asked"
        ))),
        Ok(Reply::Error(error)) => Err(failure_of(&error)),
        Err(rejection) => Err(refusal_of(&rejection)),
    }
}

fn refusal_of(rejection: &Rejection) -> NestedError {
    let text = format!("{}: {}", rejection.code, rejection.error.message);
    match rejection.kind {
        RejectionKind::Invalid => NestedError::InvalidParams(text),
        RejectionKind::Overloaded | RejectionKind::AuditUnavailable => NestedError::Failed(text),
        RejectionKind::Unauthenticated
        | RejectionKind::NotFound
        | RejectionKind::Denied
        | RejectionKind::Limited
        | RejectionKind::LimitUnknown
        | RejectionKind::Guarded => NestedError::Denied(text),
    }
}

fn failure_of(error: &RpcError) -> NestedError {
    let code = error.stable_code();
    if code.as_deref() == Some("PV-CALL-CANCELLED") {
        return NestedError::Cancelled;
    }
    let text = match code {
        Some(code) => format!("{code}: {}", error.message),
        None => error.message.clone(),
    };
    match error.code {
        RpcError::INVALID_PARAMS => NestedError::InvalidParams(text),
        // A switch stopped it while it ran.
        RpcError::POLICY_DENIED => NestedError::Denied(text),
        _ => NestedError::Failed(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
