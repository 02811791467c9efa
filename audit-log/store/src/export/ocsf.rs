//! A record as an event of the Open Cybersecurity Schema Framework: class API Activity (6003) with
//! the profiles `record_integrity`, `security_control` and, where there is a trace, `trace`.
//!
//! The attestation's fingerprint is SHA-256 of the event's canonical form (RFC 8785) without the
//! fingerprint itself, as the schema asks. It says that the event is as exported; that the record
//! is the log's is proven by `raw_data`, whose leaf hash and place are in `unmapped`.

use std::{fmt::Write, net::SocketAddr};

use provost_audit_core::{Hash, Record, status_word};
use provost_types::{CallStatus, Effect, Phase};
use serde_json::{Map, Value, json};

use super::columns::phase_word;
use crate::query::Found;

/// The version of the schema.
pub const OCSF_VERSION: &str = "1.9.0";
const CATEGORY: u64 = 6;
const CLASS: u64 = 6_003;
/// Activities of the class; 99 carries a name of our own.
const CREATE: u64 = 1;
const READ: u64 = 2;
const UPDATE: u64 = 3;
const DELETE: u64 = 4;
const OTHER: u64 = 99;

pub(super) fn line(found: &Found, origin: &str) -> String {
    canonical(&ocsf_event(found, origin))
}

/// The event of one record of the log `origin`.
pub fn ocsf_event(found: &Found, origin: &str) -> Value {
    let record = &found.record;
    let (activity, activity_name) = activity(record);
    let (status_id, status) = status(record);
    let (severity_id, severity) = severity(record);
    let traced = record.traceparent.as_deref().and_then(trace);
    let mut profiles = vec!["record_integrity", "security_control"];
    profiles.extend(traced.is_some().then_some("trace"));
    let mut event = json!({
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": CATEGORY,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "type_uid": CLASS * 100 + activity,
        "type_name": format!("API Activity: {activity_name}"),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "time": record.time_ns / 1_000_000,
        "metadata": metadata(found, origin, &profiles),
        "actor": actor(record),
        "api": api(record),
        "src_endpoint": source(record),
        "raw_data": found.leaf,
        "raw_data_size": found.leaf.len(),
        "raw_data_hash": fingerprint(Hash::of(found.leaf.as_bytes())),
        "unmapped": unmapped(found),
    });
    put(&mut event, "status_code", record.error_type.as_deref().map(Value::from));
    put(&mut event, "status_detail", record.reason.as_deref().map(Value::from));
    put(&mut event, "resources", resource(record));
    put(&mut event, "trace", traced);
    if let Some(decision) = record.decision {
        let allowed = decision == Effect::Allow;
        put(&mut event, "action_id", Some(json!(if allowed { 1 } else { 2 })));
        put(&mut event, "action", Some(json!(if allowed { "Allowed" } else { "Denied" })));
        put(&mut event, "disposition_id", Some(json!(if allowed { 1 } else { 2 })));
        put(&mut event, "disposition", Some(json!(if allowed { "Allowed" } else { "Blocked" })));
        let word = if allowed { "allow" } else { "deny" };
        let policies = record.policies.iter().map(|p| json!({ "decision": word, "policy": { "name": p } }));
        let policies: Vec<Value> = policies.collect();
        put(&mut event, "authorizations", (!policies.is_empty()).then(|| Value::from(policies)));
    }
    attest(event, found, origin)
}

/// Adds the attestation, whose fingerprint covers everything else, its own names included.
fn attest(mut event: Value, found: &Found, origin: &str) -> Value {
    let mut attestation =
        json!({ "uid": format!("{origin}/{}", found.index), "authority_uid": origin, "chain_uid": origin });
    event["attestation_list"] = json!([attestation]);
    let sum = Hash::of(canonical(&event).as_bytes());
    attestation["fingerprint"] = fingerprint(sum);
    attestation["fingerprint"]["serialization_id"] = json!(2);
    attestation["fingerprint"]["serialization"] = json!("JCS");
    event["attestation_list"] = json!([attestation]);
    event
}

