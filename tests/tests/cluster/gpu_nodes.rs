//! GPU nodes of their own: a request goes to the one that holds the weights, and to the other when that is lost.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    harness::{root, text},
    processes::{Fleet, SOON, provost, scrape},
    restore::apply,
};

const GPUS: [&str; 2] = ["gpu-1", "gpu-2"];
/// Longer than it takes from the intent of a call to its request at a GPU node.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// More requests than a node has places, those of running ones included (128 and 16).
const CROWD: usize = 200;

const RESOURCES: &str = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\n---\n\
    apiVersion: provost/v1\nkind: Principal\nmetadata: { name: bot, tenant: acme }\nspec: { type: agent }\n---\n\
    apiVersion: provost/v1\nkind: Role\nmetadata: { name: ai, tenant: acme }\n\
    spec: { rules: [ { models: ['tiny-chat'] } ] }\n---\n\
    apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: ai, tenant: acme }\n\
    spec: { role: ai, principals: [bot] }\n";

/// What came of a chat.
struct Answer {
    status: u16,
    retry_after: Option<u64>,
    body: Value,
}

/// One data plane, two GPU nodes with the same model, and an agent's token.
struct Scene {
    fleet: Fleet,
    token: String,
    models: tempfile::TempDir,
}

impl Scene {
    fn start(runtime: &Runtime) -> Self {
        let models = tempfile::tempdir().unwrap();
        add_model(models.path(), "tiny-chat");
        let mut fleet = Fleet::new("gpus");
        fleet.add("cp-1", "control-plane+audit-log");
        fleet.add("dp-1", "data-plane");
        GPUS.iter().for_each(|name| fleet.add(name, "gpu-node"));
        fleet.init("cp-1");
        for name in GPUS {
            let config = fleet.servers[name].config();
            let before = fs::read_to_string(&config).unwrap();
            // The disk of a machine for tests may be nearly full.
            let after = "[gpu]\ndisk_reserve_mib = 1\n";
            fs::write(config, format!("models = {:?}\n{before}\n{after}", models.path())).unwrap();
        }
        for name in ["cp-1", "gpu-1", "gpu-2", "dp-1"] {
            fleet.start(name);
        }
        fleet.agreed(&["cp-1"]);
        fleet.until_audit_voters("cp-1", 1);
        apply(&fleet, "cp-1", "ai.yaml", RESOURCES);
        let token = fleet.ok("cp-1", &["token", "create", "--principal", "bot"]).trim().to_owned();
        let scene = Self { fleet, token, models };
        for name in GPUS {
            scene.until(&format!("{name} is heard"), |s| {
                s.metric(&format!("provost_gpu_node_heard{{node=\"{name}\"}}")) == 1.0
            });
        }
        scene.until("the agent may use the model", |s| runtime.block_on(s.lists_the_model()));
        scene
    }

