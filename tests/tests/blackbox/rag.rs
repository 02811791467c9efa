//! Documents through one node: questions about this repository's own documentation, with the real model.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Dev, agent_yaml, call_tool, modern, post, root, text, until};

/// The pages that are asked about: enough of them that a right answer is found and not left over.
const PAGES: [&str; 9] = [
    "audit-privacy.md",
    "cluster.md",
    "egress.md",
    "governance.md",
    "plugins.md",
    "policy.md",
    "quotas.md",
    "resilience.md",
    "witness.md",
];
/// How long the model may take for them on a busy machine.
const READ_LIMIT: Duration = Duration::from_secs(220);
/// An answer is right if it is among so many.
const FIRST: usize = 3;

/// An agent who may use the tools of `docs`, which is there, and of `handbook`.
fn base() -> String {
    agent_yaml("{ tools: ['docs.*', 'handbook.*'] }")
        + "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: { name: docs, tenant: acme }\n\
           spec: { source: { rag: { folder: docs, model: all-minilm-l6-v2 } } }\n"
}

/// The folder with the model, or none and a line that says so; under CI its absence is a failure.
fn models() -> Option<PathBuf> {
    let models = std::env::var_os("PROVOST_TEST_MODELS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/provost/models"),
        PathBuf::from,
    );
    if models.join("all-minilm-l6-v2/model.safetensors").is_file() {
        return Some(models);
    }
    let reason = format!("skipped: no MiniLM in {}; run scripts/fetch_minilm.py", models.display());
    assert!(std::env::var("CI").is_err(), "{reason}");
    eprintln!("{reason}");
    None
}

