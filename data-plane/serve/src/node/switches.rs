//! Kill switches: calls that one covers are refused, and end if they run.
//!
//! Lists stay as they are, so that nobody wonders where a tool went; whoever calls it is told. Of a plugin
//! that is stopped for a whole tenant they say what is at hand: nothing is asked of its upstream any more.
//! What only ends something (cancelling a task, unsubscribing) stays possible.

use std::{pin::pin, sync::Arc, time::Duration};

use provost_data_pipeline::{
    AskError, Call, ClientLink, Execution, Intended, Operation, Rejection, RejectionKind, Reply, Request, Resolved,
    Target,
};
use provost_data_policy::{KillCall, KillSwitch, KillSwitches};
use provost_mcp::{RawJson, RpcError};
use provost_types::{BoxFuture, CallStatus, PrincipalRef};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{compiled::Compiled, plane::Node};

/// The code of a call that a switch stops.
const CODE: &str = "PV-KILL-SWITCH";
/// How long a stopped call may take to end by itself, which lets its upstream know.
const END_LIMIT: Duration = Duration::from_millis(500);

/// Whether switches cover the operation at all.
fn is_covered(operation: &Operation, target: &Target) -> bool {
    match operation {
        Operation::CallTool(_)
        | Operation::GetPrompt(_)
        | Operation::ReadResource(_)
        | Operation::Complete { .. }
        | Operation::Subscribe(_)
        | Operation::Listen
        | Operation::Chat(_)
        | Operation::Embed(_)
        | Operation::Transcribe(_) => true,
        Operation::Task { method, .. } => method != "tasks/cancel",
        // A plugin's own route: it would have to be asked who it is.
        Operation::Discover => target.plugin.is_some(),
        Operation::ListTools
        | Operation::ListPrompts
        | Operation::ListResources
        | Operation::ListResourceTemplates
        | Operation::ListModels
        | Operation::Unsubscribe(_)
        | Operation::SetLogLevel => false,
    }
}

/// The names that a tool is called by: what it is, and what the caller wrote.
fn tools<'a>(request: &'a Request, target: &'a Target) -> Vec<&'a str> {
    match &request.operation {
        Operation::CallTool(written) if *written != target.local => vec![&target.full, written],
        Operation::CallTool(_) => vec![&target.full],
        _ => Vec::new(),
    }
}

/// What callers are told.
fn message(switch: &KillSwitch) -> String {
    let spec = switch.spec();
    format!("calls are stopped by a kill switch ({}) since {}: {}", switch.scope(), spec.since, spec.reason)
}

fn error(switch: &KillSwitch) -> RpcError {
    let spec = switch.spec();
    let data = json!({ "code": CODE, "switch": switch.scope(), "reason": spec.reason, "since": spec.since });
    RpcError { code: RpcError::POLICY_DENIED, message: message(switch), data: Some(RawJson::from(data)) }
}

/// Refuses a call that a switch covers.
pub(super) fn check(switches: &KillSwitches, call: &Call<Resolved>) -> Result<(), Rejection> {
    let (request, target) = (call.request(), call.target());
    if switches.is_empty() || !is_covered(&request.operation, target) {
        return Ok(());
    }
    let PrincipalRef { tenant, name: principal } = &call.caller().principal;
    let tools = tools(request, target);
    let plugin = target.plugin.as_ref().map(|plugin| plugin.as_str());
    match switches.find(&KillCall { tenant, principal, plugin, tools: &tools }) {
        None => Ok(()),
        Some(switch) => {
            let error = error(switch);
            let mut rejection = Rejection::new(RejectionKind::Denied, CODE, "");
            rejection.error = error;
            Err(rejection)
        }
    }
}

/// Resolves when a switch covers the call.
async fn stopped(switches: &mut watch::Receiver<Arc<KillSwitches>>, call: &KillCall<'_>) -> KillSwitch {
    loop {
        let found = switches.borrow_and_update().find(call).cloned();
        if let Some(switch) = found {
            return switch;
        }
        if switches.changed().await.is_err() {
            // The node is gone, and what it runs with it.
            return std::future::pending().await;
        }
    }
}

/// A client's link that also says "cancelled" when the call is stopped.
struct Stoppable<'a> {
    link: &'a dyn ClientLink,
    stop: &'a CancellationToken,
}

impl ClientLink for Stoppable<'_> {
    fn notify(&self, method: &str, params: RawJson) {
        self.link.notify(method, params);
    }

    fn ask<'a>(&'a self, input_requests: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        self.link.ask(input_requests)
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            tokio::select! {
                () = self.link.cancelled() => {}
                () = self.stop.cancelled() => {}
            }
        })
    }
}

impl Node {
    /// Runs a call until it ends or a switch stops it. A switch that came after the call was admitted
    /// stops it before anything is sent.
    pub(super) async fn run_unless_stopped(
        &self,
        compiled: &Arc<Compiled>,
        call: &Call<Intended>,
        link: &dyn ClientLink,
    ) -> Execution {
        let (request, target) = (call.request(), call.target());
        let is_covered = is_covered(&request.operation, target);
        let PrincipalRef { tenant, name: principal } = &call.caller().principal;
        let tools = tools(request, target);
        let plugin = target.plugin.as_ref().map(|plugin| plugin.as_str());
        let facts = KillCall { tenant, principal, plugin, tools: &tools };
        let (mut switches, stop) = (self.switches.subscribe(), CancellationToken::new());
        let stoppable = Stoppable { link, stop: &stop };
        let mut running = pin!(self.run(compiled, call, &stoppable));
        let switch = tokio::select! {
            biased;
            switch = stopped(&mut switches, &facts), if is_covered => switch,
            done = &mut running => return done,
        };
        stop.cancel();
        let (usage, effort) = match tokio::time::timeout(END_LIMIT, running).await {
            Ok(ended) => (ended.usage, ended.effort),
            // What it used is not known; its upstream is cut off.
            Err(_) => Default::default(),
        };
        Execution { reply: Reply::Error(error(&switch)), status: CallStatus::Cancelled, usage, effort }
    }

    /// Resolves when a plugin is stopped for the caller: what it announces is not passed on any more.
    pub(super) async fn plugin_stopped(&self, principal: &PrincipalRef, plugin: &str) {
        let PrincipalRef { tenant, name: principal } = principal;
        let facts = KillCall { tenant, principal, plugin: Some(plugin), tools: &[] };
        stopped(&mut self.switches.subscribe(), &facts).await;
    }

    /// Resolves when it is not.
    pub(super) async fn plugin_runs(&self, principal: &PrincipalRef, plugin: &str) {
        let PrincipalRef { tenant, name: principal } = principal;
        let facts = KillCall { tenant, principal, plugin: Some(plugin), tools: &[] };
        let mut switches = self.switches.subscribe();
        // The node is gone: nothing runs any more.
        let _ = switches.wait_for(|switches| switches.find(&facts).is_none()).await;
    }
}
