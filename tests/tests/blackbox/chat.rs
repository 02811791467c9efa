//! `provost chat`: one answer, a conversation on a terminal, and clear words where there is no answer.

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    harness::{Dev, binary, post_raw, text},
    inference::models_dir,
};

/// The role permits `tiny-chat` and `twin`, and no other model.
const YAML: &str = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n---\n\
apiVersion: provost/v1\nkind: Principal\nmetadata: { name: bot, tenant: acme }\nspec: {}\n---\n\
apiVersion: provost/v1\nkind: Role\nmetadata: { name: ai, tenant: acme }\n\
spec: { rules: [ { models: ['tiny-chat', 'twin'] } ] }\n---\n\
apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: ai, tenant: acme }\n\
spec: { role: ai, principals: [bot] }\n";

/// What makes an answer short, and the same each time.
const SHORT: [&str; 6] = ["--max-tokens", "8", "--temperature", "0", "--seed", "1"];

/// The model once more, under another name.
fn copy(models: &Path, name: &str) {
    let to = models.join(name);
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(models.join("tiny-chat")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn start(models: &tempfile::TempDir) -> Dev {
    Dev::start(Some(YAML), &["--models", models.path().to_str().unwrap()])
}

/// What the API answers to the same request, whole.
fn whole(dev: &Dev, messages: &Value) -> Value {
    let body = json!({ "model": "tiny-chat", "max_tokens": 8, "temperature": 0, "seed": 1, "messages": messages });
    let headers = [("authorization".to_owned(), format!("Bearer {}", dev.token()))];
    let url = format!("{}/v1/chat/completions", dev.base());
    let (status, answer) = post_raw(&url, &headers, body.to_string().into_bytes());
    assert_eq!(status, 200, "{answer}");
    answer
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing is said beside the answer where nobody looks");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_prompt_is_answered_as_the_api_answers_it() {
    let models = models_dir();
    copy(models.path(), "other");
    let dev = start(&models);
    let chat = |args: &[&str]| dev.cli(&[&["chat"], &SHORT[..], args].concat());
    let expect = whole(&dev, &json!([{ "role": "user", "content": "hello you" }]));
    let content = expect["choices"][0]["message"]["content"].as_str().unwrap();

    // Of the two models one is the caller's, so none must be named.
    assert_eq!(said(&chat(&["hello", "you"])), format!("{content}\n"));
    assert_eq!(said(&chat(&["--model", "tiny-chat", "hello you"])), format!("{content}\n"));
    let by_url = ["--url", dev.mcp(), "--token", dev.token(), "hello you"];
    assert_eq!(said(&chat(&by_url)), format!("{content}\n"));
    let piped = dev.cli_stdin(&[&["chat"], &SHORT[..]].concat(), "hello you\n");
    assert_eq!(said(&piped), format!("{content}\n"));

    let answer: Value = serde_json::from_str(&said(&chat(&["--json", "hello you"]))).unwrap();
    assert_eq!((&answer["model"], &answer["content"]), (&json!("tiny-chat"), &json!(content)), "{answer}");
    assert_eq!(answer["finish_reason"], expect["choices"][0]["finish_reason"], "{answer}");
    for count in ["prompt_tokens", "completion_tokens"] {
        assert_eq!(answer["usage"][count], expect["usage"][count], "{answer}");
    }
    let with_system = json!([{ "role": "system", "content": "be brief" }, { "role": "user", "content": "hello you" }]);
    let expect = whole(&dev, &with_system);
    let answer: Value = serde_json::from_str(&said(&chat(&["--json", "--system", "be brief", "hello you"]))).unwrap();
    assert_eq!(answer["content"], expect["choices"][0]["message"]["content"], "{answer}");
    assert_eq!(answer["usage"]["prompt_tokens"], expect["usage"]["prompt_tokens"], "{answer}");

    let audit = dev.cli(&["audit", "query", "--json", "--limit", "1000"]);
    assert!(text(&audit).contains("inference/chat"), "each answer is a call like others: {}", text(&audit));
}

#[test]
fn what_is_refused_is_told_with_its_code_and_what_to_do() {
    let models = models_dir();
    copy(models.path(), "other");
    copy(models.path(), "twin");
    let dev = start(&models);
    let refused = |args: &[&str], status: i32, expect: &[&str]| {
        let output = dev.cli(&[&["chat"], args].concat());
        let told = text(&output);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {told}");
        assert!(output.stdout.is_empty() && told.starts_with("error: PV-"), "{args:?}: {told}");
        assert!(expect.iter().all(|part| told.contains(part)), "{args:?}: {told}");
    };
    refused(&["hello"], 1, &["PV-CLI-MODEL", "there are 2 chat models: tiny-chat, twin", "--model"]);
    // What a role does not permit looks as if it were not there.
    for model in ["nothing", "other"] {
        refused(&["--model", model, "hello"], 1, &["PV-MODEL-UNKNOWN", model, "next: "]);
    }
    refused(&["--model", "twin", "--token", "pv_wrong", "hello"], 1, &["HTTP 401", "token create"]);
    refused(&["--model", "twin", "--temperature", "1e9", "hello"], 1, &["PV-MODEL-REQUEST", "temperature"]);
    // Nothing listens on port 1.
    refused(&["--url", "http://127.0.0.1:1/mcp", "hello"], 1, &["PV-CLI-UNREACHABLE", "127.0.0.1:1"]);
    refused(&["--url", "quic://127.0.0.1:1", "hello"], 2, &["PV-CLI-URL", "over HTTP"]);
    refused(&["--model", "twin"], 2, &["PV-CLI-PROMPT", "stdin"]);
    for args in [["--temperature", "nan", "hello"], ["--max-tokens", "0", "hello"]] {
        assert_eq!(dev.cli(&[&["chat"], &args[..]].concat()).status.code(), Some(2), "{args:?}");
    }
}

/// The second question is sent with the first and its answer, so the model reads more.
#[test]
fn on_a_terminal_it_is_a_conversation() {
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no `script`, which makes a terminal");
        return;
    }
    let models = models_dir();
    let dev = start(&models);
    let command = format!("{} chat {}", binary("provost").display(), SHORT.join(" "));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &command, "/dev/null"]).env("PROVOST_DATA_DIR", &dev.data);
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The end of it is Ctrl-D at the beginning of a line.
    child.stdin.take().unwrap().write_all(b"hello\n\nhello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    let read: Vec<u64> = told
        .lines()
        .filter_map(|line| line.split_once("(tiny-chat: ")?.1.split_once(" tokens read, ")?.0.parse().ok())
        .collect();
    assert!(matches!(read[..], [first, second] if second > first), "{read:?}: {told}");
}