    /// Waits for something that a healthy cluster does by itself.
    fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < SOON, "never: {what}\n{}", self.metrics());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the data plane says of itself.
    fn metrics(&self) -> String {
        scrape(self.fleet.servers["dp-1"].metrics).unwrap_or_default()
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        value.unwrap_or(-1.0)
    }

    fn requests(&self, node: &str, outcome: &str) -> f64 {
        self.metric(&format!("provost_gpu_node_requests_total{{node=\"{node}\",outcome=\"{outcome}\"}}"))
    }

    fn holds_weights(&self, node: &str) -> bool {
        self.metric(&format!("provost_gpu_node_models{{node=\"{node}\",state=\"resident\"}}")) == 1.0
    }

    /// The nodes that say that they have a declared model of this name.
    fn declared_on(&self, model: &str) -> Vec<String> {
        let said = self.fleet.ok("cp-1", &["model", "status", "--json"]);
        let said: Value = serde_json::from_str(&said).unwrap();
        let nodes = said["nodes"].as_array().cloned().unwrap_or_default();
        let has = |node: &&Value| {
            let models = node["models"].as_array().cloned().unwrap_or_default();
            models.iter().any(|found| found["name"] == model && found["declared"] == true)
        };
        nodes.iter().filter(has).map(|node| node["node"].as_str().unwrap().to_owned()).collect()
    }

    /// What a node says of a model; null: it does not have it.
    fn standing(&self, node: &str, model: &str) -> Value {
        let said = self.fleet.ok("cp-1", &["model", "status", "--node", node, "--json"]);
        let said: Value = serde_json::from_str(&said).unwrap();
        let models = said["nodes"][0]["models"].as_array().cloned().unwrap_or_default();
        models.into_iter().find(|found| found["name"] == model).unwrap_or_default()
    }

    /// Whether the agent sees the model: it loads nothing.
    async fn lists_the_model(&self) -> bool {
        let url = format!("http://{}/v1/models", self.fleet.servers["dp-1"].http);
        match client().get(url).bearer_auth(&self.token).timeout(SOON).send().await {
            Ok(response) => response.text().await.is_ok_and(|text| text.contains("tiny-chat")),
            Err(_) => false,
        }
    }

    /// Asks the model something. The future is its own, for tests that do something meanwhile.
    fn chat(&self, question: &str) -> impl Future<Output = Answer> + Send + use<> {
        let url = format!("http://{}/v1/chat/completions", self.fleet.servers["dp-1"].http);
        let body = json!({ "model": "tiny-chat", "max_tokens": 8, "temperature": 0,
            "messages": [{ "role": "user", "content": question }] });
        let token = self.token.clone();
        async move {
            let response = client().post(url).bearer_auth(token).json(&body).timeout(SOON).send().await.unwrap();
            let status = response.status().as_u16();
            let header = response.headers().get("retry-after");
            let retry_after = header.and_then(|value| value.to_str().ok()?.parse().ok());
            let text = response.text().await.unwrap();
            Answer { status, retry_after, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
        }
    }

    /// Has the recording of the fixtures written down.
    async fn transcribe(&self) -> Answer {
        let url = format!("http://{}/v1/audio/transcriptions", self.fleet.servers["dp-1"].http);
        let mut body = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ntiny-whisper\r\n--b\r\n\
            Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n"
            .to_vec();
        body.extend(fs::read(fixtures().join("glide.wav")).unwrap());
        body.extend(b"\r\n--b--\r\n");
        let request = client().post(url).bearer_auth(&self.token).timeout(SOON);
        let request = request.header("content-type", "multipart/form-data; boundary=b");
        let response = request.body(body).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        Answer { status, retry_after: None, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    /// What the audit log has.
    fn records(&self) -> Vec<Value> {
        let dir = self.fleet.servers["cp-1"].data().join("audit");
        let args = ["audit", "query", "--json", "--limit", "10000", "--tenant", "acme", "--dir"];
        let output = provost().args(args).arg(dir).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].take()).collect()
    }

    /// What the audit log has of chats: phases by call.
    fn calls(&self) -> BTreeMap<String, Vec<String>> {
        let records = self.records();
        let is_chat = |record: &&Value| record["mcp.method.name"] == "inference/chat" && record["phase"] == "intent";
        let mut calls: BTreeMap<String, Vec<String>> =
            records.iter().filter(is_chat).map(|r| (r["call_id"].as_str().unwrap().to_owned(), vec![])).collect();
        for record in &records {
            if let Some(phases) = record["call_id"].as_str().and_then(|id| calls.get_mut(id)) {
                phases.push(record["phase"].as_str().unwrap().to_owned());
                phases.sort();
            }
        }
        calls
    }
}

/// Where models and recordings of tests are.
fn fixtures() -> PathBuf {
    root().join("gpu-node/infer/tests/fixtures")
}

/// Adds a model of the fixtures to a directory. What it is known by comes last: it is not seen before it is whole.
fn add_model(models: &Path, name: &str) {
    let (aside, files) = (models.join(format!(".{name}")), fs::read_dir(fixtures().join(name)).unwrap());
    fs::create_dir(&aside).unwrap();
    for path in files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&path, aside.join(path.file_name().unwrap())).unwrap();
    }
    fs::rename(aside, models.join(name)).unwrap();
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn good(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body["choices"][0]["message"]["content"].is_string(), "{}", answer.body);
}

