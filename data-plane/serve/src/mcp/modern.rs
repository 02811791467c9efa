//! Requests of MCP 2026-07-28.

use std::sync::Arc;

use http::{Response, StatusCode};
use provost_data_pipeline::{Answer, ClientFacts, Operation, Plane, Reply, Request};
use provost_mcp::{
    Era, ProtocolVersion, RawJson, RawObject, RpcError, capability, headers, meta::RequestMeta, negotiate,
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Context, modern_status},
    classify,
    denied::Denied,
    link::{CallLink, Manner, Subscription},
    outlet::Outlet,
    post::{Accepts, Headers, Post, deliver, error_response},
    request_state::{binding, check_responses},
};
use crate::{
    Frontend,
    frontend::Inbound,
    http::{Final, Outbox, OutboxKind, ResponseBody},
};

/// A modern request that passed the checks of its envelope.
struct Checked {
    operation: Operation,
    version: ProtocolVersion,
    capabilities: RawJson,
    params: RawObject,
}

impl<P: Plane + 'static> Frontend<P> {
    pub(super) async fn modern(
        self: &Arc<Self>,
        inbound: Inbound,
        post: Post,
        meta: RequestMeta,
    ) -> Response<ResponseBody> {
        let outbox = Outbox::new(OutboxKind::Once);
        let cancel = CancellationToken::new();
        let (id, accepts) = (post.id.clone(), post.accepts);
        match self.start_modern(inbound, post, meta, outbox.clone(), cancel.clone()) {
            Ok(()) => deliver(outbox, accepts, Some(cancel)).await,
            Err((status, error)) => error_response(status, Some(&id), &error),
        }
    }

    /// Checks a request and starts its call, whose answer goes to `outlet`. `cancel` is cancelled
    /// by the client, and at the call's end.
    pub(super) fn start_modern(
        self: &Arc<Self>,
        inbound: Inbound,
        post: Post,
        meta: RequestMeta,
        outlet: Arc<dyn Outlet>,
        cancel: CancellationToken,
    ) -> Result<(), (StatusCode, RpcError)> {
        let checked = self.check_modern(&inbound, &post, &meta)?;
        let listens = checked.operation == Operation::Listen;
        let manner = if listens {
            Manner::Subscription(Subscription::new(post.id.clone(), &checked.params))
        } else {
            Manner::Modern { log_level: meta.log_level }
        };
        let link = Arc::new(CallLink { outlet, cancel: cancel.clone(), manner, accepts_events: post.accepts.events });
        let client = ClientFacts {
            protocol_version: checked.version,
            info: meta.client_info.clone(),
            capabilities: checked.capabilities.clone(),
            session: None,
            address: inbound.address(),
            transport: inbound.peer.transport,
        };
        let inbound = Arc::new(inbound);
        if listens {
            self.watch_subscription(&inbound, &link);
        }
        let context = self.context(&inbound, &post, &checked.operation);
        let params = checked.params.text();
        let request = self.request_of(&inbound, &post, &meta, checked.operation, params, client);
        let ending =
            Ending { front: self.clone(), context, bound: checked.params, capabilities: checked.capabilities, inbound };
        self.start(request, link, move |answer| {
            let end = ending.render(answer);
            cancel.cancel();
            end
        });
        Ok(())
    }

    /// A subscription is acknowledged, and ends with the node or with its caller's credential.
    fn watch_subscription(self: &Arc<Self>, inbound: &Arc<Inbound>, link: &Arc<CallLink>) {
        let (front, inbound, link) = (self.clone(), inbound.clone(), link.clone());
        self.calls.spawn(async move {
            tokio::select! {
                () = front.until_streams_end(&inbound) => link.cancel.cancel(),
                () = link.cancel.cancelled() => {}
                () = async {
                    link.acknowledge_when_begun().await;
                    std::future::pending::<()>().await;
                } => {}
            }
        });
    }

    fn check_modern(
        &self,
        inbound: &Inbound,
        post: &Post,
        meta: &RequestMeta,
    ) -> Result<Checked, (StatusCode, RpcError)> {
        let bad = |error: RpcError| (StatusCode::BAD_REQUEST, error);
        let source = Headers(&inbound.headers);
        let mut params = post.params.clone();
        let version = if inbound.is_mirrored {
            negotiate::check_modern(&post.method, &params, meta, &source)
        } else {
            negotiate::modern_version(meta)
        };
        let version = version.map_err(bad)?;
        let operation =
            classify::operation(&post.method, &params, Era::Modern).map_err(|e| (modern_status(e.code), e))?;
        let capabilities = meta.capabilities.clone().unwrap_or(RawJson::EMPTY_OBJECT);
        if matches!(operation, Operation::Task { .. }) && !capability::declares_tasks(&capabilities) {
            return Err(bad(capability::missing_capability(capability::tasks_extension())));
        }
        if operation == Operation::Listen {
            check_subscription(&params, post.accepts).map_err(bad)?;
        }
        if inbound.is_mirrored
            && let (Operation::CallTool(tool), Some(schemas)) = (&operation, &self.schemas)
            && let Some(schema) = schemas.input_schema(&inbound.credential, &inbound.route, tool)
        {
            let annotations = headers::param_headers(&schema).unwrap_or_default();
            let arguments = params.get("arguments").unwrap_or(RawJson::EMPTY_OBJECT);
            headers::check_params(&source, &annotations, &arguments).map_err(bad)?;
        }
        if capability::may_require_input(&post.method) {
            self.open_state(inbound, &post.method, &mut params).map_err(|e| (modern_status(e.code), e))?;
        } else {
            // Nothing of this node's, and guards pass over what has this name.
            params.remove("requestState");
        }
        Ok(Checked { operation, version, capabilities, params })
    }

    /// Puts the executor's own state in the place of the sealed one.
    fn open_state(&self, inbound: &Inbound, method: &str, params: &mut RawObject) -> Result<(), RpcError> {
        check_responses(params)?;
        let Some(sealed) = params.get("requestState") else { return Ok(()) };
        let sealed = sealed.as_text().unwrap_or_default().into_owned();
        // An unknown caller is refused, and recorded, by the pipeline.
        let Ok(caller) = self.caller_of(inbound) else {
            params.remove("requestState");
            return Ok(());
        };
        let bound = binding(&caller.principal, &inbound.path, method, params);
        let state = self.states.open(&sealed, &bound, self.now_s()).inspect_err(|error| {
            let (code, reason) = ("PV-MCP-REQUEST-STATE", error.message.clone());
            self.record_denied(inbound, Denied { caller: Some(&caller), method, code, reason });
        })?;
        params.set_text("requestState", &state);
        Ok(())
    }

    pub(super) fn context(&self, inbound: &Inbound, post: &Post, operation: &Operation) -> Context {
        Context {
            id: post.id.clone(),
            operation: operation.clone(),
            server_info: self.server_info.clone(),
            receipts: self.config.audit_receipts,
            metadata_url: inbound.metadata_url(),
        }
    }

    pub(super) fn request_of(
        &self,
        inbound: &Inbound,
        post: &Post,
        meta: &RequestMeta,
        operation: Operation,
        params: RawJson,
        client: ClientFacts,
    ) -> Request {
        let mut trace = inbound.trace();
        trace.request_id = Some(post.id.as_str().to_owned());
        if meta.traceparent.is_some() {
            // The message's own comes before that of its transport (SEP-414).
            trace.traceparent.clone_from(&meta.traceparent);
            trace.tracestate = meta.tracestate.clone().filter(|state| provost_mcp::trace::is_state(state));
        }
        trace.workflow = meta.workflow.clone().or(trace.workflow);
        Request {
            call_id: inbound.call_id,
            arrived_ns: inbound.arrived_ns,
            credential: inbound.credential.clone(),
            route: inbound.route.clone(),
            operation,
            params,
            client,
            trace,
            sound: None,
            within: None,
        }
    }
}

