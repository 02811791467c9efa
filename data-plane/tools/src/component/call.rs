//! One call of a component: what its guest is given, and what it may ask.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use provost_data_pipeline::{ClientLink, Execution, Operation};
use provost_data_wasm::{
    CallContext, HttpError, HttpRequest, HttpResponse, KvError, LogLevel, NestedCall, NestedError, PluginAnswer,
    PluginCall, PluginError, PluginHost, Progress,
};
use provost_mcp::{RawJson, RawObject, RpcError, TraceParent};
use provost_types::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Component;
use crate::{ExecuteRequest, GuestCall, OtherTools, UpstreamError, upstream::ListKind};

/// Reports of progress that wait for the client: as many as a guest's call may make (`PluginLimits::progress_count`), so that
/// one that makes all of them at once loses none, the last least of all.
const PROGRESS_QUEUE: usize = 256;

/// The node as the guest of one call sees it.
struct Host {
    component: Arc<Component>,
    progress: mpsc::Sender<Progress>,
    /// Read every millisecond, so a flag beside the token.
    is_cancelled: AtomicBool,
    other_tools: Option<Arc<dyn OtherTools>>,
    deadline: Instant,
    /// Ends the calls that the guest made.
    stop: CancellationToken,
}

impl Host {
    fn new(component: &Arc<Component>, request: &ExecuteRequest<'_>, progress: mpsc::Sender<Progress>) -> Self {
        Self {
            component: component.clone(),
            progress,
            is_cancelled: AtomicBool::new(false),
            other_tools: request.other_tools.cloned(),
            deadline: request.deadline,
            stop: CancellationToken::new(),
        }
    }

    /// The caller gave up.
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.stop.cancel();
    }
}

impl PluginHost for Host {
    fn log(&self, level: LogLevel, message: &str) {
        let (plugin, tenant) = (&self.component.name, &self.component.tenant);
        // The guest's text is data: no line break of its makes a line of the log.
        let message = message.escape_debug();
        match level {
            LogLevel::Debug => tracing::debug!(%plugin, %tenant, "guest: {message}"),
            LogLevel::Info => tracing::info!(%plugin, %tenant, "guest: {message}"),
            LogLevel::Warn => tracing::warn!(%plugin, %tenant, "guest: {message}"),
            LogLevel::Error => tracing::error!(%plugin, %tenant, "guest: {message}"),
        }
    }

    fn progress(&self, progress: Progress) {
        let _ = self.progress.try_send(progress);
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn kv_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, KvError>> {
        Box::pin(std::future::ready(Ok(self.component.store.get(key))))
    }

    fn kv_set<'a>(&'a self, key: &'a str, value: Option<Vec<u8>>) -> BoxFuture<'a, Result<(), KvError>> {
        Box::pin(std::future::ready(self.component.store.set(key, value)))
    }

    fn call_tool<'a>(&'a self, call: NestedCall<'a>) -> BoxFuture<'a, Result<RawJson, NestedError>> {
        let Some(tools) = &self.other_tools else {
            let why = "this node lets no plugin call other tools".to_owned();
            return Box::pin(std::future::ready(Err(NestedError::Denied(why))));
        };
        tools.call(GuestCall {
            plugin: self.component.name.clone(),
            tool: call.name.to_owned(),
            arguments: call.arguments.clone(),
            depth: call.depth,
            granted: self.component.granted.clone(),
            deadline: self.deadline,
            stop: self.stop.clone(),
        })
    }

    fn send_http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(async move {
            match &self.component.door {
                Some(door) => door.send(request).await,
                None => Err(HttpError::Denied("the plugin may not send requests".to_owned())),
            }
        })
    }
}

