//! A call of a WebAssembly component in an instance of its own, beside the same work as a function of this program.

use std::{
    future::ready,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use provost_data_wasm::{
    AotCache, CacheKey, CallContext, ComponentDigest, ComponentSource, Engine, EngineConfig, HttpError, HttpRequest,
    HttpResponse, KvError, LogLevel, NestedCall, NestedError, PluginAnswer, PluginCall, PluginHost, PluginSettings,
    Progress, WasmPlugin,
};
use provost_mcp::RawJson;
use provost_types::BoxFuture;
use serde_json::{Map, Value, json};

use super::{
    judge::{Bar, median},
    report::{Figure, Row},
    stage::Stage,
};

/// The example of the documentation, as it lies beside its source.
const TEXT: &[u8] = include_bytes!("../../../../examples/plugins/rust-text/text.wasm");
const ARGUMENTS: &str = r#"{"text":"The quick brown fox\njumps over the lazy dog."}"#;
const MOST_OVER_US: f64 = 20.0;
/// Calls of a round.
const CALLS: usize = 2_000;
const CALLS_QUICK: usize = 200;

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
        Box::pin(ready(Ok(None)))
    }
    fn kv_set<'a>(&'a self, _: &'a str, _: Option<Vec<u8>>) -> BoxFuture<'a, Result<(), KvError>> {
        Box::pin(ready(Ok(())))
    }
    fn call_tool<'a>(&'a self, _: NestedCall<'a>) -> BoxFuture<'a, Result<RawJson, NestedError>> {
        Box::pin(ready(Err(NestedError::Cancelled)))
    }
    fn send_http(&self, _: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(ready(Err(HttpError::Timeout)))
    }
}

/// As a built-in does it: arguments read, the work, the result written.
fn built_in(arguments: &RawJson) -> Option<RawJson> {
    let arguments: Map<String, Value> = arguments.parse().ok()?;
    let text = arguments.get("text")?.as_str()?;
    let structured = json!({
        "characters": text.chars().count(),
        "words": text.split_whitespace().count(),
        "lines": text.lines().count(),
        "bytes": text.len(),
    });
    let text = structured.to_string();
    Some(RawJson::from(json!({ "content": [{ "type": "text", "text": text }], "structuredContent": structured })))
}

fn call(arguments: &RawJson) -> PluginCall {
    PluginCall {
        tool: "count".to_owned(),
        arguments: arguments.clone(),
        context: CallContext { request_id: "r1".to_owned(), ..CallContext::default() },
        deadline: Instant::now() + Duration::from_secs(30),
        depth: 0,
    }
}

/// Row `wasm`.
pub async fn wasm(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    stage.say("wasm: compiling the component");
    let failed = |cause: &dyn std::fmt::Display| anyhow::anyhow!("PV-BENCH: the component cannot be run: {cause}");
    let folder = stage.scratch.folder("wasm")?;
    let cache = AotCache::open(folder.join("cache"), CacheKey::of_this_process()).map_err(|cause| failed(&cause))?;
    let engine = Engine::new(EngineConfig { cache: Some(cache), ..EngineConfig::default() });
    let engine = engine.map_err(|cause| failed(&cause))?;
    let source = ComponentSource::Bytes(Bytes::from_static(TEXT));
    let plugin = WasmPlugin::new(engine, ComponentDigest::of(TEXT), source, PluginSettings::default());
    plugin.tools().await.map_err(|cause| failed(&cause))?;
    let host: Arc<dyn PluginHost> = Arc::new(Nobody);
    let arguments = RawJson::from_checked(Bytes::from_static(ARGUMENTS.as_bytes()));
    let answer = plugin.call(&call(&arguments), host.clone()).await.map_err(|cause| failed(&cause))?;
    let PluginAnswer::Complete { body, .. } = answer else {
        anyhow::bail!("PV-BENCH: the component asks in place of answering");
    };
    let expect = built_in(&arguments).context("PV-BENCH: the function gives no answer")?;
    let structured = |body: &RawJson| body.parse::<Value>().ok().map(|body| body["structuredContent"].clone());
    anyhow::ensure!(structured(&body) == structured(&expect), "PV-BENCH: component and function do not do the same");

    let calls = if stage.effort.quick { CALLS_QUICK } else { CALLS };
    let (mut function, mut component, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=stage.effort.rounds {
        stage.say(&format!("wasm, round {round} of {}", stage.effort.rounds));
        let (mut plain, mut guest) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
        for _ in 0..calls {
            let began = Instant::now();
            drop(black_box(built_in(black_box(&arguments))));
            plain.push(began.elapsed().as_secs_f64() * 1e6);
            let began = Instant::now();
            plugin.call(&call(&arguments), host.clone()).await.map_err(|cause| failed(&cause))?;
            guest.push(began.elapsed().as_secs_f64() * 1e6);
        }
        let (plain, guest) = (median(&plain).unwrap_or_default(), median(&guest).unwrap_or_default());
        function.push(plain);
        component.push(guest);
        over.push(guest - plain);
    }
    let figures = vec![
        Figure::new("over", "a component above the function, p50", "us", over)
            .against(Bar::at_most(MOST_OVER_US), None),
        Figure::new("function", "the function, p50", "us", function),
        Figure::new("component", "the component in a fresh instance, p50", "us", component),
    ];
    Ok(vec![Row::measured("wasm", "", figures, Vec::new())])
}
