//! Documents: what is found, what is cited, whose it is, and what becomes of changes, failures and a busy model.
//!
//! The model is a fake that hashes words: texts with the same words are near. What real embeddings find is tested in
//! the black-box tests.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use provost_data_pipeline::Execution;
use provost_data_tools::{Limits, Plugin, Toolbox};
use provost_types::{
    BoxFuture, BoxStream, CallStatus, ChatEvent, ChatRequest, EmbedRequest, EmbedResponse, Inference, InferenceError,
    InferenceErrorKind, Metadata, ModelInfo, ModelKind, Name, PluginSource, RagChunk, RagPlugin, Resource, Revision,
    Snapshot, Spec, TokenUsage,
};
use serde_json::{Value, json};

use crate::bench::*;

/// What is not in a list.
static NULL: Value = Value::Null;
const DIMENSIONS: usize = 64;
/// Words that the fake reads at most.
const MAX_WORDS: usize = 40;
/// What it takes in no text, however short.
const REFUSED: char = '\u{2620}';

#[derive(Default)]
struct Words {
    is_missing: AtomicBool,
    /// So many requests are told to come again.
    busy: AtomicUsize,
    /// Texts that were embedded.
    embedded: AtomicUsize,
}

fn refused(kind: InferenceErrorKind) -> InferenceError {
    InferenceError { kind, message: "PV-TEST: refused".to_owned(), retry_after_ms: Some(1) }
}

fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0_f32; DIMENSIONS];
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 3) {
        let hash = word.bytes().fold(7_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        vector[hash % DIMENSIONS] += 1.0;
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-9);
    vector.iter().map(|x| x / length).collect()
}

impl Inference for Words {
    fn models(&self) -> Vec<ModelInfo> {
        let model = |name: &str, kind| ModelInfo {
            name: name.to_owned(),
            kind,
            architecture: "words".to_owned(),
            context_tokens: 40,
            dimensions: DIMENSIONS as u32,
            created: 1,
        };
        let models = vec![model("chat", ModelKind::Chat), model("words", ModelKind::Embedding)];
        if self.is_missing.load(Ordering::Relaxed) { Vec::new() } else { models }
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        Box::pin(async move {
            let is_busy =
                self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if is_busy {
                return Err(refused(InferenceErrorKind::Busy));
            }
            let is_refused = |text: &String| text.split_whitespace().count() > MAX_WORDS || text.contains(REFUSED);
            if request.inputs.iter().any(is_refused) {
                return Err(refused(InferenceErrorKind::InvalidRequest));
            }
            self.embedded.fetch_add(request.inputs.len(), Ordering::Relaxed);
            let vectors = request.inputs.iter().map(|text| vector(text)).collect();
            Ok(EmbedResponse { vectors, usage: TokenUsage { prompt: 3, completion: 0 } })
        })
    }

    fn chat(
        &self,
        _: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        Box::pin(async { Err(refused(InferenceErrorKind::ModelNotFound)) })
    }
}

/// A node's data directory with corpora.
struct Node {
    dir: tempfile::TempDir,
    model: Arc<Words>,
}

impl Node {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), model: Arc::default() }
    }

    fn folder(&self, tenant: &str) -> PathBuf {
        self.dir.path().join("corpora").join(tenant).join("handbook")
    }

    fn write(&self, tenant: &str, path: &str, content: impl AsRef<[u8]>) {
        let file = self.folder(tenant).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    fn start(&self) -> Arc<Toolbox> {
        let limits = Limits { corpus_pause: Duration::from_millis(20), ..Limits::default() };
        let inference: Arc<dyn Inference> = self.model.clone();
        toolbox_in(self.dir.path(), inference, limits)
    }

    /// The plugin `up` of `acme`.
    fn plugin(&self) -> (Arc<Toolbox>, Arc<Plugin>) {
        let toolbox = self.start();
        toolbox.reconcile(&snapshot(&[("up", spec(source()))]));
        let plugin = toolbox.plugin(&name("acme"), "up").unwrap();
        (toolbox, plugin)
    }
}

