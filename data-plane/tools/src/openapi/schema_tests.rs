#![allow(clippy::unwrap_used)]

use super::*;

fn convert_in(schemas: Value, schema: Value, side: Side) -> Result<Value, String> {
    let root = json!({"openapi": "3.0.3", "paths": {}, "components": {"schemas": schemas}});
    let document = Document::new(root.as_object().unwrap()).unwrap();
    let (mut made, definitions) = of_tool(&document, side, &Work::default(), |convert| convert(&schema))?;
    if !definitions.is_empty() {
        made["$defs"] = Value::Object(definitions);
    }
    Ok(made)
}

fn convert(schema: Value) -> Value {
    convert_in(json!({}), schema, Side::Input).unwrap()
}

#[test]
fn version_3_0_is_said_as_json_schema_says_it() {
    for (schema, expect) in [
        (json!({"type": "string", "nullable": true}), json!({"type": ["string", "null"]})),
        (json!({"type": "string", "nullable": false}), json!({"type": "string"})),
        (
            json!({"type": "string", "nullable": true, "enum": ["a"]}),
            json!({"type": ["string", "null"], "enum": ["a", null]}),
        ),
        (
            json!({"allOf": [{"type": "object"}], "nullable": true, "description": "d"}),
            json!({"anyOf": [{"allOf": [{"type": "object"}]}, {"type": "null"}], "description": "d"}),
        ),
        (json!({"nullable": true}), json!({})),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!({"type": "integer", "exclusiveMinimum": 1}),
        ),
        (json!({"type": "integer", "maximum": 9, "exclusiveMaximum": false}), json!({"type": "integer", "maximum": 9})),
        (json!({"type": "integer", "exclusiveMinimum": 3}), json!({"type": "integer", "exclusiveMinimum": 3})),
        (json!({"type": "file"}), json!({})),
        (json!({"type": ["string", "null"]}), json!({"type": ["string", "null"]})),
        (json!({"type": "object", "required": true}), json!({"type": "object"})),
        (json!(true), json!(true)),
    ] {
        assert_eq!(convert(schema.clone()), expect, "{schema}");
    }
}

#[test]
fn what_is_not_of_json_schema_is_left_out() {
    let schema = json!({
        "type": "object", "x-internal": 1, "xml": {}, "example": {"a": 1}, "externalDocs": {}, "discriminator": {},
        "$id": "https://evil.example/s", "$schema": "x", "$dynamicRef": "#x",
        "properties": {"a": {"type": "string", "pattern": "^(?=x)y$", "format": "date"}, "b": {"pattern": "^[a-z]+$"}},
        "additionalProperties": false,
    });
    let expect = json!({
        "type": "object", "additionalProperties": false,
        "properties": {"a": {"type": "string", "format": "date"}, "b": {"pattern": "^[a-z]+$"}},
    });
    assert_eq!(convert(schema), expect);
}

#[test]
fn each_side_sees_its_own_properties() {
    let schemas = json!({"Id": {"type": "integer", "readOnly": true}});
    let schema = json!({"type": "object", "required": ["id", "secret", "name"], "properties": {
        "id": {"$ref": "#/components/schemas/Id"},
        "secret": {"type": "string", "writeOnly": true},
        "name": {"type": "string"},
    }});
    let names = |side| {
        let made = convert_in(schemas.clone(), schema.clone(), side).unwrap();
        let mut names: Vec<String> = made["properties"].as_object().unwrap().keys().cloned().collect();
        names.sort();
        (names.join(" "), made["required"].clone())
    };
    assert_eq!(names(Side::Input), ("name secret".to_owned(), json!(["secret", "name"])));
    assert_eq!(names(Side::Output), ("id name".to_owned(), json!(["id", "name"])));
}

