//! Recordings by the OpenAI-compatible API: what is said comes in every format, and each call of it is governed and recorded
//! like a chat, without the sound.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    guards::{CARD, MASKED, body, document, guard, yaml_of},
    harness::{Dev, START_LIMIT, call_tool, text},
    inference::{fixtures, models_of},
};

const BOUNDARY: &str = "a-boundary";
const MODEL: &str = "tiny-whisper";

/// An answer: status, kind, `Retry-After`, text.
struct Said {
    status: u16,
    kind: String,
    text: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn recording() -> Vec<u8> {
    std::fs::read(fixtures().join("glide.wav")).unwrap()
}

/// The body of a form.
fn form(fields: &[(&str, &str)], file: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(head.into_bytes());
    }
    if let Some(file) = file {
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"a secret name.wav\"\r\n\
                    Content-Type: audio/wav";
        body.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").into_bytes());
        body.extend(file);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    body
}

fn send(dev: &Dev, path: &str, (token, kind): (&str, &str), body: Vec<u8>) -> Said {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(START_LIMIT).build().unwrap();
        let mut request = client.post(format!("{}/v1/{path}", dev.base())).header("content-type", kind);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        let response = request.body(body).send().await.unwrap();
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        Said { status, kind: kind.unwrap_or_default(), text: response.text().await.unwrap() }
    })
}

fn post(dev: &Dev, token: &str, body: Vec<u8>) -> Said {
    send(dev, "audio/transcriptions", (token, format!("multipart/form-data; boundary={BOUNDARY}").as_str()), body)
}

/// The recording of the fixtures, with these fields and the model.
fn transcribe(dev: &Dev, fields: &[(&str, &str)]) -> Said {
    let fields = [&[("model", MODEL)][..], fields].concat();
    post(dev, dev.token(), form(&fields, Some(&recording())))
}

fn start(more: &str) -> (tempfile::TempDir, Dev) {
    let models = models_of(&[MODEL, "tiny-chat"]);
    let yaml = yaml_of(&[]) + more;
    let dev = Dev::start(Some(&yaml), &["--models", models.path().to_str().unwrap()]);
    (models, dev)
}

/// The last record of a transcription in this phase.
fn record(dev: &Dev, phase: &str) -> Value {
    let lines = text(&dev.cli(&["audit", "query", "--json"]));
    let mut records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_it = |r: &Value| {
        (&r["record"]["mcp.method.name"], &r["record"]["phase"]) == (&json!("inference/transcribe"), &json!(phase))
    };
    records.rfind(is_it).unwrap_or_else(|| panic!("no {phase}: {lines}"))
}

#[test]
fn what_is_said_comes_in_every_format_and_the_log_has_no_sound() {
    let (_models, dev) = start("");
    let plain = transcribe(&dev, &[("language", "en"), ("prompt", "names: Ada"), ("user", "u"), ("stream", "false")]);
    assert_eq!((plain.status, plain.kind.as_str()), (200, "application/json"), "{}", plain.text);
    let said = plain.json();
    assert!(said["text"].as_str().is_some_and(|text| !text.is_empty()), "{said}");
    let usage = |name: &str| said["usage"][name].as_u64().unwrap();
    // 69 fiftieths of a second, and what the model was told.
    assert!(usage("input_tokens") > 69 && usage("output_tokens") > 0, "{said}");
    assert_eq!(usage("total_tokens"), usage("input_tokens") + usage("output_tokens"));

    let intent = record(&dev, "intent");
    let kept = body(&dev, &intent);
    let digest = hex::encode(Sha256::digest(recording()));
    assert!(kept.contains(&digest) && kept.contains("names: Ada"), "{kept}");
    assert!(!kept.contains("secret name") && kept.len() < 4_000, "{kept}");
    assert_eq!(intent["record"]["gen_ai.operation.name"], "transcription", "{intent}");
    assert_eq!(intent["record"]["gen_ai.request.model"], MODEL, "{intent}");
    let outcome = record(&dev, "outcome");
    assert!(body(&dev, &outcome).contains("output_tokens"), "what was said is the answer, and kept as one");
    assert_eq!(outcome["record"]["gen_ai.usage.input_tokens"], usage("input_tokens"), "{outcome}");

    let again = transcribe(&dev, &[("language", "en"), ("prompt", "names: Ada"), ("response_format", "text")]);
    assert_eq!((again.kind.as_str(), again.text.trim()), ("text/plain; charset=utf-8", said["text"].as_str().unwrap()));
    let verbose = transcribe(&dev, &[("response_format", "verbose_json"), ("timestamp_granularities[]", "segment")]);
    let verbose = verbose.json();
    assert_eq!(verbose["task"], "transcribe", "{verbose}");
    assert!((verbose["duration"].as_f64().unwrap() - 1.37).abs() < 1e-3, "{verbose}");
    assert!(["en", "de"].contains(&verbose["language"].as_str().unwrap()), "{verbose}");
    let segments = verbose["segments"].as_array().unwrap().len();
    let srt = transcribe(&dev, &[("response_format", "srt")]);
    assert_eq!((srt.status, srt.text.matches(" --> ").count()), (200, segments), "{}", srt.text);
    let vtt = transcribe(&dev, &[("response_format", "vtt")]);
    assert!(vtt.text.starts_with("WEBVTT\n\n") && vtt.kind == "text/vtt; charset=utf-8", "{}", vtt.text);
}