fn source() -> PluginSource {
    PluginSource::Rag(Box::new(rag()))
}

fn rag() -> RagPlugin {
    RagPlugin {
        folder: name("handbook"),
        model: "words".to_owned(),
        chunk: RagChunk { words: 40, overlap: None },
        include: [].into(),
        max_results: 0,
    }
}

fn content(execution: &Execution) -> Value {
    body(execution)["structuredContent"].clone()
}

async fn search(plugin: &Plugin, query: &str, mode: &str) -> Value {
    let found = call(plugin, "search", json!({"query": query, "mode": mode})).await;
    assert_eq!(found.status, CallStatus::Ok, "{}", text(&found));
    content(&found)
}

/// Documents of the results, in order.
fn cited(found: &Value) -> Vec<String> {
    let results = found["results"].as_array().unwrap().iter();
    results.map(|result| result["citation"]["document"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the corpus is read, and says what `documents` says.
async fn settled(plugin: &Plugin, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..1_200 {
        last = content(&call(plugin, "documents", json!({})).await);
        if last["complete"] == true && last["pending"] == 0 && is_so(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in a minute: {last}");
}

fn state<'a>(listed: &'a Value, document: &str) -> &'a Value {
    let documents = listed["documents"].as_array().unwrap();
    documents.iter().find(|listed| listed["document"] == document).unwrap_or(&NULL)
}

/// A file of one page for each text, as it is written by hand.
fn pdf(pages: &[&str]) -> Vec<u8> {
    let kids: Vec<String> = (0..pages.len()).map(|n| format!("{} 0 R", 4 + 2 * n)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Count {} /Kids [{}] >>", pages.len(), kids.join(" ")),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
    ];
    for (n, page) in pages.iter().enumerate() {
        let content = format!("BT /F1 12 Tf 72 720 Td ({page}) Tj ET");
        let resources = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 595 842]";
        objects.push(format!("<< /Type /Page /Parent 2 0 R {resources} /Contents {} 0 R >>", 5 + 2 * n));
        objects.push(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()));
    }
    let (mut file, mut offsets) = (b"%PDF-1.4\n".to_vec(), Vec::new());
    for (n, object) in objects.iter().enumerate() {
        offsets.push(file.len());
        file.extend(format!("{} 0 obj\n{object}\nendobj\n", n + 1).bytes());
    }
    let (table, size) = (file.len(), objects.len() + 1);
    file.extend(format!("xref\n0 {size}\n0000000000 65535 f \n").bytes());
    for offset in offsets {
        file.extend(format!("{offset:010} 00000 n \n").bytes());
    }
    file.extend(format!("trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n").bytes());
    file
}

const TRAVEL: &str = "# Travel\n\nBook trains early.\n\n## Hotels\n\nA hotel may cost ninety euros a night.\n\n## Meals\n\n\
                      Receipts for meals are not needed.\n";
const LEAVE: &str = "# Leave\n\nThirty days of holiday a year.\n\n## Illness\n\nCall the office before nine.\n";

#[tokio::test]
async fn what_is_found_is_cited_with_its_place() {
    let node = Node::new();
    node.write("acme", "travel.md", TRAVEL);
    node.write("acme", "people/leave.md", LEAVE);
    node.write("acme", "tools.txt", "The printer stands in room seven.\n\nToner lies beside it.\n");
    node.write("acme", "car.pdf", pdf(&["Company cars are electric.", "Charging cards open the garage."]));
    node.write("acme", "code.rs", "fn hotels() {}");
    let (_toolbox, plugin) = node.plugin();
    let listed = settled(&plugin, |_| true).await;
    let names: Vec<&str> =
        listed["documents"].as_array().unwrap().iter().map(|d| d["document"].as_str().unwrap()).collect();
    assert_eq!(names, ["car.pdf", "people/leave.md", "tools.txt", "travel.md"]);
    assert_eq!(state(&listed, "car.pdf")["pages"], 2);

    for mode in ["hybrid", "vector", "keyword"] {
        let found = search(&plugin, "What may a hotel cost a night?", mode).await;
        let first = &found["results"][0];
        let citation = &first["citation"];
        assert_eq!(citation["document"], "travel.md", "{mode}: {found}");
        assert_eq!(citation["headingPath"], json!(["Travel", "Hotels"]), "{mode}");
        assert_eq!((&citation["title"], &citation["from"], &citation["to"]), (&json!("Travel"), &json!(7), &json!(7)));
        assert_eq!(first["text"], "A hotel may cost ninety euros a night.");
        assert!(citation["digest"].as_str().unwrap().starts_with("sha256:"), "{citation}");
        assert_eq!((&found["complete"], &found["mode"]), (&json!(true), &json!(mode)));
    }
    let found = search(&plugin, "charging cards garage", "hybrid").await;
    assert_eq!(
        (&found["results"][0]["citation"]["document"], &found["results"][0]["citation"]["page"]),
        (&json!("car.pdf"), &json!(2))
    );
    let answer = call(&plugin, "search", json!({"query": "charging cards garage", "limit": 1})).await;
    assert!(text(&answer).starts_with("[1] car.pdf, page 2, lines 2-2"), "{}", text(&answer));
    assert_eq!(answer.usage.tokens_in, 3, "what the question cost is the caller's");
    // Around a citation.
    let lines = content(&call(&plugin, "read", json!({"document": "travel.md", "from": 5, "to": 7})).await);
    assert_eq!(lines["text"], "## Hotels\n\nA hotel may cost ninety euros a night.");
    assert_eq!((&lines["from"], &lines["to"], &lines["lines"]), (&json!(5), &json!(7), &json!(11)));
}

#[tokio::test]
async fn wrong_arguments_say_what_is_wrong_and_words_are_no_syntax() {
    let node = Node::new();
    node.write("acme", "travel.md", TRAVEL);
    let (_toolbox, plugin) = node.plugin();
    settled(&plugin, |_| true).await;
    for (tool, arguments, code) in [
        ("search", json!({}), "PV-RAG-ARGUMENTS"),
        ("search", json!({"query": " "}), "PV-RAG-ARGUMENTS"),
        ("search", json!({"query": "x", "limit": 0}), "PV-RAG-ARGUMENTS"),
        ("search", json!({"query": "x", "limit": 21}), "PV-RAG-ARGUMENTS"),
        ("search", json!({"query": "word ".repeat(MAX_WORDS + 1)}), "PV-RAG-ARGUMENTS"),
        ("documents", json!({"limit": 1000}), "PV-RAG-ARGUMENTS"),
        ("read", json!({"document": "travel.md", "from": 0}), "PV-RAG-ARGUMENTS"),
        ("read", json!({"document": "travel.md", "from": 100}), "PV-RAG-ARGUMENTS"),
        ("read", json!({"document": "../handbook/travel.md"}), "PV-RAG-DOCUMENT"),
        ("read", json!({"document": "/etc/passwd"}), "PV-RAG-DOCUMENT"),
    ] {
        let answer = call(&plugin, tool, arguments.clone()).await;
        assert_eq!(answer.status, CallStatus::ToolError, "{tool} {arguments}");
        assert!(text(&answer).starts_with(code), "{arguments}: {}", text(&answer));
    }
    assert_eq!(call(&plugin, "erase", json!({})).await.status, CallStatus::RpcError);
    for query in [
        "\"",
        "hotel AND (",
        "text:hotel",
        "NEAR(hotel",
        "hotel*",
        "-hotel",
        "' OR 1=1 --",
        "{hotel} : x",
        "\u{0}hotel",
    ] {
        search(&plugin, query, "keyword").await;
    }
    let found = search(&plugin, "\"hotel\" NOT night", "keyword").await;
    assert_eq!(found["results"][0]["citation"]["headingPath"], json!(["Travel", "Hotels"]), "{found}");
}

#[tokio::test]
async fn files_come_change_and_go_and_only_they_are_read_again() {
    let node = Node::new();
    node.write("acme", "travel.md", TRAVEL);
    node.write("acme", "leave.md", LEAVE);
    let (toolbox, plugin) = node.plugin();
    settled(&plugin, |_| true).await;
    let first = node.model.embedded.load(Ordering::Relaxed);
    assert!(first >= 5, "{first}");

    node.write("acme", "new.txt", "The canteen opens at noon.");
    settled(&plugin, |listed| state(listed, "new.txt")["state"] == "indexed").await;
    assert_eq!(node.model.embedded.load(Ordering::Relaxed), first + 1);
    assert_eq!(cited(&search(&plugin, "canteen", "keyword").await), ["new.txt"]);

    node.write("acme", "new.txt", "The canteen is closed. The bakery opens at eight.");
    settled(&plugin, |listed| state(listed, "new.txt")["bytes"] == 49).await;
    assert!(cited(&search(&plugin, "noon", "keyword").await).is_empty(), "nothing of before is left");
    assert_eq!(search(&plugin, "bakery", "vector").await["results"][0]["citation"]["document"], "new.txt");

    fs::remove_file(node.folder("acme").join("new.txt")).unwrap();
    settled(&plugin, |listed| state(listed, "new.txt").is_null()).await;
    for mode in ["hybrid", "vector", "keyword"] {
        assert!(!cited(&search(&plugin, "bakery canteen", mode).await).contains(&"new.txt".to_owned()), "{mode}");
    }

    // Started again, it has what it had.
    // What changed a moment ago is looked at once more, and waits for that: the results are compared alone.
    let before = search(&plugin, "holiday", "hybrid").await["results"].clone();
    let embedded = node.model.embedded.load(Ordering::Relaxed);
    toolbox.stop();
    let (_again, plugin) = node.plugin();
    settled(&plugin, |_| true).await;
    assert_eq!(search(&plugin, "holiday", "hybrid").await["results"], before);
    assert_eq!(node.model.embedded.load(Ordering::Relaxed), embedded + 1, "the question only");
}

#[tokio::test]
async fn what_cannot_be_read_says_why_and_stops_nothing() {
    let node = Node::new();
    node.write("acme", "a.pdf", &pdf(&["x"])[..200]);
    node.write("acme", "b.pdf", "no such format");
    node.write("acme", "c.md", b"\xff\xfe broken");
    node.write("acme", "d.txt", b"zero\0byte");
    node.write("acme", "e.md", format!("The model does not take {REFUSED} this."));
    let large = fs::File::create(node.folder("acme").join("f.txt")).unwrap();
    large.set_len((32 << 20) + 1).unwrap();
    node.write("acme", "z.md", TRAVEL);
    std::os::unix::fs::symlink("/etc/hostname", node.folder("acme").join("link.md")).unwrap();
    let (_toolbox, plugin) = node.plugin();
    let listed = settled(&plugin, |_| true).await;
    for (document, why) in
        [("b.pdf", "PDF"), ("c.md", "UTF-8"), ("d.txt", "NUL"), ("e.md", "piece"), ("f.txt", "bytes")]
    {
        let state = state(&listed, document);
        assert_eq!(state["state"], "failed", "{state}");
        assert!(state["reason"].as_str().unwrap().contains(why), "{state}");
    }
    assert_eq!(state(&listed, "a.pdf")["state"], "failed", "{listed}");
    assert!(listed["leftOut"].to_string().contains("link.md"), "{listed}");
    assert_eq!(search(&plugin, "hotel", "hybrid").await["results"][0]["citation"]["document"], "z.md");
    let answer = call(&plugin, "read", json!({"document": "c.md"})).await;
    assert!(text(&answer).starts_with("PV-RAG-DOCUMENT") && text(&answer).contains("UTF-8"), "{}", text(&answer));
    // It is read when it is repaired.
    node.write("acme", "c.md", "Repaired umbrellas.");
    settled(&plugin, |listed| state(listed, "c.md")["state"] == "indexed").await;
    assert_eq!(cited(&search(&plugin, "umbrellas", "keyword").await), ["c.md"]);
}

fn of_tenants(tenants: &[&str]) -> Snapshot {
    let resource = |tenant: &str| Resource {
        metadata: Metadata { name: name("up"), tenant: Some(name(tenant)), labels: BTreeMap::new() },
        spec: Spec::Plugin(spec(source())),
        created: Revision(1),
        modified: Revision(1),
    };
    let resources: BTreeMap<_, _> = tenants
        .iter()
        .map(|tenant| {
            let resource = resource(tenant);
            (resource.key(), Arc::new(resource))
        })
        .collect();
    Snapshot { revision: Revision(1), resources: resources.into() }
}

#[tokio::test]
async fn a_tenant_sees_its_own_documents_only() {
    let node = Node::new();
    node.write("acme", "travel.md", TRAVEL);
    node.write("acme", "secret.md", "The recipe of acme is in safe forty.");
    node.write("other", "travel.md", "# Travel\n\nHotels are booked by the office.\n");
    let toolbox = node.start();
    toolbox.reconcile(&of_tenants(&["acme", "other", "third"]));
    let of = |tenant: &str| -> Arc<Plugin> { toolbox.plugin(&Name::new(tenant).unwrap(), "up").unwrap() };
    settled(&of("acme"), |_| true).await;
    let listed = settled(&of("other"), |_| true).await;
    assert_eq!(listed["documents"].as_array().unwrap().len(), 1, "{listed}");
    for mode in ["hybrid", "vector", "keyword"] {
        let found = search(&of("other"), "Where is the recipe of acme? hotel", mode).await;
        assert!(!found.to_string().contains("safe forty") && !found.to_string().contains("ninety"), "{mode}: {found}");
    }
    let answer = call(&of("other"), "read", json!({"document": "secret.md"})).await;
    assert!(text(&answer).starts_with("PV-RAG-DOCUMENT"), "{}", text(&answer));
    // A tenant without the folder has nothing, and is told so.
    eventually("the folder is missed", async || {
        text(&call(&of("third"), "search", json!({"query": "hotel"})).await).starts_with("PV-RAG-CORPUS")
    })
    .await;
    // What nobody has any more leaves the node.
    let index = |tenant: &str| node.dir.path().join("corpora-index").join(tenant);
    assert!(index("other").exists());
    toolbox.reconcile(&of_tenants(&["acme"]));
    assert!(!index("other").exists() && index("acme").exists());
}

#[tokio::test]
async fn nodes_with_the_same_files_give_the_same_answers() {
    let nodes = [Node::new(), Node::new()];
    let files = [("a.md", TRAVEL), ("b/a.md", TRAVEL), ("c.md", LEAVE), ("d.md", LEAVE)];
    let mut answers = Vec::new();
    for (node, is_reversed) in nodes.iter().zip([false, true]) {
        fs::create_dir_all(node.folder("acme")).unwrap();
        let (_toolbox, plugin) = node.plugin();
        // They come one after the other, in another order on each.
        let mut files: Vec<_> = files.to_vec();
        if is_reversed {
            files.reverse();
        }
        for (path, text) in files {
            node.write("acme", path, text);
            settled(&plugin, |listed| state(listed, path)["state"] == "indexed").await;
        }
        let mut found = Vec::new();
        for mode in ["hybrid", "vector", "keyword"] {
            for query in ["hotel", "holiday a year", "Call before nine", "receipts for meals"] {
                found.push(search(&plugin, query, mode).await["results"].clone());
            }
        }
        answers.push(found);
    }
    assert_eq!(answers[0], answers[1]);
    assert!(!answers[0][0].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn without_its_model_words_are_searched_and_the_rest_says_why() {
    let node = Node::new();
    node.write("acme", "travel.md", TRAVEL);
    node.model.busy.store(5, Ordering::Relaxed);
    let (_toolbox, plugin) = node.plugin();
    settled(&plugin, |_| true).await;
    assert_eq!(node.model.busy.load(Ordering::Relaxed), 0, "it waited");
    node.model.is_missing.store(true, Ordering::Relaxed);
    let answer = call(&plugin, "search", json!({"query": "hotel"})).await;
    assert!(text(&answer).starts_with("PV-RAG-MODEL") && text(&answer).contains("`words`"), "{}", text(&answer));
    assert_eq!(cited(&search(&plugin, "hotel", "keyword").await)[0], "travel.md");
    // What goes goes without it.
    fs::remove_file(node.folder("acme").join("travel.md")).unwrap();
    eventually("the document is gone", async || cited(&search(&plugin, "hotel", "keyword").await).is_empty()).await;
    let listed = content(&call(&plugin, "documents", json!({})).await);
    assert!(listed["problem"].as_str().unwrap().starts_with("PV-RAG-MODEL"), "{listed}");
    // What is new waits, and who searches is told for what.
    node.write("acme", "leave.md", LEAVE);
    eventually("a search says what it waits for", async || {
        let found = call(&plugin, "search", json!({"query": "leave", "mode": "keyword"})).await;
        content(&found)["problem"].is_string() && text(&found).contains("(1 wait): PV-RAG-MODEL")
    })
    .await;
    // It goes on when the model is back.
    node.model.is_missing.store(false, Ordering::Relaxed);
    settled(&plugin, |listed| listed["problem"].is_null() && !state(listed, "leave.md").is_null()).await;
}

#[tokio::test]
async fn a_piece_that_is_too_long_for_the_model_is_found_by_all_of_its_parts() {
    let node = Node::new();
    let filler = |n: usize| (0..60).map(|k| format!("filler{n}x{k}")).collect::<Vec<_>>().join(" ");
    node.write("acme", "long.txt", format!("giraffe giraffe {}\n{} elephant elephant", filler(1), filler(2)));
    node.write("acme", "short.txt", "something else entirely");
    let toolbox = node.start();
    let source = RagPlugin { chunk: RagChunk { words: 200, overlap: Some(0) }, ..rag() };
    toolbox.reconcile(&snapshot(&[("up", spec(PluginSource::Rag(Box::new(source))))]));
    let plugin = toolbox.plugin(&name("acme"), "up").unwrap();
    let listed = settled(&plugin, |_| true).await;
    assert_eq!(state(&listed, "long.txt")["pieces"], 1, "{listed}");
    for word in ["giraffe", "elephant"] {
        assert_eq!(cited(&search(&plugin, word, "vector").await)[0], "long.txt", "{word}");
    }
}

#[tokio::test]
async fn its_tools_are_described_and_only_read() {
    let node = Node::new();
    fs::create_dir_all(node.folder("acme")).unwrap();
    let (_toolbox, plugin) = node.plugin();
    let tools = plugin.tools().await.unwrap();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["search", "documents", "read"]);
    for tool in tools.iter() {
        let definition: Value = tool.raw.parse().unwrap();
        assert_eq!(definition["annotations"]["readOnlyHint"], true, "{}", tool.name);
        assert_eq!(definition["outputSchema"]["type"], "object", "{}", tool.name);
    }
    assert!(plugin.validate("search", &json!({"query": "x", "mode": "all"}).into()).is_err());
    assert!(plugin.validate("search", &json!({"query": "x", "mode": "vector"}).into()).is_ok());
}
