//! A small plane: real stages, no upstreams. Each tool exercises one thing of the front end.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use provost_data_pipeline::{
    Admitted, AskError, Authenticated, Call, Caller, ClientLink, Credential, Effort, Execution, Found, GuardedParams,
    Hold, Intended, LimitKind, LimitState, Limited, Operation, Plane, Received, RecordGuard, Rejection, RejectionKind,
    Reply, Request, Reservation, Resolved, Target, Usage, Validated,
};
use provost_mcp::{RawJson, RawObject, RpcError};
use provost_types::{
    AuditEvent, AuditReceipt, AuditUnavailable, CallStatus, Decision, Effect, Name, Phase, PrincipalRef, QuotaUnit,
    Revision,
};
use serde_json::{Value, json};

/// 2026-11-21, in nanoseconds; tests move it.
const START_NS: u64 = 1_795_000_000_000_000_000;

pub struct FakePlane {
    pub clock_ns: AtomicU64,
    pub events: Mutex<Vec<AuditEvent>>,
    pub changes: tokio::sync::broadcast::Sender<&'static str>,
    audit_down: std::sync::atomic::AtomicBool,
}

impl FakePlane {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            clock_ns: AtomicU64::new(START_NS),
            events: Mutex::new(Vec::new()),
            changes: tokio::sync::broadcast::channel(16).0,
            audit_down: false.into(),
        })
    }

    pub fn advance_s(&self, seconds: u64) {
        self.clock_ns.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }

    pub fn break_audit(&self) {
        self.audit_down.store(true, Ordering::SeqCst);
    }

    /// How many records of a phase stand for a target.
    pub fn recorded(&self, phase: Phase, target: &str) -> Vec<AuditEvent> {
        let events = self.events.lock();
        events.iter().filter(|e| e.phase == phase && e.what.target.as_deref() == Some(target)).cloned().collect()
    }
}

impl FakePlane {
    /// The records of a method in a phase.
    pub fn recorded_method(&self, method: &str, phase: Phase) -> Vec<AuditEvent> {
        let events = self.events.lock();
        events.iter().filter(|e| e.phase == phase && e.what.method == method).cloned().collect()
    }
}

