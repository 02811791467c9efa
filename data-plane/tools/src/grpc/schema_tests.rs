#![allow(clippy::unwrap_used)]

use super::*;
use crate::grpc::samples::pool;

/// The schema of the message `M` of a file.
fn schema(body: &str, side: Side) -> Result<Value, String> {
    let source = format!(
        r#"syntax = "proto3"; package s;
        import "google/protobuf/any.proto"; import "google/protobuf/duration.proto"; import "google/protobuf/empty.proto";
        import "google/protobuf/field_mask.proto"; import "google/protobuf/struct.proto";
        import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
        import "google/api/field_behavior.proto";
        enum State {{ OPEN = 0; CLOSED = 1; }}
        {body}"#
    );
    let pool = pool(&source);
    let message = pool.get_message_by_name("s.M").unwrap();
    of_message(&message, side, &Work::default(), &Comments::default())
}

fn of_field(declared: &str, side: Side) -> Value {
    schema(&format!("message N {{ bool b = 1; }} message M {{ {declared} }}"), side).unwrap()["properties"]["f"].clone()
}

#[test]
fn a_field_is_what_the_json_mapping_makes_of_it() {
    use Side::{Input, Output};
    let integer = json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX});
    let special = json!({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]});
    let state = json!({"type": "string", "enum": ["OPEN", "CLOSED"]});
    for (declared, side, expect) in [
        ("bool f = 1;", Input, json!({"type": "boolean"})),
        ("string f = 1;", Output, json!({"type": "string"})),
        ("bytes f = 1;", Input, json!({"type": "string", "contentEncoding": "base64"})),
        ("int32 f = 1;", Input, integer.clone()),
        ("sfixed32 f = 1;", Output, integer),
        ("uint32 f = 1;", Input, json!({"type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32})),
        ("int64 f = 1;", Input, json!({"type": ["string", "integer"], "pattern": "^-?[0-9]{1,19}$"})),
        ("int64 f = 1;", Output, json!({"type": "string", "pattern": "^-?[0-9]{1,19}$"})),
        ("fixed64 f = 1;", Output, json!({"type": "string", "pattern": "^[0-9]{1,20}$"})),
        ("double f = 1;", Input, json!({"type": "number"})),
        ("float f = 1;", Output, special),
        ("State f = 1;", Input, state.clone()),
        ("State f = 1;", Output, json!({"anyOf": [state, {"type": "integer"}]})),
        ("repeated string f = 1;", Input, json!({"type": "array", "items": {"type": "string"}})),
        ("map<string, bool> f = 1;", Input, json!({"type": "object", "additionalProperties": {"type": "boolean"}})),
        (
            "map<int64, bool> f = 1;",
            Input,
            json!({"type": "object", "additionalProperties": {"type": "boolean"}, "propertyNames": {"pattern": "^-?[0-9]+$"}}),
        ),
        (
            "N f = 1;",
            Input,
            json!({"type": "object", "properties": {"b": {"type": "boolean"}}, "additionalProperties": false}),
        ),
        ("N f = 1;", Output, json!({"type": "object", "properties": {"b": {"type": "boolean"}}})),
        ("google.protobuf.Timestamp f = 1;", Input, json!({"type": "string", "format": "date-time"})),
        ("google.protobuf.Struct f = 1;", Input, json!({"type": "object"})),
        ("google.protobuf.Value f = 1;", Input, json!({})),
        ("google.protobuf.ListValue f = 1;", Output, json!({"type": "array"})),
        ("google.protobuf.NullValue f = 1;", Input, json!({"type": "null"})),
        ("google.protobuf.StringValue f = 1;", Input, json!({"type": "string"})),
        ("google.protobuf.UInt64Value f = 1;", Output, json!({"type": "string", "pattern": "^[0-9]{1,20}$"})),
        ("google.protobuf.Empty f = 1;", Input, json!({"type": "object", "additionalProperties": false})),
    ] {
        assert_eq!(of_field(declared, side), expect, "{declared} {side:?}");
    }
    assert_eq!(of_field("google.protobuf.Any f = 1;", Input)["required"], json!(["@type"]));
    assert!(of_field("google.protobuf.Duration f = 1;", Input)["pattern"].is_string());
    assert_eq!(of_field("google.protobuf.FieldMask f = 1;", Input)["type"], "string");
}

#[test]
fn what_is_declared_beside_a_field_is_said() {
    let source = r#"
        message M {
            // What people
            //   call it.
            string display_name = 1 [(google.api.field_behavior) = REQUIRED];
            string id = 2 [(google.api.field_behavior) = OUTPUT_ONLY];
            string secret = 3 [(google.api.field_behavior) = INPUT_ONLY];
            int32 old = 4 [deprecated = true];
            optional int32 maybe = 5;
        }"#;
    let input = schema(source, Side::Input).unwrap();
    let names = |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(names(&input)), ["displayName", "maybe", "old", "secret"]);
    assert_eq!(input["required"], json!(["displayName"]));
    assert_eq!(input["properties"]["displayName"]["description"], "What people\ncall it.");
    assert_eq!(input["properties"]["old"]["description"], "Deprecated.");
    assert!(input.get("not").is_none(), "what is optional is no choice");
    let output = schema(source, Side::Output).unwrap();
    assert_eq!(sorted(names(&output)), ["displayName", "id", "maybe", "old"]);
    assert!(output.get("required").is_none());
}

#[test]
fn of_a_choice_one_can_be_given() {
    let schema = schema("message M { oneof by { string name = 1; int32 number = 2; bool all = 3; } }", Side::Input);
    let schema = schema.unwrap();
    let text = schema["properties"]["name"]["description"].as_str().unwrap();
    assert_eq!(text, "At most one of: name, number, all.");
    let validator = jsonschema::options().build(&schema).unwrap();
    for (arguments, fits) in [
        (json!({}), true),
        (json!({"number": 1}), true),
        (json!({"name": "a", "number": 1}), false),
        (json!({"number": 1, "all": true}), false),
        (json!({"other": 1}), false),
    ] {
        assert_eq!(validator.is_valid(&arguments), fits, "{arguments}");
    }
}

#[test]
fn messages_that_hold_themselves_have_names() {
    let schema =
        schema("message Tree { repeated Tree children = 1; M root = 2; } message M { Tree tree = 1; }", Side::Input);
    let schema = schema.unwrap();
    assert_eq!(schema["properties"]["tree"], json!({"$ref": "#/$defs/Tree"}));
    assert_eq!(schema["$defs"]["Tree"]["properties"]["children"]["items"], json!({"$ref": "#/$defs/Tree"}));
    let validator = jsonschema::options().build(&schema).unwrap();
    assert!(validator.is_valid(&json!({"tree": {"children": [{"children": [{}]}], "root": {"tree": {}}}})));
    assert!(!validator.is_valid(&json!({"tree": {"children": [{"children": [{"x": 1}]}]}})));
}

#[test]
fn what_grows_without_end_is_bounded() {
    // Each message holds the next one ten times: 10^9 parts if all were written out.
    let mut chain = String::new();
    for n in 0..9 {
        let fields: String = (1..=10).map(|f| format!("L{} f{f} = {f};", n + 1)).collect();
        chain.push_str(&format!("message L{n} {{ {fields} }}"));
    }
    let schema =
        schema(&format!("{chain} message L9 {{ bool b = 1; }} message M {{ L0 l = 1; }}"), Side::Input).unwrap();
    assert_eq!(schema["$defs"].as_object().unwrap().len(), 10);
    assert!(schema.to_string().len() < 20_000);
    let many: String = (1..=11_000).map(|f| format!("string f{f} = {f};")).collect();
    assert!(
        super::of_message(
            &pool(&format!("syntax = \"proto3\"; message M {{ {many} }}")).get_message_by_name("M").unwrap(),
            Side::Input,
            &Work::default(),
            &Comments::default(),
        )
        .is_err()
    );
    let spent = Work(Cell::new(3));
    let pool = pool("syntax = \"proto3\"; message M { string a = 1; string b = 2; string c = 3; }");
    let message = pool.get_message_by_name("M").unwrap();
    assert!(of_message(&message, Side::Input, &spent, &Comments::default()).is_err());
}
