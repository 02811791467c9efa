//! Messages, good and bad.

use bytes::Bytes;
use provost_mcp::{
    Envelope, EnvelopeFault, JsonFault, JsonLimits, RequestId, RpcError, error_message, notification_message,
    request_message, result_message,
};

fn parse(text: &str) -> Result<Envelope, EnvelopeFault> {
    Envelope::parse(Bytes::copy_from_slice(text.as_bytes()), &JsonLimits::REQUEST)
}

#[test]
fn requests_keep_their_bytes() {
    let text = r#" {"params" : { "b":1.50,"a":"\u00e9" } ,"method":"tools/call","id": "x\n","jsonrpc":"2.0"} "#;
    let Envelope::Request { id, method, params } = parse(text).unwrap() else { panic!("not a request") };
    assert_eq!(id.as_str(), r#""x\n""#);
    assert_eq!(method, "tools/call");
    assert_eq!(params.unwrap().as_str(), r#"{ "b":1.50,"a":"\u00e9" }"#);
}

#[test]
fn payloads_are_slices_of_the_input() {
    let bytes = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[1]}}"#);
    let range = bytes.as_ptr_range();
    let Ok(Envelope::Request { params, .. }) = Envelope::parse(bytes, &JsonLimits::REQUEST) else {
        panic!("not a request")
    };
    assert!(range.contains(&params.unwrap().as_bytes().as_ptr()));
}

#[test]
fn kinds() {
    assert!(matches!(
        parse(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#).unwrap(),
        Envelope::Notification { params: None, .. }
    ));
    assert!(matches!(
        parse(r#"{"jsonrpc":"2.0","id":-7,"result":[1]}"#).unwrap(),
        Envelope::Response { id: Some(_), outcome: Ok(_) }
    ));
    let error = parse(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no","data":1}}"#);
    let Envelope::Response { id: None, outcome: Err(error) } = error.unwrap() else { panic!("not an error") };
    assert_eq!((error.code, error.message.as_str()), (-32600, "no"));
    assert_eq!(error.data.unwrap().as_str(), "1");
}

#[test]
fn what_is_refused() {
    let deep = |n: usize| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{}1{}}}}}"#, "[".repeat(n), "]".repeat(n))
    };
    assert!(parse(&deep(62)).is_ok());
    let number = |text: &str| parse(text).unwrap_err().rpc_error().code;
    let parse_errors = [
        "",
        " ",
        "{",
        "nul",
        "{} x",
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":+1}"#,
        r#"{"a":.5}"#,
        r#"{"a":1e}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12G4"}"#,
        "{\"a\":\"\n\"}",
        r#"{"a":[1,]}"#,
        r#"{"a":1,}"#,
        r#"{a:1}"#,
        r#"{"a" 1}"#,
        r#"{'a':1}"#,
        r#"{"a":NaN}"#,
        r#"{"a":tru}"#,
        "\u{feff}{}",
        r#"{"a":"x}"#,
        "[1",
        "[1 2]",
        r#"{"a":1 "b":2}"#,
    ];
    for text in parse_errors {
        assert_eq!(number(text), RpcError::PARSE, "{text:?}");
    }
    let invalid = [
        "1",
        "null",
        r#""x""#,
        "[]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#,
        "{}",
        r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"m"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":{"b":1,"b":1}}}"#,
    ];
    for text in invalid {
        assert_eq!(number(text), RpcError::INVALID_REQUEST, "{text:?}");
    }
    assert_eq!(number(&deep(63)), RpcError::INVALID_REQUEST);
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"m"}}"#, "x".repeat(300));
    assert_eq!(number(&long), RpcError::INVALID_REQUEST);
}

#[test]
fn size_is_looked_at_first() {
    let limits = JsonLimits { max_bytes: 10, max_depth: 4 };
    let fault = Envelope::parse(Bytes::from_static(b"not json, but long"), &limits).unwrap_err();
    assert_eq!(fault, EnvelopeFault::Json(JsonFault::TooLong(10)));
}

#[test]
fn a_readable_id_is_told() {
    for (text, id) in [
        (r#"{"id":"a","method":"m"}"#, Some(r#""a""#)),
        (r#"{"jsonrpc":"2.0","id":12}"#, Some("12")),
        (r#"{"jsonrpc":"2.0","id":[],"method":"m"}"#, None),
        ("{", None),
    ] {
        assert_eq!(parse(text).unwrap_err().id().map(RequestId::as_str), id, "{text}");
    }
}

#[test]
fn written_messages_can_be_read() {
    let id = RequestId::from_text("q\"1");
    let raw = provost_mcp::RawJson::from_checked(Bytes::from_static(br#"{"x":1.0}"#));
    let result = result_message(&id, &raw);
    assert_eq!(&result[..], br#"{"jsonrpc":"2.0","id":"q\"1","result":{"x":1.0}}"#);
    let error = RpcError::with_code(-32602, "PV-X", "no \"such\"");
    for message in [
        result,
        error_message(Some(&id), &error),
        error_message(None, &error),
        notification_message("notifications/x", Some(&raw)),
        request_message(&id, "roots/list", None),
    ] {
        assert!(Envelope::parse(message.clone(), &JsonLimits::REQUEST).is_ok(), "{message:?}");
    }
    let Envelope::Response { outcome: Err(read), .. } =
        Envelope::parse(error_message(Some(&id), &error), &JsonLimits::REQUEST).unwrap()
    else {
        panic!("not an error")
    };
    assert_eq!(read, error);
}