fn corpus(data: &Path) -> PathBuf {
    let folder = data.join("corpora/acme/docs");
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn listed(dev: &Dev) -> Value {
    call_tool(dev, "docs.documents", json!({}))["result"]["structuredContent"].clone()
}

fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

/// That a citation is true: its lines are in the file, and are what was found.
fn check_citation(folder: &Path, result: &Value) {
    let citation = &result["citation"];
    let file = fs::read_to_string(folder.join(citation["document"].as_str().unwrap())).unwrap();
    let line = |of: &str| {
        let n = usize::try_from(citation[of].as_u64().unwrap()).unwrap();
        file.lines().nth(n - 1).unwrap().trim_end().to_owned()
    };
    let text = result["text"].as_str().unwrap();
    let (first, last) = (text.lines().next().unwrap(), text.lines().last().unwrap());
    assert!(line("from").contains(first), "{citation}: {first}");
    assert!(line("to").contains(last), "{citation}: {last}");
    let heading = citation["headingPath"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(file.lines().any(|line| line.starts_with('#') && line.replace('`', "").contains(heading)), "{citation}");
}

#[test]
fn questions_about_these_docs_are_answered_with_their_place() {
    let Some(models) = models() else { return };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let folder = corpus(&data);
    for page in PAGES {
        fs::copy(root().join("docs").join(page), folder.join(page)).unwrap();
    }
    let dev = Dev::start_in(&data, Some(&base()), &["--models", models.to_str().unwrap()]);
    let began = Instant::now();
    let listed = loop {
        let listed = listed(&dev);
        if listed["complete"] == true && listed["pending"] == 0 {
            break listed;
        }
        assert!(began.elapsed() < READ_LIMIT, "the documents are not read: {listed}");
        thread::sleep(Duration::from_millis(200));
    };
    let documents = listed["documents"].as_array().unwrap();
    assert!(documents.len() == PAGES.len() && documents.iter().all(|d| d["state"] == "indexed"), "{listed}");

    for (question, document, heading) in [
        ("How is the machine code of a component protected after it was compiled?", "plugins.md", "Trust"),
        ("What does Retry-After say when a limit is reached?", "quotas.md", "Who runs into a limit"),
        (
            "How do I take a legal hold so that audit records are not deleted?",
            "cluster.md",
            "How long audit records are kept",
        ),
        ("How do I open a private network for the gateway?", "egress.md", "A private network"),
        ("How do calls wait in a fair queue for a place when an upstream is slow?", "resilience.md", "Places"),
    ] {
        let answer = call_tool(&dev, "docs.search", json!({ "query": question, "limit": FIRST }));
        let results = answer["result"]["structuredContent"]["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let is_right = |result: &&Value| {
            let citation = &result["citation"];
            let last = citation["headingPath"].as_array().and_then(|path| path.last());
            citation["document"] == document && last.is_some_and(|last| last == heading)
        };
        let found = results.iter().find(is_right).unwrap_or_else(|| panic!("{question}: {answer}"));
        check_citation(&folder, found);
        assert!(said(&answer).contains(&format!("{document}, lines ")), "{answer}");
    }
    // Found by meaning: the page says neither `wipe` nor `somebody`.
    let query = json!({ "query": "wipe somebody's personal data from the log", "mode": "vector", "limit": 5 });
    let answer = call_tool(&dev, "docs.search", query);
    assert!(said(&answer).contains("audit-privacy.md"), "{answer}");
    // The question's tokens are the caller's; what the index took is nobody's.
    let query = text(&dev.cli(&["audit", "query", "--json", "--limit", "10000"]));
    assert!(query.contains("docs.search") && !query.contains("inference/embed"), "{query}");

    // The example, as its page says.
    let example = root().join("examples/plugins/rag");
    copy(&example.join("handbook"), &data.join("corpora/acme/handbook"));
    let output = dev.cli(&["apply", "-f", example.join("plugin.yaml").to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    let query = json!({ "query": "Who pays when my laptop is stolen?", "limit": FIRST });
    let answer = until(|| {
        let answer = call_tool(&dev, "handbook.search", query.clone());
        (answer["result"]["structuredContent"]["complete"] == true).then_some(answer)
    });
    assert!(said(&answer).contains("equipment.md, lines ") && said(&answer).contains("Loss and theft"), "{answer}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn without_folder_or_model_a_caller_is_told_which() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let dev = Dev::start_in(&data, Some(&base()), &[]);
    let search = |mode: &str| call_tool(&dev, "docs.search", json!({ "query": "anything", "mode": mode }));
    let answer = until(|| Some(search("keyword")).filter(|answer| said(answer).starts_with("PV-RAG-CORPUS")));
    assert!(answer["result"]["isError"] == true && said(&answer).contains("corpora/acme/docs"), "{answer}");
    fs::write(corpus(&data).join("a.md"), "# A\n\ntext\n").unwrap();
    let answer = until(|| Some(search("hybrid")).filter(|answer| said(answer).starts_with("PV-RAG-MODEL")));
    assert!(said(&answer).contains("all-minilm-l6-v2"), "{answer}");
    until(|| listed(&dev)["problem"].as_str().is_some_and(|why| why.starts_with("PV-RAG-MODEL")).then_some(()));
    // Words are not found in what was not read, and nobody is told that waiting helps.
    let answer = until(|| Some(search("keyword")).filter(|answer| said(answer).contains("PV-RAG-MODEL")));
    let found = &answer["result"]["structuredContent"];
    assert!(answer["result"]["isError"] != true && found["results"] == json!([]), "{answer}");
    assert!(found["problem"].as_str().unwrap().starts_with("PV-RAG-MODEL") && found["complete"] == false, "{answer}");
    assert!(!said(&answer).contains("ask again later"), "{answer}");
    // What is wrong with a document of the resource is said with its field, and its tools are Provost's own.
    let file = dev.data.join("change.yaml");
    let wrong = base().replace("folder: docs", "folder: ../other");
    fs::write(&file, wrong).unwrap();
    let output = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
    assert!(!output.status.success() && text(&output).contains("is not a name"), "{}", text(&output));
    let (_, tools) = post(dev.mcp(), dev.token(), &modern("tools/list", json!({})));
    let tools = tools["result"]["tools"].as_array().unwrap();
    assert!(tools.iter().any(|tool| tool["name"] == "docs.search" && tool["outputSchema"].is_object()), "{tools:?}");
    let shown = text(&dev.cli(&["plugin", "list"]));
    assert!(shown.contains("built-in"), "{shown}");
}
