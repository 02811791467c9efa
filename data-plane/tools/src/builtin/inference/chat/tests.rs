//! `chat` with a model that says what it is told to.

use std::sync::Mutex;

use provost_mcp::RawJson;
use provost_types::{
    BoxFuture, BoxStream, CallDelta, CallHead, EmbedRequest, EmbedResponse, InferenceError, ModelInfo, ToolChoice,
};

use super::*;

#[test]
fn what_has_members_is_an_object() {
    let read = |more: Value| {
        let mut arguments = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        more.as_object().unwrap().iter().for_each(|(name, value)| arguments[name] = value.clone());
        chat_arguments(arguments.as_object().unwrap()).map(|given| given.messages.len())
    };
    assert_eq!(read(json!({})), Ok(1));
    assert!(read(json!({ "messages": [["user", "hi"]] })).unwrap_err().contains("`messages`"));
    assert!(read(json!({ "messages": "hi" })).is_err());
    assert!(read(json!({ "tools": [["f", "what it does", {}, true]] })).unwrap_err().contains("`tools`"));
    assert!(read(json!({ "toolChoice": ["f"] })).unwrap_err().contains("`toolChoice`"));
    let calls = json!({ "messages": [{ "role": "assistant", "content": "", "toolCalls": [["c", "f", {}]] }] });
    assert!(read(calls).unwrap_err().contains("`toolCalls`"));
}

#[test]
fn a_text_is_gone_on_with_in_place_of_a_conversation() {
    let (result, asked) = call(
        &json!({ "model": "m", "prompt": "once" }),
        vec![ChatEvent::Delta(" upon".to_owned()), end(FinishReason::Length)],
    )
    .unwrap();
    assert_eq!(result["structuredContent"]["text"], " upon");
    assert_eq!((asked.prompt.as_deref(), asked.messages.len(), asked.tools.is_none()), (Some("once"), 0, true));
    let message = json!([{ "role": "user", "content": "hi" }]);
    for (more, says) in [
        (json!({}), "`prompt`"),
        (json!({ "prompt": "once", "messages": message }), "`messages`"),
        (json!({ "prompt": "once", "messages": [] }), "`messages`"),
        (json!({ "prompt": "once", "tools": [{ "name": "f" }] }), "`tools`"),
    ] {
        let mut arguments = json!({ "model": "m" });
        more.as_object().unwrap().iter().for_each(|(name, value)| arguments[name] = value.clone());
        let refused = chat_arguments(arguments.as_object().unwrap()).map(|given| given.messages.len()).unwrap_err();
        assert!(refused.contains(says), "{more}: {refused}");
    }
}

/// Says these events, and keeps what it was asked.
struct Scripted {
    says: Mutex<Vec<ChatEvent>>,
    asked: Mutex<Option<ChatRequest>>,
}

impl Inference for Scripted {
    fn models(&self) -> Vec<ModelInfo> {
        Vec::new()
    }

    fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        Box::pin(std::future::pending())
    }

    fn chat(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        *self.asked.lock().unwrap() = Some(request);
        let says = std::mem::take(&mut *self.says.lock().unwrap());
        let stream: BoxStream<'static, _> = Box::pin(futures::stream::iter(says.into_iter().map(Ok)));
        Box::pin(std::future::ready(Ok(stream)))
    }
}

/// The result of a call, which fits what the tool says of it, and the request that it made.
fn call(arguments: &Value, says: Vec<ChatEvent>) -> Result<(Value, ChatRequest), String> {
    let definition = definition(&json!({ "type": "string" }), &json!({}));
    let fits = |schema: &str, value: &Value| {
        let validator = jsonschema::options().build(&definition[schema]).unwrap();
        assert!(validator.is_valid(value), "{schema}: {value}");
    };
    fits("inputSchema", arguments);
    let model = Scripted { says: Mutex::new(says), asked: Mutex::default() };
    let under_way = UnderWay::default();
    let asked = chat(&model, "acme", arguments.as_object().unwrap(), &under_way);
    let outcome = futures::executor::block_on(asked)?;
    fits("outputSchema", &outcome.result["structuredContent"]);
    Ok((outcome.result, model.asked.into_inner().unwrap().unwrap()))
}

fn end(reason: FinishReason) -> ChatEvent {
    ChatEvent::End { reason, usage: TokenUsage { prompt: 5, completion: 7 } }
}

