#![allow(clippy::unwrap_used)]

use super::*;

fn made_with(mut root: Value, given: &Given) -> Result<(Value, Call), String> {
    root["openapi"] = "3.1.0".into();
    let document = Document::new(root.as_object().unwrap())?;
    let (path, item) = document.paths()[0];
    let (method, value) = item.as_object().unwrap().iter().find(|(key, _)| *key != "parameters").unwrap();
    let operation = Operation { method, path, item, value };
    let (definition, call) = tool(&document, &operation, "t", given, &Work::default())?;
    Ok((definition.raw.parse().unwrap(), call))
}

fn made(path: &str, item: Value) -> Result<(Value, Call), String> {
    made_with(json!({"paths": {path: item}}), &Given::default())
}

#[test]
fn an_operation_is_a_tool() {
    let item = json!({
        "parameters": [
            {"name": "id", "in": "path", "required": true, "schema": {"type": "string"}},
            {"name": "fields", "in": "query", "description": "old", "schema": {"type": "integer"}},
        ],
        "patch": {
            "operationId": "updateTicket", "summary": "Update a ticket", "description": "Changes what is given.",
            "deprecated": true,
            "parameters": [
                {"name": "fields", "in": "query", "description": "Which fields to answer with.",
                    "schema": {"type": "array", "items": {"type": "string"}}},
                {"name": "If-Match", "in": "header", "required": true, "schema": {"type": "string"}},
            ],
            "requestBody": {"required": true, "description": "The changes.", "content": {"application/json": {
                "schema": {"type": "object", "properties": {"title": {"type": "string"}}}}}},
            "responses": {"200": {"description": "ok", "content": {"application/json": {
                "schema": {"type": "object", "properties": {"id": {"type": "string"}}}}}}},
        },
    });
    let (tool, call) = made("/tickets/{id}", item).unwrap();
    let expect = json!({
        "name": "t", "title": "Update a ticket",
        "description": "Deprecated.\n\nChanges what is given.\n\nPATCH /tickets/{id}",
        "annotations": {"readOnlyHint": false, "openWorldHint": true},
        "inputSchema": {
            "type": "object", "additionalProperties": false, "required": ["If-Match", "id", "body"],
            "properties": {
                "fields": {"type": "array", "items": {"type": "string"}, "description": "Which fields to answer with."},
                "If-Match": {"type": "string"},
                "id": {"type": "string"},
                "body": {"type": "object", "properties": {"title": {"type": "string"}}, "description": "The changes."},
            },
        },
        "outputSchema": {"type": "object", "properties": {"id": {"type": "string"}}},
    });
    assert_eq!(tool, expect);
    assert_eq!(call.method, Method::PATCH);
    assert_eq!(call.path, [Piece::Text("/tickets/".to_owned()), Piece::Parameter(2)]);
    assert_eq!(call.pages, None);
}

#[test]
fn the_method_says_what_may_be_repeated() {
    let hints = |method: &str| {
        let (tool, _) = made("/a", json!({method: {}})).unwrap();
        let hint = |name: &str| tool["annotations"][name].as_bool();
        (hint("readOnlyHint"), hint("destructiveHint"), hint("idempotentHint"))
    };
    for (method, expect) in [
        ("get", (Some(true), Some(false), Some(true))),
        ("head", (Some(true), Some(false), Some(true))),
        ("put", (Some(false), Some(true), Some(true))),
        ("delete", (Some(false), Some(true), Some(true))),
        ("post", (Some(false), None, None)),
        ("patch", (Some(false), None, None)),
    ] {
        assert_eq!(hints(method), expect, "{method}");
    }
}

#[test]
fn a_list_has_items_and_pages() {
    let answer = |schema: Value| json!({"200": {"content": {"application/json": {"schema": schema}}}});
    let list = json!({"type": "array", "items": {"type": "integer"}});
    let (tool, call) = made("/a", json!({"get": {"responses": answer(list.clone())}})).unwrap();
    let expect = json!({"type": "object", "properties": {"items": list}, "required": ["items"]});
    assert_eq!(tool["outputSchema"], expect);
    assert_eq!(tool["inputSchema"]["properties"]["pages"]["maximum"], MAX_PAGES);
    assert_eq!(call.pages.as_deref(), Some("pages"));
    // Only what can be got again has pages.
    assert_eq!(made("/a", json!({"post": {"responses": answer(list)}})).unwrap().1.pages, None);
    let (tool, _) = made("/a", json!({"get": {"responses": answer(json!({"type": "string"}))}})).unwrap();
    assert_eq!(tool["outputSchema"]["properties"]["value"], json!({"type": "string"}));
}