fn put(event: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(map), Some(value)) = (event.as_object_mut(), value) {
        map.insert(key.to_owned(), value);
    }
}

fn fingerprint(hash: Hash) -> Value {
    let value = hash.to_string();
    json!({ "algorithm_id": 3, "algorithm": "SHA-256", "encoding_id": 1, "encoding": "Hex", "value": value })
}

fn activity(record: &Record<'_>) -> (u64, &'static str) {
    let named = |id| match id {
        CREATE => (CREATE, "Create"),
        READ => (READ, "Read"),
        UPDATE => (UPDATE, "Update"),
        _ => (DELETE, "Delete"),
    };
    if let Some(event) = record.event.as_deref() {
        return match event {
            e if e.ends_with(".create") || e.ends_with(".add") => named(CREATE),
            e if e.ends_with("delete") || e.ends_with(".remove") || e.ends_with(".erase") || e.ends_with(".prune") => {
                named(DELETE)
            }
            e if e.starts_with("audit.") => named(READ),
            "log.start" => (OTHER, "Start"),
            "log.stop" => (OTHER, "Stop"),
            _ => named(UPDATE),
        };
    }
    match record.method.as_deref().unwrap_or_default() {
        "tools/call" => (OTHER, "Execute"),
        m if m.starts_with("inference/") => (OTHER, "Infer"),
        m if m.ends_with("/list") || m.ends_with("/read") || m.ends_with("/get") => named(READ),
        _ => (OTHER, "Other"),
    }
}

fn status(record: &Record<'_>) -> (u64, &'static str) {
    match record.status {
        Some(CallStatus::Ok) => (1, "Success"),
        Some(CallStatus::Unknown) => (0, "Unknown"),
        Some(CallStatus::InputRequired) => (OTHER, status_word(CallStatus::InputRequired)),
        Some(_) => (2, "Failure"),
        None if record.phase == Phase::Denied => (2, "Failure"),
        None => (OTHER, phase_word(record.phase)),
    }
}

/// Low for what was refused or failed, medium for a call whose end nobody knows.
fn severity(record: &Record<'_>) -> (u64, &'static str) {
    match (record.phase, record.status) {
        (Phase::Denied, _) => (2, "Low"),
        (_, None | Some(CallStatus::Ok | CallStatus::InputRequired)) => (1, "Informational"),
        (_, Some(CallStatus::Unknown)) => (3, "Medium"),
        (_, Some(_)) => (2, "Low"),
    }
}

fn metadata(found: &Found, origin: &str, profiles: &[&str]) -> Value {
    let record = &found.record;
    let mut value = json!({
        "version": OCSF_VERSION,
        "product": { "name": "Provost", "vendor_name": "Provost", "version": env!("CARGO_PKG_VERSION") },
        "profiles": profiles,
        "uid": format!("{origin}/{}", found.index),
        "log_name": origin,
        "log_provider": "provost",
        "log_version": record.v.to_string(),
        "sequence": found.index,
        "original_time": record.time_ns.to_string(),
        "event_code": phase_word(record.phase),
    });
    put(&mut value, "tenant_uid", record.tenant.as_deref().map(Value::from));
    let correlation = record.workflow.as_deref().map_or_else(|| record.call_id.to_string(), str::to_owned);
    put(&mut value, "correlation_uid", Some(Value::from(correlation)));
    value
}

fn actor(record: &Record<'_>) -> Value {
    let name = record.principal.as_deref();
    let mut user = match name {
        Some(name) => json!({ "name": name, "uid": name }),
        None => json!({ "name": record.writer_id, "type_id": 3, "type": "System" }),
    };
    put(&mut user, "credential_uid", record.authenticated_by.as_deref().map(Value::from));
    json!({ "user": user })
}

