//! Upstreams that ask, clients of either era: one path.

use provost_data_pipeline::{ClientFacts, Operation, Reply};
use provost_types::CallStatus;
use serde_json::{Value, json};

use crate::bench::*;

/// Calls and answers until the call is done; returns the rounds and the final result.
async fn converse(up: &Up, tool: &str, client: &ClientFacts, answer: impl Fn(&str, &Value) -> Value) -> (usize, Value) {
    let link = TestLink::default();
    let mut params = json!({"name": "x", "arguments": {"message": "who?", "prompt": "hi"}});
    for round in 0..5 {
        let operation = Operation::CallTool(tool.to_owned());
        let done = execute(&up.plugin, operation, params.clone(), client, &link).await;
        let got = body(&done);
        if done.status != CallStatus::InputRequired {
            return (round, got);
        }
        assert_eq!(got["resultType"], "input_required");
        let asked = got["inputRequests"].as_object().unwrap();
        let answers: serde_json::Map<String, Value> =
            asked.iter().map(|(key, request)| (key.clone(), answer(key, request))).collect();
        params["inputResponses"] = Value::Object(answers);
        params["requestState"] = got["requestState"].clone();
        if got["requestState"].is_null() {
            params.as_object_mut().unwrap().remove("requestState");
        }
    }
    panic!("{tool} asks without end");
}

fn answer(_: &str, request: &Value) -> Value {
    match request["method"].as_str().unwrap() {
        "elicitation/create" => {
            json!({"action": "accept", "content": {"name": "Ann", "username": "ann", "email": "a@b.c",
                                                  "ok": true, "color": "red"}})
        }
        "sampling/createMessage" => json!({"role": "assistant", "model": "m", "stopReason": "endTurn",
                                           "content": {"type": "text", "text": "sampled"}}),
        "roots/list" => json!({"roots": [{"uri": "file:///home/ann"}]}),
        other => panic!("asked for {other}"),
    }
}

#[tokio::test]
async fn all_four_combinations_of_eras_ask_through_one_path() {
    for way in Way::ALL {
        let up = up(way).await;
        for client in [modern_client(), legacy_client("s1")] {
            let (rounds, done) = converse(&up, "test_elicitation", &client, answer).await;
            assert_eq!(rounds, 1, "{way:?}");
            assert!(done["content"][0]["text"].as_str().unwrap().contains("ann"), "{way:?}: {done}");
            let (_, done) = converse(&up, "test_sampling", &client, answer).await;
            assert_eq!(done["content"][0]["text"], "LLM response: sampled", "{way:?}");
            let (rounds, _) = converse(&up, "test_input_required_result_multi_round", &client, answer).await;
            assert_eq!(rounds, 2, "{way:?}");
            let (_, done) = converse(&up, "test_input_required_result_elicitation", &client, |key, request| {
                assert_eq!(key, "user_name");
                answer(key, request)
            })
            .await;
            assert_eq!(done["content"][0]["text"], "Hello, Ann!", "{way:?}");
        }
        assert_eq!(up.plugin.parked_calls(), 0, "{way:?}");
    }
}

#[tokio::test]
async fn questions_that_come_together_are_asked_together() {
    // Longer than a busy machine needs from one question to the next.
    let limits = provost_data_tools::Limits { ask_window: std::time::Duration::from_secs(2), ..Default::default() };
    for way in Way::ALL {
        let up = up_with(way, limits.clone()).await;
        for client in [modern_client(), legacy_client("s1")] {
            let (rounds, done) = converse(&up, "test_input_required_result_multiple_inputs", &client, answer).await;
            assert_eq!(rounds, 1, "{way:?}: three questions in one round");
            assert!(done["content"][0]["text"].as_str().unwrap().starts_with("Inputs:"), "{way:?}");
        }
        assert_eq!(up.plugin.parked_calls(), 0, "{way:?}");
    }
}