#[test]
fn references_are_written_out_where_that_ends() {
    let schemas = json!({
        "Pet": {"type": "object", "properties": {"owner": {"$ref": "#/components/schemas/Owner"}}},
        "Owner": {"type": "string", "description": "Who."},
    });
    let schema = json!({"type": "array", "items": {"$ref": "#/components/schemas/Pet"}});
    let expect = json!({"type": "array", "items": {"type": "object", "properties": {
        "owner": {"type": "string", "description": "Who."}}}});
    assert_eq!(convert_in(schemas.clone(), schema, Side::Input).unwrap(), expect);
    // Of version 3.1: more may stand beside a reference.
    let beside = json!({"$ref": "#/components/schemas/Owner", "description": "Whose.", "minLength": 1});
    let expect = json!({"allOf": [{"type": "string", "description": "Whose."}, {"minLength": 1}]});
    assert_eq!(convert_in(schemas, beside, Side::Input).unwrap(), expect);
}

#[test]
fn what_refers_to_itself_stays_what_it_is() {
    let schemas = json!({
        "Tree": {"type": "object", "properties": {
            "name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}}},
        "Self": {"$ref": "#/components/schemas/Self"},
    });
    let made = convert_in(schemas.clone(), json!({"$ref": "#/components/schemas/Tree"}), Side::Input).unwrap();
    assert_eq!(made["$ref"], "#/$defs/Tree");
    assert_eq!(made["$defs"]["Tree"]["properties"]["children"]["items"], json!({"$ref": "#/$defs/Tree"}));
    let validator = jsonschema::options().offline().build(&made).unwrap();
    assert!(validator.is_valid(&json!({"name": "a", "children": [{"name": "b", "children": []}]})));
    assert!(!validator.is_valid(&json!({"name": "a", "children": [{"name": 1}]})));
    let itself = convert_in(schemas, json!({"$ref": "#/components/schemas/Self"}), Side::Input).unwrap();
    assert_eq!(itself["$defs"]["Self"], json!({"$ref": "#/$defs/Self"}));
}

#[test]
fn what_grows_without_measure_is_said_with_definitions() {
    // Written out in full, the last one is 2^40 strings.
    let mut schemas = Map::new();
    for n in 0..40 {
        let next = match n {
            39 => json!({"type": "string"}),
            n => {
                let next = json!({"$ref": format!("#/components/schemas/S{}", n + 1)});
                json!({"type": "object", "properties": {"a": next, "b": next}})
            }
        };
        schemas.insert(format!("S{n}"), next);
    }
    let made = convert_in(Value::Object(schemas), json!({"$ref": "#/components/schemas/S0"}), Side::Input).unwrap();
    assert_eq!(made["$defs"].as_object().unwrap().len(), 40);
}

#[test]
fn hostile_schemas_are_refused_in_time() {
    let mut deep = json!({"type": "string"});
    for _ in 0..90 {
        deep = json!({"type": "array", "items": deep});
    }
    let wide: Map<String, Value> = (0..20_000).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    let long = json!({"type": "string", "enum": ["x".repeat(2_000_000)]});
    for (schema, expect) in [
        (deep, "nested too deep"),
        (json!({"type": "object", "properties": wide}), "too large"),
        (long, "too large"),
        (json!({"items": 3, "allOf": ["x"]}), "neither an object nor a boolean"),
        (json!({"$ref": "https://evil.example/s.json"}), "not in the document"),
        (json!({"$ref": "#/components/schemas/None"}), "leads to nothing"),
    ] {
        let fault = convert_in(json!({}), schema, Side::Input).unwrap_err();
        assert!(fault.contains(expect), "{fault}");
    }
    let text = convert(json!({"description": "d".repeat(1_000_000)}));
    assert_eq!(text["description"].as_str().unwrap().len(), MAX_DESCRIPTION_CHARS);
}

#[test]
fn all_tools_of_a_document_share_one_bound() {
    let root = json!({"openapi": "3.0.3", "paths": {}});
    let document = Document::new(root.as_object().unwrap()).unwrap();
    let work = Work(Cell::new(10));
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    let convert = || of_tool(&document, Side::Input, &work, |convert| convert(&schema));
    assert!(convert().is_ok());
    assert!(convert().unwrap_err().contains("altogether"));
}
