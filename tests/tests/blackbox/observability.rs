//! What a node tells of itself: one trace from a client to an upstream and to a receiver, metrics, and lines of the log.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use axum::{body::Body, extract::State, response::Response};
use http::HeaderMap;
use prost::Message;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    guards::guard,
    harness::{Dev, call_tool, modern, post, post_raw, root, text, until, upstream_yaml},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// What of OTLP the tests look at, by the field numbers of opentelemetry-proto.
mod otlp {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(message, repeated, tag = "1")]
        pub resource_spans: Vec<ResourceSpans>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ResourceSpans {
        #[prost(message, repeated, tag = "2")]
        pub scope_spans: Vec<ScopeSpans>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        pub spans: Vec<Span>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub span_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub name: String,
        #[prost(int32, tag = "6")]
        pub kind: i32,
        #[prost(fixed64, tag = "7")]
        pub start: u64,
        #[prost(fixed64, tag = "8")]
        pub end: u64,
        #[prost(message, repeated, tag = "9")]
        pub attributes: Vec<KeyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyValue {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<AnyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AnyValue {
        #[prost(string, tag = "1")]
        pub text: String,
    }
}

#[derive(Default)]
struct Seen {
    /// Headers and body of each call of a tool.
    calls: Mutex<Vec<(HeaderMap, Value)>>,
    /// Bodies that came to `/v1/traces`.
    traces: Mutex<Vec<(HeaderMap, Vec<u8>)>>,
}

/// An upstream and a receiver of OTLP on one port.
struct World {
    base: String,
    seen: Arc<Seen>,
    _runtime: Runtime,
}

impl World {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Seen> = Arc::default();
        let router = axum::Router::new().fallback(serve).with_state(seen.clone());
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, seen, _runtime: runtime }
    }

    fn spans(&self) -> Vec<otlp::Span> {
        let bodies = self.seen.traces.lock().unwrap().clone();
        let requests = bodies.iter().map(|(_, body)| otlp::Request::decode(&body[..]).unwrap());
        let resources = requests.flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

async fn serve(State(seen): State<Arc<Seen>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    if parts.uri.path() == "/v1/traces" {
        seen.traces.lock().unwrap().push((parts.headers, body.to_vec()));
        return Response::builder().header("content-type", "application/x-protobuf").body(Body::empty()).unwrap();
    }
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
        "tools/list" => json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "private",
            "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}),
        "tools/call" => {
            seen.calls.lock().unwrap().push((parts.headers, message.clone()));
            json!({"resultType": "complete", "content": [{"type": "text", "text": "done"}]})
        }
        _ => json!({"resultType": "complete"}),
    };
    let whole = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    Response::builder().header("content-type", "application/json").body(Body::from(whole.to_string())).unwrap()
}

fn start(world: &World, env: &[(&str, &str)]) -> (tempfile::TempDir, Dev) {
    let dir = tempfile::tempdir().unwrap();
    let yaml = upstream_yaml(&format!("{}/mcp", world.base));
    let dev = Dev::start_env(&dir.path().join("data"), Some(&yaml), &[], env);
    (dir, dev)
}

/// Calls `up.t` with a trace in `_meta`, another one in the header, and an argument that is a secret.
fn traced_call(dev: &Dev, flags: &str) -> Value {
    let arguments = json!({ "password": "hunter2-Zx81" });
    let mut body = modern("tools/call", json!({ "name": "up.t", "arguments": arguments }));
    body["params"]["_meta"]["traceparent"] = json!(format!("00-{TRACE}-{CLIENT_SPAN}-{flags}"));
    body["params"]["_meta"]["tracestate"] = json!("vendor=1");
    let headers = [
        ("authorization", format!("Bearer {}", dev.token())),
        ("mcp-protocol-version", "2026-07-28".to_owned()),
        ("mcp-method", "tools/call".to_owned()),
        ("mcp-name", "up.t".to_owned()),
        ("traceparent", "00-11111111111111111111111111111111-2222222222222222-01".to_owned()),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value));
    post_raw(dev.mcp(), &headers, body.to_string().into_bytes()).1
}

/// What the node tells of itself.
pub fn metrics(dev: &Dev) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = dev.info["metrics"].as_str().unwrap().to_owned();
    runtime.block_on(async move {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(url).send().await.unwrap().text().await.unwrap()
    })
}

/// The value of a sample, by its name with labels.
pub fn sample(text: &str, name: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or(0.0)
}

