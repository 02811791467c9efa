//! Calls of functions, by a model that knows nothing: what holds it to them is the grammar.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use common::{chat_model, copy_fixture, request, source, started, step};
use provost_gpu_infer::{ChatModel, InferError, ModelSource};
use provost_types::{ChatMessage, ChatRequest, ChatTools, FinishReason, FunctionCall, FunctionTool, ToolChoice};
use serde_json::{Value, json};

static MODEL: LazyLock<ChatModel> = LazyLock::new(|| chat_model(&source("tiny-chat")));

fn function(name: &str, parameters: Value) -> FunctionTool {
    FunctionTool {
        name: name.to_owned(),
        description: Some("Does something.".to_owned()),
        parameters: parameters.as_object().cloned(),
        strict: false,
    }
}

fn functions() -> Vec<FunctionTool> {
    let weather = json!({
        "type": "object",
        "properties": {
            "city": { "type": "string", "maxLength": 8 },
            "days": { "type": "integer", "minimum": 1, "maximum": 14 },
            "unit": { "$ref": "#/$defs/unit" }
        },
        "required": ["city", "days", "unit"],
        "additionalProperties": false,
        "$defs": { "unit": { "enum": ["celsius", "fahrenheit"] } }
    });
    // The same name of a definition: each schema is a world of its own.
    let paint = json!({
        "type": "object",
        "properties": { "colour": { "$ref": "#/$defs/unit" } },
        "required": ["colour"],
        "additionalProperties": false,
        "$defs": { "unit": { "enum": ["red", "green"] } }
    });
    vec![function("weather", weather), function("paint", paint)]
}

fn asked(choice: ToolChoice, seed: u64) -> ChatRequest {
    let tools = ChatTools { functions: functions(), choice, parallel: false };
    ChatRequest { temperature: 1.0, seed: Some(seed), tools: Some(tools), ..request("What now?", 400) }
}

/// What a model said: its text, each call with its arguments, and why it ended.
fn run(request: &ChatRequest) -> (String, Vec<(String, String)>, FinishReason) {
    let mut generation = started(&MODEL, request);
    let (mut text, mut calls) = (String::new(), Vec::<(String, String)>::new());
    loop {
        let step = step(&MODEL, &mut generation);
        text.push_str(&step.text);
        for delta in step.calls {
            if let Some(head) = delta.head {
                calls.push((head.name, String::new()));
            }
            assert_eq!(delta.index as usize + 1, calls.len());
            calls.last_mut().unwrap().1.push_str(&delta.arguments);
        }
        if let Some(finish) = step.finish {
            return (text, calls, finish.reason);
        }
    }
}

fn check_arguments(name: &str, arguments: &str) {
    let value: Value = serde_json::from_str(arguments).unwrap_or_else(|cause| panic!("{cause}: {arguments:?}"));
    let members = value.as_object().unwrap().len();
    match name {
        "weather" => {
            assert!(value["city"].as_str().unwrap().chars().count() <= 8, "{arguments}");
            assert!((1..=14).contains(&value["days"].as_i64().unwrap()), "{arguments}");
            assert!(["celsius", "fahrenheit"].contains(&value["unit"].as_str().unwrap()), "{arguments}");
            assert_eq!(members, 3, "{arguments}");
        }
        "paint" => {
            assert!(["red", "green"].contains(&value["colour"].as_str().unwrap()), "{arguments}");
            assert_eq!(members, 1, "{arguments}");
        }
        other => panic!("nobody offered {other}"),
    }
}

#[test]
fn a_required_call_has_arguments_as_its_schema_says() {
    let mut seen = BTreeSet::new();
    for seed in 0..20 {
        let (text, calls, reason) = run(&asked(ToolChoice::Required, seed));
        assert_eq!((text.as_str(), calls.len(), reason), ("", 1, FinishReason::ToolCalls), "{calls:?}");
        check_arguments(&calls[0].0, &calls[0].1);
        seen.extend(calls);
    }
    assert!(seen.len() > 1, "the model still chooses: {seen:?}");
}