#[test]
fn requests_go_where_the_weights_are_and_on_when_that_node_is_lost() {
    let runtime = Runtime::new().unwrap();
    let mut scene = Scene::start(&runtime);

    // The first request loads the weights somewhere; the next ones follow them, whatever they say.
    good(&runtime.block_on(scene.chat("hello")));
    scene.until("one holds the weights", |s| GPUS.iter().any(|name| s.holds_weights(name)));
    let holder = GPUS.into_iter().find(|name| scene.holds_weights(name)).unwrap();
    let other = GPUS.into_iter().find(|name| *name != holder).unwrap();
    for n in 0..5 {
        good(&runtime.block_on(scene.chat(&format!("question {n}"))));
    }
    assert_eq!((scene.requests(holder, "answered"), scene.requests(other, "answered")), (6.0, 0.0));
    assert!(!scene.holds_weights(other));

    // What is declared comes to every node that runs models, each of which is asked once.
    let path = scene.models.path().join("tiny-chat");
    let declared = format!(
        "apiVersion: provost/v1\nkind: Model\nmetadata: {{ name: tiny }}\nspec: {{ source: {{ path: {path:?} }} }}\n"
    );
    apply(&scene.fleet, "cp-1", "model.yaml", &declared);
    scene.until("all nodes have the declared model", |s| s.declared_on("tiny") == ["dp-1", GPUS[0], GPUS[1]]);

    // It stops, gets a request, and is killed before it has said anything: the other one answers.
    scene.fleet.servers[holder].signal(Signal::STOP);
    let asked = runtime.spawn(scene.chat("are you there?"));
    scene.until("the call runs", |s| s.metric("provost_calls_running") >= 1.0);
    std::thread::sleep(ON_ITS_WAY);
    scene.fleet.get(holder).kill();
    good(&runtime.block_on(asked).unwrap());
    assert_eq!((scene.requests(holder, "lost"), scene.requests(other, "answered")), (1.0, 1.0));
    assert_eq!(scene.metric("provost_gpu_tried_again_total"), 1.0);

    // The next request finds only the other one.
    good(&runtime.block_on(scene.chat("and now?")));
    assert_eq!((scene.requests(holder, "lost"), scene.requests(other, "answered")), (1.0, 2.0));

    // Each was one call, whoever was asked.
    scene.until("each call is in the files", |s| s.calls().values().filter(|phases| phases.len() == 2).count() == 8);
    let calls = scene.calls();
    assert_eq!(calls.len(), 8, "{calls:?}");
    assert!(calls.values().all(|phases| *phases == ["intent", "outcome"]), "{calls:?}");
    // The one whose node was lost says that two were asked.
    let is_outcome = |record: &&Value| record["phase"] == "outcome" && calls.contains_key(&text_of(&record["call_id"]));
    let mut attempts: Vec<u64> =
        scene.records().iter().filter(is_outcome).map(|record| record["attempt"].as_u64().unwrap()).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 1, 1, 1, 1, 1, 1, 2]);

    // Nobody is left: callers are told when to come again, and the model is not unknown.
    scene.fleet.get(other).kill();
    scene.until("it is not heard", |s| s.metric(&format!("provost_gpu_node_heard{{node=\"{other}\"}}")) == 0.0);
    let answer = runtime.block_on(scene.chat("anybody?"));
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert!(answer.retry_after.is_some_and(|seconds| seconds >= 1), "no Retry-After: {}", answer.body);
    assert!(answer.body.to_string().contains("PV-GPU-UNREACHED"), "{}", answer.body);

    // They come back, and are found by themselves.
    GPUS.iter().for_each(|name| scene.fleet.start(name));
    scene.until("it is answered again", |s| runtime.block_on(s.chat("hello again")).status == 200);
}

