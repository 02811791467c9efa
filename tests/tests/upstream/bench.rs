//! What the tests share: a toolbox with one plugin, clients of both eras, a link that records.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use provost_data_pipeline::{AskError, ClientFacts, ClientLink, Execution, Operation, Reply};
use provost_data_tools::{ExecuteRequest, Limits, Plugin, SecretSource, Siblings, Toolbox, ToolboxDeps};
use provost_mcp::{ProtocolVersion, RawJson};
use provost_tests::everything::{EraChoice, Everything, HttpServer, serve_http};
use provost_types::{
    BoxFuture, BoxStream, CallId, ChatEvent, ChatRequest, EmbedRequest, EmbedResponse, Era, HttpPlugin, Inference,
    InferenceError, Metadata, ModelInfo, Name, PluginSource, PluginSpec, PrincipalRef, Resource, Revision, Snapshot,
    Spec, StdioPlugin,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub const NO_SECRET: &str = "no-such-secret";

struct Secrets;
impl SecretSource for Secrets {
    fn secret(&self, _: &Name, name: &Name) -> Option<SecretString> {
        (name.as_str() != NO_SECRET).then(|| SecretString::from("s3cret".to_owned()))
    }
}

struct NoModels;
impl Inference for NoModels {
    fn models(&self) -> Vec<ModelInfo> {
        Vec::new()
    }
    fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        Box::pin(async { Err(no_models()) })
    }
    fn chat(
        &self,
        _: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        Box::pin(async { Err(no_models()) })
    }
}

fn no_models() -> InferenceError {
    InferenceError {
        kind: provost_types::InferenceErrorKind::ModelNotFound,
        message: "there are no models".to_owned(),
        retry_after_ms: None,
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn toolbox(limits: Limits) -> Arc<Toolbox> {
    toolbox_among(limits, None)
}

/// One of several.
pub fn toolbox_among(limits: Limits, siblings: Option<Arc<dyn Siblings>>) -> Arc<Toolbox> {
    toolbox_with(limits, siblings, None)
}

/// One that can build walls.
pub fn toolbox_with(limits: Limits, siblings: Option<Arc<dyn Siblings>>, launcher: Option<PathBuf>) -> Arc<Toolbox> {
    Toolbox::new(ToolboxDeps {
        siblings,
        connections: None,
        packages: None,
        secrets: Arc::new(Secrets),
        inference: Arc::new(NoModels),
        data_dir: PathBuf::from("/nonexistent"),
        limits,
        launcher,
    })
}

/// One that can build walls, and keeps files that nobody within sees.
#[cfg(target_os = "linux")]
pub fn toolbox_walled(data_dir: &Path, launcher: PathBuf) -> Arc<Toolbox> {
    Toolbox::new(ToolboxDeps {
        siblings: None,
        connections: None,
        packages: None,
        launcher: Some(launcher),
        secrets: Arc::new(Secrets),
        inference: Arc::new(NoModels),
        data_dir: data_dir.to_owned(),
        limits: Limits::default(),
    })
}

/// One that keeps files, with models.
pub fn toolbox_in(data_dir: &Path, inference: Arc<dyn Inference>, limits: Limits) -> Arc<Toolbox> {
    Toolbox::new(ToolboxDeps {
        siblings: None,
        connections: None,
        packages: None,
        launcher: None,
        secrets: Arc::new(Secrets),
        inference,
        data_dir: data_dir.to_owned(),
        limits,
    })
}

pub fn snapshot(plugins: &[(&str, PluginSpec)]) -> Snapshot {
    let resources: BTreeMap<_, _> = plugins
        .iter()
        .map(|(plugin, spec)| {
            let resource = Resource {
                metadata: Metadata { name: name(plugin), tenant: Some(name("acme")), labels: BTreeMap::new() },
                spec: Spec::Plugin(spec.clone()),
                created: Revision(1),
                modified: Revision(1),
            };
            (resource.key(), Arc::new(resource))
        })
        .collect();
    Snapshot { revision: Revision(1), resources: resources.into() }
}

pub fn spec(source: PluginSource) -> PluginSpec {
    PluginSpec {
        description: String::new(),
        source,
        timeout_ms: 0,
        max_concurrency: 0,
        resilience: None,
        definitions: None,
        reloads: 0,
    }
}

pub fn http_spec(url: &str, era: Era) -> PluginSpec {
    spec(PluginSource::McpHttp(HttpPlugin { url: url.to_owned(), era, ..HttpPlugin::default() }))
}

pub fn stdio_spec(command: &str, args: &[&str], era: Era) -> PluginSpec {
    spec(PluginSource::McpStdio(StdioPlugin {
        command: command.to_owned(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        env: BTreeMap::new(),
        secret_env: BTreeMap::new(),
        cwd: None,
        era,
        instances: Default::default(),
        isolation: None,
    }))
}

/// A toolbox with the one plugin `up`.
pub fn plugin_with(spec: PluginSpec, limits: Limits) -> (Arc<Toolbox>, Arc<Plugin>) {
    let toolbox = toolbox(limits);
    toolbox.reconcile(&snapshot(&[("up", spec)]));
    let plugin = toolbox.plugin(&name("acme"), "up").unwrap();
    (toolbox, plugin)
}

pub fn plugin(spec: PluginSpec) -> Arc<Plugin> {
    plugin_with(spec, Limits::default()).1
}

/// The four ways to have the everything-server as upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    HttpModern,
    HttpLegacy,
    StdioModern,
    StdioLegacy,
}

impl Way {
    pub const ALL: [Way; 4] = [Way::HttpModern, Way::HttpLegacy, Way::StdioModern, Way::StdioLegacy];

    pub fn is_modern(self) -> bool {
        matches!(self, Way::HttpModern | Way::StdioModern)
    }
}

/// A plugin on the everything-server, whose era it has to find out. The server ends when dropped.
pub struct Up {
    pub plugin: Arc<Plugin>,
    _server: Option<HttpServer>,
}

pub async fn up(way: Way) -> Up {
    up_with(way, Limits::default()).await
}

pub async fn up_with(way: Way, limits: Limits) -> Up {
    let (choice, flag) = if way.is_modern() { (EraChoice::Modern, "modern") } else { (EraChoice::Legacy, "legacy") };
    let (server, spec) = match way {
        Way::HttpModern | Way::HttpLegacy => {
            let server = serve_http(Everything::new(choice), "127.0.0.1:0".parse().unwrap()).await.unwrap();
            let spec = http_spec(&server.url(), Era::Auto);
            (Some(server), spec)
        }
        Way::StdioModern | Way::StdioLegacy => {
            (None, stdio_spec(env!("CARGO_BIN_EXE_everything-rmcp"), &["--era", flag], Era::Auto))
        }
    };
    Up { plugin: plugin_with(spec, limits).1, _server: server }
}

pub fn modern_client() -> ClientFacts {
    ClientFacts {
        protocol_version: ProtocolVersion::V2026_07_28,
        info: None,
        capabilities: RawJson::from(json!({"elicitation": {}, "sampling": {}, "roots": {}})),
        session: None,
        address: None,
        transport: "internal",
    }
}

pub fn legacy_client(session: &str) -> ClientFacts {
    ClientFacts { protocol_version: ProtocolVersion::V2025_11_25, session: Some(session.into()), ..modern_client() }
}

/// Records notifications; asks nobody; is cancelled by its token.
#[derive(Default)]
pub struct TestLink {
    pub told: Mutex<Vec<(String, Value)>>,
    pub cancel: CancellationToken,
}

impl ClientLink for TestLink {
    fn notify(&self, method: &str, params: RawJson) {
        self.told.lock().unwrap().push((method.to_owned(), params.parse().unwrap()));
    }
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.cancel.cancelled())
    }
}

