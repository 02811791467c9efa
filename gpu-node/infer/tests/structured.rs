//! Answers that follow a JSON schema, of a model that knows nothing: without the schema it says noise.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::LazyLock;

use common::{chat_model, request, source, started, step};
use provost_gpu_infer::{ChatModel, InferError, Turn};
use provost_types::{ChatRequest, FinishReason};
use serde_json::{Value, json};

static MODEL: LazyLock<ChatModel> = LazyLock::new(|| chat_model(&source("tiny-chat")));

fn asked(schema: &Value, seed: u64) -> ChatRequest {
    ChatRequest {
        temperature: 1.0,
        seed: Some(seed),
        schema: Some(schema.to_string()),
        ..request("Give me JSON.", 400)
    }
}

fn run(request: &ChatRequest) -> (String, FinishReason) {
    let mut generation = started(&MODEL, request);
    let mut text = String::new();
    loop {
        let step = step(&MODEL, &mut generation);
        text.push_str(&step.text);
        if let Some(finish) = step.finish {
            return (text, finish.reason);
        }
    }
}

#[test]
fn an_answer_is_what_the_schema_says() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 8 },
            "count": { "type": "integer", "minimum": 0, "maximum": 999 },
            "kind": { "enum": ["red", "green"] },
            "tags": { "type": "array", "items": { "type": "boolean" }, "maxItems": 3 }
        },
        "required": ["name", "count", "kind", "tags"],
        "additionalProperties": false
    });
    let mut texts = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let (text, reason) = run(&asked(&schema, seed));
        assert_eq!(reason, FinishReason::Stop, "{text}");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{cause}: {text:?}"));
        assert!(value["name"].as_str().unwrap().chars().count() <= 8, "{text}");
        assert!(value["count"].as_u64().unwrap() <= 999, "{text}");
        assert!(["red", "green"].contains(&value["kind"].as_str().unwrap()), "{text}");
        assert!(value["tags"].as_array().unwrap().iter().all(Value::is_boolean), "{text}");
        assert_eq!(value.as_object().unwrap().len(), 4, "{text}");
        texts.insert(text);
    }
    assert!(texts.len() > 10, "the model still chooses: {texts:?}");
}

#[test]
fn a_greedy_answer_follows_too_and_a_batch_does_not_matter() {
    let schema = json!({ "type": "array", "items": { "enum": ["a", "bc"] }, "minItems": 3, "maxItems": 3 });
    let greedy = ChatRequest { temperature: 0.0, ..asked(&schema, 1) };
    let (alone, _) = run(&greedy);
    assert_eq!(serde_json::from_str::<Vec<String>>(&alone).unwrap().len(), 3);
    let mut guided = started(&MODEL, &greedy);
    let mut free = started(&MODEL, &request("noise", 200));
    let mut text = String::new();
    loop {
        let mut turns = [Turn { generation: &mut free, tokens: 5 }, Turn { generation: &mut guided, tokens: 5 }];
        let step = MODEL.step(&mut turns).unwrap().remove(1).unwrap();
        text.push_str(&step.text);
        if step.finish.is_some() {
            break;
        }
    }
    assert_eq!(text, alone);
}

#[test]
fn a_bound_on_tokens_still_ends_the_answer() {
    let (_, reason) = run(&ChatRequest { max_tokens: 3, ..asked(&json!({ "enum": ["longer"] }), 1) });
    assert_eq!(reason, FinishReason::Length);
}

#[test]
fn schemas_that_cannot_be_followed_are_refused_with_the_reason() {
    let mut deep = json!({ "type": "string" });
    for _ in 0..80 {
        deep = json!({ "type": "array", "items": deep });
    }
    let check = |schema: String, reason: &str| {
        let request = ChatRequest { schema: Some(schema), ..request("hi", 5) };
        match MODEL.start(&request) {
            Err(InferError::Request(text)) => assert!(text.contains(reason) && text.lines().count() == 1, "{text}"),
            other => panic!("{reason}: {other:?}"),
        }
    };
    check("{".to_owned(), "schema");
    check("[1]".to_owned(), "not an object");
    check(json!({ "type": "nonsense" }).to_string(), "schema");
    check(json!({ "type": "object", "patternProperties": { "(": {} } }).to_string(), "schema");
    check(deep.to_string(), "nested deeper");
    check(json!({ "allOf": [{ "multipleOf": 97 }, { "multipleOf": 89 }] }).to_string(), "multipleOf");
    check(format!("{{\"description\": \"{}\"}}", "x".repeat(70 << 10)), "bytes");
}
