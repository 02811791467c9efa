//! A call as spans, named and described by the semantic conventions of OpenTelemetry for MCP and generative AI, which
//! are still in development (`docs/gen-ai/mcp.md` there).
//!
//! One span for the call, and below it one for each stage. That of `execute` is what spans of an upstream belong to.
//! Left out, although the conventions have them: arguments and results, the address of a client, the address of a
//! resource, and messages of errors, which may hold what the log of calls protects.

use provost_data_serve::observe::{CallTrace, SpanIds, Stage, TraceSubject};

use super::otlp::{KeyValue, STATUS_ERROR, Span, Status, kind};

/// The flag `sampled` of a trace.
const SAMPLED: u32 = 1;

/// The spans of a call, the call's own first.
pub fn spans(call: &CallTrace) -> Vec<Span> {
    let ids = SpanIds::of(call.call_id);
    let end = call.marks.last(call.arrived_ns);
    let whole = Span {
        span_id: ids.call().to_be_bytes().to_vec(),
        parent_span_id: call.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        name: name(call, subject(call)),
        kind: if call.is_nested { kind::INTERNAL } else { kind::SERVER },
        attributes: of_call(call),
        status: status(call),
        ..span(call, call.arrived_ns, end)
    };
    let stages = call.marks.stages(call.arrived_ns).map(|(stage, begin, end)| {
        let is_execute = stage == Stage::Execute;
        let leaves = is_execute && call.plugin.is_some();
        Span {
            span_id: ids.stage(stage).to_be_bytes().to_vec(),
            parent_span_id: ids.call().to_be_bytes().to_vec(),
            name: if leaves { name(call, &call.local) } else { stage.as_str().to_owned() },
            kind: if leaves { kind::CLIENT } else { kind::INTERNAL },
            attributes: if is_execute { of_execution(call) } else { Vec::new() },
            status: if is_execute { status(call) } else { None },
            ..span(call, begin, end)
        }
    });
    std::iter::once(whole).chain(stages).collect()
}

fn span(call: &CallTrace, start_ns: u64, end_ns: u64) -> Span {
    Span {
        trace_id: call.trace_id.to_be_bytes().to_vec(),
        trace_state: call.tracestate.clone().unwrap_or_default(),
        start_ns,
        end_ns,
        flags: SAMPLED,
        ..Span::default()
    }
}

/// `{method} {target}`, and of models `{operation} {model}`.
fn name(call: &CallTrace, subject: &str) -> String {
    let method = match call.method.strip_prefix("inference/") {
        Some("embed") => "embeddings",
        Some("transcribe") => "transcription",
        Some(operation) => operation,
        None => &call.method,
    };
    if subject.is_empty() { method.to_owned() } else { format!("{method} {subject}") }
}

fn subject(call: &CallTrace) -> &str {
    match &call.subject {
        TraceSubject::Tool(name) | TraceSubject::Prompt(name) | TraceSubject::Model(name) => name,
        TraceSubject::Unnamed => "",
    }
}

/// What both the call's span and that of its execution say.
fn common(call: &CallTrace, subject: &str) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(16);
    if call.protocol_version.is_some() {
        all.push(KeyValue::text("mcp.method.name", &call.method));
    }
    match &call.subject {
        TraceSubject::Tool(_) => {
            all.push(KeyValue::text("gen_ai.operation.name", "execute_tool"));
            all.push(KeyValue::text("gen_ai.tool.name", subject));
        }
        TraceSubject::Prompt(_) => all.push(KeyValue::text("gen_ai.prompt.name", subject)),
        TraceSubject::Model(_) => {
            let operation = match call.method.as_str() {
                "inference/embed" => "embeddings",
                "inference/transcribe" => "transcription",
                _ => "chat",
            };
            all.push(KeyValue::text("gen_ai.operation.name", operation));
            all.push(KeyValue::text("gen_ai.request.model", subject));
        }
        TraceSubject::Unnamed => {}
    }
    if call.usage.tokens_in > 0 || call.usage.tokens_out > 0 {
        all.push(KeyValue::number("gen_ai.usage.input_tokens", number(call.usage.tokens_in)));
        all.push(KeyValue::number("gen_ai.usage.output_tokens", number(call.usage.tokens_out)));
    }
    if let Some(error) = &call.error {
        let code = error.rpc_code.map(|code| code.to_string());
        match (&code, call.protocol_version) {
            (Some(code), Some(_)) => {
                all.push(KeyValue::text("error.type", code));
                all.push(KeyValue::text("rpc.response.status_code", code));
            }
            (None, Some(_)) => all.push(KeyValue::text("error.type", "tool_error")),
            (_, None) => {
                let code = if error.code.is_empty() { "_OTHER" } else { error.code.as_str() };
                all.push(KeyValue::text("error.type", code));
            }
        }
        if !error.code.is_empty() {
            all.push(KeyValue::text("provost.error.code", &error.code));
        }
    }
    if let Some(plugin) = &call.plugin {
        all.push(KeyValue::text("provost.plugin", plugin.as_str()));
    }
    all
}

fn of_call(call: &CallTrace) -> Vec<KeyValue> {
    let mut all = common(call, subject(call));
    all.push(KeyValue::text("provost.call.id", call.call_id.to_string()));
    if let Some(tenant) = &call.tenant {
        all.push(KeyValue::text("provost.tenant", tenant.as_str()));
    }
    if let Some(version) = call.protocol_version {
        all.push(KeyValue::text("mcp.protocol.version", version));
    }
    if let Some(id) = &call.request_id {
        all.push(KeyValue::text("jsonrpc.request.id", id));
    }
    let (transport, protocol) = match call.transport {
        "http" => ("tcp", "http"),
        "ws" => ("tcp", "websocket"),
        "h3" => ("quic", "http"),
        "quic" => ("quic", ""),
        "stdio" => ("pipe", ""),
        _ => ("", ""),
    };
    for (key, value) in [("network.transport", transport), ("network.protocol.name", protocol)] {
        if !value.is_empty() {
            all.push(KeyValue::text(key, value));
        }
    }
    if call.usage.cost_micro > 0 {
        all.push(KeyValue::number("provost.cost_micro", number(call.usage.cost_micro)));
    }
    all
}