impl Component {
    pub(crate) async fn execute(
        self: &Arc<Self>,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<Execution, UpstreamError> {
        let name = match &request.operation {
            Operation::CallTool(tool) => self.listed(ListKind::Tools, "tool", tool).await?,
            Operation::GetPrompt(prompt) => self.listed(ListKind::Prompts, "prompt", prompt).await?,
            // It may be one of a template: the guest knows.
            Operation::ReadResource(uri) => uri.as_str(),
            Operation::Subscribe(_) | Operation::Unsubscribe(_) => return Err(UpstreamError::Unwatched),
            other => return Err(UpstreamError::Unsupported(other.method().to_owned())),
        };
        let params = RawObject::parse(&request.params)?;
        let call = self.call_of(name, &params, request)?;
        let token = params.get_object("_meta").and_then(|meta| meta.get("progressToken"));
        let (progress, mut reports) = mpsc::channel(PROGRESS_QUEUE);
        let host = Arc::new(Host::new(self, request, progress));
        // However this call ends: a guest that went on elsewhere has its host until its next pause.
        let _over = host.stop.clone().drop_guard();
        let tell = |report: Progress| {
            // A client that gave no token wants no reports.
            if let Some(token) = &token {
                link.notify("notifications/progress", report_of(report, token));
            }
        };
        let Some(plugin) = self.plugin.get() else {
            return Err(UpstreamError::Busy("it is still being made ready".to_owned()));
        };
        let running: BoxFuture<'_, Result<PluginAnswer, PluginError>> = match &request.operation {
            Operation::GetPrompt(_) => Box::pin(plugin.get_prompt(&call, host.clone())),
            Operation::ReadResource(_) => Box::pin(plugin.read_resource(&call, host.clone())),
            _ => Box::pin(plugin.call(&call, host.clone())),
        };
        let cancelled = link.cancelled();
        tokio::pin!(running, cancelled);
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut running => break ended,
                Some(report) = reports.recv() => tell(report),
                () = &mut cancelled, if !host.is_cancelled() => host.cancel(),
            }
        };
        while let Ok(report) = reports.try_recv() {
            tell(report);
        }
        match ended {
            Ok(PluginAnswer::Complete { body, is_error }) => Ok(Execution::result(body, is_error)),
            Ok(PluginAnswer::InputRequired(body)) => Ok(Execution::input_required(body)),
            Err(PluginError::Cancelled) => Ok(Execution::cancelled()),
            Err(cause) => Err(self.failed(&cause)),
        }
    }

    /// The name, if a list of the component has it.
    async fn listed<'n>(&self, kind: ListKind, what: &str, name: &'n str) -> Result<&'n str, UpstreamError> {
        if self.list(kind).await?.named(name).is_some() {
            return Ok(name);
        }
        let message = format!("there is no {what} `{name}`");
        Err(UpstreamError::Rpc(RpcError::new(RpcError::INVALID_PARAMS, message)))
    }

    fn call_of(
        &self,
        tool: &str,
        params: &RawObject,
        request: &ExecuteRequest<'_>,
    ) -> Result<PluginCall, UpstreamError> {
        let arguments = params.get("arguments").unwrap_or(RawJson::EMPTY_OBJECT);
        if !arguments.is_object() {
            let message = "`arguments` must be an object";
            return Err(UpstreamError::Rpc(RpcError::new(RpcError::INVALID_PARAMS, message)));
        }
        // Guards do not look at it, so it is nothing else than a trace.
        let trace = params.get_object("_meta").and_then(|meta| TraceParent::of_meta(&meta));
        let context = CallContext {
            request_id: request.call_id.to_string(),
            traceparent: trace.map(|(parent, _)| parent.to_string()),
            principal: Some(format!("{}/{}", request.principal.tenant, request.principal.name)),
            input_responses: params.get("inputResponses"),
            request_state: params.get_text("requestState"),
        };
        let depth = request.other_tools.map_or(0, |tools| tools.depth());
        Ok(PluginCall { tool: tool.to_owned(), arguments, context, deadline: request.deadline, depth })
    }
}

/// The params of a `notifications/progress`.
fn report_of(report: Progress, token: &RawJson) -> RawJson {
    let Progress { progress, total, message } = report;
    let mut params = serde_json::json!({ "progress": progress });
    if let Some(total) = total {
        params["total"] = total.into();
    }
    if let Some(message) = message {
        params["message"] = message.into();
    }
    let params = RawJson::from(params);
    match RawObject::parse(&params) {
        Ok(mut object) => {
            object.set("progressToken", token.clone());
            object.finish()
        }
        Err(_) => params,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_data_wasm::PluginLimits;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn all_that_a_guest_may_report_finds_room() {
        assert!(PluginLimits::default().progress_count as usize <= PROGRESS_QUEUE);
    }

    #[test]
    fn a_report_has_the_token_as_it_came_and_what_the_guest_said() {
        let report =
            |total, message: Option<&str>| Progress { progress: 1.5, total, message: message.map(str::to_owned) };
        for (token, report, expect) in [
            (json!(7), report(None, None), json!({ "progressToken": 7, "progress": 1.5 })),
            (
                json!("t"),
                report(Some(3.0), Some("half")),
                json!({ "progressToken": "t", "progress": 1.5, "total": 3.0, "message": "half" }),
            ),
        ] {
            let told = report_of(report, &RawJson::from(token));
            assert_eq!(told.parse::<Value>().unwrap(), expect);
        }
    }
}