#[test]
fn one_trace_goes_from_the_client_through_the_node_to_the_upstream_and_the_receiver() {
    let world = World::start();
    let (_dir, dev) = start(&world, &[("PROVOST_OTLP", &world.base), ("PROVOST_OTLP_RATIO", "0")]);
    let answer = traced_call(&dev, "01");
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");

    // The upstream has our span as its parent, in the message and in the header.
    let (headers, message) = world.seen.calls.lock().unwrap().first().cloned().unwrap();
    let parent = message["params"]["_meta"]["traceparent"].as_str().unwrap().to_owned();
    assert_eq!(headers["traceparent"].to_str().unwrap(), parent);
    assert_eq!(headers["tracestate"].to_str().unwrap(), "vendor=1");
    let parts: Vec<&str> = parent.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"), "{parent}");
    assert_ne!(parts[2], CLIENT_SPAN);

    let name = "tools/call up.t";
    let spans = until(|| Some(world.spans()).filter(|spans| spans.iter().any(|span| span.name == name)));
    let hex_of = |bytes: &[u8]| hex::encode(bytes);
    let whole = spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!((hex_of(&whole.trace_id), hex_of(&whole.parent_span_id)), (TRACE.to_owned(), CLIENT_SPAN.to_owned()));
    assert_eq!(whole.kind, 2, "a server's span");
    let attribute = |key: &str| {
        let found = whole.attributes.iter().find(|pair| pair.key == key);
        found.and_then(|pair| pair.value.clone()).map(|value| value.text).unwrap_or_default()
    };
    assert_eq!(attribute("mcp.method.name"), "tools/call");
    assert_eq!(attribute("gen_ai.tool.name"), "up.t");
    assert_eq!(attribute("gen_ai.operation.name"), "execute_tool");
    assert_eq!(attribute("provost.tenant"), "acme");

    // Its stages lie below it and inside it; the upstream's parent is the one that called it.
    let below: Vec<_> = spans.iter().filter(|span| span.parent_span_id == whole.span_id).collect();
    assert_eq!(below.len(), 9, "{:?}", below.iter().map(|span| &span.name).collect::<Vec<_>>());
    assert!(below.iter().all(|span| span.start >= whole.start && span.end <= whole.end && span.start <= span.end));
    let execute = below.iter().find(|span| hex_of(&span.span_id) == parts[2]).unwrap();
    assert_eq!((execute.name.as_str(), execute.kind), ("tools/call t", 3), "a client's span");

    // The client said so; of the calls that say nothing none is kept, and one that says no is not.
    call_tool(&dev, "up.t", json!({}));
    traced_call(&dev, "00");
    let flags: Vec<String> = {
        let calls = world.seen.calls.lock().unwrap();
        let parents = calls.iter().map(|(headers, _)| headers["traceparent"].to_str().unwrap().to_owned());
        parents.map(|parent| parent[53..].to_owned()).collect()
    };
    assert_eq!(flags, ["01", "00", "00"]);
    let told = until(|| Some(metrics(&dev)).filter(|text| sample(text, "provost_traces_total{state=\"sent\"}") >= 1.0));
    assert_eq!(sample(&told, "provost_traces_total{state=\"queued\"}"), 1.0, "{told}");

    let bodies = world.seen.traces.lock().unwrap().clone();
    for (headers, body) in bodies {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(!text.contains("hunter2") && !text.contains(dev.token()), "a secret left in a trace: {text}");
    }
}

#[test]
fn what_is_no_trace_does_not_go_on_as_one_and_baggage_passes_the_guards() {
    let world = World::start();
    let dir = tempfile::tempdir().unwrap();
    let emails = guard("emails", "{ rules: [ { kinds: [email], action: mask } ] }");
    let yaml = format!("{}{emails}", upstream_yaml(&format!("{}/mcp", world.base)));
    let dev = Dev::start_env(&dir.path().join("data"), Some(&yaml), &[], &[]);
    let mut body = modern("tools/call", json!({ "name": "up.t", "arguments": {} }));
    for (key, value) in [("traceparent", "ann@example.org"), ("tracestate", "a=b"), ("baggage", "user=bob@example.org")]
    {
        body["params"]["_meta"][key] = json!(value);
    }
    let answer = post(dev.mcp(), dev.token(), &body).1;
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    let (headers, message) = world.seen.calls.lock().unwrap().first().cloned().unwrap();
    let meta = &message["params"]["_meta"];
    assert!(meta["traceparent"].is_null() && meta["tracestate"].is_null(), "{message}");
    assert!(!headers.contains_key("traceparent"), "{headers:?}");
    assert!(meta["baggage"].is_string() && !message.to_string().contains("example.org"), "{message}");
}

#[test]
fn a_receiver_that_is_away_costs_no_call_and_traces_are_counted_as_lost() {
    let world = World::start();
    let (_dir, dev) = start(&world, &[("PROVOST_OTLP", "http://127.0.0.1:9")]);
    let answer = call_tool(&dev, "up.t", json!({}));
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    until(|| Some(sample(&metrics(&dev), "provost_traces_total{state=\"lost\"}")).filter(|lost| *lost >= 1.0));
    assert!(dev.stderr().contains("PV-TELEMETRY"), "{}", dev.stderr());
}

