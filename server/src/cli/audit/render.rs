//! A record as a line of JSON and as a row of a table.

use provost_audit_core::LogId;
use provost_audit_store::Found;
use provost_types::Name;
use serde_json::{Value, json};

use super::{body::Names, place::time_text};

/// Width to which a table cuts what may be long.
const MAX_CELL_CHARS: usize = 48;
/// The table's headings.
pub const HEADINGS: [&str; 9] = ["LOG", "INDEX", "TIME", "PRINCIPAL", "PHASE", "STATUS", "WHAT", "POLICIES", "WHY"];

/// A log as people name it: the tenant, or `cluster`.
pub fn log_name(log: &LogId) -> &str {
    log.0.as_ref().map_or("cluster", Name::as_str)
}

/// One record with its place.
pub fn record_json(found: &Found, names: &Names) -> anyhow::Result<Value> {
    let mut value = json!({
        "log": log_name(&found.log),
        "index": found.index,
        "leaf_hash": found.leaf_hash.to_string(),
        "record": serde_json::from_str::<Value>(&found.leaf)?,
    });
    // Beside the record, which stays as it is stored.
    if let Some(principal) = found.record.principal.as_deref()
        && names.of(principal) != principal
    {
        value["principal"] = Value::from(names.of(principal));
    }
    Ok(value)
}

/// One record as a row under [`HEADINGS`].
pub fn row(found: &Found, names: &Names) -> Vec<String> {
    let record = &found.record;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let name = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let what = match (record.called(), record.event.as_deref()) {
        (Some(called), _) => called.to_owned(),
        (None, Some(event)) => format!("{event} {}", record.event_objects.join(" ")),
        (None, None) => text(record.method.as_deref()),
    };
    vec![
        log_name(&found.log).to_owned(),
        found.index.to_string(),
        time_text(record.time_ns),
        text(record.principal.as_deref().map(|principal| names.of(principal))),
        name(json!(record.phase)),
        record.status.map(|s| name(json!(s))).unwrap_or_default(),
        cut(&what),
        cut(&record.policies.join(" ")),
        text(record.reason.as_deref()),
    ]
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_CELL_CHARS {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX_CELL_CHARS - 1).collect();
    short.push('…');
    short
}