fn check_subscription(params: &RawObject, accepts: Accepts) -> Result<(), RpcError> {
    let reason = if !params.get("notifications").is_some_and(|n| n.is_object()) {
        "params.notifications must be an object"
    } else if !accepts.events {
        "subscriptions/listen needs `Accept: text/event-stream`"
    } else {
        return Ok(());
    };
    Err(RpcError::with_code(RpcError::INVALID_PARAMS, "PV-MCP-INVALID-PARAMS", reason))
}

/// What is needed at the end of a modern call.
struct Ending<P> {
    front: Arc<Frontend<P>>,
    context: Context,
    bound: RawObject,
    capabilities: RawJson,
    inbound: Arc<Inbound>,
}

impl<P: Plane + 'static> Ending<P> {
    fn render(&self, answer: Answer) -> Final {
        let receipt = self.context.receipt(&answer);
        match &answer.outcome {
            Ok(Reply::Result { body, .. }) => self.context.modern_result(body, receipt),
            Ok(Reply::Error(error)) => self.context.modern_error(error.clone()),
            Ok(Reply::InputRequired(body)) => match self.input_required(body) {
                Ok(body) => self.context.modern_result(&body, receipt),
                Err(error) => self.context.modern_error(error),
            },
            Err(rejection) => self.context.modern_rejection(rejection, receipt.as_ref()),
        }
    }

    /// Checks what the client can be asked and seals the executor's state.
    fn input_required(&self, body: &RawJson) -> Result<RawJson, RpcError> {
        let method = self.context.operation.method();
        let internal = |reason: &str| RpcError::with_code(RpcError::INTERNAL, "PV-MCP-INPUT-REQUIRED", reason);
        if !capability::may_require_input(method) {
            return Err(internal("the server asked for input where MCP does not allow it"));
        }
        let mut result =
            RawObject::parse(body).map_err(|_| internal("the server asked for input in a form that cannot be read"))?;
        if let Some(requests) = result.get("inputRequests")
            && let Some(missing) = capability::missing_for(&self.capabilities, &requests)
        {
            return Err(capability::missing_capability(missing));
        }
        result.set_text("resultType", "input_required");
        if let Some(state) = result.get_text("requestState") {
            let caller = self.front.caller_of(&self.inbound).map_err(|r| r.error)?;
            let bound = binding(&caller.principal, &self.inbound.path, method, &self.bound);
            let sealed = self
                .front
                .states
                .seal(&state, &bound, self.front.now_s())
                .map_err(|cause| internal(&cause.to_string()))?;
            result.set_text("requestState", &sealed);
        }
        Ok(result.finish())
    }
}