#[test]
fn forms_that_make_no_sense_are_refused_by_their_cause() {
    let (_models, dev) = start("");
    let file = recording();
    let model = ("model", MODEL);
    let long = "x".repeat(70_000);
    let many: Vec<(&str, &str)> = vec![("timestamp_granularities[]", "segment"); 40];
    for (fields, file, status, code, says) in [
        (vec![model], None, 400, "PV-OPENAI-INVALID", "`file` is missing"),
        (vec![], Some(&file[..]), 400, "PV-OPENAI-INVALID", "`model` is missing"),
        (vec![model, model], Some(&file[..]), 400, "PV-OPENAI-INVALID", "`model` is in the form twice"),
        (vec![model, ("file", "no file")], Some(&file[..]), 400, "PV-OPENAI-INVALID", "`file` is in the form twice"),
        (vec![model, ("response_format", "midi")], Some(&file[..]), 400, "PV-OPENAI-INVALID", "`midi`"),
        (vec![model, ("temperature", "warm")], Some(&file[..]), 400, "PV-OPENAI-INVALID", "temperature"),
        (vec![model, ("temperature", "NaN")], Some(&file[..]), 400, "PV-OPENAI-INVALID", "temperature"),
        (vec![model, ("stream", "true")], Some(&file[..]), 400, "PV-OPENAI-INVALID", "`stream`"),
        (vec![model, ("include[]", "logprobs")], Some(&file[..]), 400, "PV-OPENAI-INVALID", "`include[]`"),
        (many, Some(&file[..]), 400, "PV-OPENAI-INVALID", "fields"),
        (vec![model, ("prompt", long.as_str())], Some(&file[..]), 413, "PV-HTTP-BODY-TOO-LARGE", "bytes"),
        (vec![model, ("temperature", "1.5")], Some(&file[..]), 400, "PV-MODEL-REQUEST", "temperature"),
        (vec![model, ("language", "tlh")], Some(&file[..]), 400, "PV-MODEL-REQUEST", "`language`"),
        (vec![model], Some(b"no sound".as_slice()), 400, "PV-MODEL-REQUEST", "audio"),
        (vec![("model", "tiny-chat")], Some(&file[..]), 400, "PV-MODEL-REQUEST", "PV-MODEL-KIND"),
        (vec![("model", "nobody")], Some(&file[..]), 404, "PV-MODEL-UNKNOWN", "nobody"),
        (
            vec![model, ("response_format", "verbose_json"), ("timestamp_granularities[]", "word")],
            Some(&file[..]),
            400,
            "PV-OPENAI-BODY",
            "`word`",
        ),
    ] {
        let said = post(&dev, dev.token(), form(&fields, file));
        assert_eq!((said.status, said.code().as_str()), (status, code), "{says}: {}", said.text);
        assert!(said.json()["error"]["message"].as_str().unwrap().contains(says), "{says}: {}", said.text);
    }
    let path = "audio/transcriptions";
    let whole = form(&[model], Some(&file));
    let multipart = format!("multipart/form-data; boundary={BOUNDARY}");
    for (kind, body, status, code) in [
        ("application/json", b"{}".to_vec(), 415, "PV-HTTP-CONTENT-TYPE"),
        ("multipart/form-data", whole.clone(), 415, "PV-HTTP-CONTENT-TYPE"),
        (multipart.as_str(), whole[..whole.len() - 30].to_vec(), 400, "PV-HTTP-BODY-BROKEN"),
        (multipart.as_str(), form(&[model], Some(&vec![0_u8; (25 << 20) + 1])), 413, "PV-HTTP-BODY-TOO-LARGE"),
    ] {
        let said = send(&dev, path, (dev.token(), kind), body);
        assert_eq!((said.status, said.code().as_str()), (status, code), "{}", said.text);
    }
}