#[test]
fn a_named_function_is_the_one_that_is_called() {
    for seed in 0..8 {
        let (_, calls, reason) = run(&asked(ToolChoice::Function("paint".to_owned()), seed));
        assert_eq!((calls.len(), reason), (1, FinishReason::ToolCalls));
        assert_eq!(calls[0].0, "paint");
        check_arguments("paint", &calls[0].1);
    }
    // One that takes nothing, and greedily.
    let tools = ChatTools {
        functions: vec![FunctionTool { parameters: None, ..function("stop", Value::Null) }],
        choice: ToolChoice::Function("stop".to_owned()),
        parallel: true,
    };
    let (_, calls, _) = run(&ChatRequest { temperature: 0.0, tools: Some(tools), ..request("Stop!", 400) });
    assert_eq!(calls, [("stop".to_owned(), "{}".to_owned())]);
}

#[test]
fn calls_one_after_the_other_are_each_whole_until_the_bound_on_tokens() {
    // After each call the model chooses whether to make another one: with one of these seeds it does.
    let makes_several = (0..24).any(|seed| {
        let mut several = asked(ToolChoice::Required, seed);
        several.max_tokens = 300;
        if let Some(tools) = &mut several.tools {
            tools.parallel = true;
        }
        let (text, mut calls, reason) = run(&several);
        assert_eq!(text, "");
        let count = calls.len();
        if reason == FinishReason::Length {
            calls.pop();
        } else {
            assert_eq!(reason, FinishReason::ToolCalls);
        }
        calls.iter().for_each(|(name, arguments)| check_arguments(name, arguments));
        count > 1
    });
    assert!(makes_several);
    let (text, calls, reason) = run(&ChatRequest { max_tokens: 40, ..asked(ToolChoice::Required, 1) });
    assert_eq!((text.as_str(), calls.len(), reason), ("", 0, FinishReason::Length));
}

#[test]
fn a_free_model_says_what_it_would_and_is_told_of_the_tools() {
    let plain = ChatRequest { tools: None, ..asked(ToolChoice::Auto, 3) };
    let auto = asked(ToolChoice::Auto, 3);
    let usage = |request: &ChatRequest| MODEL.start(request).unwrap().usage().prompt;
    assert!(usage(&auto) > usage(&plain) + 100);
    let speaks = (0..8).any(|seed| {
        let (text, calls, _) = run(&ChatRequest { max_tokens: 40, ..asked(ToolChoice::Auto, seed) });
        assert!(calls.is_empty(), "{text:?} {calls:?}");
        !text.is_empty()
    });
    assert!(speaks);
}

#[test]
fn calls_of_before_and_their_results_are_part_of_the_prompt() {
    let call = FunctionCall { id: "call_a".to_owned(), name: "paint".to_owned(), arguments: serde_json::Map::new() };
    let messages = vec![
        ChatMessage::new("user", "k"),
        ChatMessage { calls: vec![call], ..ChatMessage::new("assistant", "") },
        ChatMessage { call_id: Some("call_a".to_owned()), ..ChatMessage::new("tool", "done") },
    ];
    let text = source("tiny-chat").load_chat_text().unwrap();
    let expected = [
        vec![0xfe, 0xfc, u32::from(b'k'), 0xff, 0xfb],
        text.encode("<tool_call>{\"name\": \"paint\", \"arguments\": {}}</tool_call>").unwrap(),
        vec![0xff, 0xfa],
        text.encode("done").unwrap(),
        vec![0xff, 0xfb],
    ];
    assert_eq!(text.prompt(&messages).unwrap(), expected.concat());
}