fn of_execution(call: &CallTrace) -> Vec<KeyValue> {
    let mut all = common(call, &call.local);
    all.push(KeyValue::number("provost.attempts", call.attempts.into()));
    all
}

/// The call's, which is also that of its execution: what refuses a call keeps it from running. An answer that a guard
/// holds back is the one case in which an execution bears a fault that is not its own.
fn status(call: &CallTrace) -> Option<Status> {
    call.error.as_ref().map(|error| Status { message: error.code.clone(), code: STATUS_ERROR })
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_data_serve::observe::{Marks, TraceEnd, Usage};
    use provost_types::{CallId, Name};

    use super::{super::otlp::Value, *};

    fn call() -> CallTrace {
        let mut marks = Marks::default();
        for (n, stage) in (1..).zip(Stage::ALL) {
            marks.end(stage, 1_000 + n * 10);
        }
        CallTrace {
            call_id: CallId(77),
            trace_id: 0x1234,
            parent: Some(9),
            tracestate: Some("a=b".to_owned()),
            method: "tools/call".to_owned(),
            subject: TraceSubject::Tool("crm.read".to_owned()),
            local: "read".to_owned(),
            plugin: Name::new("crm").ok(),
            tenant: Name::new("acme").ok(),
            transport: "h3",
            protocol_version: Some("2026-07-28"),
            request_id: Some("5".to_owned()),
            is_nested: false,
            arrived_ns: 1_000,
            marks,
            usage: Usage::default(),
            attempts: 2,
            error: None,
        }
    }

    fn texts(span: &Span) -> Vec<String> {
        let text = |pair: &KeyValue| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::Text(text) => format!("{}={text}", pair.key),
            Value::Number(number) => format!("{}={number}", pair.key),
        };
        span.attributes.iter().map(text).collect()
    }

    #[test]
    fn a_call_is_one_span_with_its_stages_below_it() {
        let all = spans(&call());
        assert_eq!(all.len(), 1 + Stage::COUNT);
        let (first, stages) = all.split_first().unwrap();
        assert_eq!((first.name.as_str(), first.kind), ("tools/call crm.read", kind::SERVER));
        assert_eq!((&first.parent_span_id, &first.trace_state), (&9_u64.to_be_bytes().to_vec(), &"a=b".to_owned()));
        assert_eq!((first.start_ns, first.end_ns), (1_000, 1_090));
        assert!(all.iter().all(|span| span.trace_id == 0x1234_u128.to_be_bytes()));
        assert!(stages.iter().all(|span| span.parent_span_id == first.span_id && span.span_id.len() == 8));
        let expect = [
            "mcp.method.name=tools/call",
            "gen_ai.operation.name=execute_tool",
            "gen_ai.tool.name=crm.read",
            "provost.plugin=crm",
            "provost.call.id=0000000000000000000000000000004d",
            "provost.tenant=acme",
            "mcp.protocol.version=2026-07-28",
            "jsonrpc.request.id=5",
            "network.transport=quic",
            "network.protocol.name=http",
        ];
        assert_eq!(texts(first), expect);
        let execute = stages.iter().find(|span| span.kind == kind::CLIENT).unwrap();
        assert_eq!((execute.name.as_str(), execute.start_ns, execute.end_ns), ("tools/call read", 1_060, 1_070));
        assert_eq!(execute.span_id, SpanIds::of(CallId(77)).stage(Stage::Execute).to_be_bytes());
        assert!(texts(execute).contains(&"provost.attempts=2".to_owned()));
    }

    #[test]
    fn errors_are_told_by_their_codes() {
        let with =
            |rpc_code, code: &str| CallTrace { error: Some(TraceEnd { code: code.to_owned(), rpc_code }), ..call() };
        let denied = spans(&with(Some(-31_403), "PV-POLICY-DENIED"));
        let told = texts(&denied[0]);
        assert!(told.contains(&"error.type=-31403".to_owned()), "{told:?}");
        assert!(told.contains(&"provost.error.code=PV-POLICY-DENIED".to_owned()), "{told:?}");
        assert_eq!(denied[0].status.as_ref().unwrap().code, STATUS_ERROR);
        assert!(texts(&spans(&with(None, ""))[0]).contains(&"error.type=tool_error".to_owned()));
        let model = CallTrace {
            method: "inference/chat".to_owned(),
            subject: TraceSubject::Model("small".to_owned()),
            protocol_version: None,
            plugin: None,
            usage: Usage { tokens_in: 3, tokens_out: 4, ..Usage::default() },
            ..call()
        };
        let chat = &spans(&model)[0];
        assert_eq!(chat.name, "chat small");
        assert!(texts(chat).contains(&"gen_ai.usage.output_tokens=4".to_owned()));
        assert!(!texts(chat).iter().any(|text| text.starts_with("mcp.")));
        for (method, operation) in [("inference/embed", "embeddings"), ("inference/transcribe", "transcription")] {
            let span = &spans(&CallTrace { method: method.to_owned(), ..model.clone() })[0];
            assert_eq!(span.name, format!("{operation} small"));
            let told = texts(span);
            assert!(told.contains(&format!("gen_ai.operation.name={operation}")), "{told:?}");
            assert!(told.contains(&"gen_ai.request.model=small".to_owned()), "{told:?}");
        }
    }
}
