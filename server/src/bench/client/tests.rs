use provost_client::{Endpoint, Options};

use super::*;

fn checked(body: &str, expect: Option<&str>) -> Result<(), String> {
    check(body.as_bytes(), 7, expect).map_err(|e| e.kind())
}

#[test]
fn only_a_complete_result_of_this_call_is_good() {
    let good = r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","content":[{"text":"hi"}]}}"#;
    assert_eq!(checked(good, Some("hi")), Ok(()));
    let denied = r#"{"id":7,"error":{"code":-32001,"message":"","data":{"code":"PV-POLICY-DENIED"}}}"#;
    let bad = [
        (good, Some("ho"), "wrong answer: the expected text is absent"),
        (r#"{"id":8,"result":{}}"#, None, "wrong answer: another id"),
        (r#"{"id":7}"#, None, "wrong answer: neither result nor error"),
        (r#"{"id":7,"result":{"isError":true}}"#, None, "tool error"),
        (r#"{"id":7,"result":{"resultType":"input_required"}}"#, None, "wrong answer: the result is not complete"),
        (r#"{"id":7,"error":{"code":-32602,"message":""}}"#, None, "JSON-RPC -32602"),
        (denied, None, "JSON-RPC -32001 PV-POLICY-DENIED"),
        ("<html>", None, "wrong answer: not JSON-RPC"),
    ];
    for (body, expect, kind) in bad {
        assert_eq!(checked(body, expect), Err(kind.to_owned()), "{body}");
    }
}

#[test]
fn only_what_a_server_refuses_is_tried_otherwise() {
    let rpc = |code: &str| CallError::Rpc(code.to_owned());
    let table = [
        (rpc("-32602 PV-TOOL-UNKNOWN"), true, true),
        (rpc("-32602"), true, false),
        (CallError::Tool, true, false),
        (rpc("4031 PV-POLICY-DENIED"), false, false),
        (rpc("4010 PV-AUTH-MISSING"), false, false),
        (CallError::Connect("refused".into()), false, false),
        (CallError::Timeout, false, false),
    ];
    for (error, is_refusal, is_unknown) in table {
        assert_eq!((error.is_refusal(), error.is_unknown_tool()), (is_refusal, is_unknown), "{error:?}");
        assert!(error.of_the_first_call().to_string().starts_with("PV-BENCH-PROBE"), "{error:?}");
    }
}

#[test]
fn an_error_of_the_connection_is_named_by_what_it_does_to_a_run() {
    let lost = || LinkError::Lost("x".into());
    let table = [
        (CallError::of(lost(), true), "connect", true),
        (CallError::of(lost(), false), "broken connection", true),
        (CallError::of(LinkError::Deadline(Duration::from_secs(1)), false), "timeout", true),
        (CallError::of(LinkError::Refused { status: 502, text: "bad gateway".into() }, false), "HTTP 502", false),
    ];
    for (error, kind, ends) in table {
        assert_eq!((error.kind().as_str(), error.ends_connection()), (kind, ends));
    }
}

#[test]
fn the_body_is_one_valid_call() {
    let endpoint = Endpoint::parse("http://h:1/mcp", None).unwrap();
    let connector = Connector::new(endpoint, Options::default()).unwrap();
    let target = Target::new(connector, Era::Modern, "echo", &json!({"a": 1})).unwrap();
    let text = [&target.body.0[..], b"9", &target.body.1[..]].concat();
    let call: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(call["id"], 9);
    assert_eq!(call["params"]["arguments"], json!({"a": 1}));
    assert_eq!(call["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], MODERN);
}
