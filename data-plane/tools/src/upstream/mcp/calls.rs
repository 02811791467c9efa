//! Calls: sent, answered, parked and taken up again.

use std::{future::Future, sync::Arc};

use http::HeaderMap;
use provost_data_pipeline::{ClientLink, Execution, Operation, Reply};
use provost_mcp::{Era, RawJson, RawObject, RpcError};

use super::{
    super::{
        audience::{Audience, caller_key},
        bound::{Bound, bind_state, task_prefix, unbind},
        call::{Ended, Running, Surroundings},
        connection::Connection,
        endpoints::Turn,
        headers::{add_param_headers, standard_headers},
        listing::ListKind,
        outgoing::{Outgoing, outgoing},
        parking::{Owner, Parking},
        tasks::prefix_handles,
    },
    McpUpstream,
};
use crate::{
    ExecuteRequest, UpstreamError,
    resilience::{Tries, verdict},
};

impl McpUpstream {
    /// Runs one operation on this node.
    pub(crate) async fn execute_here(
        self: &Arc<Self>,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
        tries: &Tries,
    ) -> Result<Execution, UpstreamError> {
        let outcome = match &request.operation {
            Operation::SetLogLevel => bounded(request, link, self.set_log_level(request)).await,
            Operation::Subscribe(uri) => bounded(request, link, self.subscribe(request, uri)).await,
            Operation::Unsubscribe(uri) => bounded(request, link, self.unsubscribe(request, uri)).await,
            Operation::CallTool(_)
            | Operation::GetPrompt(_)
            | Operation::ReadResource(_)
            | Operation::Complete { .. }
            | Operation::Task { .. } => self.call(request, link, tries).await,
            other => Err(UpstreamError::Unsupported(other.method().to_owned())),
        };
        outcome.map_err(|cause| in_era_of(request, cause))
    }

    async fn call(
        self: &Arc<Self>,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
        tries: &Tries,
    ) -> Result<Execution, UpstreamError> {
        let mut turn = self.turn(tries);
        let bound = self.several().and_then(|_| unbind(request));
        let request = match &bound {
            None => request,
            Some(bound) => {
                self.go_home(bound, &mut turn);
                &bound.request
            }
        };
        let outcome = self.call_on(request, link, &mut turn).await;
        turn.settle(verdict(&outcome, tries.is_fair()));
        outcome
    }

    /// To where the request's things live. What is nowhere else is asked for there even if it is out, unless it shows
    /// other tools by now.
    fn go_home(&self, bound: &Bound<'_>, turn: &mut Turn<'_>) {
        let Some(endpoints) = self.several().filter(|endpoints| bound.endpoint < endpoints.count()) else { return };
        let (is_out, differs) = (endpoints.is_out(bound.endpoint), endpoints.differs(bound.endpoint));
        if !is_out || (bound.is_only_there && !differs) {
            turn.go(bound.endpoint);
        }
    }

    async fn call_on(
        self: &Arc<Self>,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
        turn: &mut Turn<'_>,
    ) -> Result<Execution, UpstreamError> {
        let (running, sent) = match self.resumed(request)? {
            Some((running, sent)) => {
                turn.go(running.endpoint());
                (running, sent)
            }
            None => match bounded_start(request, link, self.start(request, turn)).await? {
                Some(started) => started,
                None => return Ok(Execution::cancelled()),
            },
        };
        self.finish(request, link, running, &sent).await
    }

    /// The parked call that the request comes back to.
    fn resumed(&self, request: &ExecuteRequest<'_>) -> Result<Option<(Running, Outgoing)>, UpstreamError> {
        // Looked for as text first: hardly any request has one.
        if !Parking::is_mentioned(request.params.as_bytes()) {
            return Ok(None);
        }
        let state = RawObject::parse(&request.params)?.get_text("requestState");
        let Some(state) = state.filter(|s| Parking::is_ours(s)) else { return Ok(None) };
        let Some(mut running) = self.parking.take(&state, &owner(request)) else {
            return Err(UpstreamError::Rpc(RpcError::with_code(
                RpcError::INVALID_PARAMS,
                "PV-UPSTREAM-QUESTION-EXPIRED",
                "the question that this answers is gone: it expired, was answered before, or was \
                 another's; call again without requestState",
            )));
        };
        // Only the client's side of the parameters matters now; nothing is sent.
        let id = running.id().clone();
        let sent = outgoing(&request.operation, &request.params, request.client, Era::Legacy, &id, None)?;
        running.set_client_token(sent.client_token.clone());
        Ok(Some((running, sent)))
    }

