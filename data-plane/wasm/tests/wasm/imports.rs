//! What guests ask of the host: bounded, and passed on as it is.

use std::{sync::Arc, time::Duration};

use provost_data_wasm::{MAX_DEPTH, Progress};
use serde_json::json;

use crate::world::{FakeHost, SECRET, ask, call, hostile, hostile_with, said};

async fn tell(tool: &str, arguments: &str, host: &Arc<FakeHost>) -> String {
    said(hostile().call(&call(tool, arguments), host.clone()).await)
}

#[tokio::test]
async fn a_request_is_the_hosts_to_send() {
    let host = FakeHost::new();
    assert_eq!(tell("fetch", r#"{"text":"https://example.com/a","n":3}"#, &host).await, "200 hello");
    let requests = host.requests.lock().unwrap();
    let request = requests.first().unwrap();
    assert_eq!((request.method.as_str(), request.url.as_str()), ("GET", "https://example.com/a"));
    assert_eq!(request.headers, [("accept".to_owned(), "*/*".to_owned())]);
    assert_eq!(request.body.as_deref(), Some(b"xxx".as_slice()));
    assert_eq!(request.timeout, Some(Duration::from_secs(5)));
    assert_eq!(request.max_response_bytes, 4 << 20);
}

#[tokio::test]
async fn a_forbidden_host_is_not_reached() {
    let host = FakeHost::new();
    let denied = tell("fetch", r#"{"text":"https://forbidden.example/"}"#, &host).await;
    assert!(denied.contains("Denied") && denied.contains("not on the list"), "{denied}");
    // What is no request does not even get to the host.
    let invalid = tell("fetch", r#"{"text":"file:///etc/passwd"}"#, &host).await;
    assert!(invalid.contains("Invalid"), "{invalid}");
    assert_eq!(host.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_credential_is_named_by_the_guest_and_known_to_the_host_alone() {
    let host = FakeHost::new();
    let answer = tell("fetch", r#"{"text":"https://example.com/","credential":"github"}"#, &host).await;
    assert_eq!(answer, "200 hello");
    assert_eq!(*host.sent_credentials.lock().unwrap(), [SECRET]);
    let request = host.requests.lock().unwrap()[0].clone();
    assert_eq!(request.credential.as_deref(), Some("github"));
    assert!(!format!("{request:?}").contains("s3cr3t"));
    let other = tell("fetch", r#"{"text":"https://example.com/","credential":"root"}"#, &host).await;
    assert!(other.contains("Denied") && other.contains("no credential root"), "{other}");
    assert_eq!(host.sent_credentials.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn requests_and_responses_are_bounded() {
    let host = FakeHost::new();
    let large = tell("fetch", r#"{"text":"https://large.example/"}"#, &host).await;
    assert_eq!(large, "Error::TooLarge");
    let body = json!({"text": "https://example.com/", "n": (4 << 20) + 1}).to_string();
    assert_eq!(tell("fetch", &body, &host).await, "Error::TooLarge");
    assert_eq!(host.requests.lock().unwrap().len(), 1, "the large body was passed on");
    let few = hostile_with(|limits| limits.http_requests = 5);
    assert_eq!(said(ask(&few, "fetch-many", r#"{"n":20}"#).await), "5");
}

#[tokio::test]
async fn what_a_plugin_keeps_is_there_in_the_next_call() {
    let host = FakeHost::new();
    assert_eq!(tell("get", r#"{"text":"k"}"#, &host).await, "None");
    assert_eq!(tell("set", r#"{"text":"k","value":"v"}"#, &host).await, "Ok(())");
    assert_eq!(tell("get", r#"{"text":"k"}"#, &host).await, r#"Some("v")"#);
    assert_eq!(tell("set", r#"{"text":"k"}"#, &host).await, "Ok(())");
    assert_eq!(tell("get", r#"{"text":"k"}"#, &host).await, "None");
    for i in 0..3 {
        assert_eq!(tell("set", &json!({"text": format!("k{i}"), "value": ""}).to_string(), &host).await, "Ok(())");
    }
    let full = tell("set", r#"{"text":"one more","value":""}"#, &host).await;
    assert!(full.contains("Full"), "{full}");
}

#[tokio::test]
async fn keys_values_and_their_number_are_bounded() {
    let host = FakeHost::new();
    for key in [String::new(), "k".repeat(257)] {
        let refused = tell("set", &json!({"text": key, "value": "v"}).to_string(), &host).await;
        assert!(refused.contains("TooLarge"), "{refused}");
    }
    let refused = tell("set-large", r#"{"n":65537}"#, &host).await;
    assert!(refused.contains("TooLarge"), "{refused}");
    assert_eq!(tell("set-large", r#"{"n":65536}"#, &host).await, "Ok(())");
    assert_eq!(tell("set-many", r#"{"n":1000}"#, &host).await, "256");
}

#[tokio::test]
async fn progress_is_passed_on_up_to_its_bound() {
    let plugin = hostile_with(|limits| limits.progress_count = 3);
    let host = FakeHost::new();
    let ended = plugin.call(&call("progress", r#"{"n":10,"text":"going"}"#), host.clone()).await;
    assert_eq!(said(ended), "done");
    let expect = |progress| Progress { progress, total: Some(10.0), message: Some("going".to_owned()) };
    assert_eq!(*host.progress.lock().unwrap(), [expect(0.0), expect(1.0), expect(2.0)]);
    // Not a number is no progress.
    let host = FakeHost::new();
    assert_eq!(said(plugin.call(&call("progress", r#"{"n":0}"#), host.clone()).await), "done");
    assert!(host.progress.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_call_of_another_tool_is_the_hosts_to_make() {
    let host = FakeHost::new();
    let result = tell("nested", r#"{"text":"other","arguments":{"a":1}}"#, &host).await;
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result, serde_json::json!({"content": [{"type": "text", "text": "from other"}]}));
    assert_eq!(*host.nested.lock().unwrap(), [("other".to_owned(), r#"{"a":1}"#.to_owned(), 1)]);
    let denied = tell("nested", r#"{"text":"secret","arguments":{}}"#, &host).await;
    assert!(denied.contains("Denied") && denied.contains("no tool secret"), "{denied}");
    let no_object = tell("nested", r#"{"text":"other","arguments":[]}"#, &host).await;
    assert!(no_object.contains("InvalidParams"), "{no_object}");
    assert_eq!(tell("nested-many", r#"{"n":100}"#, &host).await, "32");
}

#[tokio::test]
async fn a_result_of_another_tool_is_no_larger_than_an_answer() {
    let plugin = hostile_with(|limits| limits.answer_bytes = 1_000);
    let told = said(ask(&plugin, "nested", r#"{"text":"long","arguments":{}}"#).await);
    assert!(told.contains("Failed") && told.contains("PV-PLUGIN-TOO-LARGE: long"), "{told}");
    assert!(said(ask(&plugin, "nested", r#"{"text":"other","arguments":{}}"#).await).contains("from other"));
}

#[tokio::test]
async fn a_plugin_that_calls_itself_comes_to_an_end() {
    let host = FakeHost::new();
    let plugin = Arc::new(hostile_with(|_| {}));
    // Four at a time is less than it goes deep.
    assert!(host.plugin.set(plugin.clone()).is_ok());
    let call = call("nested", r#"{"text":"again","arguments":{}}"#);
    let ended = said(plugin.call(&call, host.clone()).await);
    assert!(ended.contains("PV-PLUGIN-BUSY"), "{ended}");

    let host = FakeHost::new();
    let engine = crate::world::engine_of(16);
    let settings = crate::world::hostile_settings(|_| {});
    let plugin = Arc::new(crate::world::plugin_of(&engine, crate::world::HOSTILE, settings));
    assert!(host.plugin.set(plugin.clone()).is_ok());
    let ended = said(plugin.call(&call, host.clone()).await);
    assert!(ended.contains("PV-PLUGIN-DEPTH"), "{ended}");
    let depths = host.nested.lock().unwrap().iter().map(|(_, _, depth)| *depth).collect::<Vec<_>>();
    assert_eq!(depths, (1..=MAX_DEPTH + 1).collect::<Vec<_>>());
}
