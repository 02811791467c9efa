//! A call is run: by the node itself, a plugin or a model.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use provost_data_pipeline::{Call, ClientLink, Execution, Intended, Operation, Reply, Target};
use provost_data_tools::{ExecuteRequest, OtherTools, Plugin};
use provost_mcp::{RawJson, RpcError};
use provost_types::Name;

use super::{
    compiled::Compiled,
    consent,
    input::ask,
    listening, lists, nested,
    plane::Node,
    tasks::{CallHandles, TaskLink},
};

/// Rounds of questions to one legacy client within one call: an upstream that never has enough
/// is cut off.
const MAX_INPUT_ROUNDS: usize = 32;
/// The longest a call may run whatever its plugin allows.
const MAX_CALL_TIME: Duration = Duration::from_secs(3_600);
/// The longest wait for upstreams to take a log level.
const LOG_LEVEL_TIME: Duration = Duration::from_secs(2);

impl Node {
    pub(super) async fn run(
        &self,
        compiled: &Arc<Compiled>,
        call: &Call<Intended>,
        link: &dyn ClientLink,
    ) -> Execution {
        if call.request().within.as_ref().is_some_and(|within| nested::is_over(within, link)) {
            return Execution::cancelled();
        }
        let operation = &call.request().operation;
        // What is large and not what most calls do is in boxes: the future of each call would have room for the largest.
        if lists::is_list(operation) {
            return Box::pin(lists::answer(self, compiled, call)).await;
        }
        if matches!(operation, Operation::Listen) {
            return Box::pin(listening::listen(self, compiled, call, link)).await;
        }
        if matches!(operation, Operation::SetLogLevel) {
            return Box::pin(self.set_log_level(compiled, call, link)).await;
        }
        let target = call.target();
        let tenant = &call.caller().principal.tenant;
        match self.serving(tenant, target) {
            Some(plugin) => self.run_on(&plugin, call, link).await,
            None => Box::pin(super::models::run(self, call, link)).await,
        }
    }

    /// The plugin that serves a call: the one that was found and is recorded, though another version may have come since.
    pub(super) fn serving(&self, tenant: &Name, target: &Target) -> Option<Arc<Plugin>> {
        let named = || target.plugin.as_ref().and_then(|name| self.toolbox.plugin(tenant, name.as_str()));
        target.found.get::<Plugin>().or_else(named)
    }

    /// Tells the upstreams of the route. The front end filters by the level too, so one that cannot
    /// be told in time costs nothing but messages.
    async fn set_log_level(&self, compiled: &Arc<Compiled>, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
        let tenant = &call.caller().principal.tenant;
        let mut plugins = lists::plugins(self, compiled, tenant, &call.request().route);
        plugins.retain(|(name, _)| !compiled.switches.stops_plugin(tenant, name.as_str()));
        let request = ExecuteRequest {
            deadline: Instant::now() + LOG_LEVEL_TIME,
            ..execute_request(call, Operation::SetLogLevel, call.params().clone())
        };
        join_all(plugins.iter().map(|(_, plugin)| plugin.execute(&request, link))).await;
        Execution::result(RawJson::EMPTY_OBJECT, false)
    }

    /// Runs on one plugin, whose guest, if it has one, may call other tools meanwhile.
    async fn run_on(
        &self,
        plugin: &provost_data_tools::Plugin,
        call: &Call<Intended>,
        link: &dyn ClientLink,
    ) -> Execution {
        let Some(nest) = plugin.has_guest().then(|| self.nest(call)).flatten() else {
            return self.rounds(plugin, call, link, None).await;
        };
        let other_tools: Arc<dyn OtherTools> = nest.clone();
        let execution = Box::pin(self.rounds(plugin, call, link, Some(&other_tools))).await;
        nest.end().await;
        execution
    }

    /// The parameters with the trace that an upstream's spans belong to, where calls are traced.
    fn traced(&self, call: &Call<Intended>, params: RawJson) -> RawJson {
        match self.tracing.get() {
            Some(tracing) => tracing.carried(call.request(), params),
            None => params,
        }
    }

    /// A legacy client is asked for input while its call waits; any other gets the MRTR result and comes back with a
    /// call of its own.
    async fn rounds(
        &self,
        plugin: &provost_data_tools::Plugin,
        call: &Call<Intended>,
        link: &dyn ClientLink,
        other_tools: Option<&Arc<dyn OtherTools>>,
    ) -> Execution {
        let operation = local_operation(&call.request().operation, &call.target().local);
        let mut request = execute_request(call, operation, call.params().clone());
        request.other_tools = other_tools;
        let handles = CallHandles::of(&self.tasks, call, plugin.name());
        let link = &TaskLink { link, handles: &handles };
        if consent::needs_consent(&call.request().operation)
            && plugin.consent().is_some()
            && let Some(ended) = Box::pin(self.consent_first(plugin, call, &mut request.params)).await
        {
            return ended;
        }
        request.params = self.traced(call, request.params);
        for _ in 0..MAX_INPUT_ROUNDS {
            // In a box: it is the largest part, and would be copied with each of the futures around it as these are made.
            let execution = Box::pin(plugin.execute(&request, link)).await;
            let execution = self.consent_again(plugin, call, &request.params, execution);
            let Reply::InputRequired(body) = &execution.reply else { return handles.own(execution) };
            match ask(link, call.params(), body).await {
                None => return execution,
                Some(Ok(next)) => request.params = self.traced(call, next),
                Some(Err(refused)) => return *refused,
            }
            // Each round has its own time: people take longer than machines.
            request.deadline = latest_end(call);
        }
        Execution::error(RpcError::with_code(
            RpcError::UPSTREAM_FAILED,
            "PV-UPSTREAM-INPUT-ROUNDS",
            format!("the upstream asked for input more than {MAX_INPUT_ROUNDS} times in one call"),
        ))
    }
}

/// When a call that begins now ends at the latest: a plugin's not after that of the plugin.
fn latest_end(call: &Call<Intended>) -> Instant {
    let latest = Instant::now() + MAX_CALL_TIME;
    call.request().within.as_ref().map_or(latest, |within| latest.min(within.deadline))
}

/// The call as a plugin takes it.
pub(super) fn execute_request(call: &Call<Intended>, operation: Operation, params: RawJson) -> ExecuteRequest<'_> {
    ExecuteRequest {
        operation,
        params,
        client: &call.request().client,
        principal: &call.caller().principal,
        subject: call.caller().subject.as_ref(),
        deadline: latest_end(call),
        revision: call.decision().revision,
        call_id: call.request().call_id,
        other_tools: None,
    }
}

/// The operation in the plugin's own names.
fn local_operation(operation: &Operation, local: &str) -> Operation {
    let local = local.to_owned();
    match operation {
        Operation::CallTool(_) => Operation::CallTool(local),
        Operation::GetPrompt(_) => Operation::GetPrompt(local),
        Operation::ReadResource(_) => Operation::ReadResource(local),
        Operation::Subscribe(_) => Operation::Subscribe(local),
        Operation::Unsubscribe(_) => Operation::Unsubscribe(local),
        Operation::Complete { is_prompt, .. } => Operation::Complete { is_prompt: *is_prompt, target: local },
        Operation::Task { method, .. } => Operation::Task { method: method.clone(), task: local },
        other => other.clone(),
    }
}