fn api(record: &Record<'_>) -> Value {
    let operation = record.event.as_deref().or(record.method.as_deref()).filter(|o| !o.is_empty());
    let mut value = json!({
        "operation": operation.unwrap_or("unknown"),
        "request": { "uid": record.call_id.to_string() },
    });
    put(&mut value, "version", record.protocol_version.as_deref().map(Value::from));
    put(&mut value, "service", record.plugin.as_deref().map(|name| json!({ "name": name })));
    if let Some(status) = record.status {
        let mut response = json!({ "message": status_word(status) });
        put(&mut response, "error", record.error_type.as_deref().map(Value::from));
        put(&mut response, "error_message", record.reason.as_deref().map(Value::from));
        put(&mut value, "response", Some(response));
    }
    value
}

/// The client; for what a node did itself, the node.
fn source(record: &Record<'_>) -> Value {
    let Some(address) = record.client_address.as_deref() else {
        return json!({ "name": record.writer_id, "type_id": 1, "type": "Server" });
    };
    match address.parse::<SocketAddr>() {
        Ok(address) => json!({ "ip": address.ip().to_string(), "port": address.port() }),
        Err(_) => json!({ "name": address }),
    }
}

fn resource(record: &Record<'_>) -> Option<Value> {
    let of = |kind: &str, name: &str| json!({ "name": name, "type": kind, "role_id": 1, "role": "Target" });
    let called = [
        ("tool", &record.tool),
        ("prompt", &record.prompt),
        ("resource", &record.resource),
        ("model", &record.model),
        ("target", &record.target),
    ];
    let called = called.iter().filter_map(|(kind, name)| name.as_deref().map(|name| of(kind, name)));
    let objects = record.event_objects.iter().map(|name| of("object", name));
    let all: Vec<Value> = called.chain(objects).collect();
    (!all.is_empty()).then(|| Value::from(all))
}

/// `00-TRACE-SPAN-FLAGS` of W3C Trace Context. (An OCSF span needs times that a record does not
/// have; the whole text is in `unmapped`.)
fn trace(traceparent: &str) -> Option<Value> {
    let trace = traceparent.split('-').nth(1)?;
    (trace.len() == 32).then(|| json!({ "uid": trace }))
}

/// What OCSF has no name for, under the record's own keys, and the record's place in the log.
fn unmapped(found: &Found) -> Value {
    let record = &found.record;
    let mut map = Map::new();
    map.insert("leaf_hash".to_owned(), Value::from(found.leaf_hash.to_string()));
    map.insert("index".to_owned(), Value::from(found.index));
    map.insert("phase".to_owned(), Value::from(phase_word(record.phase)));
    let texts = [
        ("agent", record.agent.as_deref()),
        ("network.transport", record.transport.as_deref()),
        ("traceparent", record.traceparent.as_deref()),
        ("workflow", record.workflow.as_deref()),
        ("plugin.digest", record.plugin_digest.as_deref()),
        ("event.detail", record.event_detail.as_deref()),
    ];
    let texts = texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), Value::from(text?))));
    map.extend(texts);
    let numbers = [
        ("attempt", record.attempt),
        ("bytes_in", record.bytes_in),
        ("bytes_out", record.bytes_out),
        ("rows", record.rows),
        ("gen_ai.usage.input_tokens", record.tokens_in),
        ("gen_ai.usage.output_tokens", record.tokens_out),
        ("cost_micro", record.cost_micro),
        ("duration_us", record.duration_us),
        ("policy.revision", record.revision),
    ];
    let numbers = numbers.into_iter().filter(|(_, n)| *n > 0).map(|(key, n)| (key.to_owned(), Value::from(n)));
    map.extend(numbers);
    if !record.guards.is_empty() {
        map.insert("guards".to_owned(), json!(record.guards));
    }
    Value::Object(map)
}

/// RFC 8785, for what stands in these events: texts, whole numbers below 2^53, ASCII keys.
fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (n, key) in keys.into_iter().enumerate() {
                let comma = if n > 0 { "," } else { "" };
                let _ = write!(out, "{comma}{}:", Value::from(key.as_str()));
                write_canonical(map.get(key).unwrap_or(&Value::Null), out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}
