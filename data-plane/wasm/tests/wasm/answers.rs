//! A plugin as it should be: `examples/plugins/rust-text`.

use provost_data_wasm::{CallContext, PluginAnswer, PluginError, PluginSettings};
use provost_mcp::RawJson;
use serde_json::{Value, json};

use crate::world::{FakeHost, TEXT, ask, call, engine_of, hostile, plugin_of, said, text};

fn json_of(raw: &RawJson) -> Value {
    raw.parse().unwrap()
}

#[tokio::test]
async fn tools_are_listed_with_the_schemas_of_their_types() {
    let plugin = text();
    assert!(plugin.tools_at_hand().is_none(), "loaded before anybody asked");
    let tools = plugin.tools().await.unwrap();
    assert_eq!(plugin.tools_at_hand().unwrap(), tools);
    let names = tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["count", "slug", "diff"]);
    let count = json_of(&tools[0].definition);
    assert_eq!(count["name"], "count");
    assert_eq!(count["annotations"]["readOnlyHint"], true);
    assert_eq!(
        count["inputSchema"],
        json!({
            "type": "object",
            "properties": {"text": {"type": "string", "description": "Any text."}},
            "required": ["text"],
            "additionalProperties": false,
        })
    );
    assert_eq!(count["outputSchema"]["properties"]["words"]["type"], "integer");
    assert_eq!(json_of(&tools[2].definition)["title"], "Difference");
}

#[tokio::test]
async fn a_structured_answer_is_a_result_of_mcp() {
    let answer = ask(&text(), "count", r#"{"text":"Grüß Gott,\nWelt"}"#).await.unwrap();
    let PluginAnswer::Complete { body, is_error } = answer else { panic!("it asks") };
    assert!(!is_error);
    let structured = r#"{"characters":15,"words":3,"lines":2,"bytes":17}"#;
    let text = structured.replace('"', "\\\"");
    let expect = format!(r#"{{"content":[{{"type":"text","text":"{text}"}}],"structuredContent":{structured}}}"#);
    assert_eq!(body.as_str(), expect);
}

#[tokio::test]
async fn texts_and_failures_for_the_model_are_told_apart() {
    let plugin = text();
    assert_eq!(said(ask(&plugin, "slug", r#"{"text":"Hello, World!"}"#).await), "hello-world");
    assert_eq!(said(ask(&plugin, "diff", r#"{"before":"a","after":"b"}"#).await), "@@ -1,1 +1,1 @@\n-a\n+b\n");
    let failed = ask(&plugin, "slug", r#"{"text":"…"}"#).await.unwrap();
    let PluginAnswer::Complete { body, is_error } = failed else { panic!("it asks") };
    assert!(is_error);
    assert_eq!(json_of(&body)["isError"], true);
}

#[tokio::test]
async fn what_a_tool_does_not_take_is_said() {
    let plugin = text();
    let wrong = ask(&plugin, "count", r#"{"text":1}"#).await.unwrap_err();
    assert!(matches!(&wrong, PluginError::InvalidParams(why) if why.contains("expected a string")), "{wrong}");
    assert_eq!(ask(&plugin, "nothing", "{}").await, Err(PluginError::UnknownTool("nothing".to_owned())));
}

#[tokio::test]
async fn a_configuration_is_in_every_instance() {
    let with = |config: Value| {
        let settings = PluginSettings { config: Some(RawJson::from(config)), ..PluginSettings::default() };
        plugin_of(&engine_of(2), TEXT, settings)
    };
    let plugin = with(json!({"separator": "_"}));
    let schema = json_of(&plugin.config_schema().await.unwrap().unwrap());
    assert_eq!(schema["properties"]["separator"]["type"], "string");
    for _ in 0..2 {
        assert_eq!(said(ask(&plugin, "slug", r#"{"text":"a b"}"#).await), "a_b");
    }
    let wrong = with(json!({"separater": "_"})).tools().await.unwrap_err();
    assert!(matches!(&wrong, PluginError::Config(why) if why.contains("separater")), "{wrong}");
}

#[tokio::test]
async fn each_call_has_an_instance_of_its_own() {
    let plugin = hostile();
    for _ in 0..3 {
        assert_eq!(said(ask(&plugin, "count", "{}").await), "1");
    }
}

#[tokio::test]
async fn the_context_of_a_call_reaches_the_plugin() {
    let plugin = hostile();
    let mut call = call("context", "{}");
    let bare = plugin.call(&call, FakeHost::new()).await.unwrap();
    let context = |answer: PluginAnswer| match answer {
        PluginAnswer::Complete { body, .. } => json_of(&body)["structuredContent"].clone(),
        PluginAnswer::InputRequired(_) => panic!("it asks"),
    };
    assert_eq!(
        context(bare),
        json!({"requestId": "r1", "hasTime": true, "traceparent": null, "principal": null, "responses": null, "state": null})
    );
    call.context = CallContext {
        request_id: "r2".to_owned(),
        traceparent: Some("00-a-b-01".to_owned()),
        principal: Some("acme/ann".to_owned()),
        input_responses: Some(RawJson::from(json!({"who": {"action": "accept"}}))),
        request_state: Some("mine".to_owned()),
    };
    let full = plugin.call(&call, FakeHost::new()).await.unwrap();
    assert_eq!(
        context(full),
        json!({
            "requestId": "r2", "hasTime": true, "traceparent": "00-a-b-01", "principal": "acme/ann",
            "responses": r#"{"who":{"action":"accept"}}"#, "state": "mine",
        })
    );
}

#[tokio::test]
async fn a_plugin_can_ask_before_it_answers() {
    let asks =
        ask(&hostile(), "ask", r#"{"text":"{\"who\":{\"method\":\"elicitation/create\",\"params\":{}}}"}"#).await;
    let PluginAnswer::InputRequired(body) = asks.unwrap() else { panic!("it answers") };
    assert_eq!(
        json_of(&body),
        json!({
            "resultType": "input_required",
            "inputRequests": {"who": {"method": "elicitation/create", "params": {}}},
            "requestState": "mine",
        })
    );
}