#[tokio::test]
async fn a_missing_answer_is_asked_for_again() {
    for way in Way::ALL {
        let up = up(way).await;
        let link = TestLink::default();
        let client = modern_client();
        let run = async |params: Value| {
            let operation = Operation::CallTool("test_input_required_result_elicitation".into());
            execute(&up.plugin, operation, params, &client, &link).await
        };
        let first = body(&run(json!({"name": "x", "arguments": {}})).await);
        let mut retry = json!({"name": "x", "arguments": {}, "inputResponses": {"user_name": 12345}});
        if !first["requestState"].is_null() {
            retry["requestState"] = first["requestState"].clone();
        }
        let again = run(retry).await;
        assert_eq!(again.status, CallStatus::InputRequired, "{way:?}");
        assert!(body(&again)["inputRequests"]["user_name"].is_object(), "{way:?}");
    }
}

#[tokio::test]
async fn an_answer_may_come_with_the_call_itself() {
    for way in Way::ALL {
        let up = up(way).await;
        let params = json!({"name": "x", "arguments": {}, "inputResponses":
            {"user_name": {"action": "accept", "content": {"name": "Ann"}}, "extra": {}}});
        let operation = Operation::CallTool("test_input_required_result_elicitation".into());
        let done = execute(&up.plugin, operation, params, &modern_client(), &TestLink::default()).await;
        assert_eq!(text(&done), "Hello, Ann!", "{way:?}");
    }
}

#[tokio::test]
async fn a_parked_call_is_its_callers_alone_and_ends_in_time() {
    let limits = provost_data_tools::Limits { park_ttl: std::time::Duration::from_secs(3), ..Default::default() };
    let up = up_with(Way::HttpLegacy, limits).await;
    let link = TestLink::default();
    let client = modern_client();
    let operation = || Operation::CallTool("test_elicitation".into());
    let params = json!({"name": "x", "arguments": {"message": "?"}});
    let first = body(&execute(&up.plugin, operation(), params, &client, &link).await);
    let state = first["requestState"].clone();
    let retry = json!({"name": "x", "requestState": state, "inputResponses": {}});

    let other = provost_types::PrincipalRef { tenant: name("acme"), name: name("bob") };
    let time = std::time::Duration::from_secs(30);
    let stolen = request(operation(), retry.clone(), &client, &other, time);
    let stolen = up.plugin.execute(&stolen, &link).await;
    assert_eq!(pv_code(&stolen), "PV-UPSTREAM-QUESTION-EXPIRED");
    assert_eq!(up.plugin.parked_calls(), 1, "another's attempt leaves it");

    eventually("the parked call is dropped", async || up.plugin.parked_calls() == 0).await;
    let late = execute(&up.plugin, operation(), retry, &client, &link).await;
    assert_eq!(pv_code(&late), "PV-UPSTREAM-QUESTION-EXPIRED");
}

#[tokio::test]
async fn clients_are_never_asked_for_what_they_did_not_declare() {
    for way in Way::ALL {
        let up = up(way).await;
        let mut client = modern_client();
        client.capabilities = provost_mcp::RawJson::EMPTY_OBJECT;
        let operation = Operation::CallTool("test_missing_capability".into());
        let link = TestLink::default();
        let done = execute(&up.plugin, operation, json!({"name": "x"}), &client, &link).await;
        match (&done.reply, way) {
            // Over stdio such clients share the catalogue's process, which declares everything.
            (Reply::Result { .. }, Way::StdioLegacy) => {}
            (Reply::Error(error), _) => assert_eq!(error.code, -32021, "{way:?}"),
            (other, _) => panic!("{way:?}: {other:?}"),
        }
        if !way.is_modern() {
            let operation = Operation::CallTool("test_elicitation".into());
            let done = execute(&up.plugin, operation, json!({"name": "x"}), &client, &link).await;
            assert_ne!(done.status, CallStatus::InputRequired, "{way:?}");
        }
    }
}