impl FakePlane {
    /// The first refusal with that code; those of the front end are recorded a moment later.
    pub async fn denied_with(&self, code: &str) -> AuditEvent {
        for _ in 0..1_000 {
            let events = self.events.lock().clone();
            if let Some(event) =
                events.into_iter().find(|e| e.phase == Phase::Denied && e.error.as_deref() == Some(code))
            {
                return event;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("no refusal with {code} was recorded");
    }
}

fn raw(value: Value) -> RawJson {
    RawJson::from(value)
}

fn text(said: &str) -> Execution {
    Execution::result(raw(json!({ "content": [{ "type": "text", "text": said }] })), false)
}

fn tool(name: &str) -> Value {
    json!({ "name": name, "description": name, "inputSchema": { "type": "object" } })
}

/// 100 requests a minute, of which so many are left.
fn requests_left(remaining: u64) -> LimitState {
    let (quota, unit) = ("acme/minute".to_owned(), QuotaUnit::Calls);
    LimitState { quota, kind: LimitKind::Consumable, unit, limit: 100, remaining, reset_ms: Some(61_500) }
}

/// A card number that no record shows.
pub const CARD: &str = "4111111111111111";

#[derive(Debug)]
struct NoCards;

impl RecordGuard for NoCards {
    fn clean(&self, text: &str) -> Option<String> {
        text.contains(CARD).then(|| text.replace(CARD, "****"))
    }
}

#[derive(Debug)]
struct Counted;

impl Hold for Counted {
    fn begin(&self) {}
    fn settle(&self, _: &Usage) {}
    fn limits(&self) -> Vec<LimitState> {
        vec![requests_left(70), requests_left(12)]
    }
}

impl Plane for FakePlane {
    type Snapshot = ();

    fn snapshot(&self) -> Arc<()> {
        Arc::new(())
    }

    fn revision(&self, (): &()) -> Revision {
        Revision(7)
    }

    fn now_ns(&self) -> u64 {
        self.clock_ns.load(Ordering::SeqCst)
    }

    fn authenticate(&self, (): &(), call: &Call<Received>) -> Result<Arc<Caller>, Rejection> {
        let name = match &call.request().credential {
            Credential::Anonymous => "anonymous",
            Credential::Certificate(facts) if facts.names == ["uri:spiffe://test/alice"] => "alice",
            Credential::Certificate(_) => "stranger",
            Credential::Bearer(token) if &**token == "token-alice" => "alice",
            Credential::Bearer(token) if &**token == "token-bob" => "bob",
            Credential::Bearer(_) => {
                return Err(Rejection::new(
                    RejectionKind::Unauthenticated,
                    "PV-AUTH-UNKNOWN",
                    "the token is not known",
                ));
            }
        };
        let name_of = |n: &str| Name::new(n).map_err(|e| e.to_string());
        let (Ok(tenant), Ok(name)) = (name_of("acme"), name_of(name)) else {
            return Err(Rejection::new(RejectionKind::Invalid, "PV-TEST", "bad name"));
        };
        Ok(Arc::new(Caller {
            principal: PrincipalRef { tenant, name },
            authenticated_by: "test".to_owned(),
            token: None,
            subject: None,
        }))
    }

    async fn resolve(&self, _snapshot: &Arc<()>, call: &Call<Authenticated>) -> Result<Target, Rejection> {
        let full = call.request().operation.target().unwrap_or_default().to_owned();
        if matches!(full.as_str(), "absent" | "hidden" | "test://absent") {
            let why = if full == "hidden" { "not visible to you" } else { "not there" };
            return Err(Rejection::new(RejectionKind::NotFound, "PV-TARGET-UNKNOWN", why));
        }
        Ok(Target {
            plugin: None,
            local: full.clone(),
            full,
            action: None,
            plugin_digest: None,
            secrets: Arc::default(),
            found: Found::default(),
        })
    }

    fn authorise(&self, (): &(), call: &Call<Resolved>) -> Decision {
        let deny = call.target().full == "denied";
        Decision {
            effect: if deny { Effect::Deny } else { Effect::Allow },
            policies: vec!["guards/no-denied".to_owned()],
            observed: Vec::new(),
            reason: "denied by policy guards/no-denied".to_owned(),
            revision: Revision(7),
        }
    }

    async fn limit(&self, (): &(), call: &Call<Admitted>) -> Result<Reservation, Rejection> {
        if call.target().full == "limited" {
            let mut rejection = Rejection::new(RejectionKind::Limited, "PV-QUOTA", "100 calls a minute are used");
            rejection.retry_after_ms = Some(1_500);
            rejection.limit = Some(Box::new(requests_left(0)));
            return Err(rejection);
        }
        if call.target().full == "limit unknown" {
            let text = "the control plane cannot be reached";
            return Err(Rejection::new(RejectionKind::LimitUnknown, "PV-QUOTA-UNREACHABLE", text));
        }
        if call.target().full == "counted" {
            return Ok(Reservation(vec![Box::new(Counted)]));
        }
        Ok(Reservation::default())
    }

    fn validate(&self, (): &(), _call: &Call<Limited>) -> Result<(), Rejection> {
        Ok(())
    }

    async fn guard_in(&self, (): &(), call: &Call<Validated>) -> Result<GuardedParams, Rejection> {
        Ok(GuardedParams::untouched(call.request().params.clone()))
    }

    fn guard_refused(&self, (): &(), _: &Caller, _: Option<&Target>, request: &Request) -> GuardedParams {
        GuardedParams { records: Some(Arc::new(NoCards)), ..GuardedParams::untouched(request.params.clone()) }
    }

    async fn execute(&self, _snapshot: &Arc<()>, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
        match &call.request().operation {
            Operation::Discover => Execution::result(
                raw(json!({
                    "capabilities": {
                        "tools": { "listChanged": true },
                        "prompts": { "listChanged": true },
                        "resources": { "subscribe": true },
                        "logging": {},
                        "extensions": { "io.modelcontextprotocol/tasks": {} },
                    },
                    "serverInfo": { "name": "upstream", "version": "0" },
                    "instructions": "none",
                })),
                false,
            ),
            Operation::ListTools => Execution::result(
                raw(json!({ "tools": [
                    tool("echo"), tool("test_streaming_elicitation"), tool("test_logging_tool"),
                    tool("test_missing_capability"), tool("test_trigger_tool_change"),
                    { "name": "region", "inputSchema": { "type": "object", "properties": {
                        "region": { "type": "string", "x-mcp-header": "Region" } } } },
                ] })),
                false,
            ),
            Operation::ListPrompts => Execution::result(raw(json!({ "prompts": [] })), false),
            Operation::ListResources => Execution::result(
                raw(json!({ "resources": [
                { "uri": "test://one", "name": "one" }] })),
                false,
            ),
            Operation::ListResourceTemplates => Execution::result(raw(json!({ "resourceTemplates": [] })), false),
            Operation::ReadResource(uri) if uri == "test://one" => Execution::result(
                raw(json!({ "contents": [{ "uri": uri, "text": "1" }], "cacheScope": "public" })),
                false,
            ),
            Operation::ReadResource(_) => {
                Execution::error(RpcError::new(RpcError::LEGACY_RESOURCE_NOT_FOUND, "no such"))
            }
            Operation::CallTool(name) => self.call_tool(name, call, link).await,
            Operation::Listen => self.listen(call, link).await,
            Operation::Chat(_) => chat(call, link),
            Operation::ListModels => Execution::result(
                raw(json!({ "object": "list", "data": [{ "id": "tiny", "object": "model" }] })),
                false,
            ),
            Operation::Embed(_) => Execution::error(RpcError::new(RpcError::INTERNAL, "secret")),
            _ => Execution::result(RawJson::EMPTY_OBJECT, false),
        }
    }

    async fn record(&self, event: Box<AuditEvent>) -> Result<AuditReceipt, AuditUnavailable> {
        if self.audit_down.load(Ordering::SeqCst) {
            return Err(AuditUnavailable("no quorum".to_owned()));
        }
        let mut events = self.events.lock();
        events.push(*event);
        Ok(AuditReceipt { log: "provost/acme".to_owned(), index: events.len() as u64 - 1, leaf_hash: [0xAB; 32] })
    }

    async fn protect(&self, _: &PrincipalRef, _: &mut AuditEvent, _: Option<&[u8]>) -> Result<(), AuditUnavailable> {
        Ok(())
    }
}

impl FakePlane {
    async fn call_tool(&self, name: &str, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
        let params = RawObject::parse(call.params()).unwrap_or_default();
        let log = |level: &str| {
            link.notify("notifications/message", raw(json!({ "level": level, "data": level })));
        };
        match name {
            "echo" => text(params.get("arguments").as_ref().map_or("", |a| a.as_str())),
            "slow_progress" => {
                for progress in [0, 50, 100] {
                    link.notify(
                        "notifications/progress",
                        raw(json!({ "progressToken": "p", "progress": progress, "total": 100 })),
                    );
                    tokio::task::yield_now().await;
                }
                text("done")
            }
            "test_logging_tool" | "log" => {
                log("debug");
                log("warning");
                text("logged")
            }
            "test_missing_capability" => Execution::input_required(raw(json!({
                "inputRequests": { "s": { "method": "sampling/createMessage", "params": {} } } }))),
            "wait" => {
                link.cancelled().await;
                Execution::cancelled()
            }
            "gate" => {
                // Runs on when its client leaves, and ends when the test says so.
                let mut gate = self.changes.subscribe();
                link.notify("notifications/progress", raw(json!({ "progress": 1 })));
                let _ = gate.recv().await;
                text("through")
            }
            "flood" => {
                let line = raw(json!({ "progress": 1, "message": "x".repeat(64 * 1024) }));
                for _ in 0..200 {
                    link.notify("notifications/progress", line.clone());
                }
                text("flooded")
            }
            "panic" => panic!("a bug in an executor"),
            "test_trigger_tool_change" => {
                let _ = self.changes.send("notifications/tools/list_changed");
                text("changed")
            }
            "meta" => text(params.get("_meta").as_ref().map_or("", |m| m.as_str())),
            _ if name.starts_with("ask") || name.contains("elicitation") || name.contains("state") => {
                ask(&params, link).await
            }
            _ => text(name),
        }
    }

    async fn listen(&self, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
        let mut changes = self.changes.subscribe();
        // An executor may acknowledge, or leave it to the front end.
        if !call.params().as_str().contains("promptsListChanged") {
            link.notify(
                "notifications/subscriptions/acknowledged",
                raw(json!({ "notifications": { "toolsListChanged": true } })),
            );
        }
        loop {
            tokio::select! {
                () = link.cancelled() => return Execution::result(RawJson::EMPTY_OBJECT, false),
                change = changes.recv() => match change {
                    Ok(method) => link.notify(method, RawJson::EMPTY_OBJECT),
                    Err(_) => return Execution::result(RawJson::EMPTY_OBJECT, false),
                },
            }
        }
    }
}

/// Asks for a name, in whichever way the client's era has.
async fn ask(params: &RawObject, link: &dyn ClientLink) -> Execution {
    let requests = raw(json!({ "user_name": { "method": "elicitation/create", "params": {
        "message": "Who?", "requestedSchema": { "type": "object", "properties": {
            "name": { "type": "string" } } } } } }));
    let responses = match link.ask(&requests) {
        Some(answer) => match answer.await {
            Ok(responses) => responses,
            Err(AskError::Gone) => return Execution::cancelled(),
            Err(cause) => {
                return Execution::error(RpcError::with_code(
                    RpcError::INVALID_REQUEST,
                    "PV-TEST-ASK",
                    cause.to_string(),
                ));
            }
        },
        None => match params.get("inputResponses") {
            Some(responses) => responses,
            None => {
                return Execution::input_required(raw(
                    json!({ "inputRequests": requests_value(&requests), "requestState": "inner 1" }),
                ));
            }
        },
    };
    let name = RawObject::parse(&responses)
        .ok()
        .and_then(|r| r.get_object("user_name"))
        .and_then(|r| r.get_object("content"))
        .and_then(|c| c.get_text("name"));
    let state = params.get_text("requestState").unwrap_or_default();
    match name {
        Some(name) => text(&format!("Hello, {name}! [{state}]")),
        None => Execution::input_required(raw(
            json!({ "inputRequests": requests_value(&requests), "requestState": "inner 2" }),
        )),
    }
}

fn requests_value(requests: &RawJson) -> Value {
    requests.parse().unwrap_or_default()
}

fn chat(call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
    let body = RawObject::parse(call.params()).unwrap_or_default();
    if body.get("stream").is_some_and(|s| s.is_true()) {
        for part in ["Hel", "lo"] {
            let chunk = json!({ "choices": [{ "delta": { "content": part } }] });
            link.notify("provost/chunk", raw(chunk));
        }
    }
    let body = raw(json!({ "object": "chat.completion", "choices": [] }));
    Execution {
        reply: Reply::Result { body, is_error: false },
        status: CallStatus::Ok,
        usage: Usage::default(),
        effort: Effort::default(),
    }
}