fn piece(name: Option<&str>, arguments: &str) -> CallDelta {
    let head = name.map(|name| CallHead { id: format!("call_{name}"), name: name.to_owned() });
    CallDelta { index: 0, head, arguments: arguments.to_owned() }
}

#[test]
fn calls_come_with_their_arguments_and_results_go_back() {
    let arguments = json!({
        "model": "m",
        "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": "", "toolCalls": [{ "id": "c", "name": "f", "arguments": { "a": 1 } }] },
            { "role": "tool", "content": "done", "toolCallId": "c" },
        ],
        "tools": [{ "name": "f", "inputSchema": { "type": "object" }, "strict": true }, { "name": "g" }],
        "toolChoice": { "name": "g" },
        "parallelToolCalls": false,
    });
    let pieces = vec![piece(Some("f"), "{\"a\""), piece(None, ":1}"), piece(Some("g"), "{}")];
    let says = vec![ChatEvent::Delta("So".into()), ChatEvent::Calls(pieces), end(FinishReason::ToolCalls)];
    let (result, asked) = call(&arguments, says).unwrap();
    let calls = json!([
        { "id": "call_f", "name": "f", "arguments": { "a": 1 } },
        { "id": "call_g", "name": "g", "arguments": {} },
    ]);
    let structured = &result["structuredContent"];
    assert_eq!(structured["toolCalls"], calls);
    assert_eq!((&structured["text"], &structured["finishReason"]), (&json!("So"), &json!("tool_calls")));
    assert_eq!(serde_json::from_str::<Value>(result["content"][0]["text"].as_str().unwrap()).unwrap(), *structured);
    let tools = asked.tools.unwrap();
    assert_eq!((tools.choice, tools.parallel), (ToolChoice::Function("g".to_owned()), false));
    assert!(tools.functions[0].strict && tools.functions[1].parameters.is_none());
    assert_eq!(asked.messages[1].calls[0].arguments["a"], 1);
    assert_eq!(asked.messages[2].call_id.as_deref(), Some("c"));
}

#[test]
fn an_answer_without_calls_is_text_and_one_that_was_cut_off_says_so() {
    let plain = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    let (result, asked) = call(&plain, vec![ChatEvent::Delta("So".into()), end(FinishReason::Stop)]).unwrap();
    assert_eq!((&result["content"][0]["text"], &result["structuredContent"]["toolCalls"]), (&json!("So"), &json!([])));
    assert_eq!(asked.tools, None);
    let cut = vec![ChatEvent::Calls(vec![piece(Some("f"), "{\"a\"")]), end(FinishReason::Length)];
    let (result, _) = call(&plain, cut).unwrap();
    assert_eq!(result["structuredContent"]["toolCalls"][0]["arguments"], "{\"a\"");
}

#[test]
fn functions_that_make_no_sense_are_refused_by_name() {
    for (more, says) in [
        (json!({ "tools": [{ "name": "f" }, { "name": "f" }] }), "two functions `f`"),
        (json!({ "tools": [{ "name": "f" }], "toolChoice": { "name": "g" } }), "`g`"),
        (json!({ "tools": [{ "name": "f", "inputSchema": { "type": "string" } }] }), "`object`"),
        (json!({ "toolChoice": "required" }), "no `tools`"),
        (
            json!({ "messages": [{ "role": "user", "content": "", "toolCalls": [{ "id": "c", "name": "f", "arguments": {} }] }] }),
            "`user`",
        ),
    ] {
        let mut arguments = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        more.as_object().unwrap().iter().for_each(|(name, value)| arguments[name] = value.clone());
        let refused = call(&arguments, Vec::new()).unwrap_err();
        assert!(refused.contains(says), "{says}: {refused}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_free() {
    let arguments = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    let says = vec![ChatEvent::Silent, ChatEvent::Silent, ChatEvent::Delta("hey".to_owned())];
    let model = Scripted { says: Mutex::new(says), asked: Mutex::default() };
    let (under_way, params) = (UnderWay::default(), RawJson::from(arguments.clone()));
    assert_eq!(under_way.usage(&params), Usage::default(), "it has not begun");
    let ended = futures::executor::block_on(chat(&model, "acme", arguments.as_object().unwrap(), &under_way));
    assert!(ended.is_err());
    let used = under_way.usage(&params);
    assert_eq!((used.tokens_in, used.tokens_out), (params.as_bytes().len() as u64, 5));
}