    async fn start(
        self: &Arc<Self>,
        request: &ExecuteRequest<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(Running, Outgoing), UpstreamError> {
        let (audience, connection) = self.connection(request, turn).await?;
        match self.start_on(request, &connection).await {
            Ok(started) => Ok(started),
            // Of a size that calls which start need not carry.
            Err(cause) => Box::pin(self.start_again(request, turn, (&audience, &connection), cause)).await,
        }
    }

    /// Starts once more where nothing was executed and another try is of use.
    async fn start_again(
        self: &Arc<Self>,
        request: &ExecuteRequest<'_>,
        turn: &mut Turn<'_>,
        (audience, connection): (&Audience, &Arc<Connection>),
        cause: UpstreamError,
    ) -> Result<(Running, Outgoing), UpstreamError> {
        match cause {
            UpstreamError::SessionGone => {
                // The server refused before it looked at the request: nothing was executed.
                self.session_gone(audience, connection);
                let (_, connection) = self.connection(request, turn).await?;
                self.start_on(request, &connection).await
            }
            // The endpoint is not there, and with it what the session kept: the next attempt begins another elsewhere.
            UpstreamError::Unreachable(_) if self.several().is_some() => {
                if connection.session_id().is_some() {
                    self.session_gone(audience, connection);
                }
                Err(cause)
            }
            // The server refused the caller's token before it looked at the request: another one, once.
            UpstreamError::Unauthorized(401) => {
                let (Some((auth, behalf)), Some(token)) = (self.behalf(request)?, connection.authorization()) else {
                    return Err(cause);
                };
                auth.refused(Some(&behalf), &token);
                let (_, connection) = self.connection(request, turn).await?;
                self.start_on(request, &connection).await
            }
            UpstreamError::Rpc(error) if error.code == RpcError::HEADER_MISMATCH => {
                // The schema that told us the headers is old; the server executed nothing.
                self.lists[ListKind::Tools as usize].invalidate();
                self.list(ListKind::Tools).await?;
                self.start_on(request, connection).await
            }
            cause => Err(cause),
        }
    }

    async fn start_on(
        self: &Arc<Self>,
        request: &ExecuteRequest<'_>,
        connection: &Arc<Connection>,
    ) -> Result<(Running, Outgoing), UpstreamError> {
        let id = connection.next_id();
        // Only legacy clients set one.
        let is_legacy = request.client.protocol_version.era() == Era::Legacy;
        let caller = is_legacy.then(|| caller_key(request.client, request.principal));
        let level = caller.and_then(|caller| self.levels.lock().get(&caller).cloned());
        let sent =
            outgoing(&request.operation, &request.params, request.client, connection.facts.era, &id, level.as_deref())?;
        let method = request.operation.method();
        let mut headers = HeaderMap::new();
        if connection.is_legacy() {
            if sent.request_state.is_some() {
                return Err(UpstreamError::Rpc(RpcError::new(
                    RpcError::INVALID_PARAMS,
                    "the requestState was not given by this server",
                )));
            }
            connection.open_stream();
            if let Some(level) = &sent.log_level {
                self.raise_log_level(connection, level).await?;
            }
        } else {
            headers = standard_headers(method, header_name(&request.operation));
            if let Operation::CallTool(tool) = &request.operation
                && let Some(definition) = self.definition(tool)
            {
                add_param_headers(&mut headers, &definition, &sent.params);
            }
        }
        sent.trace.add_to(&mut headers);
        let mut exchange = connection.start(id, method, &sent.params, headers).await?;
        // Told apart here, before anything was executed, so that the caller can try again.
        if let Some(error) = exchange.refused_for_headers() {
            return Err(UpstreamError::Rpc(error));
        }
        let running = Running::new(exchange, sent.client_token.clone(), sent.input_responses.as_ref());
        Ok((running, sent))
    }

    fn definition(&self, tool: &str) -> Option<RawJson> {
        let tools = self.cached(ListKind::Tools)?;
        tools.named(tool).map(|d| d.raw.clone())
    }

    async fn finish(
        self: &Arc<Self>,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
        mut running: Running,
        sent: &Outgoing,
    ) -> Result<Execution, UpstreamError> {
        let on_change = |notification: &str| self.changed(notification);
        let endpoint = self.several().map(|_| running.endpoint());
        let marked = endpoint.map(|endpoint| task_prefix(&self.plugin, endpoint));
        let prefix = marked.as_deref().unwrap_or(&self.plugin);
        let around = Surroundings {
            plugin: prefix,
            client: request.client,
            link,
            deadline: request.deadline,
            ask_window: self.limits.ask_window,
            // 2026-07-28, basic/utilities/mrtr: on these three requests only.
            may_ask: matches!(
                request.operation,
                Operation::CallTool(_) | Operation::GetPrompt(_) | Operation::ReadResource(_)
            ),
            log_level: sent.log_level.as_deref(),
            on_change: &on_change,
        };
        running.answer(sent.input_responses.as_ref()).await?;
        match running.advance(&around).await {
            // MCP has no other result, and a client of either era would fail on it rather than read it.
            Ended::Answer(Ok(body)) if !body.is_object() => {
                Err(UpstreamError::Garbage("its result is no JSON object".to_owned()))
            }
            Ended::Answer(Ok(body)) => {
                let execution = result(request, prefix, body);
                Ok(match (endpoint, execution.reply) {
                    (Some(endpoint), Reply::InputRequired(body)) => {
                        Execution::input_required(bind_state(endpoint, body))
                    }
                    (_, reply) => Execution { reply, ..execution },
                })
            }
            Ended::Answer(Err(error)) => Err(UpstreamError::Rpc(error)),
            Ended::Cancelled => Ok(Execution::cancelled()),
            Ended::Failed(cause) => Err(cause),
            Ended::Ask(requests) => {
                let state = self.parking.park(owner(request), running)?;
                let mut body = RawObject::new();
                body.set_text("resultType", "input_required");
                body.set("inputRequests", requests);
                body.set_text("requestState", &state);
                Ok(Execution::input_required(body.finish()))
            }
        }
    }
}

/// An answer as an execution, with the plugin's name before handles of tasks. The two marks are looked for as text
/// first, since most answers have neither and some are megabytes.
fn result(request: &ExecuteRequest<'_>, prefix: &str, body: RawJson) -> Execution {
    let has = |mark: &[u8]| memchr::memmem::find(body.as_bytes(), mark).is_some();
    if has(b"\"input_required\"")
        && RawObject::parse(&body).is_ok_and(|o| o.get_text("resultType").as_deref() == Some("input_required"))
    {
        return Execution::input_required(body);
    }
    let is_error = matches!(request.operation, Operation::CallTool(_))
        && has(b"\"isError\"")
        && RawObject::parse(&body).is_ok_and(|o| o.get("isError").is_some_and(|v| v.is_true()));
    Execution::result(prefix_handles(prefix, body), is_error)
}

/// A modern client knows no number of its own for a resource that is missing.
fn in_era_of(request: &ExecuteRequest<'_>, mut cause: UpstreamError) -> UpstreamError {
    if let UpstreamError::Rpc(error) = &mut cause
        && error.code == RpcError::LEGACY_RESOURCE_NOT_FOUND
        && request.client.protocol_version.era() == Era::Modern
    {
        error.code = RpcError::INVALID_PARAMS;
    }
    cause
}

fn owner(request: &ExecuteRequest<'_>) -> Owner {
    Owner {
        principal: request.principal.to_string(),
        method: request.operation.method().to_owned(),
        target: request.operation.target().unwrap_or_default().to_owned(),
    }
}

/// What `Mcp-Name` mirrors.
fn header_name(operation: &Operation) -> Option<&str> {
    match operation {
        Operation::CallTool(name)
        | Operation::GetPrompt(name)
        | Operation::ReadResource(name)
        | Operation::Task { task: name, .. } => Some(name.as_str()).filter(|n| !n.is_empty()),
        _ => None,
    }
}

/// `None`: the caller gave up.
async fn bounded_start<T>(
    request: &ExecuteRequest<'_>,
    link: &dyn ClientLink,
    work: impl Future<Output = Result<T, UpstreamError>>,
) -> Result<Option<T>, UpstreamError> {
    let deadline: tokio::time::Instant = request.deadline.into();
    tokio::select! {
        biased;
        () = link.cancelled() => Ok(None),
        done = tokio::time::timeout_at(deadline, work) => {
            done.unwrap_or(Err(UpstreamError::Deadline)).map(Some)
        }
    }
}

async fn bounded(
    request: &ExecuteRequest<'_>,
    link: &dyn ClientLink,
    work: impl Future<Output = Result<Execution, UpstreamError>>,
) -> Result<Execution, UpstreamError> {
    let done = bounded_start(request, link, work).await?;
    Ok(done.unwrap_or_else(Execution::cancelled))
}