#[test]
fn a_model_that_was_imported_on_one_gpu_node_comes_to_the_other() {
    let runtime = Runtime::new().unwrap();
    let scene = Scene::start(&runtime);
    let from = scene.models.path().join("tiny-chat");
    let data = |node: &str| scene.fleet.servers[node].data();
    let mut import = provost();
    import.args(["model", "import", "--name", "copied", "--json"]).arg(&from).arg("--data-dir").arg(data("gpu-1"));
    let imported = import.output().unwrap();
    assert!(imported.status.success(), "{}", text(&imported));
    let imported: Value = serde_json::from_slice(&imported.stdout).unwrap();
    let digest = imported["digest"].as_str().unwrap();
    let declared = format!(
        "apiVersion: provost/v1\nkind: Model\nmetadata: {{ name: copied }}\nspec: {{ source: {{ blob: '{digest}' }} }}\n"
    );
    apply(&scene.fleet, "cp-1", "copied.yaml", &declared);
    scene.until("the other one has it", |s| s.standing("gpu-2", "copied")["digest"] == digest);
    let loaded = scene.fleet.ok("cp-1", &["model", "load", "copied", "--node", "gpu-2"]);
    assert!(loaded.contains("copied on gpu-2: ready"), "{loaded}");
    let place = data("gpu-2").join("models/blobs").join(digest.replace(':', "-"));
    assert_eq!(fs::read(place.join("model.safetensors")).unwrap(), fs::read(from.join("model.safetensors")).unwrap());
    // A node that runs no models for others copies none.
    assert_eq!(scene.standing("dp-1", "copied")["state"], "missing");
}

#[test]
fn more_requests_than_there_are_places_are_told_when_to_come_again() {
    let runtime = Runtime::new().unwrap();
    let mut scene = Scene::start(&runtime);
    scene.fleet.get("gpu-2").kill();
    scene.until("one is left", |s| s.metric("provost_gpu_node_heard{node=\"gpu-2\"}") == 0.0);
    good(&runtime.block_on(scene.chat("hello")));

    // A node that stands still ends nothing: its places are used up.
    scene.fleet.servers["gpu-1"].signal(Signal::STOP);
    let refused = runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        (0..CROWD).for_each(|n| drop(all.spawn(scene.chat(&format!("question {n}")))));
        let first = tokio::time::timeout(SOON, all.join_next()).await.expect("one is refused");
        all.abort_all();
        first.unwrap().unwrap()
    });
    scene.fleet.servers["gpu-1"].signal(Signal::CONT);
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.retry_after.is_some_and(|seconds| seconds >= 1), "no Retry-After: {}", refused.body);

    // Those that were let go of leave nothing behind there.
    scene.until("it answers", |s| runtime.block_on(s.chat("still there?")).status == 200);
    scene.until("nothing waits or runs", |s| {
        let now = |what: &str| s.metric(&format!("provost_gpu_node_{what}{{node=\"gpu-1\"}}"));
        (now("waiting"), now("running")) == (0.0, 0.0)
    });
}

/// The sound goes to the node beside the request, and again to the other one if that is lost.
#[test]
fn a_recording_is_written_down_on_a_gpu_node_and_on_the_other_when_that_is_lost() {
    let runtime = Runtime::new().unwrap();
    let mut scene = Scene::start(&runtime);
    add_model(scene.models.path(), "tiny-whisper");
    let more = "apiVersion: provost/v1\nkind: Role\nmetadata: { name: hears, tenant: acme }\n\
        spec: { rules: [ { models: ['tiny-whisper'] } ] }\n---\n\
        apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: hears, tenant: acme }\n\
        spec: { role: hears, principals: [bot] }\n";
    apply(&scene.fleet, "cp-1", "hears.yaml", more);
    scene.until("both nodes have the model", |s| GPUS.iter().all(|name| !s.standing(name, "tiny-whisper").is_null()));
    scene.until("the recording is written down", |s| runtime.block_on(s.transcribe()).status == 200);
    let before = runtime.block_on(scene.transcribe());
    assert!(before.body["text"].as_str().is_some_and(|text| !text.is_empty()), "{}", before.body);
    let holder = GPUS.into_iter().find(|name| scene.requests(name, "answered") >= 1.0).unwrap();

    scene.fleet.get(holder).kill();
    let after = runtime.block_on(scene.transcribe());
    assert_eq!((after.status, &after.body["text"]), (200, &before.body["text"]), "{}", after.body);
    let records = scene.records();
    assert!(records.iter().any(|record| record["mcp.method.name"] == "inference/transcribe"), "{records:?}");
}
