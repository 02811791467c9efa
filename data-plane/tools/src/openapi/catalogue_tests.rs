#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn read(document: Value, filter: &Filter) -> Result<Catalogue, String> {
    Catalogue::read(document.as_object().unwrap(), filter, &Given::default(), 4_096)
}

fn all(document: Value) -> Catalogue {
    read(document, &Filter::default()).unwrap()
}

fn names(catalogue: &Catalogue) -> Vec<&str> {
    catalogue.definitions.iter().map(|d| d.name.as_str()).collect()
}

/// A document of the usual kind: resources with lists, makers, readers, changers and removers.
fn usual(resources: usize) -> Value {
    let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string", "format": "uuid"}});
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for n in 0..resources {
        let (schema, own) = (format!("Thing{n}"), json!({"$ref": format!("#/components/schemas/Thing{n}")}));
        let next = json!({"$ref": format!("#/components/schemas/Thing{}", (n + 1) % resources)});
        let fields = json!({"id": {"type": "string", "readOnly": true}, "name": {"type": "string", "maxLength": 80},
            "next": next, "note": {"type": "string", "nullable": true}});
        schemas.insert(schema, json!({"type": "object", "required": ["id", "name"], "properties": fields}));
        let body = json!({"required": true, "content": {"application/json": {"schema": own}}});
        let answer =
            |schema: &Value| json!({"200": {"description": "", "content": {"application/json": {"schema": schema}}}});
        let list = json!({"type": "array", "items": own});
        let limit = json!({"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1}});
        let collection = json!({
            "get": {"operationId": format!("list{n}"), "tags": ["read"], "parameters": [limit], "responses": answer(&list)},
            "post": {"operationId": format!("create{n}"), "tags": ["write"], "requestBody": body, "responses": answer(&own)},
        });
        let one = json!({
            "parameters": [id],
            "get": {"operationId": format!("get{n}"), "tags": ["read"], "responses": answer(&own)},
            "put": {"operationId": format!("replace{n}"), "tags": ["write"], "requestBody": body, "responses": answer(&own)},
            "delete": {"operationId": format!("delete{n}"), "tags": ["write"], "responses": {"204": {"description": ""}}},
        });
        paths.insert(format!("/things{n}"), collection);
        paths.insert(format!("/things{n}/{{id}}"), one);
    }
    json!({"openapi": "3.0.3", "info": {"title": "t", "version": "1"}, "paths": paths, "components": {"schemas": schemas}})
}

#[test]
fn every_operation_is_a_tool_whose_schemas_compile() {
    let catalogue = all(usual(24));
    assert_eq!((catalogue.definitions.len(), catalogue.left_out.len()), (120, 0));
    for definition in catalogue.definitions.iter() {
        let raw: Value = definition.raw.parse().unwrap();
        for schema in ["inputSchema", "outputSchema"] {
            if let Some(schema) = raw.get(schema) {
                assert_eq!(schema["type"], "object");
                jsonschema::options().offline().build(schema).unwrap();
                jsonschema::meta::validate(schema).unwrap();
            }
        }
        assert!(catalogue.call(&definition.name).is_some());
    }
    let create: Value = catalogue.definitions.named("create3").unwrap().raw.parse().unwrap();
    let validator = jsonschema::options().offline().build(&create["inputSchema"]).unwrap();
    assert!(validator.is_valid(&json!({"body": {"name": "a", "note": null, "next": {"name": "b"}}})));
    for bad in [json!({}), json!({"body": {}}), json!({"body": {"name": 1}}), json!({"body": {"name": "a"}, "x": 1})] {
        assert!(!validator.is_valid(&bad), "{bad}");
    }
}

#[test]
fn the_same_document_gives_the_same_tools() {
    let definitions = |catalogue: &Catalogue| catalogue.definitions.to_vec();
    assert_eq!(definitions(&all(usual(3))), definitions(&all(usual(3))));
}

#[test]
fn operations_are_chosen_by_id_and_tag() {
    let set = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
    for (include, exclude, expect) in [
        (&[][..], &[][..], 10),
        (&["tag:read"], &[], 4),
        (&["get*", "list0"], &[], 3),
        (&["tag:*"], &["tag:write"], 4),
        (&[], &["delete*"], 8),
        (&["create1"], &["create1"], 0),
        (&["creat"], &[], 0),
    ] {
        let filter = Filter { include: set(include), exclude: set(exclude) };
        let catalogue = read(usual(2), &filter).unwrap();
        assert_eq!(catalogue.definitions.len(), expect, "{include:?} {exclude:?}");
    }
}

#[test]
fn a_name_does_not_depend_on_what_is_left_out() {
    let document = json!({"openapi": "3.1.0", "paths": {
        "/b": {"get": {"operationId": "same"}}, "/a": {"get": {"operationId": "same", "tags": ["x"]}},
        "/c": {"get": {}, "options": {}, "trace": {}, "x-extra": {}, "summary": "s"},
        "/d/{id}": {"get": {"operationId": "bad"}}, "/e": {"$ref": "#/nowhere"}, "/f": 3,
    }});
    let catalogue = all(document.clone());
    assert_eq!(names(&catalogue), ["same", "same_2", "get_c"]);
    let left: Vec<&str> = catalogue.left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(left, ["bad", "/e"]);
    let filter = Filter { exclude: ["tag:x".to_owned()].into(), ..Filter::default() };
    assert_eq!(names(&read(document, &filter).unwrap()), ["same_2", "get_c"]);
}

#[test]
fn hostile_documents_end_in_time() {
    // 10 MB of operations that all refer to schemas which refer to each other, and to themselves.
    let mut document = usual(300);
    let padding = "x".repeat(30_000);
    for schema in document["components"]["schemas"].as_object_mut().unwrap().values_mut() {
        schema["description"] = padding.clone().into();
        schema["properties"]["self"] = json!({"$ref": "#/components/schemas/Thing0"});
    }
    assert!(document.to_string().len() > 9_000_000);
    let began = Instant::now();
    let catalogue = all(document);
    assert_eq!(catalogue.definitions.len() + catalogue.left_out.len(), 1_500);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    for (_, cause) in &catalogue.left_out {
        assert!(cause.contains("too large"), "{cause}");
    }
    let many: Map<String, Value> = (0..5_000).map(|n| (format!("/p{n}"), json!({"get": {}}))).collect();
    let catalogue = all(json!({"openapi": "3.1.0", "paths": many}));
    assert_eq!((catalogue.definitions.len(), catalogue.left_out.len()), (4_096, 904));
}