impl TestLink {
    pub fn of(&self, method: &str) -> Vec<Value> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|(m, _)| m == method).map(|(_, p)| p.clone()).collect()
    }
}

pub fn principal() -> PrincipalRef {
    PrincipalRef { tenant: name("acme"), name: name("ann") }
}

/// Executes with ample time.
pub async fn execute(
    plugin: &Plugin,
    operation: Operation,
    params: Value,
    client: &ClientFacts,
    link: &TestLink,
) -> Execution {
    execute_within(plugin, operation, params, client, link, Duration::from_secs(30)).await
}

pub async fn execute_within(
    plugin: &Plugin,
    operation: Operation,
    params: Value,
    client: &ClientFacts,
    link: &TestLink,
    time: Duration,
) -> Execution {
    let principal = principal();
    let request = request(operation, params, client, &principal, time);
    plugin.execute(&request, link).await
}

pub fn request<'a>(
    operation: Operation,
    params: Value,
    client: &'a ClientFacts,
    principal: &'a PrincipalRef,
    time: Duration,
) -> ExecuteRequest<'a> {
    ExecuteRequest {
        operation,
        params: RawJson::from(params),
        client,
        principal,
        subject: None,
        deadline: Instant::now() + time,
        revision: Revision(1),
        call_id: CallId(1),
        other_tools: None,
    }
}

/// Calls a tool as a modern client.
pub async fn call(plugin: &Plugin, tool: &str, arguments: Value) -> Execution {
    let params = json!({"name": format!("shown.{tool}"), "arguments": arguments});
    let operation = Operation::CallTool(tool.to_owned());
    execute(plugin, operation, params, &modern_client(), &TestLink::default()).await
}

/// The same call again while an upstream that has just gone is noticed: a connection that ends while a call is sent leaves
/// its fate open, which Provost says and does not try again; one that is refused is tried again where a policy says so.
pub async fn certain(call: impl AsyncFn() -> Execution) -> Execution {
    for _ in 0..5 {
        let answer = call().await;
        let is_error = matches!(answer.reply, Reply::Error(_));
        if !is_error || !["PV-UPSTREAM-DIED", "PV-UPSTREAM-UNREACHABLE"].contains(&pv_code(&answer).as_str()) {
            return answer;
        }
    }
    call().await
}

/// The result's body.
pub fn body(execution: &Execution) -> Value {
    match &execution.reply {
        Reply::Result { body, .. } | Reply::InputRequired(body) => body.parse().unwrap(),
        Reply::Error(error) => panic!("an error instead of a result: {error:?}"),
    }
}

/// The first text of a tool result.
pub fn text(execution: &Execution) -> String {
    body(execution)["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

/// The error's stable code.
pub fn pv_code(execution: &Execution) -> String {
    match &execution.reply {
        Reply::Error(error) => {
            let data: Value = error.data.as_ref().map(|d| d.parse().unwrap()).unwrap_or_default();
            data["code"].as_str().unwrap_or("none").to_owned()
        }
        other => format!("no error: {other:?}"),
    }
}

/// Waits until `done`, at most a minute.
pub async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not in a minute");
}