#[test]
fn metrics_move_with_calls_and_each_is_in_the_table() {
    let world = World::start();
    let (_dir, dev) = start(&world, &[]);
    let before = metrics(&dev);
    let first = |stage: &str| sample(&before, &format!("provost_stage_duration_seconds_count{{stage=\"{stage}\"}}"));
    assert!(first("execute") <= first("authenticate"), "{before}");
    for _ in 0..3 {
        call_tool(&dev, "up.t", json!({}));
    }
    let unknown = call_tool(&dev, "up.unknown", json!({}));
    assert!(unknown["error"].is_object(), "{unknown}");
    // A call is counted a moment after its answer.
    let calls = "provost_requests_total{method=\"tools/call\",transport=\"http\"}";
    let after = until(|| Some(metrics(&dev)).filter(|text| sample(text, calls) >= 4.0));
    let moved = |name: &str| sample(&after, name) - sample(&before, name);
    assert_eq!(moved(calls), 4.0);
    assert_eq!(moved("provost_stage_duration_seconds_count{stage=\"execute\"}"), 3.0, "{after}");
    assert!(moved("provost_call_duration_seconds_count") >= 4.0);
    assert!(moved("provost_call_duration_seconds_sum") > 0.0);
    let le = |bound: &str| sample(&after, &format!("provost_call_duration_seconds_bucket{{le=\"{bound}\"}}"));
    assert!(le("0.00005") <= le("60") && le("+Inf") == sample(&after, "provost_call_duration_seconds_count"));
    let refused: f64 = after.lines().filter(|l| l.starts_with("provost_refusals_total")).map(last_number).sum();
    let coded: f64 = after.lines().filter(|l| l.starts_with("provost_errors_total{code=\"PV-")).map(last_number).sum();
    assert!(refused >= 1.0 && coded >= 1.0, "{after}");
    assert_eq!(sample(&after, "provost_raft_is_leader{group=\"control\"}"), 1.0);

    let docs = std::fs::read_to_string(root().join("docs/observability.md")).unwrap();
    let printed: BTreeSet<&str> =
        after.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let missing: Vec<_> = printed.iter().filter(|name| !docs.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/observability.md does not have {missing:?}");
    assert!(printed.len() > 25, "{printed:?}");
}

fn last_number(line: &str) -> f64 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn lines_of_the_log_in_json_have_the_ids_of_the_call_and_its_trace() {
    let world = World::start();
    let (_dir, dev) = start(&world, &[("PROVOST_LOG_JSON", "true"), ("PROVOST_LOG", "warn,provost_call=debug")]);
    traced_call(&dev, "01");
    let line = until(|| {
        let log = dev.stderr();
        log.lines().find(|line| line.contains("call ended") && line.contains(TRACE)).map(str::to_owned)
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
    assert_eq!(line["span"]["call_id"].as_str().map(str::len), Some(32), "{line}");
    assert_eq!((&line["fields"]["method"], &line["fields"]["outcome"]), (&json!("tools/call"), &json!("ok")), "{line}");
    assert_eq!((&line["fields"]["tenant"], &line["fields"]["plugin"]), (&json!("acme"), &json!("up")), "{line}");
    assert!(!dev.stderr().contains("hunter2"));
}

#[test]
fn top_shows_each_node_and_says_when_none_answers() {
    let world = World::start();
    let (_dir, dev) = start(&world, &[]);
    call_tool(&dev, "up.t", json!({}));
    let shown = dev.cli(&["top", "--once", "--json", "--interval", "1s"]);
    assert!(shown.status.success(), "{}", text(&shown));
    let cluster: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let node = &cluster["nodes"][0];
    assert_eq!((&node["answers"], &node["lag"]), (&json!(true), &json!(0.0)), "{cluster}");
    assert!(node["revision"].as_f64().unwrap() >= 1.0 && node["calls_per_second"].is_number(), "{cluster}");
    let leads: Vec<&str> = node["leads"].as_array().unwrap().iter().map(|group| group.as_str().unwrap()).collect();
    assert_eq!(leads, ["control", "audit"], "{cluster}");

    let address = dev.info["metrics"].as_str().unwrap().trim_start_matches("http://").trim_end_matches("/metrics");
    let nodes = format!("{address},127.0.0.1:9");
    let shown = dev.cli(&["top", "--once", "--interval", "1s", "--metrics", &nodes]);
    let table = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{}", text(&shown));
    assert!(table.starts_with("1 of 2 nodes") && table.contains("does not answer"), "{table}");
    let gone = dev.cli(&["top", "--once", "--interval", "1s", "--metrics", "127.0.0.1:9"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone).contains("PV-CLI-UNREACHABLE"), "{}", text(&gone));
}
