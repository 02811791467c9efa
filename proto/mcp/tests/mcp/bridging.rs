//! One result, two shapes.

use provost_mcp::{
    LogLevel, ProtocolVersion, RawJson, RpcError,
    bridge::{
        ResultDress, discover_from_initialize, discover_result, initialize_result, legacy_error, legacy_result,
        modern_error, modern_result,
    },
    capability::{may_ask, missing_for},
    negotiate::negotiate_legacy,
};
use serde_json::{Value, json};

fn raw(value: Value) -> RawJson {
    RawJson::from(value)
}

fn value(raw: &RawJson) -> Value {
    raw.parse().unwrap()
}

fn dressed(method: &str, body: Value) -> Value {
    let info = raw(json!({ "name": "p", "version": "1" }));
    let dress = ResultDress { method, server_info: &info, receipt: Some(raw(json!({ "index": 1 }))) };
    value(&modern_result(&raw(body), &dress))
}

#[test]
fn results() {
    let listed = dressed("tools/list", json!({ "tools": [], "ttlMs": 5, "cacheScope": "public", "x": 1 }));
    assert_eq!(listed["resultType"], json!("complete"));
    assert_eq!((&listed["ttlMs"], &listed["cacheScope"]), (&json!(5), &json!("private")));
    assert_eq!(listed["x"], json!(1), "unknown members travel on");
    assert_eq!(listed["_meta"]["io.provost/audit"]["index"], json!(1));

    let task = dressed("tools/call", json!({ "resultType": "task", "taskId": "t", "_meta": { "k": 1 } }));
    assert_eq!(task["resultType"], json!("task"));
    assert_eq!(task["_meta"]["k"], json!(1));
    assert!(task.get("cacheScope").is_none());

    let back = legacy_result(&raw(listed.clone()), None);
    let back = value(&back);
    let kept = back.as_object().unwrap();
    assert_eq!(kept.len(), 3, "{back}");
    assert!(["_meta", "tools", "x"].iter().all(|member| kept.contains_key(*member)));
    let ack = legacy_result(&raw(json!({ "resultType": "complete" })), Some(raw(json!({}))));
    assert_eq!(ack.as_str(), "{}");
}

#[test]
fn handshakes() {
    let legacy = raw(json!({
        "protocolVersion": "2025-06-18", "serverInfo": { "name": "up" }, "instructions": "i",
        "capabilities": { "tools": {}, "tasks": {} },
    }));
    let discovered = discover_result(&discover_from_initialize(&legacy));
    let discovered = value(&discovered);
    assert_eq!(discovered["capabilities"], json!({ "tools": {} }), "v1 tasks do not cross");
    assert_eq!(discovered["supportedVersions"].as_array().unwrap().len(), 5);
    assert!(discovered.get("protocolVersion").is_none() && discovered.get("serverInfo").is_none());

    let modern = raw(json!({ "capabilities": { "tools": {}, "extensions": {} }, "instructions": "i" }));
    let info = raw(json!({ "name": "p", "version": "1" }));
    let answered = value(&initialize_result(&modern, ProtocolVersion::V2025_06_18, &info));
    assert_eq!(
        answered,
        json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
            "serverInfo": { "name": "p", "version": "1" }, "instructions": "i" })
    );
    assert_eq!(negotiate_legacy("2026-07-28"), ProtocolVersion::V2025_11_25);
}

#[test]
fn errors() {
    let missing = RpcError::new(RpcError::LEGACY_RESOURCE_NOT_FOUND, "none");
    let modern = modern_error(missing, Some("file:///x"));
    assert_eq!(modern.code, RpcError::INVALID_PARAMS);
    assert_eq!(value(modern.data.as_ref().unwrap())["uri"], json!("file:///x"));
    assert_eq!(legacy_error(modern, Some("file:///x")).code, RpcError::LEGACY_RESOURCE_NOT_FOUND);
    let plain = RpcError::new(RpcError::INVALID_PARAMS, "bad cursor");
    assert_eq!(legacy_error(plain.clone(), None), plain);
    let only_modern = RpcError::new(RpcError::MISSING_CLIENT_CAPABILITY, "x");
    assert_eq!(legacy_error(only_modern, None).code, RpcError::INVALID_REQUEST);
}

#[test]
fn capabilities() {
    let declared = raw(json!({ "elicitation": {}, "sampling": { "tools": {} } }));
    let url = raw(json!({ "mode": "url" }));
    assert!(may_ask(&declared, "elicitation/create", None));
    assert!(!may_ask(&declared, "elicitation/create", Some(&url)));
    assert!(may_ask(&declared, "sampling/createMessage", Some(&raw(json!({ "tools": [] })))));
    assert!(!may_ask(&declared, "roots/list", None));
    assert!(!may_ask(&declared, "unknown/ask", None));
    let requests = raw(json!({
        "a": { "method": "elicitation/create", "params": { "mode": "url" } },
        "b": { "method": "roots/list" }, "c": { "method": "sampling/createMessage" } }));
    let missing = missing_for(&declared, &requests).unwrap();
    assert_eq!(value(&missing), json!({ "elicitation": { "url": {} }, "roots": {} }));
    assert!(missing_for(&declared, &raw(json!({}))).is_none());
}

#[test]
fn log_levels_are_ordered() {
    let names = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
    let levels: Vec<_> = names.iter().map(|n| LogLevel::parse(n).unwrap()).collect();
    assert!(levels.is_sorted());
    assert!(names.iter().zip(&levels).all(|(n, l)| l.as_str() == *n));
    assert_eq!(LogLevel::parse("loud"), None);
}
