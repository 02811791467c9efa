//! A host that writes down what it is asked, and the guests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use provost_data_wasm::{
    AotCache, CacheKey, CallContext, ComponentDigest, ComponentSource, Engine, EngineConfig, Grants, HttpError,
    HttpRequest, HttpResponse, KvError, LogLevel, NestedCall, NestedError, PluginAnswer, PluginCall, PluginError,
    PluginHost, PluginLimits, PluginSettings, Progress, WasmPlugin,
};
use provost_mcp::RawJson;
use provost_types::BoxFuture;
use std::sync::Mutex;

pub const TEXT: &[u8] = include_bytes!("../../../../examples/plugins/rust-text/text.wasm");
pub const LIBRARY: &[u8] = include_bytes!("../guests/library.wasm");
pub const HOSTILE: &[u8] = include_bytes!("../guests/hostile.wasm");

/// Nothing that should end takes as long.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// Tests of one build share what they compile; the key is no secret here.
pub fn shared_cache() -> AotCache {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
    AotCache::open(folder, CacheKey::new([7; 32])).unwrap()
}

pub fn engine_of(concurrency: u32) -> Arc<Engine> {
    Engine::new(EngineConfig { concurrency, cache: Some(shared_cache()), ..EngineConfig::default() }).unwrap()
}

pub fn plugin_of(engine: &Arc<Engine>, component: &'static [u8], settings: PluginSettings) -> WasmPlugin {
    let source = ComponentSource::Bytes(Bytes::from_static(component));
    WasmPlugin::new(engine.clone(), ComponentDigest::of(component), source, settings)
}

pub fn text() -> WasmPlugin {
    plugin_of(&engine_of(4), TEXT, PluginSettings::default())
}

/// With egress, and bounds that a test can reach.
pub fn hostile_settings(change: impl FnOnce(&mut PluginLimits)) -> PluginSettings {
    let mut limits = PluginLimits::default();
    change(&mut limits);
    PluginSettings { grants: Grants { http: true }, limits, ..PluginSettings::default() }
}

pub fn hostile() -> WasmPlugin {
    hostile_with(|_| {})
}

pub fn hostile_with(change: impl FnOnce(&mut PluginLimits)) -> WasmPlugin {
    plugin_of(&engine_of(4), HOSTILE, hostile_settings(change))
}

pub fn call_in(time: Duration, tool: &str, arguments: &str) -> PluginCall {
    PluginCall {
        tool: tool.to_owned(),
        arguments: RawJson::from_checked(Bytes::copy_from_slice(arguments.as_bytes())),
        context: CallContext { request_id: "r1".to_owned(), ..CallContext::default() },
        deadline: Instant::now() + time,
        depth: 0,
    }
}

pub fn call(tool: &str, arguments: &str) -> PluginCall {
    call_in(PATIENCE, tool, arguments)
}

/// Calls with a host of its own.
pub async fn ask(plugin: &WasmPlugin, tool: &str, arguments: &str) -> Result<PluginAnswer, PluginError> {
    plugin.call(&call(tool, arguments), FakeHost::new()).await
}

/// The text of the first item of an answer that is none of an error.
pub fn said(answer: Result<PluginAnswer, PluginError>) -> String {
    let PluginAnswer::Complete { body, is_error } = answer.unwrap() else { panic!("it asks") };
    assert!(!is_error, "{}", body.as_str());
    let body: serde_json::Value = body.parse().unwrap();
    body["content"][0]["text"].as_str().unwrap().to_owned()
}