#[test]
fn a_schema_of_answers_is_said_only_where_it_holds_for_all() {
    let object = json!({"application/json": {"schema": {"type": "object"}}});
    for (responses, has) in [
        (json!({"200": {"content": object}}), true),
        (json!({"2XX": {"content": object}}), true),
        (json!({"200": {"content": object}, "404": {"content": {}}, "default": {}}), true),
        (json!({"200": {"content": object}, "204": {}}), false),
        (json!({"200": {"content": {"application/json": {"schema": {"type": "object"}}, "text/csv": {}}}}), false),
        (json!({"200": {"content": {"application/json": {"schema": {"type": ["object", "null"]}}}}}), false),
        (json!({"200": {"content": {"application/json": {"schema": {"type": "object", "nullable": true}}}}}), false),
        (json!({"200": {"content": {"application/json": {"schema": {"$ref": "#/none"}}}}}), false),
        (json!({"default": {"content": object}}), false),
        (json!({}), false),
    ] {
        let (tool, _) = made("/a", json!({"delete": {"responses": responses}})).unwrap();
        assert_eq!(tool.get("outputSchema").is_some(), has, "{responses}");
    }
    let hidden = Given { hide_output_schemas: true, ..Given::default() };
    let root = json!({"paths": {"/a": {"get": {"responses": {"200": {"content": object}}}}}});
    assert_eq!(made_with(root, &hidden).unwrap().0.get("outputSchema"), None);
}

#[test]
fn arguments_have_names_that_are_names_each_once() {
    let parameter = |place: &str, name: &str| json!({"name": name, "in": place});
    let item = json!({"post": {
        "parameters": [
            parameter("query", "filter[state]"), parameter("query", "id"), parameter("header", "id"),
            parameter("path", "id"), parameter("query", "body"), parameter("query", "§§"),
        ],
        "requestBody": {"content": {"application/json": {}}},
    }});
    let (tool, call) = made("/a/{id}", item).unwrap();
    let arguments: Vec<&str> = call.parameters.iter().map(|p| p.argument.as_str()).collect();
    assert_eq!(arguments, ["filter_state", "id", "header_id", "path_id", "body", "query"]);
    assert_eq!(call.body.unwrap().argument, "body_2");
    assert_eq!(tool["inputSchema"]["required"], json!(["path_id"]));
}

#[test]
fn what_the_plugin_gives_no_caller_does() {
    let given = Given {
        headers: ["x-api-key".to_owned(), "cookie".to_owned()].into(),
        query: ["key".to_owned()].into(),
        ..Given::default()
    };
    let parameter = |place: &str, name: &str| json!({"name": name, "in": place, "required": true});
    let parameters = [
        parameter("header", "X-API-Key"),
        parameter("header", "Authorization"),
        parameter("query", "key"),
        parameter("cookie", "session"),
        parameter("path", "stray"),
        parameter("query", "q"),
    ];
    let root = json!({"paths": {"/a": {"get": {"parameters": parameters}}}});
    let (_, call) = made_with(root, &given).unwrap();
    let names: Vec<&str> = call.parameters.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["q"]);
}

#[test]
fn an_operation_that_cannot_be_called_rightly_is_none() {
    let with = |parameter: Value| json!({"get": {"parameters": [parameter]}});
    let xml = json!({"post": {"requestBody": {"required": true, "content": {"application/xml": {}}}}});
    for (path, item, expect) in [
        ("/a/{id}", json!({"get": {}}), "`id` of its path is no parameter"),
        ("/a/{id", json!({"get": {}}), "without `}`"),
        ("a", json!({"get": {}}), "is no path"),
        ("/a?b=1", json!({"get": {}}), "is no path"),
        ("/a#b", json!({"get": {}}), "is no path"),
        ("/a\\..\\b", json!({"get": {}}), "is no path"),
        ("/a/../b", json!({"get": {}}), "out of itself"),
        ("/a/%2e%2E/b", json!({"get": {}}), "out of itself"),
        ("/a/%5c..%5cb", json!({"get": {}}), "out of itself"),
        ("/a", with(json!({"name": "Host", "in": "header", "required": true})), "which no caller gives"),
        ("/a", with(json!({"name": "a", "in": "query", "style": "odd"})), "has the style odd"),
        ("/a", with(json!({"$ref": "other.yaml#/p"})), "not in the document"),
        ("/a", json!({"servers": [{"url": "https://evil.example"}], "get": {}}), "servers of its own"),
        ("/a", json!({"get": {"servers": []}}), "servers of its own"),
        ("/a", xml, "application/xml"),
    ] {
        let fault = made(path, item).map(|(tool, _)| tool).unwrap_err();
        assert!(fault.contains(expect), "{path}: {fault}");
    }
    let many: Vec<Value> = (0..200).map(|n| json!({"name": format!("p{n}"), "in": "query"})).collect();
    assert!(made("/a", json!({"get": {"parameters": many}})).unwrap_err().contains("parameters"));
}

#[test]
fn texts_are_bounded() {
    let item = json!({"get": {"summary": "s".repeat(10_000), "description": "d".repeat(100_000)}});
    let (tool, _) = made("/a", item).unwrap();
    assert!(tool["description"].as_str().unwrap().chars().count() < MAX_DESCRIPTION_CHARS + 50);
    assert!(tool["description"].as_str().unwrap().ends_with("…\n\nGET /a"));
    assert_eq!(tool["title"].as_str().unwrap().chars().count(), MAX_TITLE_CHARS + 1);
}
