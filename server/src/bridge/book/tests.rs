#![allow(clippy::unwrap_used, clippy::panic)]
use serde_json::Value;

use super::*;

fn message(text: &str) -> Outgoing {
    Outgoing::parse(Bytes::from(text.to_owned()), &JsonLimits::REQUEST).unwrap()
}

fn request(id: u32, method: &str, params: Value) -> Outgoing {
    message(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string())
}

fn bytes(value: Value) -> Bytes {
    value.to_string().into()
}

fn read(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn gone() -> LinkError {
    LinkError::Lost("gone".to_owned())
}

#[test]
fn a_call_that_may_have_run_is_answered_and_a_list_is_asked_again() {
    let mut book = Book::default();
    book.goes_out(&request(1, "tools/call", json!({})));
    book.goes_out(&request(2, "tools/list", json!({})));
    book.goes_out(&request(3, "resources/read", json!({})));
    book.goes_out(&request(4, "tools/call", json!({})));
    book.goes_out(&request(5, "tools/call", json!({})));
    assert!(matches!(book.came(bytes(json!({ "jsonrpc": "2.0", "id": 4, "result": {} }))), Came::Pass(_)));
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 5 } });
    book.goes_out(&message(&cancel.to_string()));
    let loss = book.lost(&gone());
    let mut answers: Vec<_> = loss.answers.iter().map(read).collect();
    answers.sort_by_key(|a| a["id"].as_u64());
    assert_eq!(answers.iter().map(|a| a["id"].clone()).collect::<Vec<_>>(), [1, 3]);
    assert!(answers.iter().all(|a| a["error"]["data"]["code"] == "PV-BRIDGE-LOST"), "{answers:?}");
    assert_eq!(loss.again.iter().map(Outgoing::method).collect::<Vec<_>>(), ["tools/list"]);
    assert!(book.is_clear());
}

#[test]
fn what_the_server_asked_is_cancelled_and_a_late_answer_goes_nowhere() {
    let mut book = Book::default();
    let ask = json!({ "jsonrpc": "2.0", "id": "s1", "method": "elicitation/create", "params": {} });
    assert!(matches!(book.came(bytes(ask)), Came::Pass(_)));
    let loss = book.lost(&gone());
    assert_eq!(read(&loss.answers[0])["params"]["requestId"], "s1");
    let late = message(r#"{"jsonrpc":"2.0","id":"s1","result":{}}"#);
    assert!(!book.goes_out(&late));
}

#[test]
fn a_session_is_made_again_as_it_was() {
    let mut book = Book::default();
    assert!(book.restore().is_none());
    book.goes_out(&request(1, "initialize", json!({ "protocolVersion": "2025-11-25" })));
    book.came(bytes(json!({ "jsonrpc": "2.0", "id": 1, "result": {} })));
    book.goes_out(&message(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#));
    for (id, uri) in [(2, "a:1"), (3, "b:2")] {
        book.goes_out(&request(id, "resources/subscribe", json!({ "uri": uri })));
    }
    book.goes_out(&request(4, "resources/unsubscribe", json!({ "uri": "a:1" })));
    book.goes_out(&request(5, "logging/setLevel", json!({ "level": "info" })));
    book.lost(&gone());

    let hello = book.restore().unwrap();
    assert_eq!(read(hello.body())["params"]["protocolVersion"], "2025-11-25");
    assert!(book.goes_out(&hello) && book.is_clear(), "the client does not wait for it");
    let answer = json!({ "jsonrpc": "2.0", "id": read(hello.body())["id"], "result": {} });
    assert_eq!(book.came(bytes(answer)), Came::Restored);
    let rest = book.restored();
    let methods: Vec<_> = rest.iter().map(Outgoing::method).collect();
    assert_eq!(methods, ["notifications/initialized", "logging/setLevel", "resources/subscribe"]);
    assert_eq!(read(rest[2].body())["params"]["uri"], "b:2");
    let answer = json!({ "jsonrpc": "2.0", "id": read(rest[1].body())["id"], "result": {} });
    assert_eq!(book.came(bytes(answer)), Came::Swallowed);
}

#[test]
fn a_session_that_was_being_opened_is_opened_by_the_client_itself() {
    let mut book = Book::default();
    book.goes_out(&request(1, "initialize", json!({})));
    let loss = book.lost(&gone());
    assert_eq!(loss.again[0].method(), "initialize");
    assert!(book.restore().is_none());
}

#[test]
fn what_a_node_that_goes_has_not_begun_is_sent_again_a_bounded_number_of_times() {
    let mut book = Book::default();
    let draining = json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32603, "message": "",
        "data": { "code": "PV-WS-DRAINING" } } });
    for _ in 0..MAX_REPEATS {
        book.goes_out(&request(1, "tools/call", json!({})));
        let Came::Refused(message) = book.came(bytes(draining.clone())) else { panic!("it is passed on") };
        assert_eq!(message.method(), "tools/call");
        assert!(book.is_clear());
    }
    book.goes_out(&request(1, "tools/call", json!({})));
    assert!(matches!(book.came(bytes(draining)), Came::Pass(_)), "enough");

    // The end of such a node's connection: nothing without an answer was begun.
    let going = LinkError::NotTaken("it goes".to_owned());
    book.goes_out(&request(2, "tools/call", json!({})));
    let loss = book.lost(&going);
    assert!(loss.answers.is_empty() && loss.again.len() == 1, "{loss:?}");
    book.goes_out(&request(3, "tools/call", json!({})));
    let id = request(3, "tools/call", json!({})).id().unwrap().clone();
    assert!(book.taken_back(&id, &gone()).is_none(), "it may have run");
    assert!(book.taken_back(&id, &going).is_some_and(|(_, times)| times == 1) && book.is_clear());
    let away = LinkError::Unreachable { address: "x".to_owned(), cause: "refused".to_owned() };
    for times in 2..=MAX_REPEATS {
        book.goes_out(&request(3, "tools/call", json!({})));
        assert_eq!(book.taken_back(&id, &away).map(|(_, n)| n), Some(times), "no node is there yet");
    }
    book.goes_out(&request(3, "tools/call", json!({})));
    assert!(book.taken_back(&id, &away).is_none(), "enough");
}