/// Waits until something is so.
pub async fn wait_for(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < PATIENCE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What the alias `github` stands for.
pub const SECRET: &str = "Bearer s3cr3t";

pub struct FakeHost {
    me: Weak<FakeHost>,
    pub lines: Mutex<Vec<(LogLevel, String)>>,
    pub progress: Mutex<Vec<Progress>>,
    pub is_cancelled: AtomicBool,
    /// How often a guest's clock or its host looked whether it is cancelled.
    pub looks: AtomicUsize,
    /// The threads on which guests and their clocks came by.
    pub threads: Mutex<BTreeSet<String>>,
    pub store: Mutex<BTreeMap<String, Vec<u8>>>,
    /// What guests wanted sent.
    pub requests: Mutex<Vec<HttpRequest>>,
    /// The credentials that went out with them.
    pub sent_credentials: Mutex<Vec<String>>,
    /// Name, arguments and depth.
    pub nested: Mutex<Vec<(String, String, u8)>>,
    /// Who answers a nested call of `again`.
    pub plugin: OnceLock<Arc<WasmPlugin>>,
}

impl FakeHost {
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            lines: Mutex::default(),
            progress: Mutex::default(),
            is_cancelled: AtomicBool::default(),
            looks: AtomicUsize::default(),
            threads: Mutex::default(),
            store: Mutex::default(),
            requests: Mutex::default(),
            sent_credentials: Mutex::default(),
            nested: Mutex::default(),
            plugin: OnceLock::new(),
        })
    }
}

/// The name of this thread.
pub fn thread() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

impl PluginHost for FakeHost {
    fn log(&self, level: LogLevel, message: &str) {
        self.threads.lock().unwrap().insert(thread());
        self.lines.lock().unwrap().push((level, message.to_owned()));
    }

    fn progress(&self, progress: Progress) {
        self.progress.lock().unwrap().push(progress);
    }

    fn is_cancelled(&self) -> bool {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.threads.lock().unwrap().insert(thread());
        self.is_cancelled.load(Ordering::SeqCst)
    }

    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }

    fn kv_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, KvError>> {
        Box::pin(async move {
            // A real store answers later.
            tokio::task::yield_now().await;
            Ok(self.store.lock().unwrap().get(key).cloned())
        })
    }

    fn kv_set<'a>(&'a self, key: &'a str, value: Option<Vec<u8>>) -> BoxFuture<'a, Result<(), KvError>> {
        Box::pin(async move {
            let mut store = self.store.lock().unwrap();
            match value {
                Some(value) if store.len() < 3 => drop(store.insert(key.to_owned(), value)),
                Some(_) => return Err(KvError::Full),
                None => drop(store.remove(key)),
            }
            Ok(())
        })
    }

    fn call_tool<'a>(&'a self, call: NestedCall<'a>) -> BoxFuture<'a, Result<RawJson, NestedError>> {
        let seen = (call.name.to_owned(), call.arguments.as_str().to_owned(), call.depth);
        self.nested.lock().unwrap().push(seen);
        Box::pin(async move {
            match call.name {
                "other" => Ok(RawJson::from(serde_json::json!({"content": [{"type": "text", "text": "from other"}]}))),
                "again" => {
                    let mut again = self::call("nested", r#"{"text":"again","arguments":{}}"#);
                    again.depth = call.depth;
                    let host = self.me.upgrade().unwrap();
                    match self.plugin.get().unwrap().call(&again, host).await {
                        Ok(PluginAnswer::Complete { body, .. }) => Ok(body),
                        Ok(PluginAnswer::InputRequired(_)) => Err(NestedError::Failed("it asks".to_owned())),
                        Err(error) => Err(NestedError::Failed(error.to_string())),
                    }
                }
                "long" => Ok(RawJson::from(serde_json::json!({ "content": "x".repeat(2_000) }))),
                name => Err(NestedError::Denied(format!("no tool {name}"))),
            }
        })
    }

    fn send_http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        self.requests.lock().unwrap().push(request.clone());
        Box::pin(async move {
            match request.credential.as_deref() {
                None => {}
                Some("github") => self.sent_credentials.lock().unwrap().push(SECRET.to_owned()),
                Some(alias) => return Err(HttpError::Denied(format!("no credential {alias}"))),
            }
            let host = request.url.strip_prefix("https://").and_then(|rest| rest.split('/').next());
            let body = match host {
                Some("example.com") => b"hello".to_vec(),
                Some("large.example") => vec![b'x'; 8 << 20],
                Some("silent.example") => std::future::pending().await,
                _ => return Err(HttpError::Denied("not on the list".to_owned())),
            };
            Ok(HttpResponse { status: 200, headers: Vec::new(), body })
        })
    }
}
