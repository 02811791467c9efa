#![allow(clippy::unwrap_used)]

use prost_reflect::prost_types::Any;
use serde_json::{Value, json};

use super::*;
use crate::grpc::samples::pool;

const SOURCE: &str = r#"
syntax = "proto3"; package m;
import "google/protobuf/any.proto"; import "google/protobuf/duration.proto"; import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto"; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
enum State { OPEN = 0; CLOSED = 1; }
message All {
    int64 big = 1; uint64 huge = 2; double ratio = 3; bytes data = 4; State state = 5; repeated int32 list = 6;
    map<string, State> by_name = 7; map<int64, bool> by_number = 8; google.protobuf.Timestamp at = 9;
    google.protobuf.Duration lasts = 10; google.protobuf.Struct free = 11; google.protobuf.Any any = 12;
    google.protobuf.StringValue label = 13; google.protobuf.FieldMask mask = 14;
    oneof choice { string name = 15; int32 number = 16; }
    optional int32 maybe = 17; All inner = 18;
}
"#;

fn call(input: &str, messages: Option<&str>) -> Call {
    let pool = pool(SOURCE);
    let input = pool.get_message_by_name(input).unwrap();
    Call { path: "/m.S/Do".to_owned(), output: input.clone(), input, messages: messages.map(str::to_owned) }
}

fn arguments(value: &Value) -> RawObject {
    RawObject::parse(&RawJson::from(value.clone())).unwrap()
}

/// What arguments are after they were a message.
fn round(value: &Value) -> Result<Value, UpstreamError> {
    let call = call("m.All", None);
    let (message, _) = written(&call, &arguments(value))?;
    Ok(serde_json::from_slice(&json(&call.output, &message, 1 << 20)?).unwrap())
}

#[test]
fn what_is_sent_comes_back() {
    let defaults = json!({"big": "0", "huge": "0", "ratio": 0.0, "data": "", "state": "OPEN", "list": [],
        "byName": {}, "byNumber": {}});
    assert_eq!(round(&json!({})).unwrap(), defaults);
    for (given, expect) in [
        (json!({"big": "-9223372036854775808"}), None),
        (json!({"big": 9_007_199_254_740_993_i64}), Some(json!({"big": "9007199254740993"}))),
        (json!({"huge": "18446744073709551615"}), None),
        (json!({"ratio": "NaN"}), None),
        (json!({"ratio": 0.5, "data": "AP8="}), None),
        (json!({"state": "CLOSED", "list": [1, -2, 3]}), None),
        (json!({"byName": {"a": "CLOSED"}, "byNumber": {"-7": true}}), None),
        (json!({"at": "2026-01-02T03:04:05Z", "lasts": "1.500s"}), None),
        (json!({"free": {"a": [1.5, null, {"b": "c"}]}}), None),
        (json!({"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "7s"}}), None),
        (json!({"label": "", "mask": "a,bC"}), None),
        (json!({"name": ""}), None),
        (json!({"maybe": 0}), None),
        (json!({"by_name": {"a": "OPEN"}}), Some(json!({"byName": {"a": "OPEN"}}))),
    ] {
        let mut whole = defaults.clone();
        whole.as_object_mut().unwrap().extend(expect.unwrap_or_else(|| given.clone()).as_object().unwrap().clone());
        assert_eq!(round(&given).unwrap(), whole, "{given}");
    }
}

#[test]
fn what_has_no_form_is_refused_with_its_name_and_without_its_value() {
    for (given, name) in [
        (json!({"list": [1], "at": "hunter2"}), "at"),
        (json!({"data": "hunter2!"}), "data"),
        (json!({"big": "hunter2"}), "big"),
        (json!({"state": "hunter2"}), "state"),
        (json!({"hunter2": 1}), "hunter2"),
        (json!({"any": {"@type": "type.googleapis.com/hunter2.None"}}), "any"),
        (json!({"name": "a", "number": 1}), "arguments"),
    ] {
        match round(&given) {
            Err(UpstreamError::GrpcArgument { name: named, cause }) => {
                assert_eq!(named, name, "{given}");
                assert!(!cause.contains("hunter2"), "{cause}");
            }
            other => panic!("{given}: {other:?}"),
        }
    }
}

#[test]
fn messages_that_are_no_objects_are_one_argument() {
    let call = call("google.protobuf.StringValue", None);
    let (message, _) = written(&call, &arguments(&json!({"value": "x"}))).unwrap();
    assert_eq!(&message[..], b"\x0a\x01x");
    assert_eq!(json(&call.output, &message, 100).unwrap(), b"\"x\"");
    for wrong in [json!({}), json!({"value": 1})] {
        assert!(matches!(written(&call, &arguments(&wrong)), Err(UpstreamError::GrpcArgument { .. })), "{wrong}");
    }
}

#[test]
fn how_many_messages_to_take_is_no_part_of_the_message() {
    let call = call("m.All", Some("maxMessages"));
    for (given, expect) in [
        (json!({}), Some(DEFAULT_MESSAGES)),
        (json!({"maxMessages": 3}), Some(3)),
        (json!({"maxMessages": 0}), Some(1)),
        (json!({"maxMessages": 1_000_000}), Some(MAX_MESSAGES)),
        (json!({"maxMessages": "all"}), None),
    ] {
        let made = written(&call, &arguments(&given));
        assert_eq!(made.ok().map(|(message, count)| (message.len(), count)), expect.map(|n| (0, n)), "{given}");
    }
}

#[test]
fn an_answer_has_bounds_and_a_form() {
    let call = call("m.All", None);
    let (message, _) = written(&call, &arguments(&json!({"list": vec![1; 1_000]}))).unwrap();
    assert!(message.len() < 1_100);
    assert_eq!(json(&call.output, &message, 1_500), Err(UpstreamError::TooLarge(1_500)));
    for bytes in [&b"\xff\xff"[..], b"\x0a\x05ab"] {
        assert!(matches!(json(&call.output, bytes, 1_500), Err(UpstreamError::Garbage(_))), "{bytes:?}");
    }
    // A message within itself, deeper than what is read.
    let mut deep = Vec::new();
    for _ in 0..200 {
        let mut outer = vec![0x92, 0x01];
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        outer.extend(&deep);
        deep = outer;
    }
    assert!(matches!(json(&call.output, &deep, 1 << 20), Err(UpstreamError::Garbage(_))));
    // The same by `Any`, of which each is bytes to the one around it.
    let any = pool(SOURCE).get_message_by_name("google.protobuf.Any").unwrap();
    let mut deep = Vec::new();
    for _ in 0..20_000 {
        let around = Any { type_url: "/google.protobuf.Any".to_owned(), value: std::mem::take(&mut deep) };
        deep = around.encode_to_vec();
        if deep.len() > 200_000 {
            break;
        }
    }
    assert!(matches!(json(&any, &deep, 1 << 20), Err(UpstreamError::Garbage(_))));
}
