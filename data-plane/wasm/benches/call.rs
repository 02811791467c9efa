//! What a call of a component costs beside the same function in the node: an instance of its own each time, on one
//! thread. `cargo bench -p provost-data-wasm`.
#![allow(missing_docs, clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use provost_data_wasm::{
    AotCache, CacheKey, CallContext, ComponentDigest, ComponentSource, Engine, EngineConfig, HttpError, HttpRequest,
    HttpResponse, KvError, LogLevel, NestedCall, NestedError, PluginAnswer, PluginCall, PluginHost, PluginSettings,
    Progress, WasmPlugin,
};
use provost_mcp::RawJson;
use provost_types::BoxFuture;
use serde_json::{Map, Value, json};

/// As in the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TEXT: &[u8] = include_bytes!("../../../examples/plugins/rust-text/text.wasm");
const ARGUMENTS: &str = r#"{"text":"The quick brown fox\njumps over the lazy dog."}"#;

/// Nothing here asks it for anything.
struct Nobody;

impl PluginHost for Nobody {
    fn log(&self, _: LogLevel, _: &str) {}
    fn progress(&self, _: Progress) {}
    fn is_cancelled(&self) -> bool {
        false
    }
    fn now_ms(&self) -> u64 {
        0
    }
    fn kv_get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, KvError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn kv_set<'a>(&'a self, _: &'a str, _: Option<Vec<u8>>) -> BoxFuture<'a, Result<(), KvError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn call_tool<'a>(&'a self, _: NestedCall<'a>) -> BoxFuture<'a, Result<RawJson, NestedError>> {
        Box::pin(std::future::ready(Err(NestedError::Cancelled)))
    }
    fn send_http(&self, _: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(std::future::ready(Err(HttpError::Timeout)))
    }
}

/// As a built-in does it: arguments read, the work, the result written.
fn built_in(arguments: &RawJson) -> RawJson {
    let arguments: Map<String, Value> = arguments.parse().expect("an object");
    let text = arguments.get("text").and_then(Value::as_str).unwrap_or_default();
    let structured = json!({
        "characters": text.chars().count(),
        "words": text.split_whitespace().count(),
        "lines": text.lines().count(),
        "bytes": text.len(),
    });
    let text = structured.to_string();
    RawJson::from(json!({"content": [{"type": "text", "text": text}], "structuredContent": structured}))
}

fn plugin(engine: &Arc<Engine>) -> WasmPlugin {
    let source = ComponentSource::Bytes(Bytes::from_static(TEXT));
    WasmPlugin::new(engine.clone(), ComponentDigest::of(TEXT), source, PluginSettings::default())
}

fn calls(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let cache = AotCache::open(folder.path().join("cache"), CacheKey::of_this_process()).expect("a cache");
    let engine = Engine::new(EngineConfig { cache: Some(cache), ..EngineConfig::default() }).expect("an engine");
    let text = plugin(&engine);
    runtime.block_on(text.tools()).expect("tools");
    let host: Arc<dyn PluginHost> = Arc::new(Nobody);
    let arguments = RawJson::from_checked(Bytes::from_static(ARGUMENTS.as_bytes()));
    let call = || PluginCall {
        tool: "count".to_owned(),
        arguments: arguments.clone(),
        context: CallContext { request_id: "r1".to_owned(), ..CallContext::default() },
        deadline: Instant::now() + Duration::from_secs(30),
        depth: 0,
    };
    let PluginAnswer::Complete { body, .. } = runtime.block_on(text.call(&call(), host.clone())).expect("an answer")
    else {
        panic!("it asks")
    };
    let structured = |body: &RawJson| body.parse::<Value>().expect("JSON")["structuredContent"].clone();
    assert_eq!(structured(&body), structured(&built_in(&arguments)), "the two do not do the same");

    let mut group = c.benchmark_group("count");
    group.bench_function("built in", |b| b.iter(|| built_in(black_box(&arguments))));
    group.bench_function("component, fresh instance", |b| {
        b.iter(|| runtime.block_on(text.call(&call(), host.clone())).expect("an answer"));
    });
    group.finish();
    c.bench_function("load from the cache", |b| {
        b.iter(|| runtime.block_on(plugin(&engine).tools()).expect("tools"));
    });
}

criterion_group!(benches, calls);
criterion_main!(benches);