/// Who may have what written down, beside the other endpoints of models: one table, and a record of every refusal in it.
#[test]
fn every_endpoint_of_models_for_every_role() {
    let more = [
        document("Principal", "nora", "{}"),
        document("Principal", "fred", "{}"),
        document("Principal", "cora", "{}"),
        document("Role", "chats", "{ rules: [ { models: ['tiny-chat'] } ] }"),
        document("RoleBinding", "fred", "{ role: all, principals: [fred] }"),
        document("RoleBinding", "cora", "{ role: chats, principals: [cora] }"),
        document(
            "Policy",
            "fred",
            &json!({ "cedar": "@id(\"fred\") forbid(principal == Provost::Principal::\"fred\", action, resource)
                when { context.time > datetime(\"2020-01-01T00:00:00Z\") };" })
            .to_string(),
        ),
    ];
    let (_models, dev) = start(&more.concat());
    let token = |name: &str| {
        let made = dev.cli(&["token", "create", "--principal", name, "--json"]);
        assert!(made.status.success(), "{}", text(&made));
        serde_json::from_slice::<Value>(&made.stdout).unwrap()["token"].as_str().unwrap().to_owned()
    };
    let mut tokens: BTreeMap<&str, String> = ["nora", "fred", "cora"].map(|name| (name, token(name))).into();
    tokens.insert("bot", dev.token().to_owned());
    tokens.insert("nobody", String::new());
    let chat = json!({ "model": "tiny-chat", "max_tokens": 2, "messages": [{ "role": "user", "content": "hi" }] });
    let multipart = format!("multipart/form-data; boundary={BOUNDARY}");
    let sound = form(&[("model", MODEL)], Some(&recording()));
    let embeds = json!({ "model": MODEL, "input": "x" });
    let endpoints = [
        ("chat/completions", "application/json", chat.to_string().into_bytes()),
        ("embeddings", "application/json", embeds.to_string().into_bytes()),
        ("audio/transcriptions", multipart.as_str(), sound),
    ];
    // Without a model that embeds it is the kind that is refused, after everything else was decided.
    let table = [
        ("bot", [(200, ""), (400, "PV-MODEL-REQUEST"), (200, "")]),
        ("cora", [(200, ""), (404, "PV-MODEL-UNKNOWN"), (404, "PV-MODEL-UNKNOWN")]),
        ("nora", [(404, "PV-MODEL-UNKNOWN"); 3]),
        ("fred", [(403, "PV-POLICY-DENIED"); 3]),
        ("nobody", [(401, "PV-AUTH-MISSING"); 3]),
    ];
    for (who, expected) in table {
        for ((path, kind, body), (status, code)) in endpoints.iter().zip(expected) {
            let said = crate::harness::until(|| {
                let said = send(&dev, path, (tokens[who].as_str(), *kind), body.clone());
                // The token was just made.
                (said.status != 401 || who == "nobody").then_some(said)
            });
            assert_eq!((said.status, said.code().as_str()), (status, code), "{path} by {who}: {}", said.text);
        }
    }
    for (log, code) in [("acme", "PV-POLICY-DENIED"), ("acme", "PV-MODEL-UNKNOWN"), ("cluster", "PV-AUTH-MISSING")] {
        let records = text(&dev.cli(&["audit", "query", "--json", "--tenant", log, "--limit", "1000"]));
        let is_there = records.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|line| {
            line["record"]["mcp.method.name"] == "inference/transcribe" && line["record"]["error.type"] == code
        });
        assert!(is_there, "{code} in {log}: {records}");
    }
    let metrics = crate::observability::metrics(&dev);
    assert!(metrics.contains("method=\"inference/transcribe\""), "{metrics}");
}

#[test]
fn a_quota_of_tokens_is_charged_the_most_first_and_what_was_used_at_the_end() {
    let quota = document("Quota", "speech", "{ limit: 1000, unit: tokens, window: month, tools: ['tiny-whisper'] }");
    let (_models, dev) = start(&quota);
    // Each may take 396 at first: without settling the third one would be refused.
    for _ in 0..4 {
        let said = transcribe(&dev, &[("language", "en")]);
        assert_eq!(said.status, 200, "{}", said.text);
        assert!(said.json()["usage"]["total_tokens"].as_u64().unwrap() < 150, "{}", said.text);
    }
    // Nobody knows how long this is before it is heard.
    let said = post(&dev, dev.token(), form(&[("model", MODEL)], Some(b"fLaC and so on")));
    assert_eq!((said.status, said.code().as_str()), (429, "PV-QUOTA-EXCEEDED"), "{}", said.text);
}

#[test]
fn where_a_guard_looks_there_are_no_pieces() {
    let (_models, dev) = start(&guard("cards", "{ tools: ['tiny-*'], rules: [ { kinds: [card], action: mask } ] }"));
    let prompt = format!("the card {CARD}");
    let said = transcribe(&dev, &[("prompt", prompt.as_str())]);
    assert_eq!(said.status, 200, "{}", said.text);
    let intent = record(&dev, "intent");
    assert_eq!(intent["record"]["guards"], json!(["card:mask=1"]), "{intent}");
    let kept = body(&dev, &intent);
    assert!(kept.contains(MASKED) && kept.contains(&hex::encode(Sha256::digest(recording()))), "{kept}");
    assert_eq!(transcribe(&dev, &[("response_format", "text")]).status, 200);
    for format in ["verbose_json", "srt", "vtt"] {
        let said = transcribe(&dev, &[("response_format", format)]);
        assert_eq!((said.status, said.code().as_str()), (400, "PV-SPEECH-GUARDED"), "{format}: {}", said.text);
    }
}

/// The tool `transcribe`: the same text, the same rules, and a record that has the digest of the argument in its place.
#[test]
fn agents_have_recordings_written_down_and_the_log_has_no_sound_of_theirs() {
    let more = [
        document("Plugin", "ai", "{ source: { builtin: { name: inference } } }"),
        guard("cards", "{ tools: ['ai.*'], rules: [ { kinds: [card], action: mask } ] }"),
        document("Quota", "speech", "{ limit: 1000, unit: tokens, window: month, tools: ['tiny-whisper'] }"),
        document(
            "ToolAlias",
            "hear",
            "{ targets: [{ tool: ai.transcribe }], deprecated: { until: '2020-01-01T00:00:00Z' } }",
        ),
    ];
    let (_models, dev) = start(&more.concat());
    let audio = STANDARD.encode(recording());
    let ask = |tool: &str, more: Value| {
        let mut arguments = json!({ "model": MODEL, "audio": audio, "language": "en" });
        more.as_object().unwrap().iter().for_each(|(name, value)| arguments[name] = value.clone());
        call_tool(&dev, tool, arguments)
    };
    let answer = ask("ai.transcribe", json!({ "prompt": format!("the card {CARD}") }));
    let said = &answer["result"]["structuredContent"];
    assert!((said["seconds"].as_f64().unwrap() - 1.37).abs() < 1e-3, "{answer}");
    let masked = format!("the card {MASKED}");
    let by_form = transcribe(&dev, &[("language", "en"), ("prompt", masked.as_str())]).json();
    assert_eq!(said["text"], by_form["text"], "what the model was told is what the guard left");
    assert_eq!(said["promptTokens"], by_form["usage"]["input_tokens"]);

    let intent = crate::guards::record(&dev, "ai.transcribe", "intent");
    let kept = body(&dev, &intent);
    assert!(kept.contains(MASKED) && kept.contains(&hex::encode(Sha256::digest(recording()))), "{kept}");
    assert!(!kept.contains(&audio[100..140]), "{kept}");
    let outcome = crate::guards::record(&dev, "ai.transcribe", "outcome");
    assert_eq!(outcome["record"]["gen_ai.usage.input_tokens"], said["promptTokens"], "{outcome}");

    // What is refused leaves no sound either, whether it is known what was meant or not.
    for (tool, more) in [("ai.transcribe", json!({ "odd": 1 })), ("nobody.transcribe", json!({})), ("hear", json!({}))]
    {
        let refused = ask(tool, more);
        assert!(refused["error"].is_object() || refused["result"]["isError"] == true, "{refused}");
        let kept = body(&dev, &crate::guards::record(&dev, tool, "denied"));
        assert!(kept.contains("sha256") && !kept.contains(&audio[100..140]), "{kept}");
    }
    let other = ask("ai.transcribe", json!({ "model": "tiny-chat" }));
    assert_eq!(other["result"]["isError"], true, "{other}");
    assert!(other.to_string().contains("PV-MODEL-KIND"), "{other}");
    // A file that may be as long as any is more than what is left.
    let long = ask("ai.transcribe", json!({ "audio": STANDARD.encode("fLaC and so on") }));
    assert_eq!(long["error"]["data"]["code"], "PV-QUOTA-EXCEEDED", "{long}");
}