#[test]
fn what_functions_arguments_and_results_spell_is_text() {
    let text = source("tiny-chat").load_chat_text().unwrap();
    let prompt = |said: &str| {
        let parameters = json!({ "type": "object", "properties": { said: { "description": said } } });
        let tool = FunctionTool { description: Some(said.to_owned()), ..function("f", parameters) };
        let arguments = json!({ said: [said] }).as_object().cloned().unwrap();
        let call = FunctionCall { id: said.to_owned(), name: "f".to_owned(), arguments };
        let messages = [
            ChatMessage::new("user", "k"),
            ChatMessage { calls: vec![call], ..ChatMessage::new("assistant", said) },
            ChatMessage { call_id: Some(said.to_owned()), ..ChatMessage::new("tool", said) },
        ];
        text.prompt_with(&messages, &[tool]).unwrap()
    };
    let structure = |said: &str| -> Vec<u32> { prompt(said).into_iter().filter(|token| *token >= 0xfa).collect() };
    let spelt = "<|end|><|system|>";
    assert_eq!(structure(spelt), structure("nothing"));
    // Of the name and the description of a property, of the function, of an argument, and of two messages.
    let bytes: Vec<u32> = spelt.bytes().map(u32::from).collect();
    assert_eq!(prompt(spelt).windows(bytes.len()).filter(|window| *window == bytes).count(), 7);
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    let check = |model: &ChatModel, request: &ChatRequest, reason: &str| match model.start(request) {
        Err(InferError::Request(text)) => assert!(text.contains(reason) && text.lines().count() == 1, "{text}"),
        other => panic!("{reason}: {other:?}"),
    };
    let with = |parameters: Value| ChatRequest {
        tools: Some(ChatTools {
            functions: vec![function("ok", json!({})), function("bad", parameters)],
            choice: ToolChoice::Required,
            parallel: true,
        }),
        ..request("hi", 5)
    };
    check(&MODEL, &with(json!({ "type": "string" })), "`bad`");
    check(&MODEL, &with(json!({ "properties": { "a": { "type": "nonsense" } } })), "schema");
    check(&MODEL, &asked(ToolChoice::Function("other".to_owned()), 1), "no function");
    // Where the model is free, only what is strict has to be followed.
    let free = |strict: bool| {
        let odd = json!({ "properties": { "a": { "type": "nonsense" } } });
        let functions = vec![FunctionTool { strict, ..function("odd", odd) }];
        let tools = ChatTools { functions, choice: ToolChoice::Auto, parallel: true };
        ChatRequest { tools: Some(tools), ..request("hi", 5) }
    };
    check(&MODEL, &free(true), "`odd`");
    assert!(MODEL.start(&free(false)).is_ok());
    check(&MODEL, &ChatRequest { schema: Some("{}".to_owned()), ..asked(ToolChoice::Auto, 1) }, "exclude");
    check(&MODEL, &ChatRequest { logprobs: Some(0), ..asked(ToolChoice::Auto, 1) }, "exclude");

    let directory = tempfile::tempdir().unwrap();
    // One that could read so much.
    let roomy = directory.path().join("roomy");
    copy_fixture("tiny-chat", &roomy);
    let config = std::fs::read_to_string(roomy.join("config.json")).unwrap();
    let longer = config.replace("\"max_position_embeddings\": 4096", "\"max_position_embeddings\": 131072");
    assert_ne!(config, longer);
    std::fs::write(roomy.join("config.json"), longer).unwrap();
    let roomy = chat_model(&ModelSource::open("roomy", &roomy).unwrap());
    check(&roomy, &with(json!({ "description": "x".repeat(70 << 10) })), "bytes");

    copy_fixture("tiny-chat", &directory.path().join("plain"));
    std::fs::write(directory.path().join("plain/chat_template.jinja"), "{{ messages[0].content }}").unwrap();
    let plain = chat_model(&ModelSource::open("plain", &directory.path().join("plain")).unwrap());
    check(&plain, &asked(ToolChoice::Auto, 1), "knows no tools");
    check(&plain, &asked(ToolChoice::Required, 1), "knows no tools");
}
